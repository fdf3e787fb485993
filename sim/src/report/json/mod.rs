//! The object that `--json` prints. Its keys are a promise; `docs/output.md` describes it, `sim schema --output` prints
//! its JSON Schema.
//!
//! Numbers are rounded to three decimals, so that two runs of one scenario and seed, in any build, print the same bytes.
//! Nothing in it knows the wall clock or the machine it ran on.

mod digest;
mod parts;
mod series;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

pub use digest::{engine_name, node_name};
pub use parts::{
    Agreement, AtLoad, BreakdownMs, EngineFigures, IncidentFacts, LeftOutFacts, ModelFacts, NodeFacts,
    NodeUseFacts, PlanFacts, Predicted, PublishedFacts, Recommended, RequestCounts, Spread, StageFacts,
    Suggestion,
};
pub use series::{EngineEstimate, Interval, SeedsFacts, SweepFacts, SweepPoint};

use crate::outcome::Answer;
use crate::scenario::Scenario;

use super::Advice;

/// Grows when a key changes its meaning or goes away; new keys do not change it.
pub const FORMAT: u32 = 1;

/// The name of the recommended plan's run beside the engines' names.
pub const RECOMMENDED: &str = "recommended";

/// One scenario's answer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// Version of this object's keys.
    pub format: u32,
    /// The scenario's name: its file's stem.
    pub scenario: String,
    /// The question it answers.
    pub question: String,
    /// The seed everything random came from.
    pub seed: u64,
    /// The world the nodes ran in: `turmoil` or `memory`.
    pub world: String,
    /// Dilation of that world's clock: simulated time runs in steps of one millisecond divided by this.
    pub scale: u32,
    /// The most that those steps add to the time of a token, as a share of it. 0 where time has no steps.
    pub scale_error_percent: f64,
    /// Who ran the model in the main run: `ring`, or a baseline's name.
    pub engine: String,
    /// What was run.
    pub model: ModelFacts,
    /// Every machine of the fleet, with or without layers.
    pub fleet: Vec<NodeFacts>,
    /// The (first) plan of the main run.
    pub plan: PlanFacts,
    /// Tokens per second of one stream: 1000 / `tpot_ms.mean`. 0 when no request got a second token.
    pub decode_tok_s: f64,
    /// Output tokens of all requests divided by the time from the first request to the last token.
    pub throughput_tok_s: f64,
    /// Time per output token: from one token to the next of the same request, over all requests, recoveries included.
    pub tpot_ms: Spread,
    /// Time to first token: from asking to the first token, over all requests that got one.
    pub ttft_ms: Spread,
    /// Where a decode token's time went on average, recoveries excluded.
    pub breakdown_ms: BreakdownMs,
    /// What became of the requests.
    pub requests: RequestCounts,
    /// What the cost model expects of the plan; absent for a baseline.
    pub predicted: Option<Predicted>,
    /// How well that agreed with the run.
    pub agreement: Option<Agreement>,
    /// The baselines over the same fleet, by name.
    pub baselines: BTreeMap<String, EngineFigures>,
    /// The plan that the planner recommends.
    pub recommended: Option<Recommended>,
    /// Why there is no recommended plan.
    pub refusal: Option<String>,
    /// Machines without layers in the recommended plan, and why.
    pub left_out: Vec<LeftOutFacts>,
    /// Changes to the fleet that would help, best first.
    pub would_help: Vec<Suggestion>,
    /// Every machine that computed in the main run.
    pub nodes: Vec<NodeUseFacts>,
    /// Faults and recoveries, by time.
    pub incidents: Vec<IncidentFacts>,
    /// Number of the plan in force at the end.
    pub epoch: u64,
    /// Simulated time the run took, seconds.
    pub simulated_s: f64,
    /// What the oracles found wrong; empty unless there is a bug.
    pub violations: Vec<String>,
    /// What somebody measured on such a fleet, in validation cases.
    pub published: Option<PublishedFacts>,
    /// Several seeds, when asked for; the rest of the object is then the first seed's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<SeedsFacts>,
    /// A sweep, when asked for; the rest of the object is then the first point's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepFacts>,
}

impl Report {
    /// The report of one answer.
    pub fn new(scenario: &Scenario, answer: &Answer, advice: &Advice) -> Self {
        digest::digest(scenario, answer, advice)
    }

    /// The figures of every run: the main run's, the recommended plan's as [`RECOMMENDED`] where it was run apart, and
    /// the baselines'.
    pub fn runs(&self) -> Vec<(String, EngineFigures)> {
        let mut runs = self.engines();
        let apart = self.recommended.as_ref().filter(|r| !r.is_main).and_then(|r| r.run);
        if let Some(figures) = apart {
            runs.insert(1, (RECOMMENDED.to_owned(), figures));
        }
        runs
    }

    /// At most `most` incidents until `until_ms`, by time: those that stopped tokens before those that did not.
    pub(crate) fn notable_incidents(&self, most: usize, until_ms: f64) -> Vec<&IncidentFacts> {
        let mut chosen: Vec<&IncidentFacts> = self.incidents.iter().filter(|i| i.at_ms <= until_ms).collect();
        chosen.sort_by_key(|i| i.pause_ms.is_none());
        chosen.truncate(most);
        chosen.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        chosen
    }

    /// The object as text, indented, ending in a line break.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("string keys and finite numbers always serialise");
        text.push('\n');
        text
    }

    /// The figures of the main run and of each baseline, by engine name; the main run first, then by name.
    pub fn engines(&self) -> Vec<(String, EngineFigures)> {
        let main = EngineFigures {
            decode_tok_s: self.decode_tok_s,
            throughput_tok_s: self.throughput_tok_s,
            ratio: 1.0,
            tpot_ms: self.tpot_ms,
            ttft_ms: self.ttft_ms,
            breakdown_ms: self.breakdown_ms,
            requests: self.requests,
        };
        let others = self.baselines.iter().map(|(name, figures)| (name.clone(), *figures));
        std::iter::once((self.engine.clone(), main)).chain(others).collect()
    }
}

/// The JSON Schema of [`Report`], as text.
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(Report))
        .expect("a schema made of strings and numbers always serialises");
    text.push('\n');
    text
}

/// `value` to three decimals, without a negative zero.
pub(crate) fn round3(value: f64) -> f64 {
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded == 0.0 { 0.0 } else { rounded }
}

#[cfg(test)]
mod tests;
