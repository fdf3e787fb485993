//! Whether a machine helps, and what would help most: the fleet changed in one way at a time, and the search asked again.

use super::{Ask, Objective, Placement, Refusal, Shape, place};
use crate::cost::constants::RING;
use crate::cost::predict::predict;
use crate::fleet::{Delay, Fleet, LinkClass, NetworkId, Node, NodeId};
use crate::model::Model;
use crate::plan::{Mode, Plan, Prediction};

/// A fleet larger than this gets no suggestions but those for a given plan: each of the others is one more search.
pub const NODES_MOST: usize = 24;
/// What gives less than this share is not worth the trouble of a suggestion.
const GAIN_LEAST: f64 = 0.03;
/// Suggestions given, and of those at most of one kind.
const GIVEN: usize = 6;
const OF_A_KIND: usize = 2;
/// Stages of a suggested plan that are named; of more only the number.
const STAGES_NAMED: usize = 4;
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

/// One change to the plan or to the fleet that would make things better.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggestion {
    /// The change, in words: ``a cable instead of Wi-Fi in `home` ``.
    pub text: String,
    /// The fleet with the change made; as it was where the plan alone changes.
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

/// What would make `plan`, which somebody cut by hand, better by the asked objective, best first: another plan over the
/// same fleet, or the same plan over other links or faster machines.
pub fn would_help_plan(
    fleet: &Fleet,
    model: &Model,
    ask: &Ask,
    plan: &Plan,
    placement: Option<&Placement>,
) -> Vec<Suggestion> {
    let judge = |fleet: &Fleet, plan: &Plan| {
        let prediction = predict(fleet, model, plan, &ask.load, &RING)?;
        Some(merit(&prediction, ask.objective))
    };
    let Some(now) = judge(fleet, plan) else { return Vec::new() };
    let mut found: Vec<Suggestion> = Vec::new();
    let mut offer = |text: String, fleet: Fleet, merit: Option<f64>| {
        let gain = merit.map_or(0.0, |merit| merit / now - 1.0);
        if gain >= GAIN_LEAST {
            found.push(Suggestion { text, fleet, gain });
        }
    };
    if let Some(placement) = placement {
        let best = &placement.recommended.plan;
        let text = format!("the recommended plan: {}", in_words(fleet, best));
        offer(text, fleet.clone(), judge(fleet, best));
    }
    if let Some(recut) = cut_anew(fleet, model, ask, plan) {
        let text = format!("the same machines, cut and ordered otherwise: {}", in_words(fleet, &recut));
        offer(text, fleet.clone(), judge(fleet, &recut));
    }
    let links = cables(fleet).into_iter().chain(wider_uplinks(fleet)).chain(nearer(fleet));
    for (text, changed) in links.chain(faster(fleet, plan)) {
        let merit = judge(&changed, plan);
        offer(text, changed, merit);
    }
    best_of(found, GIVEN)
}

/// The best pipeline over exactly the nodes of `plan`, where that is one pipeline.
fn cut_anew(fleet: &Fleet, model: &Model, ask: &Ask, plan: &Plan) -> Option<Plan> {
    let nodes: Vec<NodeId> = plan.stages().map(|s| s.node).collect();
    if plan.mode() != Mode::Pipeline || nodes.len() > NODES_MOST {
        return None;
    }
    let mut ask = ask.clone();
    ask.constraints.excluded = fleet.ids().filter(|id| !nodes.contains(id)).collect();
    ask.constraints.pinned = nodes;
    ask.constraints.shape = Shape::Pipeline;
    place(fleet, model, &ask).ok().map(|p| p.recommended.plan)
}

/// A plan in a line: ``solo on `max` ``, `` `a` 0..20, `b` 20..32``.
fn in_words(fleet: &Fleet, plan: &Plan) -> String {
    let stages: Vec<String> = plan
        .stages()
        .map(|s| format!("`{}` {}..{}", fleet.node(s.node).name, s.layers.first, s.layers.end))
        .collect();
    match (plan.mode(), stages.as_slice()) {
        (Mode::Solo, _) => {
            let name = plan.stages().next().map_or("", |s| fleet.node(s.node).name.as_str());
            format!("solo on `{name}`")
        }
        (Mode::Pipeline, stages) if stages.len() <= STAGES_NAMED => stages.join(", "),
        (Mode::Pipeline, stages) => format!("a pipeline of {} stages", stages.len()),
        _ => format!("{} whole copies", plan.replicas.len()),
    }
}

/// The changes that would make the plan of `placement` better by the asked objective, best first; none for a fleet of
/// more than [`NODES_MOST`] nodes.
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
    let of_kind =
        |changes: Vec<(String, Fleet)>| best_of(changes.into_iter().filter_map(judged).collect(), OF_A_KIND);
    best_of(changes(fleet, placement).into_iter().flat_map(of_kind).collect(), GIVEN)
}

/// The few best, best first.
fn best_of(mut found: Vec<Suggestion>, most: usize) -> Vec<Suggestion> {
    // Equal gains keep the order in which the changes are thought of: the cheapest first.
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    found.truncate(most);
    found
}

/// The fleet changed in one way at a time, by kind of change, the cheapest first.
fn changes(fleet: &Fleet, placement: &Placement) -> Vec<Vec<(String, Fleet)>> {
    vec![
        cables(fleet),
        wider_uplinks(fleet).into_iter().collect(),
        nearer(fleet).into_iter().collect(),
        more_memory(fleet),
        one_more(fleet, placement),
        faster(fleet, &placement.recommended.plan),
    ]
}

/// Each machine of the plan with twice its memory bandwidth: what the next larger of its kind has.
fn faster(fleet: &Fleet, plan: &Plan) -> Vec<(String, Fleet)> {
    let doubled = |node: NodeId| {
        let mut changed = fleet.clone();
        changed.nodes[node.index()].device.bandwidth_bytes_per_s *= 2.0;
        (format!("twice the memory bandwidth in `{}`", fleet.node(node).name), changed)
    };
    plan.stages().map(|s| doubled(s.node)).collect()
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
