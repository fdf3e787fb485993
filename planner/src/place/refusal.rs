//! Why there is no plan. What is named is really what stands in the way: without it, and only without it, there is one.

use super::costs::Costs;
use super::{Ask, Objective, Refusal, Search, Shape};
use crate::cost::memory::activation_bytes;
use crate::plan::{NodeId, Stage};
use crate::units::{fmt_bytes, fmt_ms};

/// A constraint that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Shape,
    Pinned,
    LatencyCap,
    MinLayers,
}

impl Limit {
    const ALL: [Limit; 4] = [Limit::Shape, Limit::Pinned, Limit::LatencyCap, Limit::MinLayers];

    fn relax(self, ask: &mut Ask) {
        let c = &mut ask.constraints;
        match self {
            Limit::Shape => c.shape = Shape::Auto,
            Limit::Pinned => c.pinned.clear(),
            Limit::LatencyCap => c.latency_cap_us = None,
            Limit::MinLayers => c.min_layers = 1,
        }
    }
}

/// `ask` without `limits`.
pub(super) fn without(ask: &Ask, limits: &[Limit]) -> Ask {
    let mut relaxed = Ask { objective: Objective::Tpot, ..ask.clone() };
    for limit in limits {
        limit.relax(&mut relaxed);
    }
    relaxed
}

/// The refusal of a question that has no plan.
pub(super) fn refusal(costs: &Costs<'_>) -> Refusal {
    if let Some(nonsense) = nonsense(costs) {
        return Refusal::Constraint(nonsense);
    }
    if costs.allowed().is_empty() {
        return Refusal::NoNodes(nobody(costs));
    }
    let limits = conflict(costs);
    if limits.is_empty() {
        return too_small(costs).unwrap_or_else(|| Refusal::Constraint(apart(costs)));
    }
    let texts: Vec<String> = limits.iter().map(|limit| broken(costs, *limit, &limits)).collect();
    Refusal::Constraint(texts.join("; and "))
}

/// A question that no fleet could answer.
pub(super) fn nonsense(costs: &Costs<'_>) -> Option<String> {
    let nodes = costs.fleet.nodes.len();
    if costs.layers == 0 {
        return Some(format!("the model {} has no layers: there is nothing to place", costs.model.name));
    }
    let c = &costs.ask.constraints;
    let stranger = |id: &&NodeId| id.index() >= nodes;
    if let Some(head) = costs.ask.load.head.filter(|id| stranger(&id)) {
        return Some(format!("the head is at node {}, the fleet has {nodes} nodes", head.0));
    }
    let pinned = c.pinned.iter().find(stranger)?;
    Some(format!("node {} is pinned, the fleet has {nodes} nodes", pinned.0))
}

fn nobody(costs: &Costs<'_>) -> String {
    let nodes = &costs.fleet.nodes;
    let without = nodes.iter().filter(|n| !n.has_model).count();
    let excluded = nodes.len() - without;
    if nodes.is_empty() {
        return "the fleet has none".into();
    }
    format!(
        "of {} nodes {without} do not have the weights on their disks and the other {excluded} are excluded; \
         put the weights on a node or take it off the list",
        nodes.len()
    )
}

/// Constraints without which there is a plan, none of them needless; empty where taking all away does not help.
pub(super) fn conflict(costs: &Costs<'_>) -> Vec<Limit> {
    let mut limits = Limit::ALL.to_vec();
    if !solvable(costs, &limits) {
        return Vec::new();
    }
    for limit in Limit::ALL.iter().rev() {
        let fewer: Vec<Limit> = limits.iter().copied().filter(|l| l != limit).collect();
        if solvable(costs, &fewer) {
            limits = fewer;
        }
    }
    limits
}

fn solvable(costs: &Costs<'_>, limits: &[Limit]) -> bool {
    stages_without(costs, limits).is_some()
}

/// The stages of the first replica of a plan that keeps all but `limits`.
fn stages_without(costs: &Costs<'_>, limits: &[Limit]) -> Option<Vec<Stage>> {
    let ask = without(costs.ask, limits);
    let relaxed = Costs::new(costs.fleet, costs.model, &ask);
    let nodes = relaxed.usable();
    let found = Search::new(&relaxed, &nodes)?.best(Objective::Tpot)?;
    found.replicas.into_iter().next().map(|p| p.stages)
}

