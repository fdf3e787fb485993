//! The world of hardship: every node a host of turmoil, with real framing over its TCP, partial reads, crashes that take
//! the whole runtime with them, and partitions. The only file that names turmoil.
//!
//! **Time.** Turmoil moves in steps of one tokio millisecond (shorter ones are silently wrong), and a frame written in one
//! step is read in the next. So one simulated millisecond is made of `scale` steps, the frame's arrival by the network
//! model is stamped on it, and its receiver waits for the stamp. Waits are exact between steps
//! ([`SteppedClock`](crate::stepped::SteppedClock)). What is left is a frame that is due before turmoil can carry it: none,
//! while the shortest delay is at least two steps. [`scale_for`] picks the smallest scale for which that holds, which is
//! also the fastest: turmoil's cost is per step.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use node::clock::{Clock, Instant};
use node::framed::{encode, read_frame};
use node::ids::PeerId;
use node::transport::{Lane, NetError, Transport, Tx};
use node::wire::Frame;
use node::world::World;
use planner::cost::constants::{Software, TOKEN_FRAME_BYTES};
use planner::cost::transfer::transfer_time;
use planner::fleet::{Fleet, NodeId};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

use crate::engine::SimEngine;
use crate::mesh::{Ground, Mesh, MeshError, MeshSpec, Order, Play};
use crate::record::NodeProbe;
use crate::stepped::{Elapsed, STEP, SteppedClock};
use crate::wires::{
    Arrival, BACKLOG_STREAMS, CONNECT_NS, Fate, HANDSHAKE_BYTES, Incoming, Life, ReceivingEnd, SendingEnd,
    UNREAD_FRAMES, Wires,
};

/// Steps a delay must have to be exact: a frame sent within one step can be read in the next.
const STEPS_EXACT: f64 = 2.0;

/// Finest dilation: one step is one simulated microsecond.
pub(crate) const SCALE_MAX: u32 = 1_000;

/// Pause before a refused connection is tried again.
const DIAL_AGAIN: Duration = Duration::from_millis(1);

/// Every node listens here.
const PORT: u16 = 7_000;

/// Segments on the way in one direction of a TCP stream, and connections waiting to be accepted (turmoil panics when
/// they overflow).
const TCP_SEGMENTS: usize = 4_096;

/// The longest encoded frame that is read, bytes: a chunk's digests and a route fit many times.
const FRAME_BYTES_MAX: u32 = 16 << 20;

/// Most bytes of one write, and so of one read.
const SEGMENT_BYTES: usize = 1_448;

/// Turmoil ends a simulation that takes longer than this; the play ends it before.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What turmoil's wall clock shows at the start: any fixed time, 2020-01-01.
const EPOCH: Duration = Duration::from_secs(1_577_836_800);

/// The smallest scale at which frames between `nodes` of `fleet` are not rounded.
pub fn scale_for(fleet: &Fleet, software: &Software, nodes: &[NodeId]) -> u32 {
    let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
    let shortest_us = pairs
        .filter(|(from, to)| from != to)
        .filter_map(|(from, to)| {
            let path = fleet.path(from, to)?;
            let mean = transfer_time(&path, TOKEN_FRAME_BYTES, software);
            Some(path.delay.base_us + mean.bandwidth_us + mean.software_us)
        })
        .fold(f64::INFINITY, f64::min);
    let step_us = shortest_us / STEPS_EXACT;
    ((1e3 / step_us).ceil() as u32).clamp(1, SCALE_MAX)
}

/// Turmoil's own count, the same on every host and through restarts.
#[derive(Debug, Clone, Copy)]
pub struct Steps;

impl Elapsed for Steps {
    fn elapsed(&self) -> Duration {
        // Zero after the end, when the last destructors run.
        turmoil::sim_elapsed().unwrap_or_default()
    }
}

/// A node's time in turmoil.
pub type TurmoilClock = SteppedClock<Steps>;

/// The doors of a node in turmoil.
#[derive(Debug)]
pub struct OverTurmoil;

impl World for OverTurmoil {
    type Transport = TurmoilTransport;
    type Engine = SimEngine<TurmoilClock>;
    type Clock = TurmoilClock;
    type Probe = NodeProbe;
}

/// A node's network in turmoil.
#[derive(Debug, Clone)]
pub struct TurmoilTransport {
    life: Life,
    wires: Wires,
    clock: TurmoilClock,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<Incoming>>>,
}

impl TurmoilTransport {
    /// Sends one message of the handshake over the network model: when it arrives.
    fn shake(&self, from: Life, to: Life, lane: Lane) -> Option<Instant> {
        match self.wires.offer(self.clock.now(), from, to, lane, HANDSHAKE_BYTES) {
            Fate::Arrives(at) => Some(at),
            Fate::Vanishes { .. } => None,
        }
    }

