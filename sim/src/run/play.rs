//! A scenario on a mesh: every node runs `node::start`, clients ask, faults strike, and at the end the mesh shows whether
//! it still serves and has let go of everything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use node::clock::{Clock, Instant};
use node::ids::PeerId;
use node::world::{Doors, World};
use node::{FleetView, Limits, NodeConfig, Replies};
use planner::fleet::NodeId;
use planner::model::Model;
use planner::place::Ask;
use planner::plan::{Epoch, Plan};
use tokio::task::JoinSet;

use super::desk::Desk;
use crate::mesh::{Mesh, Play};
use crate::outcome::Incident;
use crate::record::Activity;
use crate::scenario::{Fault, FaultKind};
use crate::wires::Life;

/// Prompt and output of a probe, tokens: a short question.
const PROBE: (u32, u32) = (8, 4);

/// Time for streams to close after clients have hung up.
const SETTLE: Duration = Duration::from_secs(1);

/// The longest that clients wait for a mesh to agree on its first plan.
const WARM_UP: Duration = Duration::from_secs(120);

/// How often it is looked whether all KV is free.
const LOOK: Duration = Duration::from_millis(20);

/// What every node is told.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) view: Arc<FleetView>,
    pub(super) model: Arc<Model>,
    pub(super) ask: Ask,
    pub(super) plan: Plan,
    pub(super) limits: Limits,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The requests.
    pub(super) limit_us: f64,
    /// A probe after the last fault; `None` where none is sent.
    pub(super) probe_us: Option<f64>,
    /// KV to be freed after the last request.
    pub(super) kv_us: f64,
}

/// What the director wrote down.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) incidents: Vec<Incident>,
    /// The faults that struck, and when, nanoseconds.
    pub(super) struck: Vec<(u64, FaultKind)>,
    /// When the first client could come, nanoseconds.
    pub(super) opened_ns: u64,
    /// When the requests were over, nanoseconds.
    pub(super) ended_ns: u64,
    /// What each node had done by then.
    pub(super) activity: Vec<Activity>,
    /// Sessions whose KV each node still held at the very end.
    pub(super) kv_left: Vec<u32>,
}

/// A run of this project's ring.
#[derive(Debug, Clone)]
pub(super) struct RingPlay {
    pub(super) orders: Arc<Orders>,
    pub(super) desk: Desk,
    pub(super) faults: Arc<Vec<Fault>>,
    pub(super) bounds: Bounds,
    log: Arc<Mutex<Log>>,
}

impl RingPlay {
    pub(super) fn new(orders: Orders, desk: Desk, faults: Vec<Fault>, bounds: Bounds) -> Self {
        Self { orders: Arc::new(orders), desk, faults: Arc::new(faults), bounds, log: Arc::default() }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing below panics half-way through a change.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the director wrote down.
    pub(super) fn take_log(&self) -> Log {
        std::mem::take(&mut *self.log())
    }

    /// What a life of a node is told.
    pub(super) fn config(&self, life: Life) -> NodeConfig {
        let orders = &self.orders;
        // A node that starts again knows no plan: it hears of it from the others.
        let initial = (life.incarnation == 0).then(|| (Epoch(1), orders.plan.clone()));
        NodeConfig {
            view: Arc::clone(&orders.view),
            model: Arc::clone(&orders.model),
            ask: orders.ask.clone(),
            initial,
            cut: Vec::new(),
            least: None,
            copies: false,
            limits: orders.limits,
            incarnation: life.incarnation,
        }
    }
}

impl Play for RingPlay {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        live(self.desk.clone(), self.config(life), life, doors)
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let play = self.clone();
        async move {
            let rest = serve(&play, &mesh).await;
            take_stock(&play, &mesh);
            end(&play, &mesh, &rest).await;
        }
    }
}

/// One life of a node, and the clients beside it.
async fn live<W: World>(desk: Desk, config: NodeConfig, life: Life, doors: Doors<W>) {
    let clock = doors.clock.clone();
    let mut inbox = desk.enter(life, clock.now());
    let node = node::start(doors, config);
    let mut clients = JoinSet::new();
    let mut announced = false;
    loop {
        let next = desk.next_at(life.node);
        let next_client = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(index) = inbox.recv() => {
                if let Some(request) = desk.begin(index, life, clock.now()) {
                    clients.spawn(listen(desk.clone(), clock.clone(), life, index, node.ask(request)));
                }
            }
            () = node.until_whole(), if !announced => {
                announced = true;
                desk.knows_plan(life.node);
            }
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            () = next_client => {
                desk.dispatch(clock.now());
            }
        }
    }
}

/// One client listens to its answer.
async fn listen<C: Clock>(desk: Desk, clock: C, life: Life, index: usize, mut replies: Replies) {
    loop {
        let reply = tokio::select! {
            biased;
            reply = replies.next() => reply,
            () = desk.hung_up() => return,
        };
        if desk.hear(index, life, clock.now(), reply) {
            // Whoever asks next at once, asks now: the director may be a step behind.
            desk.dispatch(clock.now());
            return;
        }
    }
}