/// What is wrong with `limit`, when all of `limits` stand in the way.
fn broken(costs: &Costs<'_>, limit: Limit, limits: &[Limit]) -> String {
    let c = &costs.ask.constraints;
    let stages = stages_without(costs, limits).unwrap_or_default();
    match limit {
        Limit::Shape => {
            let shape = match c.shape {
                Shape::Auto => "auto",
                Shape::Solo => "solo",
                Shape::Pipeline => "pipeline",
                Shape::Replicas => "replicas",
            };
            format!(
                "shape: no plan is of shape {shape}; the best of any shape has {} stages in its first replica",
                stages.len()
            )
        }
        Limit::Pinned => pinned(costs),
        Limit::LatencyCap => {
            let cap_ms = c.latency_cap_us.unwrap_or(f64::INFINITY) / 1e3;
            let pairs = stages.iter().zip(stages.iter().cycle().skip(1));
            let delays = pairs.filter(|(a, b)| a.node != b.node);
            let delays = delays.filter_map(|(a, b)| costs.delay_us(a.node.index(), b.node.index()));
            let longest_ms = delays.fold(0.0, f64::max) / 1e3;
            format!(
                "latency cap: {} between neighbours is too little; the best plan without it has {}",
                fmt_ms(cap_ms),
                fmt_ms(longest_ms)
            )
        }
        Limit::MinLayers => {
            let least = stages.iter().map(|s| s.layers.len()).min().unwrap_or(0);
            format!(
                "minimum layers: no plan of {} layers gives each stage {}; the best without it has a stage of {least}",
                costs.layers, c.min_layers
            )
        }
    }
}

fn pinned(costs: &Costs<'_>) -> String {
    let (allowed, usable) = (costs.allowed(), costs.usable());
    let pinned = costs.pinned();
    let name = |n: &usize| costs.fleet.nodes[*n].name.as_str();
    let reason = |n: &usize| {
        if !costs.fleet.nodes[*n].has_model {
            Some(format!("{} does not have the weights on its disk", name(n)))
        } else if !allowed.contains(n) {
            Some(format!("{} is excluded too", name(n)))
        } else if !usable.contains(n) {
            Some(format!("{} has {}", name(n), too_little(costs, *n)))
        } else {
            None
        }
    };
    let reasons: Vec<String> = pinned.iter().filter_map(reason).collect();
    if !reasons.is_empty() {
        return format!("pinned nodes: {}", reasons.join(", "));
    }
    let names: Vec<&str> = pinned.iter().map(name).collect();
    format!("pinned nodes: no plan has all of {} in it", names.join(", "))
}

/// Why `node` holds no stage: its memory and what the smallest stage takes.
pub(super) fn too_little(costs: &Costs<'_>, node: usize) -> String {
    let (least, layers) = (costs.min_layers().min(costs.layers), costs.layers);
    let sizes = (0..=layers - least).map(|l| costs.stage_bytes(l, l + least));
    let needed = sizes.min().unwrap_or(0);
    let c = &costs.ask.constraints;
    format!(
        "too little memory: {} usable, {} with the KV cache of {} sessions of {} tokens and buffers {} {}",
        fmt_bytes(costs.fleet.nodes[node].device.usable_bytes()),
        if least == 1 { "one layer".to_string() } else { format!("{least} layers") },
        c.sessions,
        c.context,
        if least == 1 { "needs" } else { "need" },
        fmt_bytes(needed)
    )
}

/// Memory, where no cut of the model fits even if every node could reach every other.
fn too_small(costs: &Costs<'_>) -> Option<Refusal> {
    let allowed = costs.allowed();
    if furthest(costs, &allowed) >= costs.layers {
        return None;
    }
    let have_bytes = allowed.iter().map(|n| costs.fleet.nodes[*n].device.usable_bytes()).sum();
    let need_bytes = costs.stage_bytes(0, costs.layers);
    if need_bytes > have_bytes {
        return Some(Refusal::Memory { need_bytes, have_bytes });
    }
    let c = &costs.ask.constraints;
    Some(Refusal::Constraint(format!(
        "memory: no cut into whole layers fits; the model with the KV cache of {} sessions of {} tokens needs {} and the \
         usable nodes have {}, but each stage needs another {} for buffers; ask for fewer sessions or less context",
        c.sessions,
        c.context,
        fmt_bytes(need_bytes),
        fmt_bytes(have_bytes),
        fmt_bytes(activation_bytes(costs.model))
    )))
}

/// How many layers can be placed when any node may follow any other; for many nodes at most so many.
fn furthest(costs: &Costs<'_>, nodes: &[usize]) -> usize {
    if nodes.len() > super::exact::NODES_MAX {
        return nodes.iter().map(|n| super::bound::most_layers(costs, *n)).sum();
    }
    let mut reached = vec![0usize; 1 << nodes.len()];
    for mask in 1..reached.len() {
        for (j, node) in nodes.iter().enumerate().filter(|(j, _)| mask & (1 << j) != 0) {
            let (l, reach) = (reached[mask & !(1 << j)], costs.reach(*node));
            let end = (l + 1..=costs.layers).rev().find(|e| reach.fits(l, *e, costs.layers)).unwrap_or(l);
            reached[mask] = reached[mask].max(end);
        }
    }
    reached[reached.len() - 1]
}

fn apart(costs: &Costs<'_>) -> String {
    let head = costs.ask.load.head.map_or("", |_| " and the head");
    format!(
        "reach: the {} usable nodes are large enough together, but those{head} that would have to be neighbours cannot \
         reach each other; join their networks",
        costs.usable().len()
    )
}
