//! A network in memory: streams keep their order; nodes can be killed and parted, streams slowed down and broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use node::clock::{Clock, Instant, TokioClock};
use node::ids::PeerId;
use node::transport::{Lane, NetError, Rx, Transport, Tx};
use node::wire::Frame;
use tokio::sync::{Notify, mpsc};

/// One way.
pub(crate) const DELAY: Duration = Duration::from_millis(2);
/// Frames on a stream before its sender waits.
const WINDOW: usize = 32;
/// Until somebody says that nobody is there.
const CONNECT: Duration = Duration::from_millis(300);
/// Until a connection or a stream is given up that nobody answers.
const SILENCE: Duration = Duration::from_secs(3);

type Incoming = (PeerId, Lane, NetRx);

#[derive(Default)]
struct State {
    ports: BTreeMap<u32, mpsc::Sender<Incoming>>,
    /// Which life of each node is on; none while it is dead.
    lives: BTreeMap<u32, u64>,
    parted: BTreeSet<(u32, u32)>,
    /// How much longer frames take from the first to the second.
    slow: BTreeMap<(u32, u32), Duration>,
    /// How often the streams between two nodes were broken.
    broken: BTreeMap<(u32, u32), u64>,
    /// Frames of the data plane sent so far.
    sent: usize,
    /// Kill that node when so many were sent.
    trap: Option<(usize, u32)>,
    /// How often the streams from one to another were made to hang.
    hung: BTreeMap<(u32, u32), u64>,
    /// Nobody says so when a node is dead.
    dead_are_silent: bool,
    log: Vec<(u32, u32, Lane, Frame)>,
    logging: bool,
}

/// The network. Clones share it.
#[derive(Clone)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    pub(crate) clock: TokioClock,
    /// Somebody walked into the trap.
    pub(crate) sprung: Arc<Notify>,
}

