//! The world of figures and of thousands of nodes: every node a task of one paused runtime, frames handed over in
//! memory at the time the network model says. Time jumps from one deadline to the next ([`Timeline`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use node::clock::{Clock, Instant};
use node::ids::PeerId;
use node::transport::{Lane, NetError, Transport, Tx};
use node::wire::Frame;
use node::world::World;
use planner::plan::NodeId;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet, LocalSet};

use crate::engine::SimEngine;
use crate::mesh::{Ground, Mesh, MeshError, MeshSpec, Order, Play};
use crate::record::NodeProbe;
use crate::timeline::Timeline;
use crate::wires::{
    Arrival, BACKLOG_STREAMS, CONNECT_NS, Fate, HANDSHAKE_BYTES, Incoming, Life, ReceivingEnd, SendingEnd,
    UNREAD_FRAMES, Wires,
};

/// The doors of a node in memory.
#[derive(Debug)]
pub struct Memory;

impl World for Memory {
    type Transport = MemoryTransport;
    type Engine = SimEngine<Timeline>;
    type Clock = Timeline;
    type Probe = NodeProbe;
}

/// Where each node's next stream is put.
type Ports = Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Incoming>>>>;

/// A node's network in memory.
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    life: Life,
    wires: Wires,
    clock: Timeline,
    ports: Ports,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<Incoming>>>,
}

impl MemoryTransport {
    fn new(life: Life, wires: Wires, clock: Timeline, ports: Ports) -> Self {
        let (port, incoming) = mpsc::channel(BACKLOG_STREAMS);
        ports.lock().unwrap_or_else(PoisonError::into_inner).insert(life.node, port);
        Self { life, wires, clock, ports, incoming: Arc::new(tokio::sync::Mutex::new(incoming)) }
    }

    /// One message of the handshake; false when it does not arrive.
    async fn shake(&self, from: Life, to: Life, lane: Lane) -> bool {
        match self.wires.offer(self.clock.now(), from, to, lane, HANDSHAKE_BYTES) {
            Fate::Arrives(at) => {
                self.clock.sleep_until(at).await;
                self.wires.is_alive(to)
            }
            Fate::Vanishes { .. } => false,
        }
    }

    /// The handshake; `None` when nobody answers.
    async fn connect(&self, to: Life, lane: Lane) -> Option<MemoryTx> {
        if !self.shake(self.life, to, lane).await {
            return None;
        }
        let (queue, arrivals) = mpsc::channel(UNREAD_FRAMES);
        let incoming = Incoming { from: self.life, lane, arrivals };
        let port = self.ports.lock().unwrap_or_else(PoisonError::into_inner).get(&to.node).cloned()?;
        port.try_send(incoming).ok()?;
        if !self.shake(to, self.life, lane).await {
            return None;
        }
        let end = SendingEnd::new(self.wires.clone(), self.clock.clone(), self.life, to, lane);
        Some(MemoryTx { end, queue })
    }
}

impl Transport for MemoryTransport {
    type Tx = MemoryTx;
    type Rx = ReceivingEnd<Timeline>;

    fn local(&self) -> PeerId {
        self.life.peer()
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<MemoryTx, NetError> {
        let deadline = Instant(self.clock.now().0.saturating_add(CONNECT_NS));
        if let Some(to) = self.wires.life(NodeId(peer.index()))
            && let Some(tx) = self.connect(to, lane).await
        {
            return Ok(tx);
        }
        self.clock.sleep_until(deadline).await;
        Err(NetError::Unreachable)
    }

    async fn accept(&self) -> Result<(PeerId, Lane, ReceivingEnd<Timeline>), NetError> {
        let incoming = self.incoming.lock().await.recv().await.ok_or(NetError::Closed)?;
        Ok(ReceivingEnd::new(self.wires.clone(), self.clock.clone(), self.life, incoming))
    }

    async fn refused(&self) -> PeerId {
        self.wires.refused(&self.clock, self.life).await
    }
}

/// The sending end of a stream in memory.
#[derive(Debug)]
pub struct MemoryTx {
    end: SendingEnd<Timeline>,
    queue: mpsc::Sender<Arrival>,
}

impl Tx for MemoryTx {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        self.end.room(frame.wire_len()).await;
        let place = self.queue.reserve().await;
        // To the dead one sends as to the living, and learns of it later.
        let Some(at) = self.end.offer(&frame)? else {
            return Ok(());
        };
        place.map_err(|_| NetError::Closed)?.send(Arrival::Frame(at, frame));
        Ok(())
    }
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        if let Some(at) = self.end.farewell() {
            // Without room for it the receiver finds the queue closed, and the stream broken instead of ended.
            let _ = self.queue.try_send(Arrival::End(at));
        }
    }
}

/// The lives that go on, and what starts another.
struct Lives<P: Play> {
    ground: Ground,
    play: P,
    clock: Timeline,
    ports: Ports,
    tasks: JoinSet<()>,
    running: BTreeMap<NodeId, AbortHandle>,
}

impl<P: Play> Lives<P> {
    fn start(&mut self, node: NodeId) {
        if self.ground.wires.life(node).is_some() {
            return;
        }
        let life = self.ground.wires.start(node);
        let clock = self.clock.clone();
        let (wires, ports) = (self.ground.wires.clone(), Arc::clone(&self.ports));
        let transport = MemoryTransport::new(life, wires, clock.clone(), ports);
        let doors = self.ground.doors::<Memory, _>(life, clock, transport);
        let task = self.tasks.spawn_local(self.play.live(life, doors));
        self.running.insert(node, task);
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Start(node) => self.start(node),
            Order::Kill(node) => {
                self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
                if let Some(task) = self.running.remove(&node) {
                    task.abort();
                }
            }
            Order::Rewire => {}
        }
    }

    /// Carries out orders until the run is over.
    async fn supervise(&mut self) -> MeshError {
        loop {
            tokio::select! {
                biased;
                () = self.ground.ordered() => {
                    for order in self.ground.take_orders() {
                        self.carry_out(order);
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Some(error) = panicked(ended) {
                        return error;
                    }
                }
            }
        }
    }
}

fn panicked(ended: Result<(), JoinError>) -> Option<MeshError> {
    ended.err().filter(JoinError::is_panic).map(|error| MeshError::Broken(error.to_string()))
}

/// Puts `play` on a mesh in memory and returns when it is over.
///
/// # Errors
/// When the runtime cannot start, a node's own task panics, or nothing can happen any more.
pub fn run<P: Play>(spec: MeshSpec, play: &P) -> Result<(), MeshError> {
    let clock = Timeline::default();
    let runtime = clock.runtime().map_err(|error| MeshError::Setup(error.to_string()))?;
    LocalSet::new().block_on(&runtime, perform(Ground::new(spec), play.clone(), clock))
}

async fn perform<P: Play>(ground: Ground, play: P, clock: Timeline) -> Result<(), MeshError> {
    let directed = play.direct(Mesh::new(ground.clone(), clock.clone()));
    let nodes = ground.spec.nodes();
    let mut lives = Lives {
        ground,
        play,
        clock: clock.clone(),
        ports: Ports::default(),
        tasks: JoinSet::new(),
        running: BTreeMap::new(),
    };
    for node in nodes {
        lives.start(node);
    }
    tokio::select! {
        biased;
        error = lives.supervise() => Err(error),
        () = directed => Ok(()),
        () = clock.stalled() => Err(MeshError::Stalled),
    }
}
