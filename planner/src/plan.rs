//! The answer of the planner: which node computes which layers, and what is predicted of that.

use serde::{Deserialize, Serialize};

/// A node's place in its [`Fleet`](crate::fleet::Fleet): an index, stable while the fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The index into `Fleet::nodes`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Counts plans. A higher epoch replaces a lower one; frames of a lower epoch are dropped on sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A contiguous, half-open range of layers: `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerRange {
    /// The first layer, counted from zero.
    pub first: u32,
    /// One past the last layer.
    pub end: u32,
}

impl LayerRange {
    /// `first..end`; empty when `end <= first`.
    pub fn new(first: u32, end: u32) -> Self {
        Self { first, end }
    }

    /// How many layers it holds.
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.first)
    }

    /// Whether it holds none.
    pub fn is_empty(self) -> bool {
        self.end <= self.first
    }

    /// The layers as indices.
    pub fn indices(self) -> std::ops::Range<usize> {
        self.first as usize..self.end as usize
    }
}

/// One node's share of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stage {
    /// Who computes.
    pub node: NodeId,
    /// What it computes.
    pub layers: LayerRange,
}

/// One complete copy of the model: stages in order, their layers gapless from zero to the model's last.
/// The first stage also embeds, the last also holds norm and head, and samples.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pipeline {
    /// In the order in which a token passes them.
    pub stages: Vec<Stage>,
}

/// How a model is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One node holds all of it.
    Solo,
    /// Several nodes hold a range of layers each.
    Pipeline,
    /// Several complete copies, each solo or a pipeline.
    Replicas,
    /// Each node holds the trunk and a share of the experts. Has its place here; its search is a later issue.
    ExpertShards,
}

impl Mode {
    /// The word for it in reports and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Solo => "solo",
            Mode::Pipeline => "pipeline",
            Mode::Replicas => "replicas",
            Mode::ExpertShards => "expert-shards",
        }
    }
}

/// Which experts a node holds beside the trunk. Part of the types now, searched for in a later issue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExpertShard {
    /// Who holds them.
    pub node: NodeId,
    /// Expert indices, the same in every layer, ascending.
    pub experts: Vec<u32>,
}

/// Where one model runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// The model's name, as in its shape.
    pub model: String,
    /// Complete copies; at least one. Nodes never stand in two of them.
    pub replicas: Vec<Pipeline>,
    /// Present only in [`Mode::ExpertShards`].
    pub experts: Vec<ExpertShard>,
    /// Tokens of context each session may use.
    pub context: u32,
    /// Sessions each replica was asked to have KV room for at that context; it may have more
    /// ([`crate::cost::memory::sessions_room`]).
    pub sessions: u32,
}

impl Plan {
    /// How the model is spread.
    pub fn mode(&self) -> Mode {
        if !self.experts.is_empty() {
            Mode::ExpertShards
        } else if self.replicas.len() > 1 {
            Mode::Replicas
        } else if self.replicas.first().is_some_and(|p| p.stages.len() > 1) {
            Mode::Pipeline
        } else {
            Mode::Solo
        }
    }

    /// Every stage of every replica.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.replicas.iter().flat_map(|r| r.stages.iter())
    }

    /// The layers `node` holds, if any.
    pub fn layers_of(&self, node: NodeId) -> Option<LayerRange> {
        self.stages().find(|s| s.node == node).map(|s| s.layers)
    }
}

/// Where a token's time goes, milliseconds. The parts add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Breakdown {
    /// Devices computing: weights, KV, FLOPs, kernel dispatch.
    pub compute_ms: f64,
    /// Propagation and jitter of links.
    pub latency_ms: f64,
    /// Bytes over links: serialisation and airtime.
    pub bandwidth_ms: f64,
    /// Waiting for a device or a medium that somebody else uses.
    pub queueing_ms: f64,
    /// Host-side work per hop and per step: serialising, waking, syscalls.
    pub software_ms: f64,
}

impl Breakdown {
    /// The sum of the parts.
    pub fn total_ms(&self) -> f64 {
        self.compute_ms + self.latency_ms + self.bandwidth_ms + self.queueing_ms + self.software_ms
    }
}

/// What the cost model expects of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Time per output token of one stream on an otherwise idle mesh, milliseconds.
    pub tpot_ms: f64,
    /// Time to first token of one request of the asked prompt length, through streams that are open, milliseconds.
    pub ttft_ms: f64,
    /// What the first request of all waits in addition, until each hop's stream is open, milliseconds.
    pub opening_ms: f64,
    /// Output tokens per second of the whole plan at the asked concurrency.
    pub throughput_tok_s: f64,
    /// Where one stream's time per token goes.
    pub breakdown: Breakdown,
}
