//! SmolLM2's own weights on a mesh of real nodes: whatever crashes and is planned anew, the answers are those of one
//! machine, greedy, drawn, and under penalties with the log-probabilities that were asked for.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use node::clock::{Clock, Instant};
use node::engine::{Chances, Penalties, Rules, Sampling, Want, WorkOut};
use node::head::{Reply, Request};
use node::ids::{PeerId, SessionId, Token};
use node::limits::Limits;
use node::probe::Event;
use node::real::cpu::{DirectEngine, EngineOptions};
use node::router::FleetView;
use node::world::{Doors, World};
use node::{NodeConfig, start};
use planner::cost::constants::RING;
use planner::cost::predict::Load;
use planner::fleet::{Fleet, NodeId};
use planner::model::Model;
use planner::model::gguf::GgufFile;
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::{Epoch, LayerRange, Pipeline, Plan, Stage};
use sim::mesh::{Mesh, MeshSpec, Play};
use sim::paced::Paced;
use sim::record::Recorder;
use sim::scenario::FaultKind;
use sim::seed::Seed;
use sim::wires::Life;
use sim::{memory, over_turmoil};
use tests::chain::{Chain, Part};
use tests::models;

use crate::fixture;

const SECOND: u64 = 1_000_000_000;
const TOKENS: u32 = 40;

/// A token with what was told about it.
type Told = (Token, Option<Box<Chances>>);

/// A world whose devices compute with real weights.
struct Real<W>(PhantomData<fn() -> W>);

impl<W: World> World for Real<W> {
    type Transport = W::Transport;
    type Engine = Paced<DirectEngine, W::Clock>;
    type Clock = W::Clock;
    type Probe = W::Probe;
}

/// Requests at node 0, all at once.
#[derive(Clone)]
struct Ring {
    fleet: Fleet,
    path: PathBuf,
    model: Arc<Model>,
    requests: Vec<(Vec<Token>, Sampling)>,
    faults: Vec<(u64, FaultKind)>,
    answers: Arc<Mutex<Vec<Vec<Told>>>>,
    open: Arc<Mutex<usize>>,
}

impl Ring {
    fn plan(&self) -> Plan {
        let (nodes, layers) = (self.fleet.nodes.len() as u32, self.model.layer_count());
        let cut = |index: u32| layers * index / nodes;
        let stage = |node: NodeId| Stage { node, layers: LayerRange::new(cut(node.0), cut(node.0 + 1)) };
        Plan {
            model: self.model.name.clone(),
            replicas: vec![Pipeline { stages: self.fleet.ids().map(stage).collect() }],
            experts: Vec::new(),
            context: 1_024,
            sessions: 8,
        }
    }

    fn config(&self, incarnation: u64) -> NodeConfig {
        let constraints = Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 8,
            context: 1_024,
            shape: Shape::Pipeline,
        };
        let load = Load { prompt: 20, context: 60, concurrency: 1, head: None };
        let peers = self.fleet.ids().map(|node| PeerId::from_index(node.0)).collect();
        NodeConfig {
            view: Arc::new(FleetView::new(self.fleet.clone(), peers)),
            model: Arc::clone(&self.model),
            ask: Ask { objective: Objective::Tpot, load, constraints },
            initial: Some((Epoch(1), self.plan())),
            limits: Limits::default(),
            incarnation,
        }
    }

    fn doors<W: World>(&self, life: Life, doors: Doors<W>) -> Doors<Real<W>> {
        let files = BTreeMap::from([(self.model.name.clone(), self.path.clone())]);
        let direct = DirectEngine::new(files, options());
        let device = self.fleet.node(life.node).device.clone();
        let Doors { transport, clock, probe, seed, .. } = doors;
        let engine = Paced::new(direct, clock.clone(), device, Arc::clone(&self.model));
        Doors { transport, engine, clock, probe, seed }
    }

    fn ask(&self, index: usize) -> Request {
        let (prompt, sampling) = self.requests[index].clone();
        let session = SessionId(index as u64);
        Request { session, prompt, generated: Vec::new(), max_tokens: TOKENS, sampling }
    }
}

