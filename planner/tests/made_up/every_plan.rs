//! The best plan by trying every one: all subsets, orders, cuts and divisions into replicas.

use std::collections::BTreeMap;

use planner::cost::constants::RING;
use planner::cost::memory::stage_bytes;
use planner::cost::predict::{Load, predict, streams_of};
use planner::fleet::NodeId;
use planner::place::{Objective, Shape};
use planner::plan::{LayerRange, Pipeline, Plan, Stage};

use super::Case;

/// What one subset of nodes gives at best as one pipeline.
#[derive(Debug, Clone, Default)]
struct Pipelines {
    tpot_ms: Option<f64>,
    ttft_ms: Option<f64>,
    /// By streams.
    tok_s: BTreeMap<u32, f64>,
}

/// The best value of the case's objective (lower is better, throughput negated), or `None` where there is no plan.
pub(crate) fn best(case: &Case) -> Option<f64> {
    let c = &case.ask.constraints;
    let nodes: Vec<NodeId> =
        case.fleet.ids().filter(|id| case.fleet.node(*id).has_model && !c.excluded.contains(id)).collect();
    let mut pipelines: BTreeMap<usize, Pipelines> = BTreeMap::new();
    let mut growing = Vec::new();
    grow(case, &nodes, 0, 0, &mut growing, &mut pipelines);
    let mut pinned = 0;
    for id in &c.pinned {
        pinned |= 1 << nodes.iter().position(|n| n == id)?;
    }
    let mut best: Option<f64> = None;
    let mut parts = Vec::new();
    divide(case, &pipelines, pinned, (1 << nodes.len()) - 1, &mut parts, &mut best);
    best
}

fn grow(
    case: &Case,
    nodes: &[NodeId],
    mask: usize,
    done: u32,
    stages: &mut Vec<Stage>,
    found: &mut BTreeMap<usize, Pipelines>,
) {
    let c = &case.ask.constraints;
    let layers = case.model.layer_count();
    if done == layers {
        judge(case, mask, stages, found);
        return;
    }
    for (j, node) in nodes.iter().enumerate().filter(|(j, _)| mask & (1 << j) == 0) {
        if stages.last().is_some_and(|last| !near(case, last.node, *node)) {
            continue;
        }
        for end in done + c.min_layers.max(1)..=layers {
            let range = LayerRange::new(done, end);
            let bytes = stage_bytes(&case.model, range, c.context, c.sessions);
            if bytes <= case.fleet.node(*node).device.usable_bytes() {
                stages.push(Stage { node: *node, layers: range });
                grow(case, nodes, mask | 1 << j, end, stages, found);
                stages.pop();
            }
        }
    }
}

/// Whether the two may be neighbours in a ring.
pub(crate) fn near(case: &Case, a: NodeId, b: NodeId) -> bool {
    let cap_us = case.ask.constraints.latency_cap_us.unwrap_or(f64::INFINITY);
    a == b || case.fleet.path(a, b).is_some_and(|path| path.delay.mean_us() <= cap_us)
}

fn judge(case: &Case, mask: usize, stages: &[Stage], found: &mut BTreeMap<usize, Pipelines>) {
    let (first, last) = (stages[0].node, stages[stages.len() - 1].node);
    let head = case.ask.load.head.unwrap_or(first);
    if !near(case, head, first) || !near(case, last, head) {
        return;
    }
    let plan = Plan {
        model: case.model.name.clone(),
        replicas: vec![Pipeline { stages: stages.to_vec() }],
        experts: Vec::new(),
        context: case.ask.constraints.context,
        sessions: case.ask.constraints.sessions,
    };
    let concurrency = case.ask.load.concurrency.max(1);
    let of = found.entry(mask).or_default();
    let counts = (1..=6).flat_map(|r| [streams_of(concurrency, r, 0), streams_of(concurrency, r, r - 1)]);
    let mut counts: Vec<u32> = counts.filter(|s| *s > 0).collect();
    counts.dedup();
    for streams in counts {
        let load = Load { concurrency: streams, ..case.ask.load };
        let p = predict(&case.fleet, &case.model, &plan, &load, &RING).expect("all hops were checked");
        let least = |old: Option<f64>, new: f64| Some(old.map_or(new, |o| o.min(new)));
        of.tpot_ms = least(of.tpot_ms, p.tpot_ms);
        of.ttft_ms = least(of.ttft_ms, p.ttft_ms);
        let tok_s = of.tok_s.entry(streams).or_insert(0.0);
        *tok_s = tok_s.max(p.throughput_tok_s);
    }
}

fn divide(
    case: &Case,
    found: &BTreeMap<usize, Pipelines>,
    pinned: usize,
    free: usize,
    parts: &mut Vec<usize>,
    best: &mut Option<f64>,
) {
    if pinned & free == 0 && !parts.is_empty() && of_shape(case, parts) {
        let value = value(case, found, parts);
        *best = Some(best.map_or(value, |b| b.min(value)));
    }
    for mask in found.keys().filter(|m| **m & !free == 0) {
        // Every order of parts is tried: the first get the remainder of the streams.
        parts.push(*mask);
        divide(case, found, pinned, free & !mask, parts, best);
        parts.pop();
    }
}

fn of_shape(case: &Case, parts: &[usize]) -> bool {
    match case.ask.constraints.shape {
        Shape::Auto => true,
        Shape::Solo => parts.len() == 1 && parts[0].count_ones() == 1,
        Shape::Pipeline => parts.len() == 1 && parts[0].count_ones() > 1,
        Shape::Replicas => parts.len() > 1,
    }
}

fn value(case: &Case, found: &BTreeMap<usize, Pipelines>, parts: &[usize]) -> f64 {
    let least = |of: fn(&Pipelines) -> Option<f64>| {
        parts.iter().filter_map(|m| of(&found[m])).fold(f64::INFINITY, f64::min)
    };
    match case.ask.objective {
        Objective::Tpot => least(|p| p.tpot_ms),
        Objective::Ttft => least(|p| p.ttft_ms),
        Objective::Throughput => {
            let replicas = parts.len() as u32;
            let of = |(i, m): (usize, &usize)| {
                let streams = streams_of(case.ask.load.concurrency, replicas, i as u32);
                if streams == 0 { 0.0 } else { found[m].tok_s[&streams] }
            };
            -parts.iter().enumerate().map(of).sum::<f64>()
        }
    }
}
