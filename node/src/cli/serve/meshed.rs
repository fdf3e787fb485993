//! A node of a mesh, and the model that it serves there. A mesh may have one node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use planner::cost::predict::Load;
use planner::fleet::Node;
use planner::model::Model;
use planner::place::{
    Ask, Candidate, Constraints, LeftOut, Objective, Placement, Refusal, Shape, place, would_help_most,
};
use planner::plan::{LayerRange, Plan, Prediction, Stage};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::asides::{Asides, Results};
use crate::clock::{Clock as _, Instant, TokioClock};
use crate::control::Least;
use crate::engine::{Engine, EngineError, Work};
use crate::head::{Replies, Request};
use crate::http::{
    Advice, Desk, Health, MachineHealth, PeerHealth, PlanHealth, Proposal, ReplicaHealth, Served,
    StageHealth, WayHealth,
};
use crate::ids::SessionId;
use crate::limits::Limits;
use crate::node::{NodeConfig, NodeHandle, start};
use crate::plans::Published;
use crate::probe::{Event, Probe};
use crate::real::cpu::{CpuEngine, EngineOptions};
use crate::real::p2p::ad::{Ad, Fingerprint};
use crate::real::p2p::streams::P2p;
use crate::real::p2p::ways::Way;
use crate::real::p2p::{Figures, Net};
use crate::world::{Doors, World};

/// Tokens of context where nobody says.
const CONTEXT: u32 = 8192;
/// The least context that is tried where memory is short.
const CONTEXT_MIN: u32 = 1024;
/// Sessions to have room for where nobody says.
const SESSIONS: u32 = 4;
/// Positions that keys and values are given room for at once.
const KV_BLOCK: u64 = 64;
/// How long a node that leaves waits for others to go on with what it computes.
const LEAVE_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// What is asked of plans.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) context: Option<u32>,
    pub(super) sessions: Option<u32>,
    /// At least two nodes, even where one would do.
    pub(super) split: bool,
    /// Where to cut, layers.
    pub(super) cut: Vec<u32>,
}

impl Wanted {
    /// The question to the planner, and what will do where memory is short.
    pub(super) fn ask(&self, model: &Model) -> (Ask, Least) {
        let trained = if model.context_max == 0 { u32::MAX } else { model.context_max };
        let context = self.context.unwrap_or(CONTEXT.min(trained));
        let sessions = self.sessions.unwrap_or(SESSIONS);
        let least = Least {
            context: self.context.unwrap_or(CONTEXT_MIN.min(context)),
            sessions: self.sessions.unwrap_or(1),
        };
        let constraints = Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions,
            context,
            shape: if self.split { Shape::Pipeline } else { Shape::Auto },
        };
        let load = Load { prompt: context.min(512), context: context.min(1024), concurrency: 1, head: None };
        (Ask { objective: Objective::Tpot, load, constraints }, least)
    }
}

/// Memory for keys and values of all sessions that are asked for, bytes; `wide` where each takes four bytes, not two.
pub(super) fn kv_bytes(model: &Model, ask: &Ask, wide: bool) -> u64 {
    let per_token: u64 = model.layers.iter().map(|layer| layer.kv_bytes_per_token).sum();
    let room = &ask.constraints;
    let tokens = u64::from(room.context).next_multiple_of(KV_BLOCK) + KV_BLOCK;
    per_token
        .saturating_mul(tokens)
        .saturating_mul(u64::from(room.sessions))
        .saturating_mul(1 + u64::from(wide))
}

/// Types of a machine in a mesh.
struct Real;

