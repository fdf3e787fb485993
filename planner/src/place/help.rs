//! Whether a machine helps, and what would help most: the fleet changed in one way at a time, and the search asked again.

use super::{Ask, Objective, Placement, Refusal, place};
use crate::fleet::{Delay, Fleet, LinkClass, NetworkId, Node};
use crate::model::Model;
use crate::plan::Prediction;

/// A fleet larger than this gets no suggestions: each of them is one more search.
const NODES_MOST: usize = 24;
/// What gives less than this share is not worth the trouble of a suggestion.
const GAIN_LEAST: f64 = 0.03;
/// Suggestions given.
const GIVEN: usize = 4;
/// A cable: gigabit Ethernet, 0.3 ms to and fro, as the scenario format's class `lan`.
const CABLE_BYTES_PER_S: f64 = 125e6;
const CABLE_DELAY: Delay = Delay { base_us: 140.0, jitter_us: 10.0 };

/// What machines that are not there yet would change.
#[derive(Debug, Clone, PartialEq)]
pub struct Help {
    /// The best plan's figures without them, or why there is none.
    pub without: Result<Prediction, Refusal>,
    /// And with them.
    pub with: Result<Prediction, Refusal>,
    /// By what share the asked objective gets better: 0.5 is half as good again, 0 no help, infinite where there is a
    /// plan only with them.
    pub gain: f64,
    /// Whether any of them holds layers in the best plan.
    pub used: bool,
}

/// One change to the fleet that would make the best plan better.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    /// The change, in words: ``a cable instead of Wi-Fi in `home` ``.
    pub text: String,
    /// The fleet with the change made.
    pub fleet: Fleet,
    /// By what share the asked objective gets better.
    pub gain: f64,
}

/// How good a prediction is by `objective`; more is better. Tokens or first tokens per second.
pub fn merit(prediction: &Prediction, objective: Objective) -> f64 {
    match objective {
        Objective::Tpot => 1e3 / prediction.tpot_ms,
        Objective::Throughput => prediction.throughput_tok_s,
        Objective::Ttft => 1e3 / prediction.ttft_ms,
    }
}

/// What `newcomers` would change. They are attached to networks of `fleet`.
pub fn does_it_help(fleet: &Fleet, model: &Model, ask: &Ask, newcomers: &[Node]) -> Help {
    let mut larger = fleet.clone();
    larger.nodes.extend_from_slice(newcomers);
    let without = place(fleet, model, ask).map(|p| p.recommended.prediction);
    let with = place(&larger, model, ask);
    let is_new = |node: crate::plan::NodeId| node.index() >= fleet.nodes.len();
    let used = with.as_ref().is_ok_and(|p| p.recommended.plan.stages().any(|s| is_new(s.node)));
    let with = with.map(|p| p.recommended.prediction);
    let gain = match (&without, &with) {
        (Ok(before), Ok(after)) => merit(after, ask.objective) / merit(before, ask.objective) - 1.0,
        (Err(_), Ok(_)) => f64::INFINITY,
        (_, Err(_)) => 0.0,
    };
    Help { without, with, gain, used }
}

/// The changes that would make the plan of `placement` better by the asked objective, best first; none for a fleet of
/// more than 24 nodes.
pub fn would_help_most(fleet: &Fleet, model: &Model, ask: &Ask, placement: &Placement) -> Vec<Suggestion> {
    if fleet.nodes.len() > NODES_MOST {
        return Vec::new();
    }
    let now = merit(&placement.recommended.prediction, ask.objective);
    let judged = |(text, fleet): (String, Fleet)| {
        let better = place(&fleet, model, ask).ok()?;
        let gain = merit(&better.recommended.prediction, ask.objective) / now - 1.0;
        (gain >= GAIN_LEAST).then_some(Suggestion { text, fleet, gain })
    };
    let mut found: Vec<Suggestion> = changes(fleet, placement).into_iter().filter_map(judged).collect();
    // Equal gains keep the order in which the changes are thought of: the cheapest first.
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    found.truncate(GIVEN);
    found
}

/// The fleet changed in one way at a time, the cheapest first.
fn changes(fleet: &Fleet, placement: &Placement) -> Vec<(String, Fleet)> {
    let mut found = cables(fleet);
    found.extend(wider_uplinks(fleet));
    found.extend(nearer(fleet));
    found.extend(more_memory(fleet));
    found.extend(one_more(fleet, placement));
    found
}

/// Each Wi-Fi with its machines on a cable instead.
fn cables(fleet: &Fleet) -> Vec<(String, Fleet)> {
    let used = |i: &usize| fleet.nodes.iter().any(|n| n.network == NetworkId(*i as u32));
    let wireless = (0..fleet.networks.len()).filter(|i| fleet.networks[*i].shared).filter(used);
    let wired = |i: usize| {
        let mut changed = fleet.clone();
        let cable = &mut changed.networks[i];
        cable.class = LinkClass::Lan;
        cable.shared = false;
        cable.air_crossings = 1.0;
        cable.access_us = 0.0;
        cable.bytes_per_s = CABLE_BYTES_PER_S;
        cable.delay = CABLE_DELAY;
        cable.loss = 0.0;
        (format!("a cable instead of Wi-Fi in `{}`", fleet.networks[i].name), changed)
    };
    wireless.map(wired).collect()
}

/// Twice the bandwidth from site to site.
fn wider_uplinks(fleet: &Fleet) -> Option<(String, Fleet)> {
    let mut changed = fleet.clone();
    for network in &mut changed.networks {
        for rate in [&mut network.up_bytes_per_s, &mut network.down_bytes_per_s] {
            *rate = rate.map(|rate| 2.0 * rate);
        }
    }
    (changed != *fleet).then(|| ("twice the bandwidth between the sites".to_owned(), changed))
}

/// Half the way between the sites, as a direct path gives where there is a relay.
fn nearer(fleet: &Fleet) -> Option<(String, Fleet)> {
    let mut changed = fleet.clone();
    for distance in &mut changed.distances {
        distance.delay.base_us /= 2.0;
        distance.delay.jitter_us /= 2.0;
    }
    (changed != *fleet).then(|| ("half the round trip between the sites".to_owned(), changed))
}

/// Each machine with twice its memory.
fn more_memory(fleet: &Fleet) -> Vec<(String, Fleet)> {
    let doubled = |i: usize| {
        let mut changed = fleet.clone();
        let device = &mut changed.nodes[i].device;
        device.memory_bytes = device.memory_bytes.saturating_mul(2);
        (format!("twice the memory in `{}`", fleet.nodes[i].name), changed)
    };
    (0..fleet.nodes.len()).filter(|i| fleet.nodes[*i].has_model).map(doubled).collect()
}

/// One more of each kind of machine that the recommended plan uses, beside the first of its kind.
fn one_more(fleet: &Fleet, placement: &Placement) -> Vec<(String, Fleet)> {
    let mut kinds: Vec<&Node> = Vec::new();
    for stage in placement.recommended.plan.stages() {
        let node = fleet.node(stage.node);
        if !kinds.iter().any(|k| k.device == node.device && k.network == node.network) {
            kinds.push(node);
        }
    }
    let more = |node: &&Node| {
        let mut changed = fleet.clone();
        let name = format!("another-{}", node.name);
        changed.nodes.push(Node { machine: name.clone(), name, ..(*node).clone() });
        (format!("another machine like `{}`", node.name), changed)
    };
    kinds.iter().map(more).collect()
}
