//! What lies between the nodes of one run, whichever world they run in: the network model, who is alive, and what that
//! means for a frame and for a stream.
//!
//! A crash is a process's end: nobody says goodbye. What was on its way still arrives; nothing answers any more; streams
//! to and from the dead end when patience runs out ([`SILENCE_NS`]), or one round trip after a restart, when the new
//! life answers that it knows no such stream. But its machine goes on: whoever had a stream to or from it is told that the
//! connection is gone, calls again, and is refused. A partition looks the same from both of its sides, and nobody is
//! told. A stream that has lost a frame never delivers a later one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::clock::{Clock, Instant};
use node::ids::PeerId;
use node::transport::{Lane, NetError};
use node::wire::Frame;
use planner::plan::NodeId;
use tokio::sync::{Notify, mpsc};

use crate::link::Net;
use crate::record::Recorder;

/// A stream to or from a silent peer ends after this long. Source: QUIC's usual idle timeout is 10-30 s and TCP's
/// retransmission gives up later still; a mesh that pings gives its connections less.
pub const SILENCE_NS: u64 = 5_000_000_000;

/// An attempt to open a stream to a silent peer ends after this long. Source: libp2p's default for dialling is 10 s;
/// one retransmitted SYN needs 1 s, two need 3 s.
pub const CONNECT_NS: u64 = 3_000_000_000;

/// Bytes a stream may have on the way before its sender waits. Source: Linux' largest default receive window, 6 MiB.
pub const WINDOW_BYTES: u64 = 6 << 20;

/// Frames a stream's receiver holds unread before its sender waits.
pub const UNREAD_FRAMES: usize = 64;

/// Streams that wait at a node to be accepted; one more is turned away.
pub const BACKLOG_STREAMS: usize = 1_024;

pub(crate) use planner::cost::constants::HANDSHAKE_BYTES;

/// One life of a node: a restart is somebody else under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Which node.
    pub node: NodeId,
    /// Counts its starts, from zero.
    pub incarnation: u64,
}

impl Life {
    /// Its name in the mesh.
    pub fn peer(&self) -> PeerId {
        PeerId::from_index(self.node.0)
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives then.
    Arrives(Instant),
    /// It does not, and the sender knows it then.
    Vanishes {
        /// When the sender's stream ends.
        known: Instant,
    },
}

#[derive(Debug)]
struct State {
    net: Net,
    /// By node: its starts so far.
    starts: Vec<u64>,
    /// By node: when it fell silent, if it is down.
    down_since: Vec<Option<Instant>>,
    /// When the partitions in force began.
    cut_since: Option<Instant>,
    /// Which nodes have streams to which, or had since either started.
    connected: BTreeSet<(NodeId, NodeId)>,
    /// By node: whom it finds to refuse, and when.
    refusals: Vec<VecDeque<(Instant, NodeId)>>,
}

impl State {
    /// Lets those that were connected to `node` find out that it refuses.
    fn refuse(&mut self, node: NodeId, now: Instant) -> Vec<NodeId> {
        let others = (0..self.starts.len() as u32).map(NodeId);
        let knew = |other: &NodeId| {
            self.connected.contains(&(node, *other)) || self.connected.contains(&(*other, node))
        };
        let knew: Vec<NodeId> = others.filter(|other| *other != node).filter(knew).collect();
        self.connected.retain(|(from, to)| *from != node && *to != node);
        for other in &knew {
            if let Some(told) = self.net.send(now.0, node, *other, Lane::Control, HANDSHAKE_BYTES) {
                // There with the news, and once more there and back.
                let at = Instant(now.0 + 3 * told.at_ns.saturating_sub(now.0));
                self.refusals[other.index()].push_back((at, node));
            }
        }
        knew
    }
}

/// The wires of one run. A handle: clones share them.
#[derive(Debug, Clone)]
pub struct Wires {
    state: Arc<Mutex<State>>,
    recorder: Recorder,
    /// By node: there is a new refusal.
    told: Arc<[Notify]>,
}

impl Wires {
    /// The wires of `net`'s fleet. All nodes are down until they start.
    pub(crate) fn new(net: Net, recorder: Recorder) -> Self {
        let nodes = net.fleet().nodes.len();
        let state = State {
            net,
            starts: vec![0; nodes],
            down_since: vec![Some(Instant::default()); nodes],
            cut_since: None,
            connected: BTreeSet::new(),
            refusals: vec![VecDeque::new(); nodes],
        };
        let told = (0..nodes).map(|_| Notify::new()).collect();
        Self { state: Arc::new(Mutex::new(state)), recorder, told }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something with the network model, under its lock.
    pub(crate) fn with_net<R>(&self, use_net: impl FnOnce(&mut Net) -> R) -> R {
        use_net(&mut self.state().net)
    }

    /// Begins a node's next life.
    pub(crate) fn start(&self, node: NodeId) -> Life {
        let mut state = self.state();
        let incarnation = state.starts[node.index()];
        state.starts[node.index()] += 1;
        state.down_since[node.index()] = None;
        state.refusals[node.index()].clear();
        Life { node, incarnation }
    }

    /// Ends the node's life. False when it was down already.
    pub(crate) fn stop(&self, node: NodeId, now: Instant) -> bool {
        let mut state = self.state();
        let slot = &mut state.down_since[node.index()];
        let was_up = slot.is_none();
        slot.get_or_insert(now);
        if was_up {
            for other in state.refuse(node, now) {
                self.told[other.index()].notify_one();
            }
        }
        was_up
    }

    /// There is a stream from one to the other.
    fn connect(&self, from: Life, to: Life) {
        self.state().connected.insert((from.node, to.node));
    }

    /// The next peer that refuses `life`.
    pub(crate) async fn refused<C: Clock>(&self, clock: &C, life: Life) -> PeerId {
        loop {
            let next = self.state().refusals[life.node.index()].front().copied();
            let Some((at, node)) = next else {
                self.told[life.node.index()].notified().await;
                continue;
            };
            clock.sleep_until(at).await;
            let mut state = self.state();
            state.refusals[life.node.index()].pop_front();
            let is_down = state.down_since[node.index()].is_some();
            if is_down && state.net.reaches(life.node, node) && state.net.reaches(node, life.node) {
                return PeerId::from_index(node.0);
            }
        }
    }

    /// Whether frames pass between two groups no more.
    pub(crate) fn cut(&self, a: &[NodeId], b: &[NodeId], now: Instant) {
        let mut state = self.state();
        state.net.cut(a, b);
        state.cut_since.get_or_insert(now);
    }

    /// Ends all partitions.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.net.heal();
        state.cut_since = None;
    }