impl World for Real {
    type Transport = P2p;
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
        if let Err(why) = &loaded {
            tracing::error!("cannot load {model}: {why}");
        }
        self.failed.send_replace(loaded.as_ref().err().map(ToString::to_string));
        loaded
    }

    async fn step(&mut self, batch: Vec<Work>) -> Results {
        self.engine.step(batch).await
    }

    fn takes_asides(&self) -> bool {
        self.engine.takes_asides()
    }

    async fn step_between(&mut self, batch: Vec<Work>, asides: Asides) -> Results {
        self.engine.step_between(batch, asides).await
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
                tracing::trace!(?event)
            }
            Event::Failed { session, why } => {
                tracing::info!(session = session.0, why, "a session ended early")
            }
            Event::Attempted { session, attempt, tokens, .. } if attempt.0 > 0 => {
                tracing::info!(session = session.0, attempt = attempt.0, tokens, "a session is resumed");
            }
            _ => tracing::debug!(?event),
        }
    }
}

/// What a node of a mesh is made of.
pub(super) struct Parts {
    pub(super) net: Net,
    pub(super) model: Model,
    pub(super) fingerprint: Fingerprint,
    /// Where the weights lie; `None` where this machine has none, and so computes nothing.
    pub(super) weights: Option<PathBuf>,
    pub(super) options: EngineOptions,
    pub(super) served: Served,
    pub(super) wanted: Wanted,
    pub(super) clock: TokioClock,
}

/// A running node.
pub(super) struct Meshed {
    node: Arc<NodeHandle>,
    net: Net,
    served: Mutex<Arc<Served>>,
    model: Arc<Model>,
    ask: Ask,
    least: Least,
    /// How many other machines the cuts that were asked for need.
    waits_for: usize,
    failed: watch::Receiver<Option<String>>,
    clock: TokioClock,
    follow: JoinHandle<()>,
}

