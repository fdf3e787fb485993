//! Real nodes in a ring, in both worlds: the tokens are those of the reference, at the same times, and where the time went
//! adds up to the time it took.

use std::future::Future;
use std::sync::{Arc, Mutex};

use node::clock::{Clock, Instant};
use node::engine::Sampling;
use node::head::{Reply, Request};
use node::ids::{PeerId, SessionId, Token};
use node::limits::Limits;
use node::probe::Event;
use node::router::FleetView;
use node::world::{Doors, World};
use node::{NodeConfig, start};
use planner::cost::constants::RING;
use planner::cost::predict::Load;
use planner::fleet::{Fleet, NodeId};
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::{Epoch, LayerRange, Pipeline, Plan, Stage};
use sim::engine::reference_tokens;
use sim::mesh::{Mesh, MeshSpec, Play};
use sim::record::{Ledger, Recorder};
use sim::scenario::FaultKind;
use sim::seed::Seed;
use sim::wires::Life;
use sim::{memory, over_turmoil};

use crate::fixture;

const LAYERS: u32 = 12;
const SECOND: u64 = 1_000_000_000;
const SAMPLING: Sampling = Sampling::GREEDY;

/// Requests at node 0 of a ring over all nodes, all at once.
#[derive(Clone)]
struct Ring {
    fleet: Fleet,
    prompts: Vec<Vec<Token>>,
    tokens: u32,
    faults: Vec<(u64, FaultKind)>,
    answers: Arc<Mutex<Vec<Vec<Token>>>>,
    open: Arc<Mutex<usize>>,
}

impl Ring {
    fn config(&self, incarnation: u64) -> NodeConfig {
        let ids: Vec<NodeId> = self.fleet.ids().collect();
        let share = LAYERS / ids.len() as u32;
        let stages = ids
            .iter()
            .map(|node| Stage { node: *node, layers: LayerRange::new(node.0 * share, (node.0 + 1) * share) })
            .collect();
        let model = fixture::model(LAYERS);
        let plan = Plan {
            model: model.name.clone(),
            replicas: vec![Pipeline { stages }],
            experts: Vec::new(),
            context: 1_024,
            sessions: 8,
        };
        let constraints = Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 8,
            context: 1_024,
            shape: Shape::Pipeline,
        };
        let load = Load { prompt: 100, context: 200, concurrency: 1, head: None };
        NodeConfig {
            view: Arc::new(FleetView::new(
                self.fleet.clone(),
                ids.iter().map(|node| PeerId::from_index(node.0)).collect(),
            )),
            model: Arc::new(model),
            ask: Ask { objective: Objective::Tpot, load, constraints },
            initial: Some((Epoch(1), plan)),
            limits: Limits::default(),
            incarnation,
        }
    }
}

impl Play for Ring {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let ring = self.clone();
        async move {
            let clock = doors.clock.clone();
            let node = start(doors, ring.config(life.incarnation));
            if life.node == NodeId(0) {
                clock.sleep_until(Instant(5 * SECOND)).await;
                let mut replies = Vec::new();
                for (index, prompt) in ring.prompts.iter().enumerate() {
                    let request = Request {
                        session: SessionId(index as u64),
                        prompt: prompt.clone(),
                        generated: Vec::new(),
                        max_tokens: ring.tokens,
                        sampling: SAMPLING,
                    };
                    replies.push(node.ask(request));
                }
                for (index, mut replies) in replies.into_iter().enumerate() {
                    while let Some(reply) = replies.next().await {
                        match reply {
                            Reply::Token { token, .. } => ring.answers.lock().unwrap()[index].push(token),
                            Reply::End => *ring.open.lock().unwrap() -= 1,
                            other => panic!("session {index}: {other:?}"),
                        }
                    }
                }
            }
            std::future::pending::<()>().await;
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let ring = self.clone();
        async move {
            for (at_ns, fault) in &ring.faults {
                mesh.clock().sleep_until(Instant(*at_ns)).await;
                mesh.apply(fault);
            }
            for tick in 0..2_000 {
                mesh.clock().sleep_until(Instant(5 * SECOND + tick * SECOND / 20)).await;
                if *ring.open.lock().unwrap() == 0 {
                    return;
                }
            }
            panic!("not over in 100 s");
        }
    }
}

fn prompt(session: u64, len: usize) -> Vec<Token> {
    let mut draws = Seed::new(session).fork("prompt").draws();
    (0..len).map(|_| Token((draws.bits() % 32_000) as u32)).collect()
}

/// Runs it, checks the answers, and hands out what was recorded.
fn play(world: &str, fleet: &Fleet, sessions: u64, tokens: u32) -> Recorder {
    play_with(world, fleet, sessions, tokens, &[])
}

