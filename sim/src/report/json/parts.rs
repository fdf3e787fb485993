//! The parts of a report.

use planner::plan::Breakdown;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::stats;
use super::round3;

/// Mean and percentiles of a sample; all `null` when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Half of the values are at most this. Percentiles interpolate linearly between ranks.
    pub p50: Option<f64>,
    /// Nine in ten values are at most this.
    pub p90: Option<f64>,
    /// Ninety-nine in a hundred values are at most this.
    pub p99: Option<f64>,
}

impl Spread {
    /// Of `values`, rounded.
    pub fn of(values: &[f64]) -> Self {
        let sorted = stats::ascending(values);
        let at = |q| stats::quantile(&sorted, q).map(round3);
        Self { mean: stats::mean(values).map(round3), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

/// Where a token's time goes, milliseconds. The parts add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct BreakdownMs {
    /// Devices computing.
    pub compute: f64,
    /// Propagation and jitter of links.
    pub latency: f64,
    /// Bytes over links: serialisation and airtime.
    pub bandwidth: f64,
    /// Waiting for a device or a medium that somebody else uses.
    pub queueing: f64,
    /// Host-side work per hop and per step.
    pub software: f64,
}

impl BreakdownMs {
    /// The parts with their names, in the order of reports.
    pub fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("compute", self.compute),
            ("latency", self.latency),
            ("bandwidth", self.bandwidth),
            ("queueing", self.queueing),
            ("software", self.software),
        ]
    }

    /// The sum of the parts.
    pub fn total(&self) -> f64 {
        self.parts().iter().map(|(_, ms)| ms).sum()
    }
}

impl From<Breakdown> for BreakdownMs {
    fn from(b: Breakdown) -> Self {
        Self {
            compute: round3(b.compute_ms),
            latency: round3(b.latency_ms),
            bandwidth: round3(b.bandwidth_ms),
            queueing: round3(b.queueing_ms),
            software: round3(b.software_ms),
        }
    }
}

/// What became of the requests of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct RequestCounts {
    /// All that were asked.
    pub asked: u32,
    /// Taken on: all but the refused.
    pub accepted: u32,
    /// Ended with all of their tokens.
    pub completed: u32,
    /// Went on after a failure on their way, at least once.
    pub resumed: u32,
    /// Turned away before the first token.
    pub refused: u32,
    /// Ended early.
    pub failed: u32,
    /// Still running when the run was stopped.
    pub unfinished: u32,
}

/// What one engine gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct EngineFigures {
    /// Tokens per second of one stream.
    pub decode_tok_s: f64,
    /// Tokens per second of all streams.
    pub throughput_tok_s: f64,
    /// `decode_tok_s` divided by that of the main run; 0 when the main run gave none.
    pub ratio: f64,
    /// Time per output token.
    pub tpot_ms: Spread,
    /// Time to first token.
    pub ttft_ms: Spread,
    /// Where a decode token's time went.
    pub breakdown_ms: BreakdownMs,
    /// What became of the requests.
    pub requests: RequestCounts,
}