    /// A TCP connection. A life that has begun and not come so far as to listen refuses: in the first step of a run
    /// every host but the last meets such, where in memory all listen from the start.
    async fn dial(&self, to: Life) -> Option<TcpStream> {
        loop {
            match TcpStream::connect((host(to.node), PORT)).await {
                Ok(stream) => return Some(stream),
                Err(_) if self.wires.is_alive(to) => self.clock.sleep(DIAL_AGAIN).await,
                Err(_) => return None,
            }
        }
    }

    /// Opens the stream; `None` when it is refused. Without an answer it waits for ever.
    async fn connect(&self, to: Life, lane: Lane) -> Option<TurmoilTx> {
        let there = self.shake(self.life, to, lane)?;
        let (unused, mut bytes) = self.dial(to).await?.into_split();
        write_segments(&mut bytes, &Hello { from: self.life, lane, at: there }.encode()).await.ok()?;
        self.clock.sleep_until(there).await;
        let back = self.shake(to, self.life, lane)?;
        self.clock.sleep_until(back).await;
        let end = SendingEnd::new(self.wires.clone(), self.clock.clone(), self.life, to, lane);
        Some(TurmoilTx { end, bytes, torn: false, _unused: unused })
    }
}

impl Transport for TurmoilTransport {
    type Tx = TurmoilTx;
    type Rx = ReceivingEnd<TurmoilClock>;

    fn local(&self) -> PeerId {
        self.life.peer()
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<TurmoilTx, NetError> {
        let deadline = Instant(self.clock.now().0.saturating_add(CONNECT_NS));
        if let Some(to) = self.wires.life(NodeId(peer.index()))
            && let Ok(Some(tx)) = self.clock.timeout_at(deadline, self.connect(to, lane)).await
        {
            return Ok(tx);
        }
        self.clock.sleep_until(deadline).await;
        Err(NetError::Unreachable)
    }

    async fn accept(&self) -> Result<(PeerId, Lane, ReceivingEnd<TurmoilClock>), NetError> {
        let incoming = self.incoming.lock().await.recv().await.ok_or(NetError::Closed)?;
        Ok(ReceivingEnd::new(self.wires.clone(), self.clock.clone(), self.life, incoming))
    }

    async fn refused(&self) -> PeerId {
        self.wires.refused(&self.clock, self.life).await
    }
}

/// The sending end of a stream in turmoil.
#[derive(Debug)]
pub struct TurmoilTx {
    end: SendingEnd<TurmoilClock>,
    bytes: OwnedWriteHalf,
    /// A send was dropped half-way: what would follow is no frame.
    torn: bool,
    _unused: OwnedReadHalf,
}

impl Tx for TurmoilTx {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        if self.torn {
            return Err(NetError::Closed);
        }
        self.end.room(frame.wire_len()).await;
        let Some(at) = self.end.offer(&frame)? else {
            return Ok(());
        };
        let mut envelope = vec![FRAME];
        envelope.extend(at.0.to_be_bytes());
        envelope.extend(encode(&frame)?);
        self.torn = true;
        if write_segments(&mut self.bytes, &envelope).await.is_err() {
            return Err(if self.end.wires.is_alive(self.end.to) {
                NetError::Closed
            } else {
                self.end.give_up().await
            });
        }
        self.torn = false;
        Ok(())
    }
}

impl Drop for TurmoilTx {
    fn drop(&mut self) {
        // After the end of the world there is no host to write from.
        if self.torn || turmoil::sim_elapsed().is_none() {
            return;
        }
        if let Some(at) = self.end.farewell() {
            let mut envelope = vec![END];
            envelope.extend(at.0.to_be_bytes());
            // Without it the receiver finds the stream broken instead of ended.
            let _ = Pin::new(&mut self.bytes).poll_write(&mut Context::from_waker(Waker::noop()), &envelope);
        }
    }
}

/// First byte of an envelope: a stamped frame follows.
const FRAME: u8 = 0;
/// First byte of an envelope: the stream ends in good order, at this time.
const END: u8 = 1;

/// What the opener of a stream says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hello {
    from: Life,
    lane: Lane,
    at: Instant,
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.from.node.0.to_be_bytes().to_vec();
        bytes.extend(self.from.incarnation.to_be_bytes());
        bytes.push(self.lane as u8);
        bytes.extend(self.at.0.to_be_bytes());
        bytes
    }

    async fn read(bytes: &mut BufReader<OwnedReadHalf>) -> io::Result<Self> {
        let node = NodeId(bytes.read_u32().await?);
        let incarnation = bytes.read_u64().await?;
        let lane = bytes.read_u8().await?;
        let lane = Lane::ALL.get(usize::from(lane)).copied().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { from: Life { node, incarnation }, lane, at: Instant(bytes.read_u64().await?) })
    }
}

