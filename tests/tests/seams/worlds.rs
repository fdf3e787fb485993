//! One suite over both worlds' networks: whatever a node can meet on a stream, it meets in the same way in each.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node::clock::{Clock, Instant};
use node::ids::{Attempt, PeerId, SessionId, Token};
use node::transport::{Lane, NetError, Rx, Transport, Tx};
use node::wire::{Frame, Payload, Step, StepInput};
use node::world::{Doors, World};
use planner::cost::constants::WIRE_OVERHEAD;
use planner::fleet::{Fleet, NodeId};
use sim::mesh::{Mesh, Play};
use sim::scenario::FaultKind;
use sim::wires::{CONNECT_NS, Life, SILENCE_NS, UNREAD_FRAMES};

use crate::fixture;

const SENDER: NodeId = NodeId(0);
const RECEIVER: NodeId = NodeId(1);
const SECOND: u64 = 1_000_000_000;

/// What the two nodes and the director do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    /// So many frames of so many bytes on a lane, one after the other, then a good end.
    Burst { lane: Lane, frames: u32, bytes: u64 },
    /// A token on the decode lane while a prefill is on its way.
    Overtake,
    /// The receiver begins to read after ten seconds.
    LateReader { frames: u32 },
    /// A token every 100 ms for `seconds`, opening again whenever the stream ends.
    Steady { seconds: u64 },
}

/// Who saw what, and when.
type Log = Vec<(u64, NodeId, String)>;

#[derive(Debug, Clone)]
struct Script {
    case: Case,
    faults: Vec<(u64, FaultKind)>,
    until: Duration,
    log: Arc<Mutex<Log>>,
}

impl Script {
    fn note(&self, at: Instant, node: NodeId, what: String) {
        self.log.lock().unwrap().push((at.0, node, what));
    }
}

fn token(position: u32) -> Frame {
    Frame::Token { session: SessionId(1), attempt: Attempt(0), position, sampled: Token(position).into() }
}

/// A frame that the links charge for `bytes` of tensor.
fn bulk(position: u32, bytes: u64) -> Frame {
    let input = StepInput::Hidden(Payload::Virtual { len: bytes, digests: vec![u64::from(position); 600] });
    let (session, attempt) = (SessionId(1), Attempt(0));
    Frame::Steps(vec![Step {
        session,
        attempt,
        stage: 1,
        route: None,
        start: position,
        count: 0,
        input,
        sample: None,
    }])
}

fn position(frame: &Frame) -> u32 {
    frame.sessions().next().unwrap().1
}

async fn burst<W: World>(script: &Script, doors: &Doors<W>, lane: Lane, frames: u32, bytes: u64) {
    let mut tx = doors.transport.open(PeerId::from_index(RECEIVER.0), lane).await.unwrap();
    for i in 0..frames {
        tx.send(bulk(i, bytes)).await.unwrap();
        script.note(doors.clock.now(), SENDER, format!("sent {i}"));
    }
}

async fn overtake<W: World>(script: &Script, doors: &Doors<W>) {
    let peer = PeerId::from_index(RECEIVER.0);
    let mut prefill = doors.transport.open(peer, Lane::Prefill).await.unwrap();
    let mut decode = doors.transport.open(peer, Lane::Decode).await.unwrap();
    prefill.send(bulk(0, 20_000_000)).await.unwrap();
    decode.send(token(7)).await.unwrap();
    script.note(doors.clock.now(), SENDER, "sent both".into());
}

async fn steady<W: World>(script: &Script, doors: &Doors<W>, seconds: u64) {
    let mut open = None;
    for i in 0..seconds * 10 {
        let due = Instant(u64::from(i as u32) * SECOND / 10);
        doors.clock.sleep_until(due).await;
        if open.is_none() {
            let began = doors.clock.now();
            open = doors.transport.open(PeerId::from_index(RECEIVER.0), Lane::Decode).await.ok();
            let took_ms = doors.clock.now().since(began).as_millis();
            let what = if open.is_some() { "opened" } else { "unreachable" };
            script.note(doors.clock.now(), SENDER, format!("{what} after {took_ms} ms"));
        }
        let Some(tx) = &mut open else { continue };
        let sent = tx.send(token(i as u32)).await;
        if let Err(error) = sent {
            assert_eq!(error, NetError::Closed);
            script.note(doors.clock.now(), SENDER, "closed".into());
            open = None;
        } else {
            script.note(doors.clock.now(), SENDER, format!("sent {i}"));
        }
    }
}

