//! How long things may take in one run before something must be wrong: from the scenario, not from what was seen.

use node::Limits;
use planner::cost::memory::load_us;
use planner::cost::predict::{Load, predict};
use planner::plan::Plan;

use crate::outcome::RequestRecord;
use crate::scenario::Scenario;

/// Plans that may follow one another before one holds, after the last fault: the one that was being carried out when it
/// struck, and the one that takes it into account. Each costs the load of its layers.
const PLANS: f64 = 2.0;

/// How many times longer than foreseen serving may take: devices err, and steps are shared.
const TRIES: f64 = 4.0;

/// The longest wait that one fault explains, microseconds after it.
pub(super) fn recovery_us(scenario: &Scenario, plan: &Plan) -> f64 {
    let weights = scenario.model.weight_bytes();
    let nodes = scenario.fleet.nodes.iter().filter(|node| node.has_model);
    let loads = nodes.map(|node| load_us(&node.device, weights.min(node.device.usable_bytes())));
    let replay_us = serving_us(scenario, plan, plan.context, 1);
    settling_us(&Limits::default()) + PLANS * loads.fold(0.0, f64::max) + replay_us
}

/// What deadlines may cost one after the other: pings that are missed before a plan is made, a head's pause before its next
/// attempt, and one attempt whose first frames went to a node that was going or coming, and that nobody answers.
fn settling_us(limits: &Limits) -> f64 {
    let noticed = limits.ping_period * (limits.ping_misses + 1);
    let silence = limits.first_token_floor * limits.patience;
    (noticed + limits.retry_last + silence).as_secs_f64() * 1e6
}

/// The longest wait that serving all of `requests` one after the other explains, microseconds.
pub(super) fn work_us(scenario: &Scenario, plan: &Plan, requests: &[RequestRecord]) -> f64 {
    let each = requests.iter().map(|r| serving_us(scenario, plan, r.prompt, r.output));
    TRIES * each.sum::<f64>()
}

/// Serving one request alone.
fn serving_us(scenario: &Scenario, plan: &Plan, prompt: u32, output: u32) -> f64 {
    let load = Load { prompt, context: prompt + output, concurrency: 1, head: scenario.plan.ask.load.head };
    let prediction = predict(&scenario.fleet, &scenario.model, plan, &load, &scenario.software);
    prediction.map_or(0.0, |p| (p.ttft_ms + p.tpot_ms * f64::from(output)) * 1e3)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::run::plan::choose;
    use crate::scenario::load;

    /// What the slowest recovery of `sim check scenarios/churn.toml --seeds 1..300 --world memory` took: one load of layers
    /// (3.3 s), and deadlines.
    const SLOWEST_US: f64 = 8.6e6;

    #[test]
    fn a_recovery_may_take_a_few_times_what_it_takes_and_no_more() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/churn.toml");
        let scenario = load(&path, &[], None).expect("it is shipped");
        let plan = choose(&scenario).expect("it has a plan");
        let times = recovery_us(&scenario, &plan) / SLOWEST_US;
        assert!((1.5..4.0).contains(&times), "{times}");
    }
}
