//! Running one case.

use planner::cost::memory::{stage_bytes, weight_bytes};
use planner::plan::{Breakdown, Plan};
use serde::Serialize;
use sim::baseline::play;
use sim::outcome::{Outcome, Status};
use sim::report::json::engine_name;
use sim::report::stats::mean;
use sim::run::run;
use sim::scenario::{EngineKind, Scenario, WorldKind};

use super::cases::Case;
use super::{ANOMALY_FACTOR, APART};

/// A played engine may take as long as this, simulated: thirty days.
const PLAYED_US: f64 = 30.0 * 86_400.0 * 1e6;

/// What to know of a row beside its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// Published far slower than the model allows: paging, swapping or a broken build.
    Anomaly,
    /// Its family is reported apart.
    Apart,
}

/// One case, predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Row of the source table.
    pub id: String,
    /// A, B or C.
    pub grade: char,
    /// Family of rows.
    pub family: String,
    /// Engine that was run.
    pub engine: String,
    /// Model.
    pub model: String,
    /// The cut, `n0 0..16, n1 16..32`.
    pub cut: String,
    /// Published tokens per second, the two ends of what was published.
    pub published_tok_s: (f64, f64),
    /// Predicted tokens per second of one stream.
    pub predicted_tok_s: f64,
    /// Predicted over published (the middle of a range), minus one, in per cent.
    pub error_percent: f64,
    /// Where the predicted time of a token goes, milliseconds.
    pub breakdown_ms: Breakdown,
    /// Whether a stage is larger than its memory and reads from disk.
    pub pages: bool,
    /// Whether a constant was fitted on it.
    pub calibrated_on: bool,
    /// Set where it enters no error figure.
    pub note: Option<Note>,
    /// What had to be assumed.
    pub assumed: String,
    /// Where it was published.
    pub source: String,
}

/// Runs the case without random compute errors: what is compared is the model, not a draw.
pub(super) fn predict(case: &Case) -> Result<Prediction, String> {
    let scenario = Scenario { compute_error: (0.0, 0.0), ..case.scenario.clone() };
    let outcome = outcome(&scenario)?;
    let predicted_tok_s = decode_tok_s(&outcome)?;
    let published = &case.published;
    let (low, high) = published.decode_tok_s;
    let error_percent = (predicted_tok_s / ((low + high) / 2.0) - 1.0) * 100.0;
    let note = if APART.contains(&published.family.as_str()) {
        Some(Note::Apart)
    } else if high * ANOMALY_FACTOR < predicted_tok_s {
        Some(Note::Anomaly)
    } else {
        None
    };
    Ok(Prediction {
        id: published.id.clone(),
        grade: published.grade,
        family: published.family.clone(),
        engine: engine_name(outcome.engine),
        model: scenario.model.name.clone(),
        cut: cut(&scenario, &outcome.plan),
        published_tok_s: (low, high),
        predicted_tok_s: rounded(predicted_tok_s),
        error_percent: rounded(error_percent),
        breakdown_ms: outcome.breakdown,
        pages: pages(&scenario, &outcome.plan),
        calibrated_on: published.calibrated_on,
        note,
        assumed: published.assumed.clone(),
        source: published.source.clone(),
    })
}

/// This project's ring is run on real nodes in the memory world, any other engine is played. A cut that leaves a stage no
/// room is played too: a node refuses it, where the published engine paged.
fn outcome(scenario: &Scenario) -> Result<Outcome, String> {
    let seed = scenario.seed;
    if scenario.engine == EngineKind::Ring && fits(scenario) {
        return run(scenario, seed, WorldKind::Memory, false).map_err(|e| e.to_string());
    }
    // What pages may take hours for a prompt, and is published all the same.
    let patient = Scenario { limit_us: scenario.limit_us.max(PLAYED_US), ..scenario.clone() };
    play(&patient, scenario.engine, seed).map_err(|e| e.to_string())
}

/// Whether every stage of a cut given by hand has room for its weights, KV and activations. The planner's cuts have.
fn fits(scenario: &Scenario) -> bool {
    let constraints = &scenario.plan.ask.constraints;
    scenario.plan.split.iter().flatten().all(|(node, layers)| {
        let need = stage_bytes(&scenario.model, *layers, constraints.context, constraints.sessions);
        need <= scenario.fleet.node(*node).device.usable_bytes()
    })
}

/// One over the mean time between tokens of a request.
fn decode_tok_s(outcome: &Outcome) -> Result<f64, String> {
    if let Some(request) = outcome.requests.iter().find(|r| r.status != Status::Completed) {
        return Err(match &request.status {
            Status::Unfinished => format!(
                "request {} did not end in time; raise run.limit, or ask for fewer tokens",
                request.session.0
            ),
            other => format!("request {} did not complete: {other:?}", request.session.0),
        });
    }
    let gaps_us: Vec<f64> =
        outcome.requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|pair| pair[1] - pair[0])).collect();
    match mean(&gaps_us) {
        Some(gap_us) if gap_us > 0.0 => Ok(1e6 / gap_us),
        _ => Err("it gives no time between tokens: ask for two output tokens or more".into()),
    }
}

fn cut(scenario: &Scenario, plan: &Plan) -> String {
    let stage = |s: &planner::plan::Stage| {
        format!("{} {}..{}", scenario.fleet.node(s.node).name, s.layers.first, s.layers.end)
    };
    plan.stages().map(stage).collect::<Vec<_>>().join(", ")
}

fn pages(scenario: &Scenario, plan: &Plan) -> bool {
    plan.stages().any(|stage| {
        weight_bytes(&scenario.model, stage.layers) > scenario.fleet.node(stage.node).device.usable_bytes()
    })
}

/// Six digits are more than any of it is worth, and the same on every machine.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