async fn read_all<W: World>(script: Script, clock: W::Clock, mut rx: <W::Transport as Transport>::Rx) {
    if let Case::LateReader { .. } = script.case {
        clock.sleep_until(Instant(10 * SECOND)).await;
    }
    loop {
        let (what, last) = match rx.recv().await {
            Ok(Some(frame)) => (format!("got {}", position(&frame)), false),
            Ok(None) => ("good end".into(), true),
            Err(error) => (format!("error {error:?}"), true),
        };
        script.note(clock.now(), RECEIVER, what);
        if last {
            return;
        }
    }
}

async fn hear_refusals<W: World>(script: Script, clock: W::Clock, transport: W::Transport) {
    loop {
        let peer = transport.refused().await;
        script.note(clock.now(), SENDER, format!("refused by {}", peer.index()));
    }
}

impl Play for Script {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let script = self.clone();
        async move {
            if life.node == RECEIVER {
                while let Ok((from, _, rx)) = doors.transport.accept().await {
                    assert_eq!(from, PeerId::from_index(SENDER.0));
                    tokio::spawn(read_all::<W>(script.clone(), doors.clock.clone(), rx));
                }
            } else if life.node == SENDER && life.incarnation == 0 {
                tokio::spawn(hear_refusals::<W>(
                    script.clone(),
                    doors.clock.clone(),
                    doors.transport.clone(),
                ));
                match script.case {
                    Case::Burst { lane, frames, bytes } => burst(&script, &doors, lane, frames, bytes).await,
                    Case::Overtake => overtake(&script, &doors).await,
                    Case::LateReader { frames } => burst(&script, &doors, Lane::Decode, frames, 1_000).await,
                    Case::Steady { seconds } => steady(&script, &doors, seconds).await,
                }
            }
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let script = self.clone();
        async move {
            for (at_ns, fault) in &script.faults {
                mesh.clock().sleep_until(Instant(*at_ns)).await;
                mesh.apply(fault);
            }
            mesh.clock().sleep_until(Instant(script.until.as_nanos() as u64)).await;
        }
    }
}

fn play(world: &str, fleet: &Fleet, case: Case, faults: &[(u64, FaultKind)], seconds: u64) -> Log {
    let until = Duration::from_secs(seconds);
    let script = Script { case, faults: faults.to_vec(), until, log: Arc::default() };
    fixture::play(world, fixture::mesh(fleet), &script);
    script.log.lock().unwrap().clone()
}

/// Plays the case in both worlds and lets `check` look at each.
fn in_both(fleet: &Fleet, case: Case, faults: &[(u64, FaultKind)], seconds: u64, check: impl Fn(&str, &Log)) {
    for world in ["memory", "turmoil"] {
        check(world, &play(world, fleet, case, faults, seconds));
    }
}

fn times(log: &Log, node: NodeId, what: &str) -> Vec<u64> {
    log.iter().filter(|(_, who, did)| *who == node && did.starts_with(what)).map(|(at, ..)| *at).collect()
}

fn got(log: &Log) -> Vec<u32> {
    log.iter().filter_map(|(_, _, did)| did.strip_prefix("got ")?.parse().ok()).collect()
}

#[test]
fn frames_arrive_in_order_and_the_stream_ends_in_good_order() {
    for lane in Lane::ALL {
        in_both(&fixture::wifi(2), Case::Burst { lane, frames: 40, bytes: 9_000 }, &[], 5, |world, log| {
            assert_eq!(got(log), (0..40).collect::<Vec<_>>(), "{world} {lane:?}");
            assert_eq!(times(log, RECEIVER, "good end").len(), 1, "{world} {lane:?}: {log:?}");
        });
    }
}