impl Meshed {
    /// Starts the node on the current runtime.
    pub(super) fn start(parts: Parts) -> Self {
        let Parts { net, model, fingerprint, weights, options, served, wanted, clock } = parts;
        let (ask, least) = wanted.ask(&model);
        let waits_for = wanted.cut.len();
        let (failed, told) = watch::channel(None);
        let files: BTreeMap<_, _> = weights.map(|path| (model.name.clone(), path)).into_iter().collect();
        let engine = Watched { engine: CpuEngine::new(files, options), failed };
        let doors = Doors::<Real> { transport: net.transport(), engine, clock, probe: Log, seed: 0 };
        let model = Arc::new(model);
        let mut roster = net.roster();
        let view = Arc::new(roster.read_new(|roster| roster.view(&fingerprint)));
        let config = NodeConfig {
            view,
            model: Arc::clone(&model),
            ask: ask.clone(),
            initial: None,
            cut: wanted.cut,
            least: Some(least),
            limits: Limits::default(),
            incarnation: u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default(),
        };
        let node = Arc::new(start(doors, config));
        let seen = Arc::clone(&node);
        let follow = tokio::spawn(async move {
            while roster.changed().await {
                let view = roster.read_new(|roster| roster.view(&fingerprint));
                if !seen.see(Arc::new(view)) {
                    tracing::error!("the fleet was renumbered; this is a fault in the program");
                }
            }
        });
        let served = Mutex::new(Arc::new(served));
        Self { node, net, served, model, ask, least, waits_for, failed: told, clock, follow }
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    /// This node's name in the network.
    pub(super) fn peer(&self) -> String {
        let own = self.net.roster().read(|roster| roster.own().peer);
        own.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is served, with the context that the plan gives.
    pub(super) fn served(&self) -> Arc<Served> {
        let planned = self.node.published().map(|published| published.plan.context);
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = planned.filter(|context| *context != served.context) {
            *served = Arc::new(served.with_context(context));
        }
        Arc::clone(&served)
    }

    /// Returns when the model serves, or when that must wait for other machines, or has failed.
    pub(super) async fn until_settled(&self) {
        let mut failed = self.failed.clone();
        loop {
            let changed = self.node.changed();
            let serving = self.node.published().is_some_and(|published| !published.serving.is_empty());
            if serving || !self.may_serve_soon() {
                return;
            }
            tokio::select! {
                biased;
                _ = failed.wait_for(Option::is_some) => return,
                () = changed => {}
            }
        }
    }

    /// Whether the machines that are known can serve by themselves.
    fn may_serve_soon(&self) -> bool {
        let planned = self.node.published().is_some();
        planned || (self.waits_for == 0 && self.place().is_ok())
    }

    fn place(&self) -> Result<Placement, Refusal> {
        let view = self.node.view();
        let mut ask = self.ask.clone();
        (ask.constraints.sessions, ask.constraints.context) = (self.least.sessions, self.least.context);
        place(&view.fleet, &self.model, &ask)
    }

    /// Lets the mesh go on without this node: others take over what it computes, if they can.
    pub(super) async fn leave(&self) {
        if self.node.view().len() < 2 {
            return;
        }
        self.node.leave();
        let deadline = self.clock.now().after(LEAVE_WITHIN);
        while (self.node.is_staged() || self.node.sessions() > 0) && self.clock.now() < deadline {
            let changed = self.node.changed();
            let soon = self.clock.now().after(std::time::Duration::from_millis(100)).min(deadline);
            let _ = self.clock.timeout_at(soon, changed).await;
        }
    }

    /// Says in the log what is planned and what serves, as it changes, and keeps in `home` how to come back.
    pub(super) fn narrate(self: &Arc<Self>, home: PathBuf) -> JoinHandle<()> {
        let meshed = Arc::clone(self);
        tokio::spawn(async move {
            let node = &meshed.node;
            let mut said = String::new();
            loop {
                let changed = node.changed();
                if let Some(published) = node.published() {
                    let words = words(node, &published);
                    if words != said {
                        tracing::info!("{words}");
                        said = words;
                        super::joining::remember(&home, &meshed.net);
                    }
                }
                changed.await;
            }
        })
    }

    fn stage(&self, stage: &Stage) -> StageHealth {
        let view = self.node.view();
        let name =
            view.fleet.nodes.get(stage.node.index()).map_or_else(String::new, |node| node.name.clone());
        StageHealth { node: name, first: stage.layers.first, end: stage.layers.end }
    }

    fn plan(&self, plan: &Plan, serving: &BTreeSet<usize>) -> PlanHealth {
        let replicas = plan.replicas.iter().enumerate().map(|(i, replica)| ReplicaHealth {
            serving: serving.contains(&i),
            stages: replica.stages.iter().map(|stage| self.stage(stage)).collect(),
        });
        PlanHealth {
            model: plan.model.clone(),
            context: plan.context,
            sessions: plan.sessions,
            replicas: replicas.collect(),
        }
    }

    fn peers(&self) -> Vec<PeerHealth> {
        let (members, connections) =
            self.net.state().read(|state| (state.members.clone(), state.connections.clone()));
        let peer = |ad: &Ad| {
            let connection = connections.get(&ad.peer);
            let way = |(way, figures): (&Way, &Figures)| {
                let Figures { frame_us, bytes_per_s, .. } = *figures;
                (way.name().to_owned(), WayHealth { frame_us, bytes_per_s })
            };
            PeerHealth {
                name: ad.name.clone(),
                alive: members.contains(&ad.peer),
                way: connection.map(|connection| connection.used.name().to_owned()),
                ways: connection.iter().flat_map(|connection| connection.measured.iter().map(way)).collect(),
            }
        };
        self.net
            .roster()
            .read(|roster| roster.ads().filter(|ad| ad.peer != roster.own().peer).map(peer).collect())
    }

    fn proposal(&self, candidate: &Candidate) -> Proposal {
        let Prediction { tpot_ms, ttft_ms, breakdown, .. } = candidate.prediction;
        let parts = [
            ("computing", breakdown.compute_ms),
            ("on the way", breakdown.latency_ms),
            ("sending", breakdown.bandwidth_ms),
            ("waiting", breakdown.queueing_ms),
            ("in software", breakdown.software_ms),
        ];
        let parts = parts.map(|(part, ms)| (part.to_owned(), ms)).into();
        Proposal { plan: self.plan(&candidate.plan, &BTreeSet::new()), tpot_ms, ttft_ms, parts }
    }

    /// Why nothing serves.
    fn why(&self, published: Option<&Published>) -> String {
        if let Some(why) = self.failed.borrow().clone() {
            return why;
        }
        let Some(published) = published else {
            let known = self.node.view().len();
            return match self.place() {
                Ok(_) if known <= self.waits_for => format!("waiting for {} machines", self.waits_for + 1),
                Ok(_) => "the mesh is being planned".into(),
                Err(why) => format!("{why}; add machines to the mesh"),
            };
        };
        let stages = published.plan.stages().map(|stage| self.stage(stage).node);
        let names: Vec<String> = stages.collect();
        format!("{} is being loaded on {}", self.model.name, names.join(", "))
    }
}

impl Drop for Meshed {
    fn drop(&mut self) {
        self.follow.abort();
    }
}

/// The plan in one line.
fn words(node: &NodeHandle, published: &Published) -> String {
    let view = node.view();
    let plan: &Plan = &published.plan;
    let name =
        |stage: &Stage| view.fleet.nodes.get(stage.node.index()).map_or("?", |node| node.name.as_str());
    let replica = |(i, stages): (usize, &[Stage])| {
        let parts: Vec<String> = stages
            .iter()
            .map(|stage| format!("{} {}..{}", name(stage), stage.layers.first, stage.layers.end))
            .collect();
        let state = if published.serving.contains_key(&i) { "serves" } else { "loads" };
        format!("{} ({state})", parts.join(" -> "))
    };
    let replicas: Vec<String> =
        plan.replicas.iter().map(|replica| replica.stages.as_slice()).enumerate().map(replica).collect();
    format!("plan {} of {}: {}", published.id.epoch.0, plan.model, replicas.join("; "))
}

impl Desk for Meshed {
    fn models(&self) -> Vec<Arc<Served>> {
        vec![self.served()]
    }

    fn ask(&self, model: &str, request: Request) -> Option<Replies> {
        (model == self.served().id).then(|| self.node.ask(request))
    }

    fn advice(&self) -> Advice {
        let view = self.node.view();
        let machine = |node: &Node| MachineHealth {
            name: node.name.clone(),
            device: node.device.name.clone(),
            usable_bytes: node.device.usable_bytes(),
            bytes_per_s: node.device.bandwidth_bytes_per_s * node.device.bandwidth_efficiency,
            has_model: node.has_model,
        };
        let mut advice = Advice {
            model: self.model.name.clone(),
            machines: view.fleet.nodes.iter().map(machine).collect(),
            ..Advice::default()
        };
        match self.place() {
            Err(why) => advice.refusal = Some(why.to_string()),
            Ok(placement) => {
                let left_out = |left: &LeftOut| format!("{}: {}", view.fleet.node(left.node).name, left.why);
                advice.left_out = placement.left_out.iter().map(left_out).collect();
                let help = would_help_most(&view.fleet, &self.model, &self.ask, &placement);
                advice.would_help = help.into_iter().map(|change| change.text).collect();
                advice.proposal = Some(self.proposal(&placement.recommended));
            }
        }
        advice
    }

    fn health(&self) -> Health {
        let published = self.node.published();
        let serving = published.as_ref().is_some_and(|published| !published.serving.is_empty());
        Health {
            serving,
            why: (!serving).then(|| self.why(published.as_deref())),
            node: self.net.roster().read(|roster| roster.own().name.clone()),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![self.served().id.clone()],
            sessions: self.node.sessions(),
            epoch: self.node.epoch().0,
            peers: self.peers(),
            troubles: self.net.state().read(|state| state.troubles.clone()),
            received: self.net.received().by_kind().map(|(kind, bytes)| (kind.to_owned(), bytes)).into(),
            plan: published.map(|p| self.plan(&p.plan, &p.serving.keys().copied().collect())),
        }
    }
}
