//! One model of the mesh, as this node takes part in it: with layers, or only to pass requests on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use planner::cost::predict::Load;
use planner::model::Model;
use planner::place::{Ask, Constraints, Objective, Placement, Refusal, Shape, place};
use planner::plan::{LayerRange, Stage};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{broadcast, watch};

use crate::asides::{Asides, Results};
use crate::clock::{Clock as _, Instant, TokioClock};
use crate::control::Least;
use crate::engine::{Engine, EngineError, Work};
use crate::head::{Replies, Request};
use crate::http::Served;
use crate::ids::{SessionId, Token};
use crate::limits::Limits;
use crate::membership::{Fingerprint, Held};
use crate::node::{NodeConfig, NodeHandle, start};
use crate::plans::Published;
use crate::probe::{Event, Probe};
use crate::real::any::{AnyEngine, AnyOptions};
use crate::real::p2p::Net;
use crate::real::p2p::roster::Roster;
use crate::real::p2p::streams::P2p;
use crate::record::Line;
use crate::switch::Branch;
use crate::world::{Doors, World};

/// Tokens of context where nobody says.
const CONTEXT: u32 = 8192;
/// The least context that is tried where memory is short.
const CONTEXT_MIN: u32 = 1024;
/// Sessions to have room for where nobody says.
pub(super) const SESSIONS: u32 = 4;
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
    type Transport = Branch<P2p>;
    type Engine = Watched;
    type Clock = TokioClock;
    type Probe = Log;
}

