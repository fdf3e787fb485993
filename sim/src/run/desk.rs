//! The clients of a run: who asks what and where, what they have heard, and where they go when their node dies.
//!
//! A client sits beside the node it asks. When that node dies it notices, and asks another node with the tokens it has.
//! All of this is kept here, outside of the nodes, so that it survives them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::clock::Instant;
use node::ids::{SessionId, Token};
use node::{Reply, Request};
use planner::fleet::NodeId;
use planner::model::Model;
use tokio::sync::{Notify, mpsc};

use crate::engine::reference_tokens;
use crate::outcome::{RequestRecord, Status};
use crate::seed::Seed;
use crate::wires::Life;
use crate::workload::{Arrival, ArrivalStream, prompt, sampling};

/// A client whose node has died asks another one after this long, nanoseconds. Source: a broken connection within a
/// network shows within a second; browsers' event streams wait longer before they connect again.
pub const ASK_AGAIN_NS: u64 = 1_000_000_000;

/// Requests that wait at a node to be taken up; what is more comes back later.
const INBOX: usize = 4_096;

/// One request, its client, and where the client is.
#[derive(Debug)]
struct Ticket {
    /// Where the client would like to ask.
    entry: NodeId,
    /// The life it is asking just now.
    at: Option<Life>,
    /// Whether it has asked anybody yet.
    asked: bool,
    record: RequestRecord,
    probe: bool,
}

impl Ticket {
    fn is_open(&self) -> bool {
        self.record.ended_us.is_none()
    }
}

/// What a run's clients know.
#[derive(Debug)]
struct State {
    names: Vec<String>,
    vocabulary: u32,
    seed: Seed,
    entries: Vec<NodeId>,
    arrivals: ArrivalStream,
    tickets: Vec<Ticket>,
    /// When to ask, and which ticket.
    waiting: BTreeSet<(u64, usize)>,
    /// Tickets that found nobody to ask.
    stranded: Vec<usize>,
    inboxes: BTreeMap<NodeId, (Life, mpsc::Sender<usize>)>,
    /// Nodes that have died and not come back. One that is neither here nor there has not begun yet.
    down: BTreeSet<NodeId>,
    starts: Vec<(NodeId, u64)>,
    /// Nodes that know a plan whose replicas all serve.
    ready: BTreeSet<NodeId>,
    /// When the first client may come, nanoseconds: the workload's times count from here.
    opened_ns: Option<u64>,
    hung_up: bool,
    /// Whether nobody comes any more.
    closed: bool,
    /// Requests that have come and not ended.
    open: usize,
}

/// The clients of one run. A handle: clones share them.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    hang_up: Arc<Notify>,
}

/// What the desk needs to know of a run.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) names: Vec<String>,
    pub(super) vocabulary: u32,
    pub(super) seed: Seed,
    /// At least one.
    pub(super) entries: Vec<NodeId>,
    pub(super) arrivals: ArrivalStream,
}

