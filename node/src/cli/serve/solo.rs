//! A node that serves one model by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use planner::cost::predict::Load;
use planner::fleet::{Fleet, Network, NetworkId, Node};
use planner::model::Model;
use planner::place::{Ask, Constraints, Objective, Shape, place};
use planner::plan::{Epoch, LayerRange, Plan, Stage};
use tokio::sync::watch;

use super::lonely::Lonely;
use super::machine;
use crate::cli::failure::Failure;
use crate::clock::{Instant, TokioClock};
use crate::engine::{Engine, EngineError, Work, WorkOut};
use crate::head::{Replies, Request};
use crate::http::{Desk, Health, PlanHealth, ReplicaHealth, Served, StageHealth};
use crate::ids::{PeerId, SessionId};
use crate::limits::Limits;
use crate::node::{NodeConfig, NodeHandle, start};
use crate::plans::Published;
use crate::probe::{Event, Probe};
use crate::real::cpu::{CpuEngine, EngineOptions};
use crate::view::FleetView;
use crate::world::{Doors, World};

/// Tokens of context where nobody says.
const CONTEXT: u32 = 8192;

/// The least context that is tried where memory is short.
const CONTEXT_MIN: u32 = 1024;

/// Sessions to have room for where nobody says.
const SESSIONS: u32 = 4;

/// Positions that keys and values are given room for at once.
const KV_BLOCK: u64 = 64;

/// What is asked of the machine.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) context: Option<u32>,
    pub(super) sessions: Option<u32>,
    /// Most memory to use, bytes.
    pub(super) memory: Option<u64>,
}

/// Where the model runs: on this machine, whole.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) plan: Plan,
    view: FleetView,
    ask: Ask,
}

/// Finds room for the model. What was not said is made smaller until it fits.
///
/// # Errors
/// [`Failure::Room`] with the planner's reason and what would help.
pub(super) fn room(model: &Model, wanted: &Wanted) -> Result<Placed, Failure> {
    let fleet = fleet(wanted);
    let trained = if model.context_max == 0 { u32::MAX } else { model.context_max };
    let context = wanted.context.unwrap_or(CONTEXT.min(trained));
    let mut ask = ask(context, wanted.sessions.unwrap_or(SESSIONS));
    loop {
        match place(&fleet, model, &ask) {
            Ok(placement) => {
                let view = FleetView::new(fleet, vec![PeerId::default()]);
                return Ok(Placed { plan: placement.recommended.plan, view, ask });
            }
            Err(why) => {
                if !smaller(&mut ask.constraints, wanted) {
                    return Err(Failure::Room { model: model.name.clone(), why: why.to_string() });
                }
            }
        }
    }
}

/// Asks for less of what nobody asked for; false where there is nothing left to give.
fn smaller(constraints: &mut Constraints, wanted: &Wanted) -> bool {
    if wanted.sessions.is_none() && constraints.sessions > 1 {
        constraints.sessions -= 1;
        return true;
    }
    if wanted.context.is_none() && constraints.context > CONTEXT_MIN {
        constraints.context = (constraints.context / 2).max(CONTEXT_MIN);
        return true;
    }
    false
}

fn ask(context: u32, sessions: u32) -> Ask {
    Ask {
        objective: Objective::Tpot,
        load: Load { prompt: context.min(512), context: context.min(1024), concurrency: 1, head: None },
        constraints: Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions,
            context,
            shape: Shape::Solo,
        },
    }
}

fn fleet(wanted: &Wanted) -> Fleet {
    let node = Node {
        name: wanted.name.clone(),
        device: machine::device(wanted.memory),
        machine: wanted.name.clone(),
        network: NetworkId(0),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: true,
    };
    let network = Network {
        name: "none".into(),
        class: planner::fleet::LinkClass::Loopback,
        delay: planner::fleet::Delay::default(),
        bytes_per_s: 1e9,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: None,
        down_bytes_per_s: None,
    };
    Fleet { nodes: vec![node], networks: vec![network], ..Fleet::default() }
}

/// Memory for keys and values of the planned sessions, bytes; `wide` where each takes four bytes instead of two.
pub(super) fn kv_bytes(model: &Model, plan: &Plan, wide: bool) -> u64 {
    let per_token: u64 = model.layers.iter().map(|layer| layer.kv_bytes_per_token).sum();
    let tokens = u64::from(plan.context).next_multiple_of(KV_BLOCK) + KV_BLOCK;
    per_token
        .saturating_mul(tokens)
        .saturating_mul(u64::from(plan.sessions))
        .saturating_mul(1 + u64::from(wide))
}

/// Types of a machine that serves alone.
struct Alone;