/// The engine; what its last load came to is told to who waits for it.
struct Watched {
    engine: AnyEngine,
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

/// Writes what happens into the log, and tells whoever observes.
#[derive(Debug, Clone)]
struct Log {
    node: Arc<str>,
    observers: broadcast::Sender<Line>,
}

/// Events that an observer may be behind before it loses some.
const BEHIND_MAX: usize = 8192;

impl Log {
    fn tell(&self, at: Instant, event: &Event) {
        if self.observers.receiver_count() == 0 {
            return;
        }
        let mut event = event.clone();
        if let Event::Emitted { token, .. } = &mut event {
            *token = Token(0);
        }
        // Nobody may be there any more.
        let _ = self.observers.send(Line { at_ns: at.0, node: self.node.to_string(), event });
    }
}

impl Probe for Log {
    fn on(&self, at: Instant, event: Event) {
        self.tell(at, &event);
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

/// What a ring is made of.
pub(super) struct Parts {
    pub(super) model: Model,
    pub(super) fingerprint: Fingerprint,
    /// Where the weights lie; `None` where this machine has none, and so computes nothing.
    pub(super) weights: Option<PathBuf>,
    pub(super) is_pinned: bool,
    pub(super) options: AnyOptions,
    pub(super) served: Served,
    pub(super) wanted: Wanted,
}

/// A model in which this node takes part. It ends with this.
pub(super) struct Ring {
    node: NodeHandle,
    fingerprint: Fingerprint,
    /// Its name among the members.
    name: String,
    served: Mutex<Arc<Served>>,
    pub(super) model: Arc<Model>,
    pub(super) ask: Ask,
    least: Least,
    /// Whether its weights lie on this machine's disk.
    pub(super) has_weights: bool,
    /// Whether this machine's owner has chosen it.
    pub(super) is_pinned: bool,
    /// How many other machines the cuts that were asked for need.
    waits_for: usize,
    failed: watch::Receiver<Option<String>>,
    observers: broadcast::Sender<Line>,
    clock: TokioClock,
}

impl Ring {
    /// Takes part from now on, on the current runtime; `None` where this node does already.
    pub(super) fn start(net: &Net, clock: TokioClock, name: String, parts: Parts) -> Option<Self> {
        let Parts { model, fingerprint, weights, is_pinned, options, served, wanted } = parts;
        let transport = net.branch(&fingerprint)?;
        let (ask, least) = wanted.ask(&model);
        let (waits_for, has_weights) = (wanted.cut.len(), weights.is_some());
        let (failed, told) = watch::channel(None);
        let files: BTreeMap<_, _> = weights.map(|path| (model.name.clone(), path)).into_iter().collect();
        let engine = Watched { engine: AnyEngine::new(files, options), failed };
        let observers = broadcast::Sender::new(BEHIND_MAX);
        let probe = Log {
            node: net.roster().read(|roster| roster.own().profile.name.as_str().into()),
            observers: observers.clone(),
        };
        let doors = Doors::<Real> { transport, engine, clock, probe, seed: 0 };
        let model = Arc::new(model);
        let view = Arc::new(net.roster().read(|roster| roster.view(&fingerprint, &name)));
        let config = NodeConfig {
            view,
            model: Arc::clone(&model),
            ask: ask.clone(),
            initial: None,
            cut: wanted.cut,
            least: Some(least),
            copies: true,
            limits: Limits::default(),
            incarnation: u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default(),
        };
        let (node, served) = (start(doors, config), Mutex::new(Arc::new(served)));
        Some(Self {
            node,
            fingerprint,
            name,
            served,
            model,
            ask,
            least,
            has_weights,
            is_pinned,
            waits_for,
            failed: told,
            observers,
            clock,
        })
    }

    /// What happens from now on.
    pub(super) fn observe(&self) -> broadcast::Receiver<Line> {
        self.observers.subscribe()
    }

    /// The members are these now.
    pub(super) fn see(&self, roster: &Roster) {
        if !self.node.see(Arc::new(roster.view(&self.fingerprint, &self.name))) {
            tracing::error!("the fleet was renumbered; this is a fault in the program");
        }
    }

    pub(super) fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Its name among the members.
    pub(super) fn name(&self) -> &str {
        &self.name
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

    pub(super) fn take(&self, request: Request) -> Replies {
        self.node.ask(request)
    }

    /// Whether somebody serves it.
    pub(super) fn is_serving(&self) -> bool {
        self.node.published().is_some_and(|published| !published.serving.is_empty())
    }

    /// Completes when the plan, or what of it serves, changes next after this call.
    pub(super) fn changed(&self) -> OwnedNotified {
        self.node.changed()
    }

    /// The layers that the plan gives this node, and whether the replica that they are of serves.
    pub(super) fn held(&self) -> Option<(Held, bool)> {
        let published = self.node.published()?;
        let view = self.node.view();
        let me = view.id(self.node.me())?;
        let of_mine =
            |stages: &[Stage]| stages.iter().find(|stage| stage.node == me).map(|stage| stage.layers);
        let replicas = published.plan.replicas.iter().enumerate();
        let (i, layers) =
            replicas.into_iter().find_map(|(i, replica)| Some((i, of_mine(&replica.stages)?)))?;
        Some((Held { model: self.name.clone(), layers }, published.serving.contains_key(&i)))
    }

    /// Returns when the model serves, or when that must wait for other machines, or has failed.
    pub(super) async fn until_settled(&self) {
        let mut failed = self.failed.clone();
        loop {
            let changed = self.changed();
            if self.is_serving() || !self.may_serve_soon() {
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

    /// What the planner makes of the machines that are known, with as little room as will do.
    pub(super) fn place(&self) -> Result<Placement, Refusal> {
        let view = self.node.view();
        let mut ask = self.ask.clone();
        (ask.constraints.sessions, ask.constraints.context) = (self.least.sessions, self.least.context);
        place(&view.fleet, &self.model, &ask)
    }

    /// Lets the others go on without this node: they take over what it computes, if they can.
    pub(super) async fn leave(&self) {
        if self.node.view().len() < 2 {
            return;
        }
        self.node.leave();
        let deadline = self.clock.now().after(LEAVE_WITHIN);
        while (self.node.is_staged() || self.node.sessions() > 0) && self.clock.now() < deadline {
            let changed = self.changed();
            let soon = self.clock.now().after(std::time::Duration::from_millis(100)).min(deadline);
            let _ = self.clock.timeout_at(soon, changed).await;
        }
    }

    /// Whether this machine could not load it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Whether other machines host it.
    pub(super) fn has_other_hosts(&self) -> bool {
        let view = self.node.view();
        let me = view.id(self.node.me());
        let hosts = view.fleet.nodes.iter().enumerate().filter(|(_, node)| node.has_model);
        hosts.into_iter().any(|(i, _)| me.is_none_or(|me| me.index() != i))
    }

    /// Why nothing serves.
    pub(super) fn why(&self, published: Option<&Published>) -> String {
        if let Some(why) = self.failed.borrow().clone() {
            return why;
        }
        let Some(published) = published else {
            let known = self.node.view().fleet.nodes.iter().filter(|node| node.has_model).count();
            return match self.place() {
                Ok(_) if known <= self.waits_for => format!("waiting for {} machines", self.waits_for + 1),
                Ok(_) => "the mesh is being planned".into(),
                Err(why) => format!("{why}; add machines to the mesh"),
            };
        };
        let names: Vec<String> = published.plan.stages().map(|stage| self.machine(stage)).collect();
        format!("{} is being loaded on {}", self.model.name, names.join(", "))
    }

    /// What people call the machine of a stage.
    pub(super) fn machine(&self, stage: &Stage) -> String {
        let view = self.node.view();
        view.fleet.nodes.get(stage.node.index()).map_or_else(String::new, |node| node.name.clone())
    }

    /// The plan in one line.
    pub(super) fn words(&self) -> Option<String> {
        let published = self.node.published()?;
        let replica = |(i, stages): (usize, &[Stage])| {
            let part = |stage: &Stage| {
                format!("{} {}..{}", self.machine(stage), stage.layers.first, stage.layers.end)
            };
            let parts: Vec<String> = stages.iter().map(part).collect();
            let state = if published.serving.contains_key(&i) { "serves" } else { "loads" };
            format!("{} ({state})", parts.join(" -> "))
        };
        let replicas = published.plan.replicas.iter().map(|replica| replica.stages.as_slice());
        let replicas: Vec<String> = replicas.enumerate().map(replica).collect();
        Some(format!("plan {} of {}: {}", published.id.epoch.0, published.plan.model, replicas.join("; ")))
    }
}
