//! What a run leaves behind: events in order, and for every token where its time went. Nodes tell events through their
//! probe, the network tells deliveries, the simulated device tells steps; each is booked on the token it was for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::clock::Instant;
use node::ids::SessionId;
use node::probe::{Event, Probe};
use node::transport::Lane;
use node::wire::Frame;
use planner::plan::{Breakdown, NodeId};

use crate::link::Delivery;
use crate::outcome::Span;

/// Something a node told, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Nanoseconds from the run's start.
    pub at_ns: u64,
    /// Who told it.
    pub node: NodeId,
    /// What.
    pub event: Event,
}

/// What one node did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Activity {
    /// Time its device was in a step, microseconds.
    pub busy_us: f64,
    /// Steps it ran.
    pub steps: u64,
    /// Bytes it sent, headers of the wire excluded.
    pub sent_bytes: u64,
    /// Sessions whose KV its engine holds.
    pub kv_sessions: u32,
    /// The most its engine ever had in memory: weights, activation buffers and KV, bytes.
    pub memory_peak_bytes: u64,
}

/// The tokens of one session.
#[derive(Debug, Default)]
struct Account {
    /// Positions not emitted yet.
    open: BTreeMap<u32, Breakdown>,
    /// Positions emitted, ascending.
    closed: Vec<(u32, Breakdown)>,
}

impl Account {
    fn book(&mut self, position: u32, add: impl FnOnce(&mut Breakdown)) {
        // A replay after a failure passes positions that went to the client long ago: they are paid for.
        if self.closed.last().is_none_or(|(last, _)| *last < position) {
            add(self.open.entry(position).or_default());
        }
    }

    fn close(&mut self, position: u32) {
        let cost = self.open.remove(&position).unwrap_or_default();
        self.open = self.open.split_off(&position);
        self.closed.push((position, cost));
    }
}

/// What a step, or some of its layers, took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spent {
    pub(crate) compute_us: f64,
    pub(crate) software_us: f64,
}

/// Everything recorded of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    names: Vec<String>,
    events: Vec<Recorded>,
    accounts: BTreeMap<SessionId, Account>,
    activity: Vec<Activity>,
    spans: Option<Vec<Span>>,
}

impl Ledger {
    /// Events in the order they were told; the beginnings and ends of steps are left out where no timeline was asked for.
    pub fn events(&self) -> &[Recorded] {
        &self.events
    }

    /// Where the time of a session's emitted tokens went, by position. A token's account holds everything that was
    /// done under its position, so for decode tokens it adds up to the time since the token before.
    pub fn tokens(&self, session: SessionId) -> &[(u32, Breakdown)] {
        self.accounts.get(&session).map_or(&[], |account| &account.closed)
    }

    /// What `node` did.
    pub fn activity(&self, node: NodeId) -> Activity {
        self.activity.get(node.index()).copied().unwrap_or_default()
    }

    /// Bars of the timeline; empty unless asked for.
    pub fn spans(&self) -> &[Span] {
        self.spans.as_deref().unwrap_or_default()
    }

    fn book(&mut self, session: SessionId, position: u32, add: impl FnOnce(&mut Breakdown)) {
        self.accounts.entry(session).or_default().book(position, add);
    }

    fn span(
        &mut self,
        from_ns: u64,
        to_ns: u64,
        what: impl FnOnce(&[String]) -> (String, &'static str, String),
    ) {
        if let Some(spans) = &mut self.spans {
            let (track, kind, label) = what(&self.names);
            let (from_us, to_us) = (from_ns as f64 / 1e3, to_ns as f64 / 1e3);
            spans.push(Span { track, kind: kind.into(), label, from_us, to_us });
        }
    }

    fn tell(&mut self, node: NodeId, at_ns: u64, event: Event) {
        match &event {
            Event::StepBegan { batch } => {
                for share in batch {
                    let waited_ms = at_ns.saturating_sub(share.arrived.0) as f64 / 1e6;
                    self.book(share.session, share.end, |cost| cost.queueing_ms += waited_ms);
                }
                if self.spans.is_none() {
                    return;
                }
            }
            Event::StepEnded { .. } if self.spans.is_none() => return,
            Event::Emitted { session, position, .. } => {
                self.accounts.entry(*session).or_default().close(*position);
            }
            _ => {}
        }
        self.events.push(Recorded { at_ns, node, event });
    }
}

/// A handle on the ledger of one run, shared by everything that records.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Ledger>>);

impl Recorder {
    /// A recorder for nodes of these names, by [`NodeId`]; with `spans`, also of every step and transfer for a timeline.
    pub fn new(names: Vec<String>, spans: bool) -> Self {
        let activity = vec![Activity::default(); names.len()];
        Self(Arc::new(Mutex::new(Ledger {
            names,
            activity,
            spans: spans.then(Vec::new),
            ..Ledger::default()
        })))
    }

    /// What node `node` listens with.
    pub fn probe(&self, node: NodeId) -> NodeProbe {
        NodeProbe { recorder: self.clone(), node }
    }

