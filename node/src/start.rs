//! Starting a node: its parts, their queues, and the handle that ends them when it is dropped.

use std::sync::{Arc, Mutex};

use planner::model::Model;
use planner::place::Ask;
use planner::plan::{Epoch, Plan};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::control::{self, ControlInput};
use crate::head::{Replies, Request, take_on};
use crate::hub::{Hub, Shared};
use crate::ids::{PeerId, SessionId};
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::plans::Plans;
use crate::router::FleetView;
use crate::stage::{Stage, StageInput};
use crate::tasks::Tasks;
use crate::transport::{Lane, Rx, Transport};
use crate::world::{Doors, World};

/// What a node is told at its start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The fleet everybody knows.
    pub view: Arc<FleetView>,
    /// What is served.
    pub model: Arc<Model>,
    /// What plans are to be best at, and must keep.
    pub ask: Ask,
    /// A plan to begin with; without one the planning node makes one.
    pub initial: Option<(Epoch, Plan)>,
    /// Every bound.
    pub limits: Limits,
    /// Differs with every start of this node.
    pub incarnation: u64,
}

/// A running node. Dropping it ends everything it does, at once.
pub struct NodeHandle<W: World> {
    hub: Hub<W>,
}

impl<W: World> std::fmt::Debug for NodeHandle<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle").field("peer", &self.hub.local()).finish_non_exhaustive()
    }
}

impl<W: World> NodeHandle<W> {
    /// A request to this node.
    pub fn ask(&self, request: Request) -> Replies {
        take_on(&self.hub, request)
    }

    /// The plan this node follows.
    pub fn epoch(&self) -> Epoch {
        self.hub.plans.epoch()
    }

    /// This node's board of plans.
    pub fn plans(&self) -> &Plans {
        &self.hub.plans
    }

    /// This node's name.
    pub fn peer(&self) -> PeerId {
        self.hub.local()
    }

    /// Sessions whose KV this node's device holds, ascending.
    pub async fn held(&self) -> Vec<SessionId> {
        let (reply, held) = oneshot::channel();
        if self.hub.stage.send(StageInput::Held(reply)).await.is_err() {
            return Vec::new();
        }
        held.await.unwrap_or_default()
    }
}

impl<W: World> Drop for NodeHandle<W> {
    fn drop(&mut self) {
        self.hub.tasks.end();
    }
}

/// Starts a node on the current tokio runtime.
pub fn start<W: World>(doors: Doors<W>, config: NodeConfig) -> NodeHandle<W> {
    let Doors { transport, engine, clock, probe, seed: _ } = doors;
    let NodeConfig { view, model, ask, initial, limits, incarnation } = config;
    let (stage, stage_inputs) = mpsc::channel(limits.inbox_frames);
    let (control, control_inputs) = mpsc::channel::<ControlInput>(limits.inbox_frames);
    let hub = Hub::new(Shared {
        transport,
        clock,
        probe,
        view: Arc::clone(&view),
        model: Arc::clone(&model),
        limits,
        plans: Plans::default(),
        tasks: Tasks::default(),
        outbox: Outbox::default(),
        heads: Mutex::default(),
        stage,
        control,
    });
    hub.tasks.spawn(Stage::new(hub.clone(), engine).run(stage_inputs));
    hub.tasks.spawn(accept(hub.clone()));
    if let Some(me) = hub.node() {
        let ping = limits.ping_every(view.fleet.nodes.len());
        let setting =
            control::Setting { me, view, model, ask, incarnation, ping, misses: limits.ping_misses };
        hub.tasks.spawn(control::run(hub.clone(), setting, initial, control_inputs));
    }
    NodeHandle { hub }
}

/// Takes streams from other peers, and reads each.
async fn accept<W: World>(hub: Hub<W>) {
    loop {
        match hub.transport.accept().await {
            Ok((peer, lane, stream)) => hub.tasks.spawn(read(hub.clone(), peer, lane, stream)),
            Err(_) => hub.clock.sleep(hub.limits.reconnect).await,
        }
    }
}

/// Reads one stream to its end. Strangers to the fleet are not listened to.
async fn read<W: World>(hub: Hub<W>, from: PeerId, _lane: Lane, mut stream: <W::Transport as Transport>::Rx) {
    if hub.view.node(from).is_none() {
        return;
    }
    while let Ok(Some(frame)) = stream.recv().await {
        hub.deliver(from, frame).await;
    }
}