async fn write_segments(bytes: &mut OwnedWriteHalf, envelope: &[u8]) -> io::Result<()> {
    for segment in envelope.chunks(SEGMENT_BYTES) {
        bytes.write_all(segment).await?;
    }
    Ok(())
}

/// Accepts connections for one life, for as long as its host runs.
async fn listen(listener: TcpListener, port: mpsc::Sender<Incoming>, clock: TurmoilClock) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, port.clone(), clock.clone()));
    }
}

/// Reads one connection into the queue of its stream.
async fn serve(stream: TcpStream, port: mpsc::Sender<Incoming>, clock: TurmoilClock) {
    let (bytes, _kept_open) = stream.into_split();
    let mut bytes = BufReader::new(bytes);
    let Ok(hello) = Hello::read(&mut bytes).await else { return };
    clock.sleep_until(hello.at).await;
    let (queue, arrivals) = mpsc::channel(UNREAD_FRAMES);
    if port.try_send(Incoming { from: hello.from, lane: hello.lane, arrivals }).is_err() {
        return;
    }
    loop {
        let arrival = tokio::select! {
            biased;
            () = queue.closed() => return,
            arrival = read_arrival(&mut bytes) => arrival,
        };
        let Some(arrival) = arrival else { return };
        let last = !matches!(arrival, Arrival::Frame(..));
        if queue.send(arrival).await.is_err() || last {
            return;
        }
    }
}

/// The next envelope; `None` when the connection broke.
async fn read_arrival(bytes: &mut BufReader<OwnedReadHalf>) -> Option<Arrival> {
    let kind = bytes.read_u8().await.ok()?;
    let at = Instant(bytes.read_u64().await.ok()?);
    if kind == END {
        return Some(Arrival::End(at));
    }
    match read_frame(bytes, FRAME_BYTES_MAX).await {
        Ok(Some(frame)) => Some(Arrival::Frame(at, frame)),
        Ok(None) => None,
        Err(NetError::BadFrame(what)) => Some(Arrival::Bad(what)),
        Err(_) => None,
    }
}

fn host(node: NodeId) -> String {
    format!("node-{}", node.0)
}

/// What one host runs from its start to its crash.
async fn live<P: Play>(ground: Ground, play: P, life: Life, clock: TurmoilClock) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (port, incoming) = mpsc::channel(BACKLOG_STREAMS);
    tokio::spawn(listen(listener, port, clock.clone()));
    let transport = TurmoilTransport {
        life,
        wires: ground.wires.clone(),
        clock: clock.clone(),
        incoming: Arc::new(tokio::sync::Mutex::new(incoming)),
    };
    play.live(life, ground.doors::<OverTurmoil, _>(life, clock, transport)).await;
    Ok(())
}

/// The hosts, and what was ordered of them.
///
/// What the network model let pass must not be lost by turmoil, whose TCP sends nothing twice: so a link is closed, and a
/// host ended, one step after the order, when the last segments are through (from the order on the wires take no
/// more), and opened at once.
struct Hosts<'a> {
    ground: Ground,
    sim: turmoil::Sim<'a>,
    /// Links that turmoil holds closed just now.
    closed: BTreeSet<(NodeId, NodeId)>,
    /// To be ended after the next step.
    dying: Vec<NodeId>,
    /// Whether links may have to be closed after the next step.
    closing: bool,
}

impl Hosts<'_> {
    /// One step of the world; true when the play is over.
    fn step(&mut self) -> Result<bool, MeshError> {
        let over = self.sim.step().map_err(|error| MeshError::Broken(error.to_string()))?;
        if std::mem::take(&mut self.closing) {
            self.close_links();
        }
        for node in std::mem::take(&mut self.dying) {
            self.sim.crash(host(node));
        }
        for order in self.ground.take_orders() {
            self.carry_out(order);
        }
        Ok(over)
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Rewire => {
                self.open_links();
                self.closing = true;
            }
            Order::Kill(node) => {
                self.dying.push(node);
                self.closing = true;
            }
            Order::Start(node) => {
                if self.ground.wires.life(node).is_some() {
                    return;
                }
                if self.dying.contains(&node) {
                    self.dying.retain(|dying| *dying != node);
                    self.close_links();
                    self.sim.crash(host(node));
                }
                self.sim.bounce(host(node));
                self.open_links();
            }
        }
    }

    /// Whether anything passes between the two.
    fn passes(&self, a: NodeId, b: NodeId) -> bool {
        let up = |node| self.ground.wires.life(node).is_some();
        up(a) && up(b) && self.ground.wires.with_net(|net| net.reaches(a, b))
    }

    fn open_links(&mut self) {
        let opened: Vec<_> = self.closed.iter().copied().filter(|(a, b)| self.passes(*a, *b)).collect();
        for (a, b) in opened {
            self.closed.remove(&(a, b));
            self.sim.repair(host(a), host(b));
        }
    }

    fn close_links(&mut self) {
        let nodes = self.ground.spec.nodes();
        for (a, b) in nodes.flat_map(|a| self.ground.spec.nodes().skip(a.index() + 1).map(move |b| (a, b))) {
            if !self.passes(a, b) && self.closed.insert((a, b)) {
                self.sim.partition(host(a), host(b));
            }
        }
    }
}

