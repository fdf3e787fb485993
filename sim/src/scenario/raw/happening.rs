//! Tables that describe what happens: plan, run, load, faults, and what was measured.

use planner::place::{Objective, Shape};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::scenario::kind::{
    Bandwidth, Count, Duration, Engines, Figure, Flag, Groups, Names, Number, Seed, Split, Text, Tokens, Word,
};
use crate::scenario::leaf::{Here, Leaf};
use crate::scenario::{EngineKind, WorldKind};

/// How the model is spread, or what the planner may do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPlan {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// Shapes the planner may choose. Default: auto.
    pub(crate) mode: Option<Leaf<Word<Shape>>>,
    /// What the plan should be best at. Default: tpot.
    pub(crate) objective: Option<Leaf<Word<Objective>>>,
    /// A cut by hand, followed by the run; the planner's own stands beside it. Whole numbers are layers, fractions are
    /// shares of the layers; "equal" and "memory" cut over all nodes. The order is that of the stages; llama.cpp's host
    /// is the last one.
    pub(crate) split: Option<Leaf<Split>>,
    /// Tokens of context each session may use. Default: the longest request, at least 4096.
    pub(crate) context: Option<Leaf<Count>>,
    /// Sessions with KV room in each replica. Default: the users of a closed load, else 4.
    pub(crate) sessions: Option<Leaf<Count>>,
    /// Fewest layers of a stage. Default: 1.
    pub(crate) min_layers: Option<Leaf<Count>>,
    /// Longest mean one-way delay between neighbours. Default: none.
    pub(crate) latency_cap: Option<Leaf<Duration>>,
    /// Nodes that must take part.
    pub(crate) pinned: Option<Leaf<Names>>,
    /// Nodes that must not.
    pub(crate) exclude: Option<Leaf<Names>>,
    /// The node at which sessions are held. Default: where the first stage is.
    pub(crate) head: Option<Leaf<Text>>,
}

/// Who runs it, where, and from which seed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRun {
    /// Who runs it. Default: ring.
    pub(crate) engine: Option<Leaf<Word<EngineKind>>>,
    /// Who else, over the same links and plan, to compare with.
    pub(crate) baselines: Option<Leaf<Engines>>,
    /// The world it runs in. Default: turmoil up to 30 nodes, memory beyond.
    pub(crate) world: Option<Leaf<Word<WorldKind>>>,
    /// Everything random comes from it. Default: 1.
    pub(crate) seed: Option<Leaf<Seed>>,
    /// Clock dilation in turmoil, 1 to 1000. Default: the smallest whose error is under 1 %.
    pub(crate) scale: Option<Leaf<Count>>,
    /// How far devices are from the formula. Default: device 0.03, step 0.01.
    pub(crate) compute_error: Option<RawComputeError>,
    /// What the ring's own software costs, where it was measured. Default: the planner's constants.
    pub(crate) software: Option<RawSoftware>,
    /// Delay added to every compute command of an RPC baseline. Default: 0 s.
    pub(crate) inject: Option<Leaf<Duration>>,
    /// Simulated time after which the run is stopped. Default: 1 h.
    pub(crate) limit: Option<Leaf<Duration>>,
}

/// Relative standard deviations of true compute times against the formula the planner uses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawComputeError {
    /// Of a device's speed, drawn once per node, 0 to 1.
    pub(crate) device: Option<Leaf<Number>>,
    /// Of each step against that, 0 to 1.
    pub(crate) step: Option<Leaf<Number>>,
}

/// Costs of the ring's software, apart from devices and links.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSoftware {
    /// Sending one frame and receiving it.
    pub(crate) per_hop: Option<Leaf<Duration>>,
    /// Starting one step on a stage.
    pub(crate) per_step: Option<Leaf<Duration>>,
}

