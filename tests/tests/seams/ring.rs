//! Real nodes in a ring, in both worlds: the tokens are those of the reference, at the same times, and where the time went
//! adds up to the time it took.

use std::future::Future;
use std::sync::Arc;

use node::clock::Clock;
use node::engine::Sampling;
use node::ids::{SessionId, Token};
use node::probe::Event;
use node::start;
use node::world::{Doors, World};
use planner::cost::predict::Load;
use planner::fleet::{Fleet, NodeId};
use sim::engine::reference_tokens;
use sim::mesh::{Mesh, Play};
use sim::record::{Ledger, Recorder};
use sim::scenario::FaultKind;
use sim::seed::Seed;
use sim::wires::Life;

use crate::asking::{Asking, SECOND};
use crate::fixture;

pub(crate) const LAYERS: u32 = 12;
const SAMPLING: Sampling = Sampling::GREEDY;

/// Simulated devices.
#[derive(Clone)]
pub(crate) struct Ring(pub(crate) Asking);

impl Play for Ring {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let asking = self.0.clone();
        async move {
            let clock = doors.clock.clone();
            let node = start(doors, asking.config(life.incarnation));
            asking.live(life, clock, node).await;
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let asking = self.0.clone();
        async move { asking.direct(mesh).await }
    }
}

pub(crate) fn prompt(session: u64, len: usize) -> Vec<Token> {
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
    let model = Arc::new(fixture::model(LAYERS));
    let prompts: Vec<Vec<Token>> = (0..sessions).map(|s| prompt(s, 40 + 10 * s as usize)).collect();
    let requests = prompts.iter().map(|prompt| (prompt.clone(), SAMPLING)).collect();
    let load = Load { prompt: 100, context: 200, concurrency: 1, head: None };
    let asking = Asking::new(fleet, Arc::clone(&model), load, requests, tokens, faults);
    let (recorder, answers) = asking.run(world, &Ring(asking.clone()), (0.05, 0.02));
    for (prompt, answer) in prompts.iter().zip(answers) {
        let answer: Vec<Token> = answer.into_iter().map(|(token, _)| token).collect();
        assert_eq!(answer, reference_tokens(&model, &SAMPLING, prompt, tokens), "{world}");
    }
    recorder
}

/// When a session's tokens came, nanoseconds.
pub(crate) fn emitted(ledger: &Ledger, session: u64) -> Vec<u64> {
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

/// Every moment at which something began or ended on a device or a link of the first answer, from the request on: between
/// two of them nothing changes hands. Nanoseconds, ascending.
fn boundaries(ledger: &Ledger) -> Vec<u64> {
    let (first, last) = (5.0 * SECOND as f64 / 1e3, *emitted(ledger, 0).last().unwrap() as f64 / 1e3);
    let ends = ledger.spans().iter().flat_map(|span| [span.from_us, span.to_us]);
    let mut times: Vec<u64> =
        ends.filter(|at| (first..last).contains(at)).map(|at| (at * 1e3) as u64).collect();
    times.sort_unstable();
    times.dedup();
    times
}

#[test]
fn a_stage_killed_at_any_boundary_of_a_frame_loses_no_token() {
    let (fleet, tokens) = (fixture::wifi(3), 4);
    let times = boundaries(&play_with("turmoil", &fleet, 1, tokens, &[]).ledger());
    assert!(times.len() > 30, "only {} boundaries", times.len());
    let mut resumed = 0;
    for at in times {
        for victim in [1, 2].map(NodeId) {
            let faults = [(at, FaultKind::Crash(victim)), (at + 3 * SECOND, FaultKind::Restart(victim))];
            let recorder = play_with("turmoil", &fleet, 1, tokens, &faults);
            let ledger = recorder.ledger();
            assert_eq!(emitted(&ledger, 0).len(), tokens as usize, "{victim:?} killed at {at} ns");
            let again = |event: &Event| matches!(event, Event::Attempted { attempt, .. } if attempt.0 > 0);
            resumed += usize::from(ledger.events().iter().any(|r| again(&r.event)));
        }
    }
    assert!(resumed > 20, "only {resumed} kills met the answer");
}