/// Puts `play` on a mesh of turmoil hosts and returns when it is over. `scale` is the clock's dilation, at least 1.
///
/// # Errors
/// When a node's own task panics or ends its host with an error.
pub fn run<P: Play>(spec: MeshSpec, play: &P, scale: u32) -> Result<(), MeshError> {
    let scale = scale.clamp(1, SCALE_MAX);
    perform(spec, play, &move || TurmoilClock::new(Steps, scale))
}

/// The same at so many simulated milliseconds a step: as many times faster than at a scale of 1. A frame whose delay is
/// shorter than two steps is late, by at most those two.
///
/// # Errors
/// See [`run`].
pub fn run_coarse<P: Play>(spec: MeshSpec, play: &P, step_ms: u32) -> Result<(), MeshError> {
    perform(spec, play, &move || TurmoilClock::coarse(Steps, step_ms))
}

/// Every host has a clock of its own: who waits within a step takes turns there.
fn perform<P: Play>(spec: MeshSpec, play: &P, clock: &dyn Fn() -> TurmoilClock) -> Result<(), MeshError> {
    let ground = Ground::new(spec);
    let mut sim = turmoil::Builder::new()
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .rng_seed(ground.spec.seed.fork("turmoil").value())
        .tick_duration(STEP)
        .min_message_latency(STEP)
        .max_message_latency(STEP)
        .tcp_capacity(TCP_SEGMENTS)
        .simulation_duration(FOREVER)
        .build();
    for node in ground.spec.nodes() {
        let (ground, play) = (ground.clone(), play.clone());
        // The first lives begin together, before any host runs: else those that run first find nobody there.
        let first = Cell::new(Some(ground.wires.start(node)));
        sim.host(host(node), move || {
            let life = first.take().unwrap_or_else(|| ground.wires.start(node));
            live(ground.clone(), play.clone(), life, clock())
        });
    }
    let directed = play.direct(Mesh::new(ground.clone(), clock()));
    sim.client("director", async move {
        directed.await;
        Ok(())
    });
    let mut hosts = Hosts { ground, sim, closed: BTreeSet::new(), dying: Vec::new(), closing: false };
    hosts.close_links();
    while !hosts.step()? {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use planner::cost::constants::RING;
    use planner::fleet::{Delay, LinkClass, Network};

    use super::*;

    fn fleet(base_us: f64) -> Fleet {
        let network = Network {
            name: "home".into(),
            class: LinkClass::Lan,
            delay: Delay { base_us, jitter_us: 500.0 },
            bytes_per_s: 1e12,
            shared: false,
            air_crossings: 1.0,
            access_us: 0.0,
            loss: 0.0,
            up_bytes_per_s: None,
            down_bytes_per_s: None,
        };
        let device = planner::fleet::catalog::device("apple-m1").expect("the built-in catalog has it");
        let node = |name: &str| planner::fleet::Node {
            name: name.into(),
            device: device.clone(),
            machine: name.into(),
            network: planner::fleet::NetworkId(0),
            up_bytes_per_s: None,
            down_bytes_per_s: None,
            has_model: true,
        };
        Fleet { nodes: vec![node("a"), node("b")], networks: vec![network], ..Fleet::default() }
    }

    #[test]
    fn the_scale_makes_the_shortest_delay_two_steps_and_ignores_jitter() {
        let nodes = [NodeId(0), NodeId(1)];
        assert_eq!(scale_for(&fleet(1_940.0), &RING, &nodes), 1);
        assert_eq!(scale_for(&fleet(340.0), &RING, &nodes), 5);
        assert_eq!(scale_for(&fleet(0.0), &RING, &nodes), 34);
        assert_eq!(scale_for(&fleet(0.0), &RING, &nodes[..1]), 1, "one node sends nothing");
    }
}
