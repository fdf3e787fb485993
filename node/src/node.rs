//! Starting a node, and the handle to one that runs.

use std::sync::Arc;

use planner::model::Model;
use planner::place::{Ask, place, replan};
use planner::plan::{Epoch, Plan};
use tokio::sync::mpsc;

use crate::control::{self, ControlDoor, Core, Search, Setup};
use crate::head::{Head, Refused, Replies, Reply, Request};
use crate::heads::Heads;
use crate::ids::SessionId;
use crate::intake;
use crate::interior::Interior;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::plans::{Plans, Published};
use crate::probe::Event;
use crate::stage::{self, StageDoor};
use crate::tasks::Tasks;
use crate::transport::Transport;
use crate::view::FleetView;
use crate::world::{Doors, World};

/// What a node is told when it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Machines, links and names, the same on every node. Shared, since a fleet may be large.
    pub view: Arc<FleetView>,
    /// The model that the mesh runs.
    pub model: Arc<Model>,
    /// What plans must be good at and keep.
    pub ask: Ask,
    /// The plan to begin with, the same on every node. Its layers are loaded first; `None` lets the planning node
    /// search for one.
    pub initial: Option<(Epoch, Plan)>,
    /// Its bounds.
    pub limits: Limits,
    /// Grows with every start of the node.
    pub incarnation: u64,
}

/// What a handle needs of a node, whatever world that is in.
trait Running: Send + Sync {
    fn ask(self: Arc<Self>, request: Request) -> Replies;
    fn held(&self) -> Vec<SessionId>;
    fn plans(&self) -> &Plans;
    fn heads(&self) -> usize;
    fn end(&self);
}

impl<W: World> Running for Interior<W> {
    fn ask(self: Arc<Self>, request: Request) -> Replies {
        let (sender, queue) = mpsc::channel(self.limits.reply_queue.max(1));
        if self.heads.count() >= self.limits.sessions {
            let why =
                format!("this node serves {} sessions already; try another or later", self.limits.sessions);
            self.tell(Event::Refused { session: request.session, why: why.clone() });
            let _ = sender.try_send(Reply::Refused(Refused::Full(why)));
        } else {
            let head = Head::new(Arc::clone(&self), request, sender);
            self.tasks.spawn(head.run());
        }
        Replies::new(queue)
    }

    fn held(&self) -> Vec<SessionId> {
        self.stage.held()
    }

    fn plans(&self) -> &Plans {
        &self.plans
    }

    fn heads(&self) -> usize {
        self.heads.count()
    }

    fn end(&self) {
        self.tasks.end();
    }
}

/// A running node. Dropping it ends the node and everything it started.
pub struct NodeHandle {
    node: Arc<dyn Running>,
}

impl NodeHandle {
    /// Takes a request on. The answer comes as it is made; dropping it cancels the request.
    pub fn ask(&self, request: Request) -> Replies {
        Arc::clone(&self.node).ask(request)
    }

    /// Sessions whose KV this node's stage holds, ascending.
    pub fn held(&self) -> Vec<SessionId> {
        self.node.held()
    }

    /// Sessions whose head runs on this node.
    pub fn sessions(&self) -> usize {
        self.node.heads()
    }

    /// The number of the plan this node follows; zero without one.
    pub fn epoch(&self) -> Epoch {
        self.node.plans().epoch()
    }

    /// The plan this node follows and which of its replicas serve, as far as this node knows.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.node.plans().current()
    }

    /// Returns when at least one replica serves. Wrap it in a deadline.
    pub async fn until_serving(&self) {
        self.until(|published| !published.serving.is_empty()).await;
    }

    /// Returns when every replica of the plan serves. Wrap it in a deadline.
    pub async fn until_whole(&self) {
        self.until(|published| published.serving.len() == published.plan.replicas.len()).await;
    }

    async fn until(&self, holds: impl Fn(&Published) -> bool) {
        loop {
            let changed = self.node.plans().changed();
            if self.published().is_some_and(|published| holds(&published)) {
                return;
            }
            changed.await;
        }
    }
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.node.end();
    }
}

/// Starts a node on the current tokio runtime.
///
/// # Panics
/// When the fleet view does not name the transport's own peer: that node could neither plan nor be planned for.
pub fn start<W: World>(doors: Doors<W>, config: NodeConfig) -> NodeHandle {
    let NodeConfig { view, model, ask, initial, limits, incarnation } = config;
    let Doors { transport, engine, clock, probe, seed: _ } = doors;
    let peer = transport.local();
    let me = view.id(peer).expect("a world names every node in the fleet view it hands out");
    let (stage, stage_intake) = StageDoor::new(limits.stage_queue.max(1));
    let (control, control_intake) = ControlDoor::new(limits.stage_queue.max(1));
    let search = Search { fresh: place, repair: replan };
    let setup = Setup { me, view: view.clone(), model: model.clone(), ask, limits, incarnation, search };
    let node = Arc::new(Interior::<W> {
        me: peer,
        incarnation,
        view,
        model,
        limits,
        transport,
        clock,
        probe,
        plans: Plans::default(),
        ledger: Ledger::new(limits.local_preference),
        heads: Heads::default(),
        outbox: Outbox::default(),
        stage,
        control,
        tasks: Tasks::new(),
    });
    let core = Core::new(setup);
    node.tasks.spawn(control::run(Arc::clone(&node), core, control_intake, initial));
    node.tasks.spawn(stage::run(Arc::clone(&node), engine, stage_intake));
    node.tasks.spawn(intake::accept(Arc::clone(&node)));
    NodeHandle { node }
}