/// The model's size.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModelFacts {
    /// Name and quantisation.
    pub name: String,
    /// Number of layers.
    pub layers: u32,
    /// All weights.
    pub weight_bytes: u64,
    /// Weights that one decoded token reads.
    pub active_bytes: u64,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NodeFacts {
    /// Its name.
    pub node: String,
    /// The machine it stands in; nodes of one machine reach each other without a network.
    pub machine: String,
    /// Its device, for people.
    pub device: String,
    /// Memory the device computes from.
    pub memory_bytes: u64,
    /// What a plan may use of it.
    pub usable_bytes: u64,
    /// Memory bandwidth, GB (10^9 bytes) per second.
    pub bandwidth_gb_s: f64,
    /// The network it is attached to, with its class: `home (wifi)`.
    pub network: String,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StageFacts {
    /// Which copy of the model it belongs to, from 0.
    pub replica: u32,
    /// Who computes.
    pub node: String,
    /// First layer and one past the last: `[0, 24]` holds layers 0 to 23.
    pub layers: [u32; 2],
    /// Weights, KV at the plan's sessions and context, and buffers.
    pub memory_bytes: u64,
    /// What the device has for that.
    pub usable_bytes: u64,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PlanFacts {
    /// `solo`, `pipeline`, `replicas` or `expert-shards`.
    pub mode: String,
    /// `scenario` when the cut was given by hand, `planner` otherwise.
    pub made_by: String,
    /// Complete copies of the model.
    pub replicas: u32,
    /// Stages of all copies, in the order in which a token passes them.
    pub stages: Vec<StageFacts>,
    /// Tokens of context each session may use.
    pub context: u32,
    /// Sessions of that context each copy must hold at once; `memory_bytes` counts their KV.
    pub sessions: u32,
    /// Sessions of that context each copy has room for.
    pub sessions_room: u32,
}

/// What the cost model expects of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Predicted {
    /// Tokens per second of one stream on an otherwise idle mesh.
    pub decode_tok_s: f64,
    /// Time per output token of that stream.
    pub tpot_ms: f64,
    /// Time to first token of one request on an otherwise idle mesh whose streams are open.
    pub ttft_ms: f64,
    /// What the first request of all waits in addition, until the streams between the nodes are open.
    pub opening_ms: f64,
    /// Tokens per second of all streams at the asked concurrency while all of them decode.
    pub throughput_tok_s: f64,
    /// Where the stream's time per token goes.
    pub breakdown_ms: BreakdownMs,
    /// The same under the scenario's load, as a run measures it.
    pub at_load: AtLoad,
}

/// What the cost model expects a run to show, like for like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct AtLoad {
    /// Streams at once: the users of a closed load; `null` where requests come by themselves.
    pub streams: Option<u32>,
    /// Tokens per second of one stream while the others decode too.
    pub decode_tok_s: f64,
    /// Output tokens per second of all streams with the time of their prompts; `null` where requests come by themselves.
    pub throughput_tok_s: Option<f64>,
    /// Time to first token of a request that meets no other, with the opening of streams where most requests of the run
    /// are the first.
    pub ttft_ms: f64,
}

/// Prediction (`at_load`) against run. A figure is the prediction's error in per cent of the run's value, positive when
/// the prediction was too high, `null` where one of the two has no value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Agreement {
    /// Of `decode_tok_s`.
    pub decode_tok_s_error_percent: Option<f64>,
    /// Of `throughput_tok_s`.
    pub throughput_tok_s_error_percent: Option<f64>,
    /// Of the median `ttft_ms`. Requests that wait for each other take longer than predicted.
    pub ttft_ms_error_percent: Option<f64>,
}

/// The recommended plan.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Recommended {
    /// The plan.
    pub plan: PlanFacts,
    /// Whether the main run followed it.
    pub is_main: bool,
    /// What the cost model expects of it.
    pub predicted: Predicted,
    /// What it gave when run; `null` when it was not run.
    pub run: Option<EngineFigures>,
    /// At most this share better could a plan be that was not found; 0 when the search was exact.
    pub gap: f64,
}

/// A machine without layers in the recommended plan.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LeftOutFacts {
    /// Which.
    pub node: String,
    /// Why.
    pub why: String,
}

/// A change to the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Suggestion {
    /// The change, in words.
    pub change: String,
    /// By how many per cent the asked objective gets better.
    pub gain_percent: f64,
}

/// What a machine did in the main run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NodeUseFacts {
    /// Its name.
    pub node: String,
    /// Share of the run's time its device was in a step.
    pub busy: f64,
    /// Memory its stage needs.
    pub memory_bytes: u64,
    /// Steps it ran.
    pub steps: u64,
    /// Bytes it sent.
    pub sent_bytes: u64,
    /// Sessions whose KV was still held at the end.
    pub kv_left: u32,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct IncidentFacts {
    /// When, milliseconds from the run's start.
    pub at_ms: f64,
    /// What, in words.
    pub what: String,
    /// Time until tokens flowed again, where they stopped.
    pub pause_ms: Option<f64>,
}

/// A published measurement beside the run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PublishedFacts {
    /// Row of the source table.
    pub id: String,
    /// Lower and upper end of what was measured, tokens per second.
    pub decode_tok_s: [f64; 2],
    /// A: everything known. B: something assumed. C: poor.
    pub grade: String,
    /// Where it was published.
    pub source: String,
    /// The run's error in per cent of the nearest published value; 0 inside the range.
    pub error_percent: f64,
}