    /// Reads the ledger. Nothing may be recorded while the guard is held.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A poisoned lock means that a test's assertion failed while reading; what was recorded is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame is on its way.
    pub(crate) fn sent(
        &self,
        now_ns: u64,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        frame: &Frame,
        delivery: &Delivery,
    ) {
        let mut ledger = self.ledger();
        if let Some(activity) = ledger.activity.get_mut(from.index()) {
            activity.sent_bytes += frame.wire_len();
        }
        for (session, position) in frame.sessions() {
            ledger.book(session, position, |cost| {
                cost.latency_ms += delivery.latency_us / 1e3;
                cost.bandwidth_ms += delivery.bandwidth_us / 1e3;
                cost.queueing_ms += delivery.queueing_us / 1e3;
                cost.software_ms += delivery.software_us / 1e3;
            });
        }
        if lane != Lane::Control {
            ledger.span(now_ns, delivery.at_ns, |names| {
                let track = format!("{} -> {}", names[from.index()], names[to.index()]);
                (track, "transfer", label(frame.sessions()))
            });
        }
    }

    /// A device runs a step from `began_ns` on: `time` of its own and `software_us` around it.
    pub(crate) fn stepped(
        &self,
        node: NodeId,
        began_ns: u64,
        spent: &Spent,
        batch: &[(SessionId, u32)],
        is_new: bool,
    ) {
        let mut ledger = self.ledger();
        let Spent { compute_us, software_us } = *spent;
        if let Some(activity) = ledger.activity.get_mut(node.index()) {
            activity.busy_us += compute_us + software_us;
            activity.steps += u64::from(is_new);
        }
        for (session, position) in batch {
            ledger.book(*session, *position, |cost| {
                cost.compute_ms += compute_us / 1e3;
                cost.software_ms += software_us / 1e3;
            });
        }
        let ended_ns = began_ns + ((compute_us + software_us) * 1e3) as u64;
        ledger.span(began_ns, ended_ns, |names| {
            (names[node.index()].clone(), "compute", label(batch.iter().copied()))
        });
    }

    /// So long the device did something else than a step of these.
    pub(crate) fn held_up(&self, batch: &[(SessionId, u32)], waited_ns: u64) {
        let mut ledger = self.ledger();
        for (session, position) in batch.iter().filter(|_| waited_ns > 0) {
            ledger.book(*session, *position, |cost| cost.queueing_ms += waited_ns as f64 / 1e6);
        }
    }

    /// A device reads weights from disk.
    pub(crate) fn loaded(&self, node: NodeId, began_ns: u64, ended_ns: u64, what: String) {
        self.ledger().span(began_ns, ended_ns, |names| (names[node.index()].clone(), "load", what));
    }

    /// So many sessions have KV on `node` now, and everything there takes so much memory.
    pub(crate) fn holds(&self, node: NodeId, sessions: usize, bytes: u64) {
        if let Some(activity) = self.ledger().activity.get_mut(node.index()) {
            activity.kv_sessions = sessions as u32;
            activity.memory_peak_bytes = activity.memory_peak_bytes.max(bytes);
        }
    }
}

fn label(sessions: impl Iterator<Item = (SessionId, u32)>) -> String {
    let parts: Vec<String> =
        sessions.map(|(session, position)| format!("{}@{position}", session.0)).collect();
    parts.join(" ")
}

/// One node's ear.
#[derive(Debug, Clone)]
pub struct NodeProbe {
    recorder: Recorder,
    node: NodeId,
}

impl Probe for NodeProbe {
    fn on(&self, at: Instant, event: Event) {
        self.recorder.ledger().tell(self.node, at.0, event);
    }
}

#[cfg(test)]
mod tests {
    use node::ids::Token;
    use node::probe::Share;

    use super::*;

    const NODE: NodeId = NodeId(0);
    const SESSION: SessionId = SessionId(4);

    fn step(recorder: &Recorder, position: u32, compute_us: f64) {
        let spent = Spent { compute_us, software_us: 100.0 };
        recorder.stepped(NODE, 0, &spent, &[(SESSION, position)], true);
    }

    fn emitted(position: u32) -> Event {
        Event::Emitted { session: SESSION, position, token: Token(1) }
    }

    #[test]
    fn a_token_pays_for_what_was_done_under_its_position() {
        let recorder = Recorder::new(vec!["mac".into()], false);
        let probe = recorder.probe(NODE);
        let share = Share { session: SESSION, tokens: 1, end: 8, arrived: Instant(2_000_000) };
        probe.on(Instant(5_000_000), Event::StepBegan { batch: vec![share] });
        step(&recorder, 8, 7_000.0);
        probe.on(Instant(12_100_000), emitted(8));
        let ledger = recorder.ledger();
        let [(8, cost)] = ledger.tokens(SESSION) else { panic!("one token: {:?}", ledger.tokens(SESSION)) };
        assert_eq!((cost.queueing_ms, cost.compute_ms, cost.software_ms), (3.0, 7.0, 0.1));
        assert_eq!(ledger.activity(NODE).steps, 1);
        assert_eq!(ledger.events().len(), 1, "steps are booked, not kept");
    }

    #[test]
    fn a_replay_does_not_change_the_account_of_tokens_already_emitted() {
        let recorder = Recorder::new(vec!["mac".into()], true);
        for position in [8, 9] {
            step(&recorder, position, 1_000.0);
            recorder.probe(NODE).on(Instant(0), emitted(position));
        }
        step(&recorder, 8, 50_000.0);
        step(&recorder, 10, 2_000.0);
        recorder.probe(NODE).on(Instant(0), emitted(10));
        let ledger = recorder.ledger();
        let compute: Vec<f64> = ledger.tokens(SESSION).iter().map(|(_, cost)| cost.compute_ms).collect();
        assert_eq!(compute, [1.0, 1.0, 2.0]);
        assert_eq!(ledger.spans().len(), 4);
    }
}
