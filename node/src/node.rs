//! Starting a node, and the handle to one that runs.

use std::sync::Arc;

use planner::model::Model;
use planner::place::{Ask, place, replan};
use planner::plan::{Epoch, Plan};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::mpsc;

use crate::control::{self, ControlDoor, Core, Least, Report, Search, Setup};
use crate::head::{Head, Refused, Replies, Reply, Request};
use crate::heads::Heads;
use crate::ids::{PeerId, SessionId};
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
use crate::view::{FleetView, Views};
use crate::world::{Doors, World};

/// What a node is told when it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Machines, links and names, as far as they are known when the node starts; [`NodeHandle::see`] tells of others.
    /// Shared, since a fleet may be large.
    pub view: Arc<FleetView>,
    /// The model that the mesh runs.
    pub model: Arc<Model>,
    /// What plans must be good at and keep.
    pub ask: Ask,
    /// The plan to begin with, the same on every node. Its layers are loaded first; `None` lets the planning node
    /// search for one.
    pub initial: Option<(Epoch, Plan)>,
    /// Where the model is to be cut, layers, the same on every node: the first plan waits for as many nodes as that takes.
    /// A plan that must be mended is free to cut otherwise. Empty for wherever is best.
    pub cut: Vec<u32>,
    /// The least room that will do where memory is short; `None` for what `ask` says.
    pub least: Option<Least>,
    /// Whether machines that the best plan leaves out serve copies of their own, as far as they can.
    pub copies: bool,
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
    fn me(&self) -> PeerId;
    fn views(&self) -> &Views;
    fn leave(self: Arc<Self>);
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

    fn me(&self) -> PeerId {
        self.me
    }

    fn views(&self) -> &Views {
        &self.views
    }

    fn leave(self: Arc<Self>) {
        let node = Arc::clone(&self);
        self.tasks.spawn(async move { node.control.report(Report::Leaving).await });
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

    /// This node's name.
    pub fn me(&self) -> PeerId {
        self.node.me()
    }

    /// The fleet as this node knows it.
    pub fn view(&self) -> Arc<FleetView> {
        self.node.views().current()
    }

    /// Tells the node that the fleet is now this: machines have joined, or are known better. Machines that it knows must
    /// be in `view` under the same numbers; otherwise nothing changes. Gives whether the view was taken.
    pub fn see(&self, view: Arc<FleetView>) -> bool {
        self.node.views().renew(view)
    }

    /// The number of the plan this node follows; zero without one.
    pub fn epoch(&self) -> Epoch {
        self.node.plans().epoch()
    }

    /// The plan this node follows and which of its replicas serve, as far as this node knows.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.node.plans().current()
    }

    /// Asks the mesh to go on without this node, which will end: what it computes is planned elsewhere, if others can.
    pub fn leave(&self) {
        Arc::clone(&self.node).leave();
    }

    /// Whether the plan gives this node layers.
    pub fn is_staged(&self) -> bool {
        let me = self.view().id(self.node.me());
        self.published().is_some_and(|p| me.is_some_and(|me| p.plan.layers_of(me).is_some()))
    }

    /// Completes when the plan, or what of it serves, changes next after this call.
    pub fn changed(&self) -> OwnedNotified {
        self.node.plans().changed()
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
    let NodeConfig { view, model, ask, initial, cut, least, copies, limits, incarnation } = config;
    let Doors { transport, engine, clock, probe, seed: _ } = doors;
    let peer = transport.local();
    let me = view.id(peer).expect("a world names every node in the fleet view it hands out");
    let (stage, stage_intake) = StageDoor::new(limits.stage_queue.max(1));
    let (control, control_intake) = ControlDoor::new(limits.stage_queue.max(1));
    let search = Search { fresh: place, chosen: planner::place::cut, repair: replan };
    let setup = Setup {
        me,
        view: view.clone(),
        model: model.clone(),
        ask,
        cut,
        least,
        copies,
        limits,
        incarnation,
        search,
    };
    let node = Arc::new(Interior::<W> {
        me: peer,
        incarnation,
        views: Views::new(view),
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