    /// The node's life just now, if it is up.
    pub(crate) fn life(&self, node: NodeId) -> Option<Life> {
        let state = self.state();
        let up = state.down_since.get(node.index())?.is_none();
        up.then(|| Life { node, incarnation: state.starts[node.index()] - 1 })
    }

    /// Whether that life goes on.
    pub(crate) fn is_alive(&self, life: Life) -> bool {
        self.life(life.node) == Some(life)
    }

    /// Sends `bytes` from one life to another.
    pub(crate) fn offer(&self, now: Instant, from: Life, to: Life, lane: Lane, bytes: u64) -> Fate {
        self.pass(now, from, to, lane, bytes, None)
    }

    fn pass(
        &self,
        now: Instant,
        from: Life,
        to: Life,
        lane: Lane,
        bytes: u64,
        frame: Option<&Frame>,
    ) -> Fate {
        let given_up = Instant(now.0.saturating_add(SILENCE_NS));
        if !self.is_alive(from) {
            return Fate::Vanishes { known: given_up };
        }
        let heir = self.life(to.node);
        let mut state = self.state();
        let Some(delivery) = state.net.send(now.0, from.node, to.node, lane, bytes) else {
            return Fate::Vanishes { known: given_up };
        };
        if let Some(frame) = frame {
            self.recorder.sent(now.0, from.node, to.node, lane, frame, &delivery);
        }
        match heir {
            Some(life) if life == to => Fate::Arrives(Instant(delivery.at_ns)),
            Some(_) => Fate::Vanishes { known: Instant(2 * delivery.at_ns - now.0) },
            None => Fate::Vanishes { known: given_up },
        }
    }

    /// Since when nothing has passed from `from` to `to`, if nothing passes. A partition that was there before another
    /// one counts from its own beginning for both.
    pub(crate) fn silent_since(&self, from: Life, to: Life) -> Option<Instant> {
        if !self.is_alive(from) {
            let state = self.state();
            // A life that was followed by another ended at some time before now; its peers have waited long enough.
            return Some(state.down_since[from.node.index()].unwrap_or_default());
        }
        let mut state = self.state();
        let reaches = state.net.reaches(from.node, to.node);
        if reaches { None } else { Some(state.cut_since.unwrap_or_default()) }
    }
}

/// What lies in a receiver's queue.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A frame, and when it is there.
    Frame(Instant, Frame),
    /// The sender ended the stream in good order.
    End(Instant),
    /// What came was no frame.
    Bad(String),
}

/// A stream that a peer opened, waiting to be accepted.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) from: Life,
    pub(crate) lane: Lane,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
}

/// The sender's half of a stream, apart from what carries its bytes.
#[derive(Debug)]
pub(crate) struct SendingEnd<C: Clock> {
    pub(crate) wires: Wires,
    pub(crate) clock: C,
    pub(crate) from: Life,
    pub(crate) to: Life,
    pub(crate) lane: Lane,
    /// Frames on the way: when they arrive, and their bytes.
    on_the_way: VecDeque<(Instant, u64)>,
    /// When the sender learns that the stream has lost a frame.
    doomed: Option<Instant>,
}

impl<C: Clock> SendingEnd<C> {
    pub(crate) fn new(wires: Wires, clock: C, from: Life, to: Life, lane: Lane) -> Self {
        wires.connect(from, to);
        Self { wires, clock, from, to, lane, on_the_way: VecDeque::new(), doomed: None }
    }

