//! One scenario, run: the plan, a mesh of real nodes in a simulated world, its clients and its faults, and what came of it.
//!
//! Nodes start with their layers in memory: a scenario asks how a mesh serves, not how it boots. Whatever is loaded later,
//! after a crash or under a new plan, is read from disk in simulated time.
//!
//! * `plan`: the plan the run follows.
//! * `desk`: the clients.
//! * `play`: what happens on the mesh.
//! * `recoveries`, `account`: what the recording says.
//! * `scale`: the clock scale in turmoil.
//! * `bounds`: how long things may take.
//! * `answer`: the whole answer to a scenario: the run and what it is compared with.

mod account;
mod answer;
mod bounds;
mod desk;
mod plan;
mod play;
mod recoveries;
#[cfg(test)]
mod sabotage;
mod scale;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use node::{FleetView, Limits};
use planner::fleet::NodeId;
use planner::place::{Refusal, place};
use planner::plan::Plan;

pub use self::answer::answer;
pub use self::desk::ASK_AGAIN_NS;
pub(crate) use self::desk::expected as expected_tokens;
use self::desk::{Clients, Desk};
pub use self::plan::SplitError;
pub(crate) use self::plan::given;
use self::play::{Bounds, Orders, RingPlay, peers};
use self::scale::Steps;
use crate::baseline::PlayError;
use crate::mesh::{MeshError, MeshSpec};
use crate::oracle::{Evidence, violations};
use crate::outcome::{Dilation, Outcome, RequestRecord};
use crate::record::{Recorded, Recorder};
use crate::scenario::{Fault, FaultKind, Scenario, WorldKind};
use crate::seed::Seed;
use crate::workload::ArrivalStream;
use crate::{memory, over_turmoil};

/// Hosts beyond which a second in turmoil takes minutes.
const TURMOIL_HOSTS_MOST: usize = 64;

/// Why a scenario cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The cut given by hand is wrong.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The planner finds no plan.
    #[error(
        "no plan: {0}; give the fleet more memory or faster links, or ask for less (a smaller quantisation, less context, fewer sessions)"
    )]
    NoPlan(Refusal),
    /// Nobody can be asked.
    #[error("there is no node to ask; give the fleet a node, or the workload an entry")]
    NoEntry,
    /// The world is not made for so many.
    #[error(
        "{nodes} nodes are too many for turmoil, whose cost grows with their cube; use --world memory, or at most {most} nodes"
    )]
    TooManyHosts {
        /// How many there are.
        nodes: usize,
        /// How many there may be.
        most: usize,
    },
    /// A baseline cannot be played.
    #[error(transparent)]
    Baseline(#[from] PlayError),
    /// The world broke down.
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// Runs `scenario` with this project's ring in `world`; everything random comes from `seed`. With `trace` the outcome has
/// spans for a timeline.
///
/// # Errors
/// When there is no plan to follow, or the world breaks.
pub fn run(scenario: &Scenario, seed: u64, world: WorldKind, trace: bool) -> Result<Outcome, RunError> {
    record(scenario, seed, world, trace).map(|recording| recording.outcome)
}

/// A run with everything its nodes told.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What came of it.
    pub outcome: Outcome,
    /// What nodes told, in order.
    pub events: Vec<Recorded>,
    /// The faults that struck, and when, nanoseconds.
    pub struck: Vec<(u64, FaultKind)>,
}

/// As [`run`], with what the nodes told.
///
/// # Errors
/// As [`run`].
pub fn record(scenario: &Scenario, seed: u64, world: WorldKind, trace: bool) -> Result<Recording, RunError> {
    let plan = plan::choose(scenario)?;
    record_plan(scenario, plan, seed, world, trace)
}

/// Runs `plan`, whatever the scenario says.
fn record_plan(
    scenario: &Scenario,
    plan: Plan,
    seed: u64,
    world: WorldKind,
    trace: bool,
) -> Result<Recording, RunError> {
    let setting = Setting::new(scenario, plan, seed, trace)?;
    let dilation = setting.perform(world, &setting.play)?;
    Ok(setting.close(world, dilation))
}

/// A run, ready to begin.
struct Setting<'a> {
    scenario: &'a Scenario,
    plan: Plan,
    seed: u64,
    schedule: Vec<Fault>,
    recorder: Recorder,
    play: RingPlay,
}

impl<'a> Setting<'a> {
    fn new(scenario: &'a Scenario, plan: Plan, seed: u64, trace: bool) -> Result<Self, RunError> {
        let names: Vec<String> = scenario.fleet.nodes.iter().map(|n| n.name.clone()).collect();
        let root = Seed::new(seed);
        let entries = entries(scenario, &plan);
        if entries.is_empty() {
            return Err(RunError::NoEntry);
        }
        let schedule = crate::faults::schedule(scenario, &entries, root);
        let clients = Clients {
            names: names.clone(),
            vocabulary: scenario.model.vocab,
            seed: root,
            entries,
            arrivals: ArrivalStream::new(&scenario.workload, root),
        };
        let limits = Limits::default();
        let orders = Orders {
            view: Arc::new(FleetView::new(scenario.fleet.clone(), peers(names.len()))),
            model: Arc::new(scenario.model.clone()),
            ask: scenario.plan.ask.clone(),
            plan: plan.clone(),
            limits,
        };
        let probes = !schedule.is_empty() && servable(scenario, &schedule);
        let bounds = Bounds {
            limit_us: scenario.limit_us,
            probe_us: probes.then(|| bounds::recovery_us(scenario, &plan)),
            kv_us: 2.5 * limits.kv_idle.as_secs_f64() * 1e6,
        };
        let play = RingPlay::new(orders, Desk::new(clients), schedule.clone(), bounds);
        let recorder = Recorder::new(names, trace);
        Ok(Self { scenario, plan, seed, schedule, recorder, play })
    }