fn play_with(
    world: &str,
    fleet: &Fleet,
    sessions: u64,
    tokens: u32,
    faults: &[(u64, FaultKind)],
) -> Recorder {
    let prompts: Vec<Vec<Token>> = (0..sessions).map(|s| prompt(s, 40 + 10 * s as usize)).collect();
    let names = fleet.nodes.iter().map(|n| n.name.clone()).collect();
    let recorder = Recorder::new(names, false);
    let spec = MeshSpec {
        fleet: fleet.clone(),
        model: Arc::new(fixture::model(LAYERS)),
        seed: Seed::new(3),
        compute_error: (0.05, 0.02),
        software: RING,
        loaded: std::collections::BTreeMap::new(),
        recorder: recorder.clone(),
    };
    let ring = Ring {
        fleet: fleet.clone(),
        faults: faults.to_vec(),
        answers: Arc::new(Mutex::new(vec![Vec::new(); prompts.len()])),
        open: Arc::new(Mutex::new(prompts.len())),
        prompts,
        tokens,
    };
    let nodes: Vec<NodeId> = fleet.ids().collect();
    match world {
        "memory" => memory::run(spec, &ring).unwrap(),
        _ => over_turmoil::run(spec, &ring, over_turmoil::scale_for(fleet, &RING, &nodes)).unwrap(),
    }
    for (prompt, answer) in ring.prompts.iter().zip(ring.answers.lock().unwrap().iter()) {
        assert_eq!(*answer, reference_tokens(&fixture::model(LAYERS), &SAMPLING, prompt, tokens), "{world}");
    }
    recorder
}

/// When a session's tokens came, nanoseconds.
fn emitted(ledger: &Ledger, session: u64) -> Vec<u64> {
    let of_session =
        |event: &Event| matches!(event, Event::Emitted { session: s, .. } if *s == SessionId(session));
    ledger.events().iter().filter(|r| of_session(&r.event)).map(|r| r.at_ns).collect()
}

fn rate(ledger: &Ledger, sessions: u64, tokens: u32) -> f64 {
    let all: Vec<u64> = (0..sessions).flat_map(|s| emitted(ledger, s)).collect();
    let (first, last) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    f64::from(tokens) * sessions as f64 / (last - first) as f64 * 1e9
}

#[test]
fn one_stream_takes_the_same_time_in_both_worlds_and_every_microsecond_is_accounted_for() {
    for fleet in [fixture::wifi(3), fixture::lan(4), fixture::homes(2, 0.0)] {
        let mut times = Vec::new();
        for world in ["memory", "turmoil"] {
            let recorder = play(world, &fleet, 1, 60);
            let ledger = recorder.ledger();
            let at = emitted(&ledger, 0);
            // The first decode token also waits for the streams of its lane to open.
            for (pair, (position, cost)) in at[1..].windows(2).zip(&ledger.tokens(SessionId(0))[2..]) {
                let took_ms = (pair[1] - pair[0]) as f64 / 1e6;
                let off_ms = took_ms - cost.total_ms();
                assert!(off_ms.abs() < 0.01, "{world} token {position}: {took_ms} ms, booked {cost:?}");
            }
            times.push(at);
        }
        let rate = |at: &Vec<u64>| 59e9 / (at[59] - at[0]) as f64;
        let (memory, turmoil) = (rate(&times[0]), rate(&times[1]));
        assert!((memory / turmoil - 1.0).abs() < 0.01, "{memory} and {turmoil} tokens/s");
    }
}

#[test]
fn many_streams_flow_at_the_same_rate_in_both_worlds() {
    for fleet in [fixture::wifi(3), fixture::lan(4), fixture::homes(2, 0.0)] {
        let [memory, turmoil] =
            ["memory", "turmoil"].map(|world| rate(&play(world, &fleet, 5, 150).ledger(), 5, 150));
        assert!((memory / turmoil - 1.0).abs() < 0.01, "{memory} and {turmoil} tokens/s");
    }
}

#[test]
fn the_same_seed_gives_the_same_events_in_each_world() {
    for world in ["memory", "turmoil"] {
        let events = || play(world, &fixture::wifi(3), 3, 30).ledger().events().to_vec();
        assert_eq!(events(), events(), "{world}");
    }
}

#[test]
fn answers_survive_a_stage_that_dies_and_comes_back_and_a_partition() {
    let (a, b) = (NodeId(0), NodeId(1));
    let faults = [
        (5 * SECOND + SECOND / 2, FaultKind::Crash(b)),
        (9 * SECOND, FaultKind::Restart(b)),
        (14 * SECOND, FaultKind::Partition(vec![a], vec![b])),
        (16 * SECOND, FaultKind::Heal),
    ];
    for world in ["memory", "turmoil"] {
        let recorder = play_with(world, &fixture::wifi(3), 3, 600, &faults);
        let ledger = recorder.ledger();
        let resumed = |event: &Event| matches!(event, Event::Attempted { attempt, .. } if attempt.0 > 0);
        assert!(ledger.events().iter().any(|r| resumed(&r.event)), "{world}: nothing had to be resumed");
        for session in 0..3 {
            assert_eq!(emitted(&ledger, session).len(), 600, "{world}");
        }
        for node in [0, 1, 2].map(NodeId) {
            assert_eq!(ledger.activity(node).kv_sessions, 0, "{world}: KV left on {node:?}");
        }
    }
}
