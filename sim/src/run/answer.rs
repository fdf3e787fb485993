//! The whole answer to a scenario: its own run, other engines over the same links, and what the planner thinks.

use planner::cost::constants::RING;
use planner::cost::predict::predict;
use planner::place::{Candidate, place};
use planner::plan::Prediction;

use super::{RunError, plan, record_plan};
use crate::baseline;
use crate::outcome::{Answer, Outcome};
use crate::scenario::{EngineKind, Scenario, WorldKind};
use crate::seed::Seed;

/// Runs everything the scenario asks for: the main run in `world`, the baselines, the recommended plan where it is another.
///
/// # Errors
/// When the main run or a baseline cannot be run. A recommended plan that cannot be run is left out.
pub fn answer(scenario: &Scenario, seed: u64, world: WorldKind, trace: bool) -> Result<Answer, RunError> {
    let main = main_run(scenario, seed, world, trace)?;
    let faulty = with_faults(scenario, &main, seed);
    let baselines = scenario.baselines.iter().map(|kind| engine_run(&faulty, *kind, seed, world));
    let baselines = baselines.collect::<Result<_, _>>()?;
    let recommended = place(&scenario.fleet, &scenario.model, &scenario.plan.ask).ok().map(|p| p.recommended);
    Ok(Answer {
        predicted: predicted(scenario, &main),
        recommended_run: recommended.as_ref().and_then(|r| recommended_run(scenario, &main, r, seed, world)),
        recommended,
        baselines,
        main,
    })
}

fn main_run(scenario: &Scenario, seed: u64, world: WorldKind, trace: bool) -> Result<Outcome, RunError> {
    if scenario.engine == EngineKind::Ring {
        return super::run(scenario, seed, world, trace);
    }
    Ok(baseline::play(scenario, scenario.engine, seed)?)
}

/// Another engine on the same plan. This project's ring is run, not played, where its plan fits the machines.
fn engine_run(
    scenario: &Scenario,
    kind: EngineKind,
    seed: u64,
    world: WorldKind,
) -> Result<Outcome, RunError> {
    if kind == EngineKind::Ring
        && let Ok(plan) = plan::choose(scenario)
    {
        return Ok(record_plan(scenario, plan, seed, world, false)?.outcome);
    }
    Ok(baseline::play(scenario, kind, seed)?)
}

/// The scenario with its random faults drawn, and on the plan of the main run: what baselines are played on.
fn with_faults(scenario: &Scenario, main: &Outcome, seed: u64) -> Scenario {
    let entries = super::entries(scenario, &main.plan);
    let faults = crate::faults::schedule(scenario, &entries, Seed::new(seed));
    Scenario { faults, churn: None, ..scenario.clone() }
}

fn predicted(scenario: &Scenario, main: &Outcome) -> Option<Prediction> {
    let ring = main.engine == EngineKind::Ring;
    let load = &scenario.plan.ask.load;
    ring.then(|| predict(&scenario.fleet, &scenario.model, &main.plan, load, &RING)).flatten()
}

fn recommended_run(
    scenario: &Scenario,
    main: &Outcome,
    recommended: &Candidate,
    seed: u64,
    world: WorldKind,
) -> Option<Outcome> {
    let same = main.engine == EngineKind::Ring && main.plan.replicas == recommended.plan.replicas;
    if same {
        return None;
    }
    record_plan(scenario, recommended.plan.clone(), seed, world, false).ok().map(|r| r.outcome)
}