    /// Puts the play on; says how time passed.
    fn perform<P: crate::mesh::Play>(&self, world: WorldKind, play: &P) -> Result<Dilation, RunError> {
        let spec = self.mesh();
        match world {
            WorldKind::Memory => {
                memory::run(spec, play)?;
                Ok(Dilation::default())
            }
            WorldKind::Turmoil => {
                let nodes = self.scenario.fleet.nodes.len();
                if nodes > TURMOIL_HOSTS_MOST {
                    return Err(RunError::TooManyHosts { nodes, most: TURMOIL_HOSTS_MOST });
                }
                let steps = self.steps();
                let scale = self.scenario.scale.unwrap_or_else(|| steps.smallest_scale());
                over_turmoil::run(spec, play, scale)?;
                Ok(Dilation { scale, error: steps.error(scale) })
            }
        }
    }

    fn mesh(&self) -> MeshSpec {
        MeshSpec {
            fleet: self.scenario.fleet.clone(),
            model: Arc::clone(&self.play.orders.model),
            seed: Seed::new(self.seed),
            compute_error: self.scenario.compute_error,
            software: self.scenario.software,
            loaded: self.plan.stages().map(|stage| (stage.node, stage.layers)).collect(),
            recorder: self.recorder.clone(),
        }
    }

    fn steps(&self) -> Steps {
        let entries = entries(self.scenario, &self.plan);
        Steps::new(self.scenario, &self.plan, &entries, !self.schedule.is_empty())
    }

    /// The outcome, judged by all oracles.
    fn close(self, world: WorldKind, dilation: Dilation) -> Recording {
        let (requests, probes) = self.play.desk.records();
        let log = self.play.take_log();
        let (seed, plan) = (self.seed, self.plan);
        let remains = account::Remains { world, dilation, seed, plan, requests, log: log.clone() };
        let ledger = self.recorder.ledger();
        let mut outcome = account::outcome(self.scenario, remains, &ledger);
        let nodes = self.scenario.fleet.ids();
        let evidence = Evidence {
            scenario: self.scenario,
            outcome: &outcome,
            events: ledger.events(),
            probes: self.play.bounds.probe_us.map(|_| probes.as_slice()),
            starts: &self.play.desk.starts(),
            struck: &log.struck,
            memory_peak_bytes: &nodes.map(|n| ledger.activity(n).memory_peak_bytes).collect::<Vec<_>>(),
            kv_left: &log.kv_left,
            servable: self.schedule.is_empty() || self.play.bounds.probe_us.is_some(),
            recovery_us: bounds::recovery_us(self.scenario, &outcome.plan),
            work_us: work_us(self.scenario, &outcome.plan, &outcome.requests),
        };
        outcome.violations = violations(&evidence);
        outcome.count_from(log.opened_ns);
        Recording { events: ledger.events().to_vec(), outcome, struck: log.struck }
    }
}

fn work_us(scenario: &Scenario, plan: &Plan, requests: &[RequestRecord]) -> f64 {
    bounds::work_us(scenario, plan, requests)
}

/// Where requests enter: at the workload's entries, or else at each replica's first stage.
fn entries(scenario: &Scenario, plan: &Plan) -> Vec<NodeId> {
    let nodes = scenario.fleet.nodes.len();
    if scenario.workload.entry.is_empty() {
        plan.replicas.iter().filter_map(|r| r.stages.first()).map(|stage| stage.node).collect()
    } else {
        scenario.workload.entry.iter().copied().filter(|id| id.index() < nodes).collect()
    }
}

/// Whether a plan is possible with the nodes and links that are left after all faults. A partition or a loss of memory
/// that stays is taken to make it impossible: the planner does not know of either.
fn servable(scenario: &Scenario, schedule: &[Fault]) -> bool {
    let (mut down, mut torn, mut short) = (BTreeSet::new(), false, BTreeSet::new());
    for fault in schedule {
        match &fault.kind {
            FaultKind::Crash(node) => {
                down.insert(*node);
            }
            FaultKind::Restart(node) => {
                down.remove(node);
            }
            FaultKind::Partition(..) => torn = true,
            FaultKind::Heal => torn = false,
            FaultKind::MemoryLoss(node, share) => {
                if *share > 0.0 {
                    short.insert(*node);
                } else {
                    short.remove(node);
                }
            }
            FaultKind::SlowDown(..) | FaultKind::LinkChange { .. } => {}
        }
    }
    if torn || !short.is_empty() {
        return false;
    }
    let mut ask = scenario.plan.ask.clone();
    ask.constraints.excluded.extend(down.iter().copied());
    ask.constraints.pinned.retain(|node| !down.contains(node));
    ask.load.head = ask.load.head.filter(|node| !down.contains(node));
    // With everybody back the plan that the run began with is possible again, where the planner made it.
    (down.is_empty() && scenario.plan.split.is_none())
        || place(&scenario.fleet, &scenario.model, &ask).is_ok()
}
