//! What is run: a fleet, a model, a plan or the wish for one, a workload, faults. Resolved: every quantity in base
//! units, every name looked up, every range drawn from the seed.
//!
//! * [`load`]: from a file; `docs/scenarios.md` describes the format.
//! * [`schema`]: the format as a JSON Schema.
//! * `source`, `tree`, `overrides`: texts as trees that know their places; includes and `--set`.
//! * `raw`, `decode`, `leaf`, `kind`: the format, table by table and key by key.
//! * `reading`, `resolve`, `presets`: units, names, ranges, defaults.
//! * `error`, `suggest`: what is wrong, where, and what would be right.

mod decode;
mod error;
mod kind;
mod leaf;
mod load;
mod overrides;
mod presets;
mod raw;
mod reading;
mod resolve;
mod schema;
mod source;
mod suggest;
mod tree;
mod written;

pub use error::{Problem, ScenarioError};
pub use load::{Loaded, load, load_text, load_with_files};
pub use schema::schema;
pub use written::device_table;

use planner::cost::constants::Software;
use planner::fleet::{Delay, Fleet, NodeId};
use planner::model::Model;
use planner::place::Ask;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

/// Which world the nodes run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorldKind {
    /// Real framing over turmoil's network, dilated clock; up to about 30 hosts.
    Turmoil,
    /// In-process links, 1 us clock; thousands of hosts.
    Memory,
}

impl WorldKind {
    /// The word for it in scenarios and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            WorldKind::Turmoil => "turmoil",
            WorldKind::Memory => "memory",
        }
    }
}

/// Who runs the model: this project's ring, or a baseline played over the same links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// This project: stages in a ring, the token back in one hop.
    Ring,
    /// llama.cpp's RPC: hub and spoke, one blocking round trip per server and token.
    LlamaRpc,
    /// The same before its allocation cache: 558 calls a token.
    #[serde(rename = "llama-rpc-558")]
    LlamaRpc558,
    /// The same with the cache: 8 calls a token.
    #[serde(rename = "llama-rpc-8")]
    LlamaRpc8,
    /// A pipeline whose token goes back through every stage.
    HopByHop,
    /// A pipeline whose client relays between the stages.
    ClientRelay,
    /// exo of 2024-25: a ring in Python.
    Exo,
    /// Every layer on every node, synchronised in each layer.
    TensorParallel,
}

/// How many of something, or how long something is: fixed, or drawn for each request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Always this.
    Fixed(u32),
    /// Uniform in `low..=high`.
    Uniform(u32, u32),
    /// Log-normal with this median and this 90th percentile, clamped to `1..=max`.
    LogNormal {
        /// Half of the draws are below.
        median: u32,
        /// Nine in ten are below.
        p90: u32,
        /// None is above.
        max: u32,
    },
}

/// When requests come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// `users` clients, each asking, reading the answer to its end, thinking, asking again.
    Closed {
        /// Clients at once.
        users: u32,
        /// Pause between an answer's end and the next request, microseconds (exponential with this mean; 0: none).
        think_us: f64,
    },
    /// One request every so many microseconds, whatever is still running.
    Fixed {
        /// Distance.
        every_us: f64,
    },
    /// Independent requests.
    Poisson {
        /// Requests per second.
        per_s: f64,
    },
    /// Recorded requests.
    Trace(Vec<TraceRow>),
}

/// One recorded request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TraceRow {
    /// When it came, microseconds from the start.
    pub at_us: f64,
    /// Prompt tokens.
    pub prompt: u32,
    /// Output tokens.
    pub output: u32,
}

/// The load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// When requests come.
    pub arrivals: Arrivals,
    /// How many in all.
    pub requests: u32,
    /// Prompt lengths (unless a trace has them).
    pub prompt: Length,
    /// Output lengths (unless a trace has them).
    pub output: Length,
    /// Nodes at which requests enter, round-robin. Empty: the first stage of the (first) plan; with replicas, each
    /// replica's first stage in turn.
    pub entry: Vec<NodeId>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The node's process dies.
    Crash(NodeId),
    /// It starts again, with nothing in memory.
    Restart(NodeId),
    /// Its device computes this many times slower from now on (1: as before).
    SlowDown(NodeId, f64),
    /// It loses this share of its KV memory to somebody else (0: has all of it again).
    MemoryLoss(NodeId, f64),
    /// No frame passes between the two groups.
    Partition(Vec<NodeId>, Vec<NodeId>),
    /// All partitions end.
    Heal,
    /// The pair's delay and bandwidth change, both directions.
    LinkChange {
        /// One end.
        a: NodeId,
        /// The other.
        b: NodeId,
        /// New one-way delay.
        delay: Option<Delay>,
        /// New bandwidth, bytes per second.
        bytes_per_s: Option<f64>,
    },
}

/// One scripted fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When, microseconds from the start.
    pub at_us: f64,
    /// What.
    pub kind: FaultKind,
}

/// Random faults: each listed node crashes and comes back, again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    /// Who. Empty: every node but the entries.
    pub nodes: Vec<NodeId>,
    /// Mean time to failure, microseconds (exponential).
    pub mttf_us: f64,
    /// Mean time to repair, microseconds (exponential).
    pub mttr_us: f64,
    /// After this no new crash; crashed nodes still come back. The liveness phase begins here.
    pub until_us: f64,
}

/// What somebody measured, to compare the prediction with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Row of the source table.
    pub id: String,
    /// Decode tokens per second; a range is its two ends.
    pub decode_tok_s: (f64, f64),
    /// A: everything known. B: something assumed. C: poor, or an anomaly to be flagged.
    pub grade: char,
    /// Family of rows it belongs to.
    pub family: String,
    /// Where it was published.
    pub source: String,
    /// What had to be assumed.
    pub assumed: String,
    /// Whether a constant was calibrated on this row.
    pub calibrated_on: bool,
}

/// Which plan the main run follows.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSpec {
    /// The question the planner gets: for the recommendation always, for the run where `split` is absent.
    pub ask: Ask,
    /// A cut given by hand: the run follows it, and the recommendation is shown beside it.
    pub split: Option<Vec<(NodeId, LayerRange)>>,
}

/// A scenario, ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// File stem.
    pub name: String,
    /// The question it answers: the comment on top of the file.
    pub question: String,
    /// Everything random comes from this.
    pub seed: u64,
    /// Where it runs.
    pub world: WorldKind,
    /// Clock dilation in turmoil; `None`: the smallest whose error is under 1 %.
    pub scale: Option<u32>,
    /// Machines and links.
    pub fleet: Fleet,
    /// What is run.
    pub model: Model,
    /// How it is cut.
    pub plan: PlanSpec,
    /// Who runs it in the main run.
    pub engine: EngineKind,
    /// Who else, over the same links and plan.
    pub baselines: Vec<EngineKind>,
    /// What the ring's own software costs.
    pub software: Software,
    /// Delay added to every compute command of an RPC baseline, as a delay proxy does, microseconds.
    pub inject_us: f64,
    /// The load.
    pub workload: Workload,
    /// Scripted faults, by time.
    pub faults: Vec<Fault>,
    /// Random ones.
    pub churn: Option<Churn>,
    /// Relative standard deviation of a device's true speed against the formula the planner uses (drawn once per
    /// node), and of each step against that.
    pub compute_error: (f64, f64),
    /// The run is stopped after this much simulated time, microseconds.
    pub limit_us: f64,
    /// Present in a validation case.
    pub published: Option<Published>,
}
