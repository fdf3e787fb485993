//! What the simulator says a cell gives, from the profile of one machine alone.

use planner::cost::predict::predict;
use planner::plan::{Pipeline, Plan, Prediction, Stage};
use sim::baseline::{self, PlayError};
use sim::outcome::{Outcome, RequestRecord, Status};
use sim::run::{self, RunError};
use sim::scenario::{EngineKind, Scenario, WorldKind};

use super::cells::Net;

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictionError {
    /// The simulator cannot run it.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It cannot play the other engine.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// It ran and answered nobody.
    #[error("the simulated mesh answered nobody: {0}")]
    NoAnswer(String),
}

/// What a mesh gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Tokens a second of one stream, after its first.
    pub decode_tok_s: f64,
    /// From asking to the first token, milliseconds.
    pub ttft_ms: f64,
    /// Tokens a second of all streams together, from the first asking to the last token.
    pub total_tok_s: f64,
}

/// The simulator's word on one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foretold {
    /// The nodes' own code in the memory world.
    pub sim: Speed,
    /// The planner's formula, for one stream.
    pub formula: Prediction,
    /// Tokens a second if there were nothing but computing and one trip from stage to stage.
    pub limit_tok_s: f64,
}

/// What `scenario` gives. Of several requests of one user the last counts: the streams between the nodes are open then.
///
/// # Errors
/// [`PredictionError`].
pub fn foretell(scenario: &Scenario, net: Net) -> Result<Foretold, PredictionError> {
    let outcome = run::run(scenario, scenario.seed, WorldKind::Memory, false)?;
    let plan = plan_of(scenario).unwrap_or_else(|| outcome.plan.clone());
    let load = &scenario.plan.ask.load;
    let formula = predict(&scenario.fleet, &scenario.model, &plan, load, &scenario.software)
        .ok_or_else(|| PredictionError::NoAnswer("its nodes do not reach each other".into()))?;
    let stages = plan.replicas.first().map_or(0, |pipeline| pipeline.stages.len());
    let trips = if stages > 1 { stages as f64 } else { 0.0 };
    let limit_ms = formula.breakdown.compute_ms + trips * net.rtt_ms() / 2.0;
    Ok(Foretold { sim: speed(&outcome)?, formula, limit_tok_s: 1e3 / limit_ms })
}

/// What llama.cpp's RPC would give over the same links and cut, on machines that compute as fast: predicted only.
///
/// # Errors
/// [`PredictionError`].
pub fn llama_rpc(scenario: &Scenario) -> Result<Speed, PredictionError> {
    speed(&baseline::play(scenario, EngineKind::LlamaRpc, scenario.seed)?)
}

/// The scenario's cut as a plan.
fn plan_of(scenario: &Scenario) -> Option<Plan> {
    let split = scenario.plan.split.as_ref()?;
    let stages = split.iter().map(|(node, layers)| Stage { node: *node, layers: *layers }).collect();
    let constraints = &scenario.plan.ask.constraints;
    Some(Plan {
        model: scenario.model.name.clone(),
        replicas: vec![Pipeline { stages }],
        experts: Vec::new(),
        context: constraints.context,
        sessions: constraints.sessions.max(1),
    })
}

fn speed(outcome: &Outcome) -> Result<Speed, PredictionError> {
    let whole: Vec<&RequestRecord> =
        outcome.requests.iter().filter(|request| request.status == Status::Completed).collect();
    let Some(last) = whole.last() else {
        let told = outcome.requests.iter().map(|request| format!("{:?}", request.status)).collect::<Vec<_>>();
        return Err(PredictionError::NoAnswer(told.join(", ")));
    };
    let first_us = whole.iter().map(|request| request.asked_us).fold(f64::INFINITY, f64::min);
    let end_us = whole.iter().filter_map(|request| request.tokens_us.last()).copied().fold(0.0, f64::max);
    let tokens: usize = whole.iter().map(|request| request.tokens_us.len()).sum();
    Ok(Speed {
        decode_tok_s: decode_tok_s(&last.tokens_us),
        ttft_ms: last.tokens_us.first().map_or(0.0, |first| (first - last.asked_us) / 1e3),
        total_tok_s: tokens as f64 / (end_us - first_us).max(1.0) * 1e6,
    })
}

fn decode_tok_s(tokens_us: &[f64]) -> f64 {
    match (tokens_us.first(), tokens_us.last()) {
        (Some(first), Some(last)) if last > first => (tokens_us.len() - 1) as f64 / (last - first) * 1e6,
        _ => 0.0,
    }
}