impl Net {
    pub(crate) fn new(clock: TokioClock) -> Self {
        Self { state: Arc::default(), clock, sprung: Arc::new(Notify::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A new life of `node`.
    pub(crate) fn join(&self, node: u32, life: u64) -> NetTransport {
        let (port, incoming) = mpsc::channel(1024);
        let mut state = self.lock();
        state.ports.insert(node, port);
        state.lives.insert(node, life);
        drop(state);
        NetTransport { net: self.clone(), node, life, incoming: Arc::new(tokio::sync::Mutex::new(incoming)) }
    }

    pub(crate) fn leave(&self, node: u32) {
        let mut state = self.lock();
        state.ports.remove(&node);
        state.lives.remove(&node);
    }

    pub(crate) fn part(&self, a: u32, b: u32) {
        self.lock().parted.extend([(a, b), (b, a)]);
    }

    /// Nothing gets from one to the other, but it does the other way.
    pub(crate) fn deafen(&self, from: u32, to: u32) {
        self.lock().parted.insert((from, to));
    }

    pub(crate) fn slow(&self, from: u32, to: u32, by: Duration) {
        self.lock().slow.insert((from, to), by);
    }

    /// Breaks all streams between two nodes; new ones can be opened at once.
    pub(crate) fn break_streams(&self, a: u32, b: u32) {
        let mut state = self.lock();
        for pair in [(a, b), (b, a)] {
            *state.broken.entry(pair).or_default() += 1;
        }
    }

    /// What is sent over the streams from one to the other that are open now vanishes; its sender is told late.
    pub(crate) fn hang_streams(&self, from: u32, to: u32) {
        *self.lock().hung.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.parted.clear();
        state.slow.clear();
    }

    /// From now on nodes die of power cuts: what is sent to an earlier life vanishes, and its sender is told late.
    pub(crate) fn silence_the_dead(&self) {
        self.lock().dead_are_silent = true;
    }

    fn dead_are_silent(&self) -> bool {
        self.lock().dead_are_silent
    }

    fn hangs(&self, from: u32, to: u32) -> u64 {
        self.lock().hung.get(&(from, to)).copied().unwrap_or_default()
    }

    fn breaks(&self, from: u32, to: u32) -> u64 {
        self.lock().broken.get(&(from, to)).copied().unwrap_or_default()
    }

    /// One way from the first to the second.
    fn delay(&self, from: u32, to: u32) -> Duration {
        DELAY + self.lock().slow.get(&(from, to)).copied().unwrap_or_default()
    }

    pub(crate) fn set_trap(&self, after: usize, node: u32) {
        self.lock().trap = Some((after, node));
    }

    pub(crate) fn sent(&self) -> usize {
        self.lock().sent
    }

    pub(crate) fn keep_log(&self) {
        self.lock().logging = true;
    }

    pub(crate) fn log(&self) -> Vec<(u32, u32, Lane, Frame)> {
        self.lock().log.clone()
    }

    /// Puts a frame into a node as if `from` had sent it.
    pub(crate) async fn forge(&self, from: u32, to: u32, frame: Frame) {
        let (queue, frames) = mpsc::channel(1);
        let life = self.lock().lives[&from];
        let rx = NetRx { net: self.clone(), from: (from, life), to, breaks: self.breaks(from, to), frames };
        let port = self.lock().ports[&to].clone();
        port.send((PeerId::from_index(from), Lane::Decode, rx)).await.unwrap();
        queue.send((self.clock.now(), frame)).await.unwrap();
        tokio::task::yield_now().await;
    }

    fn lives(&self, node: u32, life: u64) -> bool {
        self.lock().lives.get(&node) == Some(&life)
    }

    /// Whether the frame leaves, and the trap it springs.
    fn pass(&self, from: u32, to: u32, lane: Lane, frame: &Frame) -> bool {
        let mut state = self.lock();
        if state.logging {
            state.log.push((from, to, lane, frame.clone()));
        }
        if !matches!(frame, Frame::Control(_)) {
            state.sent += 1;
            if state.trap.is_some_and(|(after, _)| state.sent == after) {
                let (_, node) = state.trap.take().unwrap();
                state.ports.remove(&node);
                state.lives.remove(&node);
                self.sprung.notify_one();
            }
        }
        !state.parted.contains(&(from, to))
    }
}

#[derive(Clone)]
pub(crate) struct NetTransport {
    net: Net,
    node: u32,
    life: u64,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<Incoming>>>,
}

impl Transport for NetTransport {
    type Tx = NetTx;
    type Rx = NetRx;

    fn local(&self) -> PeerId {
        PeerId::from_index(self.node)
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<NetTx, NetError> {
        let to = peer.index();
        assert_ne!(to, self.node, "a node must not reach itself over the network");
        let port = {
            let state = self.net.lock();
            let parted = state.parted.contains(&(self.node, to));
            state.ports.get(&to).filter(|_| !parted).cloned().zip(state.lives.get(&to).copied())
        };
        let Some((port, life)) = port else {
            let patience = if self.net.dead_are_silent() { SILENCE } else { CONNECT };
            self.net.clock.sleep(patience).await;
            return Err(NetError::Unreachable);
        };
        self.net.clock.sleep(self.net.delay(self.node, to) + self.net.delay(to, self.node)).await;
        let (queue, frames) = mpsc::channel(WINDOW);
        let (from, breaks) = ((self.node, self.life), self.net.breaks(self.node, to));
        let rx = NetRx { net: self.net.clone(), from, to, breaks, frames };
        let local = self.local();
        port.send((local, lane, rx)).await.map_err(|_| NetError::Unreachable)?;
        let hangs = self.net.hangs(self.node, to);
        let (net, from, to) = (self.net.clone(), self.node, (to, life));
        Ok(NetTx { net, from, to, breaks, hangs, given_up: None, lane, queue })
    }

    async fn accept(&self) -> Result<(PeerId, Lane, NetRx), NetError> {
        self.incoming.lock().await.recv().await.ok_or(NetError::Closed)
    }
}

pub(crate) struct NetTx {
    net: Net,
    from: u32,
    to: (u32, u64),
    breaks: u64,
    hangs: u64,
    /// When the sender learns that a frame vanished.
    given_up: Option<Instant>,
    lane: Lane,
    queue: mpsc::Sender<(Instant, Frame)>,
}

impl Tx for NetTx {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        let passes = self.net.pass(self.from, self.to.0, self.lane, &frame);
        let is_broken = self.net.breaks(self.from, self.to.0) != self.breaks;
        let is_dead = !self.net.lives(self.to.0, self.to.1);
        let now = self.net.clock.now();
        if is_broken || (is_dead && !self.net.dead_are_silent()) || self.given_up.is_some_and(|at| at <= now)
        {
            return Err(NetError::Closed);
        }
        if is_dead || self.net.hangs(self.from, self.to.0) != self.hangs {
            self.given_up.get_or_insert(now.after(SILENCE));
            return Ok(());
        }
        // What goes into a partition is lost, and nobody is told.
        if !passes {
            return Ok(());
        }
        let at = now.after(self.net.delay(self.from, self.to.0));
        self.queue.send((at, frame)).await.map_err(|_| NetError::Closed)
    }
}

pub(crate) struct NetRx {
    net: Net,
    from: (u32, u64),
    to: u32,
    breaks: u64,
    frames: mpsc::Receiver<(Instant, Frame)>,
}

impl Rx for NetRx {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        let frame = self.frames.recv().await;
        let is_broken = || self.net.breaks(self.from.0, self.to) != self.breaks;
        match frame {
            Some((at, frame)) => {
                self.net.clock.sleep_until(at).await;
                if is_broken() { Err(NetError::Closed) } else { Ok(Some(frame)) }
            }
            None if is_broken() => Err(NetError::Closed),
            None if self.net.lives(self.from.0, self.from.1) => Ok(None),
            None => {
                self.net.clock.sleep(DELAY).await;
                Err(NetError::Closed)
            }
        }
    }
}