impl World for Alone {
    type Transport = Lonely;
    type Engine = Watched;
    type Clock = TokioClock;
    type Probe = Log;
}

/// The engine; what its last load came to is told to who waits for it.
struct Watched {
    engine: CpuEngine,
    failed: watch::Sender<Option<String>>,
}

impl Engine for Watched {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        let loaded = self.engine.load(model, layers).await;
        self.failed.send_replace(loaded.as_ref().err().map(ToString::to_string));
        loaded
    }

    async fn step(&mut self, batch: Vec<Work>) -> Vec<Result<WorkOut, EngineError>> {
        self.engine.step(batch).await
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        self.engine.truncate(session, len);
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.engine.fork(from, to, len)
    }

    fn release(&mut self, session: SessionId) {
        self.engine.release(session);
    }

    fn held(&self) -> Vec<SessionId> {
        self.engine.held()
    }
}

/// Writes what happens into the log.
#[derive(Debug, Clone, Copy)]
struct Log;

impl Probe for Log {
    fn on(&self, _at: Instant, event: Event) {
        match &event {
            Event::Emitted { .. } | Event::StepBegan { .. } | Event::StepEnded { .. } => {
                tracing::trace!(?event);
            }
            Event::Failed { session, why } => {
                tracing::info!(session = session.0, why, "a session ended early")
            }
            _ => tracing::debug!(?event),
        }
    }
}

/// A node, and the model that it serves.
pub(super) struct Solo {
    node: NodeHandle,
    served: Arc<Served>,
    view: Arc<FleetView>,
    name: String,
    model: String,
    failed: watch::Receiver<Option<String>>,
}

impl Solo {
    /// Starts the node on the current runtime.
    pub(super) fn start(
        placed: Placed,
        model: Model,
        path: PathBuf,
        options: EngineOptions,
        served: Served,
        clock: TokioClock,
    ) -> Self {
        let Placed { plan, view, ask } = placed;
        let (failed, told) = watch::channel(None);
        let engine = CpuEngine::new(BTreeMap::from([(model.name.clone(), path)]), options);
        let transport = Lonely(PeerId::default());
        let engine = Watched { engine, failed };
        let doors = Doors::<Alone> { transport, engine, clock, probe: Log, seed: 0 };
        let name = view.name(PeerId::default());
        let (view, model) = (Arc::new(view), Arc::new(model));
        let config = NodeConfig {
            view: Arc::clone(&view),
            model: Arc::clone(&model),
            ask,
            initial: Some((Epoch(1), plan)),
            limits: Limits::default(),
            incarnation: 0,
        };
        let node = start(doors, config);
        Self { node, served: Arc::new(served), view, name, model: model.name.clone(), failed: told }
    }

    /// Returns when the model is loaded.
    ///
    /// # Errors
    /// Why it cannot be, in the engine's words.
    pub(super) async fn until_serving(&self) -> Result<(), String> {
        let mut failed = self.failed.clone();
        tokio::select! {
            biased;
            () = self.node.until_serving() => Ok(()),
            why = failed.wait_for(Option::is_some) => {
                Err(why.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the engine ended".into()))
            }
        }
    }
}

impl Desk for Solo {
    fn models(&self) -> Vec<Arc<Served>> {
        vec![Arc::clone(&self.served)]
    }

    fn ask(&self, model: &str, request: Request) -> Option<Replies> {
        (model == self.served.id).then(|| self.node.ask(request))
    }

    fn health(&self) -> Health {
        let published = self.node.published();
        let serving = published.as_ref().is_some_and(|published| !published.serving.is_empty());
        let why = (!serving).then(|| {
            let failed = self.failed.borrow().clone();
            failed.unwrap_or_else(|| format!("{} is being loaded", self.model))
        });
        let plan = published.map(|published| plan_health(&published, &self.view));
        Health {
            serving,
            why,
            node: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![self.served.id.clone()],
            sessions: self.node.sessions(),
            epoch: self.node.epoch().0,
            peers: Vec::new(),
            plan,
        }
    }
}

/// A plan, with the names of its nodes.
fn plan_health(published: &Published, view: &FleetView) -> PlanHealth {
    let stage = |stage: &Stage| StageHealth {
        node: view.fleet.nodes.get(stage.node.index()).map_or_else(|| "?".into(), |node| node.name.clone()),
        first: stage.layers.first,
        end: stage.layers.end,
    };
    let Plan { model, context, sessions, replicas, .. } = &*published.plan;
    let replicas = replicas.iter().enumerate().map(|(i, replica)| ReplicaHealth {
        serving: published.serving.contains_key(&i),
        stages: replica.stages.iter().map(stage).collect(),
    });
    PlanHealth { model: model.clone(), context: *context, sessions: *sessions, replicas: replicas.collect() }
}