#[test]
fn both_worlds_deliver_at_the_same_times() {
    for fleet in [fixture::lan(2), fixture::wifi(2), fixture::homes(1, 0.01)] {
        let case = Case::Burst { lane: Lane::Decode, frames: 30, bytes: 16_000 };
        let [memory, turmoil] =
            ["memory", "turmoil"].map(|world| times(&play(world, &fleet, case, &[], 5), RECEIVER, "got"));
        assert_eq!(memory.len(), 30);
        assert_eq!(memory, turmoil, "to the nanosecond");
    }
}

#[test]
fn a_stream_gets_the_links_bandwidth_and_no_more() {
    let fleet = fixture::lan(2);
    let (frames, bytes) = (25, 1_000_000);
    let ideal_ns = f64::from(frames) * bytes as f64 * WIRE_OVERHEAD / fleet.networks[0].bytes_per_s * 1e9;
    in_both(&fleet, Case::Burst { lane: Lane::Prefill, frames, bytes }, &[], 5, |world, log| {
        let first = times(log, SENDER, "sent 0")[0];
        let took = *times(log, RECEIVER, "got").last().unwrap() - first;
        assert!(
            (took as f64) > ideal_ns && (took as f64) < 1.02 * ideal_ns,
            "{world}: {took} of {ideal_ns} ns"
        );
        // The sender's window is six frames: it does not run ahead of the link by more.
        let ahead = times(log, SENDER, "sent 20")[0] - first;
        assert!(ahead as f64 > 0.5 * ideal_ns, "{world}: the 20th was handed over after {ahead} ns");
    });
}

#[test]
fn a_token_overtakes_a_prefill() {
    in_both(&fixture::lan(2), Case::Overtake, &[], 5, |world, log| {
        assert_eq!(got(log), [7, 0], "{world}");
        let waited = times(log, RECEIVER, "got 7")[0] - times(log, SENDER, "sent both")[0];
        assert!(waited < 2_000_000, "{world}: the token took {waited} ns");
    });
}

#[test]
fn a_sender_waits_for_a_receiver_that_does_not_read() {
    let frames = 3 * UNREAD_FRAMES as u32 + 40;
    in_both(&fixture::lan(2), Case::LateReader { frames }, &[], 30, |world, log| {
        let early = times(log, SENDER, "sent").iter().filter(|at| **at < 10 * SECOND).count();
        assert!(early >= UNREAD_FRAMES, "{world}: only {early} were taken");
        assert!(world == "turmoil" || early <= UNREAD_FRAMES, "{world}: {early} were taken");
        assert_eq!(got(log), (0..frames).collect::<Vec<_>>(), "{world}");
    });
}

#[test]
fn streams_to_a_dead_peer_end_and_new_ones_open_when_it_is_back() {
    // Between two tokens.
    let crash = 2 * SECOND + SECOND / 20;
    let faults = [(crash, FaultKind::Crash(RECEIVER)), (12 * SECOND, FaultKind::Restart(RECEIVER))];
    in_both(&fixture::lan(2), Case::Steady { seconds: 20 }, &faults, 21, |world, log| {
        let closed = times(log, SENDER, "closed");
        assert_eq!(closed.len(), 1, "{world}: {log:?}");
        assert!(
            closed[0] >= crash + SILENCE_NS && closed[0] < crash + SECOND + SILENCE_NS,
            "{world}: {closed:?}"
        );
        // To the dead one sends as to the living, and learns of it later: by the first token after the crash.
        let sent = times(log, SENDER, "sent").iter().filter(|at| (crash..closed[0]).contains(at)).count();
        assert_eq!(sent as u64, SILENCE_NS / (SECOND / 10), "{world}: {log:?}");
        let unreachable = format!("unreachable after {} ms", CONNECT_NS / 1_000_000);
        assert!(!times(log, SENDER, &unreachable).is_empty(), "{world}: {log:?}");
        let opened = times(log, SENDER, "opened after 0 ms");
        assert!(
            opened.iter().any(|at| *at > 12 * SECOND && *at < 12 * SECOND + CONNECT_NS + SECOND),
            "{world}: {log:?}"
        );
        let positions = got(log);
        assert!(positions.contains(&19) && positions.contains(&199), "{world}: {positions:?}");
        let dead = crash..12 * SECOND;
        assert!(!times(log, RECEIVER, "got").iter().any(|at| dead.contains(at)), "{world}: {log:?}");
    });
}

