//! What came of a run. Times are simulated microseconds from the run's start, rounded to 0.001.

use node::ids::{SessionId, Token};
use planner::place::Candidate;
use planner::plan::{Breakdown, Epoch, Plan};
use serde::Serialize;

use crate::scenario::{EngineKind, WorldKind};

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All tokens came.
    Completed,
    /// Turned away before the first token, with a reason.
    Refused(String),
    /// Ended early, with a reason.
    Failed(String),
    /// Still running when the run was stopped.
    Unfinished,
}

/// One request from its client's side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestRecord {
    /// Which.
    pub session: SessionId,
    /// Name of the node it entered at.
    pub entry: String,
    /// Prompt tokens.
    pub prompt: u32,
    /// Output tokens asked for.
    pub output: u32,
    /// When the client asked.
    pub asked_us: f64,
    /// When each output token reached the client.
    pub tokens_us: Vec<f64>,
    /// The tokens.
    #[serde(skip)]
    pub tokens: Vec<Token>,
    /// When the client saw the end.
    pub ended_us: Option<f64>,
    /// How.
    pub status: Status,
    /// Tries beyond the first.
    pub resumptions: u32,
}

/// Something that happened to the mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// When.
    pub at_us: f64,
    /// What, in words: `crash of mini`, `epoch 3 adopted by all`.
    pub what: String,
    /// Time until tokens flowed again, where they stopped, microseconds.
    pub pause_us: Option<f64>,
}

/// A bar on the timeline of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// Whose row: a node's or a link's name.
    pub track: String,
    /// Compute, transfer, wait, load.
    pub kind: String,
    /// What it is for.
    pub label: String,
    /// Start.
    pub from_us: f64,
    /// End.
    pub to_us: f64,
}

/// Share of time a device computed, and what it held.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeUse {
    /// Name.
    pub node: String,
    /// Share of the run's time the device was in a step.
    pub busy: f64,
    /// Bytes of weights, KV at the asked sessions and activations its stage needs.
    pub memory_bytes: u64,
    /// Steps it ran.
    pub steps: u64,
    /// Bytes it sent.
    pub sent_bytes: u64,
    /// Sessions whose KV was still held when the run ended: must be none once all requests are over.
    pub kv_left: u32,
}

/// How a world's time is dilated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dilation {
    /// A simulated millisecond is so many steps.
    pub scale: u32,
    /// The most that steps add to the time of a token, as a share of it.
    pub error: f64,
}

impl Default for Dilation {
    /// Time that is not dilated and has no steps.
    fn default() -> Self {
        Self { scale: 1, error: 0.0 }
    }
}

/// What came of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Who ran it.
    pub engine: EngineKind,
    /// In which world.
    pub world: WorldKind,
    /// How time passed in it.
    pub dilation: Dilation,
    /// From this seed.
    pub seed: u64,
    /// The first plan.
    pub plan: Plan,
    /// Every request, by session.
    pub requests: Vec<RequestRecord>,
    /// Where a decode token's time went, mean over all decode tokens outside of recoveries.
    pub breakdown: Breakdown,
    /// Faults and recoveries, by time.
    pub incidents: Vec<Incident>,
    /// Every node with layers.
    pub nodes: Vec<NodeUse>,
    /// The last epoch.
    pub epoch: Epoch,
    /// Simulated time the run took.
    pub ended_us: f64,
    /// For trace files; filled only when asked for.
    #[serde(skip)]
    pub spans: Vec<Span>,
    /// What an oracle found wrong; must be empty.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Moves every time so that it counts from `origin_ns`, when clients began to come.
    pub(crate) fn count_from(&mut self, origin_ns: u64) {
        let origin_us = origin_ns as f64 / 1e3;
        let moved = |us: &mut f64| *us = ((*us - origin_us) * 1e3).round() / 1e3;
        for request in &mut self.requests {
            moved(&mut request.asked_us);
            request.tokens_us.iter_mut().chain(&mut request.ended_us).for_each(moved);
        }
        self.incidents.iter_mut().for_each(|incident| moved(&mut incident.at_us));
        for span in &mut self.spans {
            moved(&mut span.from_us);
            moved(&mut span.to_us);
        }
        moved(&mut self.ended_us);
    }
}

/// A scenario's whole answer: the main run, what it is compared with, and what the planner thinks.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The main run.
    pub main: Outcome,
    /// The baselines' runs, in the scenario's order.
    pub baselines: Vec<Outcome>,
    /// What the cost model predicted for the main plan (ring only).
    pub predicted: Option<planner::plan::Prediction>,
    /// What the planner would do.
    pub recommended: Option<Candidate>,
    /// The recommended plan, run, where it is not the main plan.
    pub recommended_run: Option<Outcome>,
}
