//! A mesh under test, in any world: what it is made of, what its nodes run, and what a run may do to it.
//!
//! A run is written once, as a [`Play`]; [`memory::run`](crate::memory::run) and
//! [`over_turmoil::run`](crate::over_turmoil::run) put it on.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use node::clock::Clock;
use node::world::{Doors, World};
use planner::cost::constants::Software;
use planner::fleet::{Fleet, NodeId};
use planner::model::Model;
use planner::plan::LayerRange;
use tokio::sync::Notify;

use crate::engine::{Condition, EngineSpec, SimEngine};
use crate::link::Net;
use crate::record::{NodeProbe, Recorder};
use crate::scenario::FaultKind;
use crate::seed::Seed;
use crate::wires::{Life, Wires};

/// What a mesh is made of.
#[derive(Debug, Clone)]
pub struct MeshSpec {
    /// Machines and links.
    pub fleet: Fleet,
    /// What lies on the disks.
    pub model: Arc<Model>,
    /// The run's seed.
    pub seed: Seed,
    /// Relative standard deviation of each device's true speed, and of each step around that.
    pub compute_error: (f64, f64),
    /// Software costs per hop and step.
    pub software: Software,
    /// What the nodes' first lives have in memory already. Later lives begin with nothing.
    pub loaded: BTreeMap<NodeId, LayerRange>,
    /// Who writes down what happens.
    pub recorder: Recorder,
}

impl MeshSpec {
    /// All nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.fleet.ids()
    }
}

/// A run that could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// A node's task panicked or ended the world: a fault of this program, not of the scenario.
    #[error("a node broke: {0}")]
    Broken(String),
    /// Nobody waits for any time: the play has stopped before its end. A fault of this program.
    #[error("the run has stopped: everything waits for something that cannot happen")]
    Stalled,
    /// The world could not be set up.
    #[error("the world cannot start: {0}")]
    Setup(String),
}

/// What runs on a mesh. Written once for all worlds.
pub trait Play: Clone + 'static {
    /// One life of one node: it is dropped when the node crashes or the run ends, and everything it started must end
    /// with it. A life that returns leaves a node that does nothing.
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static;

    /// What happens from outside: requests, faults, the end. The run is over when this returns; it must, so every wait
    /// in it needs a deadline on the mesh's clock.
    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static;
}

/// A process to be ended or begun by the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End it, without a word.
    Kill(NodeId),
    /// Begin its next life.
    Start(NodeId),
    /// Partitions have changed.
    Rewire,
}

/// What the nodes of one run share besides time, and where its orders wait for the world to carry them out.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) spec: Arc<MeshSpec>,
    pub(crate) wires: Wires,
    conditions: Arc<Vec<Arc<Condition>>>,
    orders: Arc<Mutex<VecDeque<Order>>>,
    ordered: Arc<Notify>,
}

impl Ground {
    pub(crate) fn new(spec: MeshSpec) -> Self {
        let net = Net::with_software(spec.fleet.clone(), spec.seed.value(), spec.software);
        let conditions = spec.nodes().map(|_| Arc::default()).collect();
        Self {
            wires: Wires::new(net, spec.recorder.clone()),
            conditions: Arc::new(conditions),
            orders: Arc::default(),
            ordered: Arc::new(Notify::new()),
            spec: Arc::new(spec),
        }
    }

    /// The node's own seed.
    fn seed(&self, node: NodeId) -> Seed {
        self.spec.seed.fork("nodes").fork(&self.spec.fleet.node(node).name)
    }

    /// Everything a life of a node is handed but its network.
    pub(crate) fn doors<W, C>(&self, life: Life, clock: C, transport: W::Transport) -> Doors<W>
    where
        C: Clock,
        W: World<Clock = C, Engine = SimEngine<C>, Probe = NodeProbe>,
    {
        let node = self.spec.fleet.node(life.node);
        let seed = self.seed(life.node);
        let loaded = self.spec.loaded.get(&life.node).copied().filter(|_| life.incarnation == 0);
        let engine = EngineSpec {
            node: life.node,
            device: node.device.clone(),
            model: Arc::clone(&self.spec.model),
            has_model: node.has_model,
            software: self.spec.software,
            compute_error: self.spec.compute_error,
            seed,
            incarnation: life.incarnation,
            loaded,
        };
        let condition = Arc::clone(&self.conditions[life.node.index()]);
        // What the life before held went with it.
        self.spec.recorder.holds(life.node, 0, 0);
        Doors {
            transport,
            engine: SimEngine::new(engine, clock.clone(), self.spec.recorder.clone(), condition),
            clock,
            probe: self.spec.recorder.probe(life.node),
            seed: seed.fork_index(life.incarnation).value(),
        }
    }

    /// Orders given since the last call, in their order.
    pub(crate) fn take_orders(&self) -> VecDeque<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when there may be orders.
    pub(crate) async fn ordered(&self) {
        self.ordered.notified().await;
    }

    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.ordered.notify_one();
    }
}

/// The mesh in the hands of who directs the run.
#[derive(Debug, Clone)]
pub struct Mesh<C: Clock> {
    ground: Ground,
    clock: C,
}

impl<C: Clock> Mesh<C> {
    pub(crate) fn new(ground: Ground, clock: C) -> Self {
        Self { ground, clock }
    }

    /// The run's time: zero at its start, and comparable with every node's.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// Who writes down what happens.
    pub fn recorder(&self) -> &Recorder {
        &self.ground.spec.recorder
    }

    /// Whether the node is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.ground.wires.life(node).is_some()
    }

    /// Lets a fault happen now. Without effect: a crash of what is down, a restart of what is up, nodes that are not
    /// in the fleet.
    pub fn apply(&self, fault: &FaultKind) {
        match fault {
            FaultKind::Crash(node) => self.crash(*node),
            FaultKind::Restart(node) => self.restart(*node),
            FaultKind::SlowDown(node, times) => self.condition(*node, |device| device.slow_down(*times)),
            FaultKind::MemoryLoss(node, share) => self.condition(*node, |device| device.lose_memory(*share)),
            FaultKind::Partition(a, b) => {
                self.ground.wires.cut(a, b, self.clock.now());
                self.ground.order(Order::Rewire);
            }
            FaultKind::Heal => {
                self.ground.wires.heal();
                self.ground.order(Order::Rewire);
            }
            FaultKind::LinkChange { a, b, delay, bytes_per_s } => {
                self.ground.wires.with_net(|net| net.change_link(*a, *b, *delay, *bytes_per_s));
            }
        }
    }

    fn knows(&self, node: NodeId) -> bool {
        node.index() < self.ground.spec.fleet.nodes.len()
    }

    fn crash(&self, node: NodeId) {
        if self.knows(node) && self.ground.wires.stop(node, self.clock.now()) {
            self.ground.spec.recorder.holds(node, 0, 0);
            self.ground.order(Order::Kill(node));
        }
    }

    fn restart(&self, node: NodeId) {
        if self.knows(node) && !self.is_up(node) {
            self.ground.order(Order::Start(node));
        }
    }

    fn condition(&self, node: NodeId, change: impl FnOnce(&Condition)) {
        if let Some(condition) = self.ground.conditions.get(node.index()) {
            change(condition);
        }
    }
}