#[test]
fn a_peer_that_comes_back_quickly_says_that_it_knows_no_such_stream() {
    let faults = [(2 * SECOND, FaultKind::Crash(RECEIVER)), (3 * SECOND, FaultKind::Restart(RECEIVER))];
    in_both(&fixture::lan(2), Case::Steady { seconds: 6 }, &faults, 7, |world, log| {
        let closed = times(log, SENDER, "closed");
        assert!(closed[0] > 3 * SECOND && closed[0] < 3 * SECOND + SECOND / 2, "{world}: {log:?}");
        assert!(got(log).contains(&59), "{world}: {log:?}");
    });
}

#[test]
fn a_peer_whose_process_died_refuses_once_and_one_behind_a_partition_is_silent() {
    let crash = 2 * SECOND;
    let cases = [
        (vec![(crash, FaultKind::Crash(RECEIVER)), (4 * SECOND, FaultKind::Restart(RECEIVER))], 1),
        (vec![(crash, FaultKind::Partition(vec![SENDER], vec![RECEIVER])), (4 * SECOND, FaultKind::Heal)], 0),
        // Back before anybody has called again.
        (vec![(crash, FaultKind::Crash(RECEIVER)), (crash + 1_000, FaultKind::Restart(RECEIVER))], 0),
    ];
    for (faults, refusals) in cases {
        in_both(&fixture::lan(2), Case::Steady { seconds: 6 }, &faults, 8, |world, log| {
            let refused = times(log, SENDER, "refused by 1");
            assert_eq!(refused.len(), refusals, "{world} {faults:?}: {log:?}");
            assert!(
                refused.iter().all(|at| (crash..crash + SECOND / 10).contains(at)),
                "{world}: {refused:?}"
            );
        });
    }
}

#[test]
fn a_receiver_sees_a_dead_sender_as_broken_not_as_ended() {
    let faults = [(2 * SECOND, FaultKind::Crash(SENDER))];
    in_both(&fixture::lan(2), Case::Steady { seconds: 6 }, &faults, 20, |world, log| {
        let broken = times(log, RECEIVER, "error Closed");
        assert_eq!(broken.len(), 1, "{world}: {log:?}");
        assert!(
            broken[0] >= 2 * SECOND + SILENCE_NS && broken[0] <= 3 * SECOND + 2 * SILENCE_NS,
            "{world}: {broken:?}"
        );
        assert!(times(log, RECEIVER, "good end").is_empty());
        assert!(got(log).contains(&19) && !got(log).contains(&21), "{world}");
    });
}

#[test]
fn a_partition_ends_streams_and_a_stream_that_lost_a_frame_delivers_no_later_one() {
    let faults =
        [(2 * SECOND, FaultKind::Partition(vec![SENDER], vec![RECEIVER])), (4 * SECOND, FaultKind::Heal)];
    in_both(&fixture::lan(2), Case::Steady { seconds: 10 }, &faults, 20, |world, log| {
        let closed = times(log, SENDER, "closed");
        assert_eq!(closed.len(), 1, "{world}: {log:?}");
        assert!(closed[0] > 4 * SECOND && closed[0] < 5 * SECOND, "{world}: {closed:?}");
        assert_eq!(times(log, RECEIVER, "error Closed").len(), 1, "{world}: {log:?}");
        let positions = got(log);
        assert!(positions.windows(2).all(|w| w[0] < w[1]), "{world}: {positions:?}");
        assert!(
            !positions.iter().any(|p| (21..40).contains(p)) && positions.contains(&99),
            "{world}: {positions:?}"
        );
    });
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let faults = [(2 * SECOND, FaultKind::Crash(RECEIVER)), (4 * SECOND, FaultKind::Restart(RECEIVER))];
    for world in ["memory", "turmoil"] {
        let once = || play(world, &fixture::wifi(3), Case::Steady { seconds: 8 }, &faults, 9);
        assert_eq!(once(), once(), "{world}");
    }
}