/// Waits until the mesh has agreed on its first plan: clients come to a mesh that is up. Returns when they come.
async fn open<C: Clock>(play: &RingPlay, mesh: &Mesh<C>) -> Instant {
    let deadline = Instant::default().after(WARM_UP);
    while !play.desk.is_ready() && mesh.clock().now() < deadline {
        tokio::select! {
            biased;
            () = play.desk.changed() => {}
            () = mesh.clock().sleep_until(deadline) => {}
        }
    }
    let now = mesh.clock().now();
    play.desk.open(now);
    play.log().opened_ns = now.0;
    now
}

/// Requests and faults, until all requests are over or time is; their times count from when clients come. Returns the faults that did not come to strike.
async fn serve<C: Clock>(play: &RingPlay, mesh: &Mesh<C>) -> Vec<Fault> {
    let opened = open(play, mesh).await;
    let limit = after(opened, play.bounds.limit_us);
    let mut faults = play.faults.iter().peekable();
    loop {
        let now = mesh.clock().now();
        while let Some(fault) = faults.next_if(|fault| after(opened, fault.at_us) <= now) {
            strike(play, mesh, &fault.kind);
        }
        let next_ask = play.desk.dispatch(now).map(Instant);
        if play.desk.is_over() || now >= limit {
            return faults.cloned().collect();
        }
        let next_fault = faults.peek().map(|fault| after(opened, fault.at_us));
        let next = [next_ask, next_fault, Some(limit)].into_iter().flatten().min().unwrap_or(limit);
        tokio::select! {
            biased;
            () = play.desk.changed() => {}
            () = mesh.clock().sleep_until(next) => {}
        }
    }
}

fn strike<C: Clock>(play: &RingPlay, mesh: &Mesh<C>, fault: &FaultKind) {
    let now = mesh.clock().now();
    let without_effect = match fault {
        FaultKind::Crash(node) => !mesh.is_up(*node),
        FaultKind::Restart(node) => mesh.is_up(*node),
        _ => false,
    };
    if without_effect {
        return;
    }
    mesh.apply(fault);
    if let FaultKind::Crash(node) = fault {
        play.desk.leave(*node, now);
    }
    let what = crate::faults::describe(fault, &play.orders.view.fleet);
    let mut log = play.log();
    log.incidents.push(Incident { at_us: now.0 as f64 / 1e3, what, pause_us: None });
    log.struck.push((now.0, fault.clone()));
}

/// The requests are over: what was done up to now is what the figures are about.
fn take_stock<C: Clock>(play: &RingPlay, mesh: &Mesh<C>) {
    let nodes = play.orders.view.fleet.ids();
    let ledger = mesh.recorder().ledger();
    let activity = nodes.map(|node| ledger.activity(node)).collect();
    drop(ledger);
    let mut log = play.log();
    log.ended_ns = mesh.clock().now().0;
    log.activity = activity;
}

/// Repairs what is still to be repaired, probes, and waits for KV to be freed.
async fn end<C: Clock>(play: &RingPlay, mesh: &Mesh<C>, rest: &[Fault]) {
    let clock = mesh.clock();
    play.desk.hang_up();
    for fault in rest.iter().filter(|f| matches!(f.kind, FaultKind::Restart(_) | FaultKind::Heal)) {
        mesh.apply(&fault.kind);
    }
    if let Some(probe_us) = play.bounds.probe_us {
        clock.sleep(SETTLE).await;
        play.desk.listen_again();
        probe(play, mesh, probe_us).await;
        play.desk.hang_up();
    }
    let deadline = after(clock.now(), play.bounds.kv_us);
    let nodes: Vec<NodeId> = play.orders.view.fleet.ids().collect();
    loop {
        let left = kv_held(mesh, &nodes);
        if left.iter().all(|held| *held == 0) || clock.now() >= deadline {
            play.log().kv_left = left;
            return;
        }
        clock.sleep(LOOK).await;
    }
}

/// Sessions whose KV each node holds.
fn kv_held<C: Clock>(mesh: &Mesh<C>, nodes: &[NodeId]) -> Vec<u32> {
    let ledger = mesh.recorder().ledger();
    nodes.iter().map(|node| ledger.activity(*node).kv_sessions).collect()
}

/// Asks a short question at every entry that is up, and waits for the answers.
async fn probe<C: Clock>(play: &RingPlay, mesh: &Mesh<C>, within_us: f64) {
    let clock = mesh.clock();
    let deadline = after(clock.now(), within_us);
    play.desk.probe(clock.now(), PROBE.0, PROBE.1);
    loop {
        let now = clock.now();
        let next = play.desk.dispatch(now).map_or(deadline, Instant).min(deadline);
        if play.desk.is_over() || now >= deadline {
            return;
        }
        tokio::select! {
            biased;
            () = play.desk.changed() => {}
            () = clock.sleep_until(next) => {}
        }
    }
}

/// Names of a fleet's nodes in a simulated mesh.
pub(super) fn peers(nodes: usize) -> Vec<PeerId> {
    (0..nodes as u32).map(PeerId::from_index).collect()
}

fn after(at: Instant, us: f64) -> Instant {
    Instant(at.0.saturating_add((us * 1e3) as u64))
}
