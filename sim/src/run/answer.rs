//! The whole answer to a scenario: its own run, other engines over the same links, and what the planner thinks.

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
    let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
    let ring = || {
        let plan = plan::choose_from(scenario, &placement)?;
        Ok(record_plan(scenario, plan, seed, world, trace)?.outcome)
    };
    let main = match scenario.engine {
        EngineKind::Ring => ring()?,
        baseline => baseline::play(scenario, baseline, seed)?,
    };
    let faulty = with_faults(scenario, &main, seed);
    let play = |kind| Ok(baseline::play(&faulty, kind, seed)?);
    let baselines = scenario.baselines.iter().map(|kind| match kind {
        // This project's ring is run, not played, where its plan fits the machines.
        EngineKind::Ring => ring().or_else(|_: RunError| play(EngineKind::Ring)),
        other => play(*other),
    });
    let baselines = baselines.collect::<Result<_, RunError>>()?;
    let recommended = placement.as_ref().ok().map(|placement| placement.recommended.clone());
    Ok(Answer {
        predicted: predicted(scenario, &main),
        recommended_run: recommended.as_ref().and_then(|r| recommended_run(scenario, &main, r, seed, world)),
        recommended,
        baselines,
        main,
    })
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
    ring.then(|| predict(&scenario.fleet, &scenario.model, &main.plan, load, &scenario.software)).flatten()
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