impl Desk {
    pub(super) fn new(clients: Clients) -> Self {
        let Clients { names, vocabulary, seed, entries, arrivals } = clients;
        let state = State {
            names,
            vocabulary,
            seed: seed.fork("workload"),
            entries,
            arrivals,
            tickets: Vec::new(),
            waiting: BTreeSet::new(),
            stranded: Vec::new(),
            inboxes: BTreeMap::new(),
            down: BTreeSet::new(),
            starts: Vec::new(),
            ready: BTreeSet::new(),
            opened_ns: None,
            hung_up: false,
            closed: false,
            open: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(Notify::new()),
            hang_up: Arc::new(Notify::new()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when something may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A node knows a plan that serves.
    pub(super) fn knows_plan(&self, node: NodeId) {
        self.state().ready.insert(node);
        self.changed.notify_one();
    }

    /// Whether every entry can be asked with effect.
    pub(super) fn is_ready(&self) -> bool {
        let state = self.state();
        state.entries.iter().all(|entry| state.ready.contains(entry))
    }

    /// Clients come from now on.
    pub(super) fn open(&self, now: Instant) {
        self.state().opened_ns.get_or_insert(now.0);
    }

    /// A life begins: where it hears of the requests made to it.
    pub(super) fn enter(&self, life: Life, now: Instant) -> mpsc::Receiver<usize> {
        let (inbox, requests) = mpsc::channel(INBOX);
        let mut state = self.state();
        state.inboxes.insert(life.node, (life, inbox));
        state.down.remove(&life.node);
        state.starts.push((life.node, now.0));
        let stranded = std::mem::take(&mut state.stranded);
        state.waiting.extend(stranded.into_iter().map(|index| (now.0, index)));
        drop(state);
        self.changed.notify_one();
        requests
    }

    /// A node has died. Its clients notice, and ask again elsewhere.
    pub(super) fn leave(&self, node: NodeId, now: Instant) {
        let mut state = self.state();
        state.inboxes.remove(&node);
        state.down.insert(node);
        let again_ns = now.0.saturating_add(ASK_AGAIN_NS);
        let State { tickets, waiting, .. } = &mut *state;
        for (index, ticket) in tickets.iter_mut().enumerate() {
            if ticket.at.is_some_and(|life| life.node == node) {
                ticket.at = None;
                waiting.insert((again_ns, index));
            }
        }
    }

    /// Everything that is due by `now` is asked. Returns when the next thing is due, if anything is.
    pub(super) fn dispatch(&self, now: Instant) -> Option<u64> {
        let mut state = self.state();
        while let Some(arrival) = state.next_arrival(now) {
            let entry = state.entries[arrival.number as usize % state.entries.len()];
            state.receive(arrival, entry, false);
        }
        while let Some((_, index)) = state.waiting.first().copied().filter(|(at_ns, _)| *at_ns <= now.0) {
            state.waiting.pop_first();
            state.ask(index, now);
        }
        [state.next_arrival_ns(), state.waiting.first().map(|(at_ns, _)| *at_ns)].into_iter().flatten().min()
    }

    /// When the next client comes to `node`, as far as is known. So a node's own clock, which is exact, wakes them.
    pub(super) fn next_at(&self, node: NodeId) -> Option<Instant> {
        let state = self.state();
        let number = state.arrivals.next_number();
        let here = |number: u32| state.entries[number as usize % state.entries.len()] == node;
        let arrival = state.next_arrival_ns().filter(|_| here(number));
        let waiting = state.waiting.iter().find(|(_, index)| state.tickets[*index].entry == node);
        [arrival, waiting.map(|(at_ns, _)| *at_ns)].into_iter().flatten().min().map(Instant)
    }

    /// Asks for `output` tokens after a prompt of `prompt` at each of the entries that are up.
    pub(super) fn probe(&self, now: Instant, prompt: u32, output: u32) {
        let mut state = self.state();
        let up: BTreeSet<NodeId> =
            state.entries.iter().copied().filter(|entry| state.inboxes.contains_key(entry)).collect();
        for entry in up {
            let number = state.tickets.len() as u32;
            state.receive(Arrival { at_ns: now.0, number, prompt, output }, entry, true);
        }
    }

    /// Whether every request has come and ended.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state();
        state.open == 0 && state.next_arrival_ns().is_none()
    }

    /// All clients stop listening, and nobody comes any more.
    pub(super) fn hang_up(&self) {
        let mut state = self.state();
        state.hung_up = true;
        state.closed = true;
        drop(state);
        self.hang_up.notify_waiters();
    }

    /// Returns when the clients stop listening.
    pub(super) async fn hung_up(&self) {
        let called = self.hang_up.notified();
        if !self.state().hung_up {
            called.await;
        }
    }

    /// Clients listen to what is asked from now on; what they had not heard to its end is given up.
    pub(super) fn listen_again(&self) {
        let mut state = self.state();
        state.hung_up = false;
        state.open = 0;
        state.waiting.clear();
        state.stranded.clear();
        state.tickets.iter_mut().for_each(|ticket| ticket.at = None);
    }

    /// What the client of a ticket says to that life; `None` if it is not there (any more).
    pub(super) fn begin(&self, index: usize, life: Life, now: Instant) -> Option<Request> {
        let mut state = self.state();
        let (seed, vocabulary) = (state.seed, state.vocabulary);
        let ticket = state.tickets.get_mut(index).filter(|ticket| ticket.at == Some(life))?;
        let record = &mut ticket.record;
        if !ticket.asked {
            ticket.asked = true;
            record.asked_us = microseconds(now);
        }
        Some(Request {
            session: record.session,
            prompt: prompt(seed, index as u32, record.prompt, vocabulary),
            generated: record.tokens.clone(),
            max_tokens: record.output,
            ends: Default::default(),
            sampling: sampling(seed, index as u32),
        })
    }

    /// A node answers the client of a ticket; `None` when it ended the answer without a word. True when the client
    /// hears no more from it.
    pub(super) fn hear(&self, index: usize, life: Life, now: Instant, reply: Option<Reply>) -> bool {
        let mut state = self.state();
        let Some(ticket) = state.tickets.get_mut(index).filter(|ticket| ticket.at == Some(life)) else {
            return true;
        };
        let record = &mut ticket.record;
        let status = match reply {
            Some(Reply::Token { position, token, .. }) => {
                let expected = record.prompt + record.tokens.len() as u32;
                if position == expected {
                    record.tokens.push(token);
                    record.tokens_us.push(microseconds(now));
                    return false;
                }
                Status::Failed(format!("the token at {position} came where {expected} was due"))
            }
            Some(Reply::End) => Status::Completed,
            Some(Reply::Refused(why)) => Status::Refused(why.to_string()),
            Some(Reply::Failed(why)) => Status::Failed(why),
            None => Status::Failed("the node ended the answer without a word".into()),
        };
        record.status = status;
        record.ended_us = Some(microseconds(now));
        let probe = ticket.probe;
        ticket.at = None;
        state.open -= 1;
        if !probe {
            let opened_ns = state.opened_ns.unwrap_or_default();
            state.arrivals.ended(now.0.saturating_sub(opened_ns));
        }
        drop(state);
        self.changed.notify_one();
        true
    }

    /// What became of the requests, and of the probes.
    pub(super) fn records(&self) -> (Vec<RequestRecord>, Vec<RequestRecord>) {
        let state = self.state();
        let of = |probe| {
            let tickets = state.tickets.iter().filter(move |ticket| ticket.probe == probe);
            tickets.map(|ticket| ticket.record.clone()).collect()
        };
        (of(false), of(true))
    }

    /// When nodes began, in order.
    pub(super) fn starts(&self) -> Vec<(NodeId, u64)> {
        self.state().starts.clone()
    }
}

impl State {
    fn next_arrival(&mut self, now: Instant) -> Option<Arrival> {
        let opened_ns = self.opened_ns.filter(|_| !self.closed)?;
        let arrival = self.arrivals.take(now.0.saturating_sub(opened_ns))?;
        Some(Arrival { at_ns: arrival.at_ns.saturating_add(opened_ns), ..arrival })
    }

    fn next_arrival_ns(&self) -> Option<u64> {
        let opened_ns = self.opened_ns.filter(|_| !self.closed)?;
        Some(self.arrivals.next_ns()?.saturating_add(opened_ns))
    }

    fn receive(&mut self, arrival: Arrival, entry: NodeId, probe: bool) {
        let index = self.tickets.len();
        let record = RequestRecord {
            session: SessionId(index as u64),
            entry: self.names[entry.index()].clone(),
            prompt: arrival.prompt,
            output: arrival.output,
            asked_us: arrival.at_ns as f64 / 1e3,
            tokens_us: Vec::new(),
            tokens: Vec::new(),
            ended_us: None,
            status: Status::Unfinished,
            resumptions: 0,
        };
        self.tickets.push(Ticket { entry, at: None, asked: false, record, probe });
        self.waiting.insert((arrival.at_ns, index));
        self.open += 1;
    }

    /// Puts a ticket where its client asks: its own entry, or if that is down the next one that is up, or else anybody.
    /// Where nobody is up it waits for somebody, and where too many wait it comes back later.
    fn ask(&mut self, index: usize, now: Instant) {
        let Some(ticket) = self.tickets.get_mut(index).filter(|ticket| ticket.is_open()) else { return };
        let own = self.inboxes.get(&ticket.entry);
        let others =
            || self.entries.iter().chain(self.inboxes.keys()).find_map(|node| self.inboxes.get(node));
        let place = if self.down.contains(&ticket.entry) { others() } else { own };
        let Some((life, inbox)) = place else { return self.stranded.push(index) };
        if inbox.try_send(index).is_ok() {
            ticket.at = Some(*life);
        } else {
            self.waiting.insert((now.0.saturating_add(ASK_AGAIN_NS), index));
        }
    }
}

/// The tokens a client must get in the run of `seed`: those that follow its prompt.
pub(crate) fn expected(model: &Model, seed: u64, record: &RequestRecord) -> Vec<Token> {
    let seed = Seed::new(seed).fork("workload");
    let number = record.session.0 as u32;
    let prompt = prompt(seed, number, record.prompt, model.vocab);
    reference_tokens(model, &sampling(seed, number), &prompt, record.output)
}

fn microseconds(at: Instant) -> f64 {
    at.0 as f64 / 1e3
}