    /// Waits until the window has room for `bytes` more. A frame larger than the window goes alone.
    pub(crate) async fn room(&mut self, bytes: u64) {
        loop {
            let now = self.clock.now();
            while self.on_the_way.front().is_some_and(|(at, _)| *at <= now) {
                self.on_the_way.pop_front();
            }
            let sent: u64 = self.on_the_way.iter().map(|(_, bytes)| bytes).sum();
            match self.on_the_way.front() {
                Some((at, _)) if sent + bytes > WINDOW_BYTES => self.clock.sleep_until(*at).await,
                _ => return,
            }
        }
    }

    /// Puts the frame on the wires: when it arrives, or `None` when it is lost and the sender cannot know yet.
    pub(crate) fn offer(&mut self, frame: &Frame) -> Result<Option<Instant>, NetError> {
        let now = self.clock.now();
        if self.doomed.is_some_and(|known| known <= now) {
            return Err(NetError::Closed);
        }
        let bytes = frame.wire_len();
        let fate = self.wires.pass(now, self.from, self.to, self.lane, bytes, Some(frame));
        let known = match (self.doomed, fate) {
            (None, Fate::Arrives(at)) => {
                self.on_the_way.push_back((at, bytes));
                return Ok(Some(at));
            }
            (None, Fate::Vanishes { known }) => known,
            (Some(doomed), Fate::Vanishes { known }) => doomed.min(known),
            // The other side is within reach again and answers what it cannot place.
            (Some(doomed), Fate::Arrives(at)) => doomed.min(Instant(2 * at.0 - now.0)),
        };
        self.doomed = Some(known);
        Ok(None)
    }

    /// When the peer learns that the stream has ended in good order; `None` if it cannot.
    pub(crate) fn farewell(&mut self) -> Option<Instant> {
        if self.doomed.is_some() {
            return None;
        }
        match self.wires.offer(self.clock.now(), self.from, self.to, self.lane, HANDSHAKE_BYTES) {
            Fate::Arrives(at) => Some(at),
            Fate::Vanishes { .. } => None,
        }
    }

    /// Waits for what a sender to a silent peer waits for, and says what it then knows.
    pub(crate) async fn give_up(&mut self) -> NetError {
        let known = *self.doomed.get_or_insert(Instant(self.clock.now().0.saturating_add(SILENCE_NS)));
        self.clock.sleep_until(known).await;
        NetError::Closed
    }
}

/// The receiver's half of a stream, the same in both worlds.
#[derive(Debug)]
pub struct ReceivingEnd<C: Clock> {
    wires: Wires,
    clock: C,
    from: Life,
    to: Life,
    arrivals: mpsc::Receiver<Arrival>,
    /// Taken from the queue and not due yet: kept here, so that a cancelled receive loses nothing.
    next: Option<Arrival>,
    ended: bool,
}

impl<C: Clock> ReceivingEnd<C> {
    pub(crate) fn new(wires: Wires, clock: C, to: Life, incoming: Incoming) -> (PeerId, Lane, Self) {
        let Incoming { from, lane, arrivals } = incoming;
        (from.peer(), lane, Self { wires, clock, from, to, arrivals, next: None, ended: false })
    }

    /// The next arrival; looks after the sender every [`SILENCE_NS`] while nothing comes.
    async fn arrival(&mut self) -> Result<Option<Arrival>, NetError> {
        loop {
            let patience = Instant(self.clock.now().0.saturating_add(SILENCE_NS));
            if let Ok(arrival) = self.clock.timeout_at(patience, self.arrivals.recv()).await {
                return Ok(arrival);
            }
            let silent = self.wires.silent_since(self.from, self.to);
            if silent.is_some_and(|since| since.0.saturating_add(SILENCE_NS) <= self.clock.now().0) {
                return Err(NetError::Closed);
            }
        }
    }

    /// The sender has gone without a word: the network says so at once, or patience runs out.
    async fn broken(&mut self) -> NetError {
        if let Some(since) = self.wires.silent_since(self.from, self.to) {
            self.clock.sleep_until(Instant(since.0.saturating_add(SILENCE_NS))).await;
        }
        NetError::Closed
    }
}

impl<C: Clock> node::transport::Rx for ReceivingEnd<C> {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        if self.ended {
            return Err(NetError::Closed);
        }
        if self.next.is_none() {
            self.next = match self.arrival().await {
                Ok(arrival) => arrival,
                Err(gone) => {
                    self.ended = true;
                    return Err(gone);
                }
            };
        }
        if let Some(Arrival::Frame(at, _) | Arrival::End(at)) = &self.next {
            let at = *at;
            self.clock.sleep_until(at).await;
        }
        match self.next.take() {
            Some(Arrival::Frame(_, frame)) => return Ok(Some(frame)),
            Some(Arrival::End(_)) => self.ended = true,
            Some(Arrival::Bad(what)) => {
                self.ended = true;
                return Err(NetError::BadFrame(what));
            }
            None => {
                let gone = self.broken().await;
                self.ended = true;
                return Err(gone);
            }
        }
        Ok(None)
    }
}
