//! How long things may take in one run before something must be wrong: from the scenario, not from what was seen.

use planner::cost::constants::RING;
use planner::cost::memory::load_us;
use planner::cost::predict::{Load, predict};
use planner::plan::Plan;

use crate::outcome::RequestRecord;
use crate::scenario::Scenario;

/// Finding out that somebody is gone, agreeing on a plan, opening streams: rounds of deadlines of a few seconds each, some
/// of them one after the other, microseconds.
const SETTLE_US: f64 = 60e6;

/// Plans that may follow one another before one holds: each costs the load of its layers, and the head waits as long
/// again before it gives a plan up.
const TRIES: f64 = 4.0;

/// The longest wait that one fault explains, microseconds after it.
pub(super) fn recovery_us(scenario: &Scenario, plan: &Plan) -> f64 {
    let weights = scenario.model.weight_bytes();
    let nodes = scenario.fleet.nodes.iter().filter(|node| node.has_model);
    let loads = nodes.map(|node| load_us(&node.device, weights.min(node.device.usable_bytes())));
    let replay_us = serving_us(scenario, plan, plan.context, 1);
    SETTLE_US + 2.0 * TRIES * loads.fold(0.0, f64::max) + TRIES * replay_us
}

/// The longest wait that serving all of `requests` one after the other explains, microseconds.
pub(super) fn work_us(scenario: &Scenario, plan: &Plan, requests: &[RequestRecord]) -> f64 {
    let each = requests.iter().map(|r| serving_us(scenario, plan, r.prompt, r.output));
    TRIES * each.sum::<f64>()
}

/// Serving one request alone.
fn serving_us(scenario: &Scenario, plan: &Plan, prompt: u32, output: u32) -> f64 {
    let load = Load { prompt, context: prompt + output, concurrency: 1, head: scenario.plan.ask.load.head };
    let prediction = predict(&scenario.fleet, &scenario.model, plan, &load, &RING);
    prediction.map_or(0.0, |p| (p.ttft_ms + p.tpot_ms * f64::from(output)) * 1e3)
}