/// The load. One of users, every, rate and trace; without any, one user.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWorkload {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// How many requests in all. Default: one per user, the rows of a trace, else 20.
    pub(crate) requests: Option<Leaf<Count>>,
    /// Clients at once, each asking again when its answer has ended.
    pub(crate) users: Option<Leaf<Count>>,
    /// Mean pause of a user between two requests. Default: 0 s.
    pub(crate) think: Option<Leaf<Duration>>,
    /// One request every so often.
    pub(crate) every: Option<Leaf<Duration>>,
    /// Independent requests, so many per second on average.
    pub(crate) rate: Option<Leaf<Number>>,
    /// Recorded requests: a CSV file with the columns at_ms, prompt and output.
    pub(crate) trace: Option<Leaf<Text>>,
    /// Prompt tokens. Default: 128.
    pub(crate) prompt: Option<Leaf<Tokens>>,
    /// Output tokens. Default: 128.
    pub(crate) output: Option<Leaf<Tokens>>,
    /// Nodes at which requests enter, in turn. Default: the head, else the first stage of each replica.
    pub(crate) entry: Option<Leaf<Names>>,
}

/// One scripted fault: a time, and one of crash, restart, slow, memory_loss, partition, heal and link.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFault {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// When, from the start of the run.
    pub(crate) at: Option<Leaf<Duration>>,
    /// After this time it is over again: crashed nodes restart, slow ones are as before, partitions heal, lost memory
    /// comes back. Default: it lasts.
    #[serde(rename = "for")]
    pub(crate) lasts: Option<Leaf<Duration>>,
    /// These processes die.
    pub(crate) crash: Option<Leaf<Names>>,
    /// These start again, with nothing in memory.
    pub(crate) restart: Option<Leaf<Names>>,
    /// These compute `factor` times slower.
    pub(crate) slow: Option<Leaf<Names>>,
    /// With slow: how many times slower, from 1 on.
    pub(crate) factor: Option<Leaf<Number>>,
    /// These lose `share` of their KV memory.
    pub(crate) memory_loss: Option<Leaf<Names>>,
    /// With memory_loss: how much of it, 0 to 1.
    pub(crate) share: Option<Leaf<Number>>,
    /// No frame passes between two groups of nodes.
    pub(crate) partition: Option<Leaf<Groups>>,
    /// All partitions end.
    pub(crate) heal: Option<Leaf<Flag>>,
    /// The link between two nodes changes to `rtt` (or `delay`), `jitter`, `bandwidth`.
    pub(crate) link: Option<Leaf<Names>>,
    /// With link: mean round trip from now on.
    pub(crate) rtt: Option<Leaf<Duration>>,
    /// With link: least one-way delay from now on.
    pub(crate) delay: Option<Leaf<Duration>>,
    /// With link: mean of the random part. Default: 0.
    pub(crate) jitter: Option<Leaf<Duration>>,
    /// With link: bandwidth from now on.
    pub(crate) bandwidth: Option<Leaf<Bandwidth>>,
}

/// Random faults: nodes crash and come back, again and again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawChurn {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// Who. Default: every node but those at which requests enter.
    pub(crate) nodes: Option<Leaf<Names>>,
    /// Mean time to failure of each, exponential.
    pub(crate) mttf: Option<Leaf<Duration>>,
    /// Mean time to repair, exponential.
    pub(crate) mttr: Option<Leaf<Duration>>,
    /// No new crash after this.
    pub(crate) until: Option<Leaf<Duration>>,
}

/// What somebody measured on such a fleet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPublished {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// Row of the source table. Default: the file's name.
    pub(crate) id: Option<Leaf<Text>>,
    /// Output tokens per second of one stream: a number, or the two ends of a range.
    pub(crate) decode: Option<Leaf<Figure>>,
    /// A: everything known. B: something assumed. C: poor, or an anomaly to be flagged.
    pub(crate) grade: Option<Leaf<Text>>,
    /// Family of measurements it belongs to.
    pub(crate) family: Option<Leaf<Text>>,
    /// Where it was published.
    pub(crate) source: Option<Leaf<Text>>,
    /// What had to be assumed. Needed for grade B.
    pub(crate) assumed: Option<Leaf<Text>>,
    /// Whether a constant was calibrated on it. Default: false.
    pub(crate) calibrated_on: Option<Leaf<Flag>>,
}