impl Play for Ring {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let ring = self.clone();
        async move {
            let clock = doors.clock.clone();
            let node = start(ring.doors(life, doors), ring.config(life.incarnation));
            if life.node == NodeId(0) {
                clock.sleep_until(Instant(5 * SECOND)).await;
                let asked: Vec<_> = (0..ring.requests.len()).map(|index| node.ask(ring.ask(index))).collect();
                for (index, mut replies) in asked.into_iter().enumerate() {
                    while let Some(reply) = replies.next().await {
                        match reply {
                            Reply::Token { token, chances, .. } => {
                                ring.answers.lock().unwrap()[index].push((token, chances));
                            }
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

/// Three machines so slow that an answer takes seconds, in which faults can meet it.
fn fleet() -> Fleet {
    let mut fleet = fixture::wifi(3);
    fleet.nodes.iter_mut().for_each(|node| node.device.bandwidth_bytes_per_s = 0.7e9);
    fleet
}

fn options() -> EngineOptions {
    EngineOptions { threads: 1, context_max: 1_024, ..EngineOptions::default() }
}

/// Prompts of several lengths, and every way of choosing.
fn requests() -> Vec<(Vec<Token>, Sampling)> {
    let prompt = |len: u32, step: u32| (0..len).map(|i| Token(1_000 + i * step % 7_919)).collect();
    let penalties = Penalties { window: 64, repeat: 1.2, presence: 0.3, frequency: 0.2 };
    let rules = Rules {
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        penalties: Some(penalties),
        biases: vec![(Token(2), -100.0)],
        chances: Some(3),
    };
    vec![
        (prompt(20, 37), Sampling::GREEDY),
        (prompt(33, 101), Sampling::drawn(0.9, 5)),
        (prompt(12, 11), Sampling::drawn(0.8, 7).with(rules)),
    ]
}

/// The same answers from one machine without any mesh.
fn alone(path: &std::path::Path) -> Vec<Vec<Told>> {
    let mut chain = Chain::load(&GgufFile::open(path).unwrap(), &[], &options());
    let answer = |(session, (prompt, sampling)): (usize, (Vec<Token>, Sampling))| {
        let mut said: Vec<Told> = Vec::new();
        let mut sampling = Sampling { past: Some(prompt.clone().into()), ..sampling };
        let (mut start, mut next) = (0, prompt);
        while said.len() < TOKENS as usize {
            let tokens: Vec<u32> = next.iter().map(|token| token.0).collect();
            let want = Want::Sample(sampling.clone());
            let out = chain.step(&[Part { session: session as u64, start, tokens, want }]).remove(0);
            let Ok(WorkOut::Token(sampled)) = out else { panic!("no token: {out:?}") };
            start += next.len() as u32;
            sampling.past = None;
            next = vec![sampled.token];
            said.push((sampled.token, sampled.chances));
        }
        said
    };
    requests().into_iter().enumerate().map(answer).collect()
}

/// Runs it and hands out how many attempts there were beyond the first.
fn play(world: &str, faults: &[(u64, FaultKind)], answers: &[Vec<Told>]) -> usize {
    let fleet = fleet();
    let path = models::smollm2();
    let model = Arc::new(GgufFile::open(&path).unwrap().model().unwrap());
    let recorder = Recorder::new(fleet.nodes.iter().map(|n| n.name.clone()).collect(), false);
    let spec = MeshSpec {
        fleet: fleet.clone(),
        model: Arc::clone(&model),
        seed: Seed::new(3),
        compute_error: (0.0, 0.0),
        software: RING,
        loaded: BTreeMap::new(),
        recorder: recorder.clone(),
    };
    let requests = requests();
    let ring = Ring {
        path,
        model,
        faults: faults.to_vec(),
        answers: Arc::new(Mutex::new(vec![Vec::new(); requests.len()])),
        open: Arc::new(Mutex::new(requests.len())),
        requests,
        fleet: fleet.clone(),
    };
    let nodes: Vec<NodeId> = fleet.ids().collect();
    match world {
        "memory" => memory::run(spec, &ring).unwrap(),
        _ => over_turmoil::run(spec, &ring, over_turmoil::scale_for(&fleet, &RING, &nodes)).unwrap(),
    }
    for (index, (ours, alone)) in ring.answers.lock().unwrap().iter().zip(answers).enumerate() {
        assert_eq!(ours, alone, "{world}, session {index}");
    }
    let ledger = recorder.ledger();
    let again = |event: &Event| matches!(event, Event::Attempted { attempt, .. } if attempt.0 > 0);
    ledger.events().iter().filter(|record| again(&record.event)).count()
}

#[test]
fn real_weights_give_one_machines_answers_on_a_mesh_that_crashes_and_is_planned_anew() {
    let answers = alone(&models::smollm2());
    assert!(answers[2].iter().all(|(_, chances)| chances.as_ref().is_some_and(|c| c.top.len() == 3)));
    let faults = [
        (6 * SECOND, FaultKind::Crash(NodeId(1))),
        (8 * SECOND, FaultKind::Restart(NodeId(1))),
        (9 * SECOND, FaultKind::Partition(vec![NodeId(0)], vec![NodeId(2)])),
        (11 * SECOND, FaultKind::Heal),
    ];
    for world in ["memory", "turmoil"] {
        assert_eq!(play(world, &[], &answers), 0, "{world}");
        let again = play(world, &faults, &answers);
        assert!(again >= 3, "{world}: {again} attempts were made again");
    }
}
