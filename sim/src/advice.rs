//! What would help most: the fleet changed in one way at a time, and the planner asked again.

use planner::fleet::{Delay, Fleet, LinkClass, NetworkId, Node};
use planner::place::{Objective, Placement, Refusal, place};
use planner::plan::Prediction;

use crate::report::{Advice, Help};
use crate::scenario::Scenario;

/// A fleet larger than this gets no suggestions: each of them asks the planner once more.
const NODES_MOST: usize = 24;
/// What gives less than this share is not worth the trouble of a suggestion.
const GAIN_LEAST: f64 = 0.03;
/// Suggestions shown.
const SHOWN: usize = 4;
/// A cable: gigabit Ethernet, 0.3 ms to and fro, as the scenario format's class `lan`.
const CABLE_BYTES_PER_S: f64 = 125e6;
const CABLE_DELAY: Delay = Delay { base_us: 140.0, jitter_us: 10.0 };

/// Everything the planner has to say beside its plan: who is left out and why, and what would help.
pub fn advise(scenario: &Scenario, placement: &Result<Placement, Refusal>) -> Advice {
    let help = match placement {
        Ok(placement) if scenario.fleet.nodes.len() <= NODES_MOST => help(scenario, placement),
        _ => Vec::new(),
    };
    Advice::new(&scenario.fleet, placement, help)
}

/// The changes that would make the recommended plan better, best first.
fn help(scenario: &Scenario, placement: &Placement) -> Vec<Help> {
    let objective = scenario.plan.ask.objective;
    let now = merit(&placement.recommended.prediction, objective);
    let mut found: Vec<Help> = changes(scenario, placement)
        .into_iter()
        .filter_map(|(text, fleet)| {
            let better = place(&fleet, &scenario.model, &scenario.plan.ask).ok()?;
            let gain = merit(&better.recommended.prediction, objective) / now - 1.0;
            (gain >= GAIN_LEAST).then_some(Help { text, gain })
        })
        .collect();
    // Equal gains keep the order in which the changes are thought of: the cheapest first.
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    found.truncate(SHOWN);
    found
}

/// How good a prediction is by the asked objective; more is better.
fn merit(prediction: &Prediction, objective: Objective) -> f64 {
    match objective {
        Objective::Tpot => 1.0 / prediction.tpot_ms,
        Objective::Throughput => prediction.throughput_tok_s,
        Objective::Ttft => 1.0 / prediction.ttft_ms,
    }
}

/// The fleet changed in one way at a time, the cheapest first.
fn changes(scenario: &Scenario, placement: &Placement) -> Vec<(String, Fleet)> {
    let mut found = Vec::new();
    found.extend(cables(&scenario.fleet));
    found.extend(wider_uplinks(&scenario.fleet));
    found.extend(nearer(&scenario.fleet));
    found.extend(one_more(scenario, placement));
    found
}

/// Each Wi-Fi with its machines on a cable instead.
fn cables(fleet: &Fleet) -> Vec<(String, Fleet)> {
    let mut found = Vec::new();
    for (i, network) in fleet.networks.iter().enumerate().filter(|(_, n)| n.shared) {
        let id = NetworkId(i as u32);
        if fleet.nodes.iter().filter(|n| n.network == id).count() == 0 {
            continue;
        }
        let mut changed = fleet.clone();
        let cable = &mut changed.networks[i];
        cable.class = LinkClass::Lan;
        cable.shared = false;
        cable.air_crossings = 1.0;
        cable.access_us = 0.0;
        cable.bytes_per_s = CABLE_BYTES_PER_S;
        cable.delay = CABLE_DELAY;
        cable.loss = 0.0;
        found.push((format!("a cable instead of Wi-Fi in `{}`", network.name), changed));
    }
    found
}

/// Twice the bandwidth from site to site.
fn wider_uplinks(fleet: &Fleet) -> Option<(String, Fleet)> {
    let mut changed = fleet.clone();
    let mut any = false;
    let mut double = |rate: &mut Option<f64>| {
        any |= rate.is_some();
        *rate = rate.map(|rate| 2.0 * rate);
    };
    for network in &mut changed.networks {
        double(&mut network.up_bytes_per_s);
        double(&mut network.down_bytes_per_s);
    }
    any.then(|| ("twice the bandwidth between the sites".to_owned(), changed))
}

/// Half the way between the sites, as a direct path gives where there is a relay.
fn nearer(fleet: &Fleet) -> Option<(String, Fleet)> {
    if fleet.distances.is_empty() {
        return None;
    }
    let mut changed = fleet.clone();
    for distance in &mut changed.distances {
        distance.delay.base_us /= 2.0;
        distance.delay.jitter_us /= 2.0;
    }
    Some(("half the round trip between the sites".to_owned(), changed))
}

/// One more of each kind of machine that the recommended plan uses, beside the first of its kind.
fn one_more(scenario: &Scenario, placement: &Placement) -> Vec<(String, Fleet)> {
    let mut kinds: Vec<&Node> = Vec::new();
    for stage in placement.recommended.plan.stages() {
        let node = scenario.fleet.node(stage.node);
        if !kinds.iter().any(|k| k.device == node.device && k.network == node.network) {
            kinds.push(node);
        }
    }
    let more = |node: &&Node| {
        let mut changed = scenario.fleet.clone();
        let name = format!("another-{}", node.name);
        changed.nodes.push(Node { machine: name.clone(), name, ..(*node).clone() });
        (format!("another machine like `{}`", node.name), changed)
    };
    kinds.iter().map(more).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

    use std::path::Path;

    use super::*;
    use crate::scenario::load_text;

    fn scenario() -> Scenario {
        let text = "model = { layers = 32, hidden = 4096, ffn = 11008, size = \"20 GB\" }\n\
            [network.home]\nclass = \"wifi\"\nrtt = \"30 ms\"\n\
            [node]\na = { device = \"apple-m4\" }\nb = { device = \"apple-m4\" }\n";
        load_text(Path::new("pair.toml"), text, &[], None).unwrap()
    }

    #[test]
    fn a_pipeline_over_wifi_is_told_to_take_a_cable() {
        let scenario = scenario();
        let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
        let advice = advise(&scenario, &placement);
        let cable = advice.help.iter().find(|h| h.text.contains("cable")).unwrap();
        // Two one-way trips of about 15 ms of a token that takes some 200 ms.
        assert!((0.05..1.0).contains(&cable.gain), "{cable:?}");
        assert!(advice.help.windows(2).all(|w| w[0].gain >= w[1].gain));
    }

    #[test]
    fn a_model_that_fits_nowhere_gets_the_refusal_and_no_suggestions() {
        let mut scenario = scenario();
        scenario.fleet.nodes.truncate(1);
        let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
        let advice = advise(&scenario, &placement);
        assert!(advice.refusal.is_some() && advice.help.is_empty());
    }
}
