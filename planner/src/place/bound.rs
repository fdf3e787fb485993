//! How good a plan could be at best, without looking for it: the measure of a search that is not exact.

use super::costs::{Compute, Costs};
use crate::plan::Prediction;

use super::Objective;

/// Batches up to this size are looked at one by one, larger ones in steps of [`BATCH_STEP`].
const BATCHES_EACH: u32 = 32;

/// Ratio of neighbouring large batches; the bound gives away as much.
const BATCH_STEP: f64 = 1.05;

/// Up to so many nodes the bound looks at the hops of all pairs.
const PAIRS_OF: usize = 256;

/// By how large a share a plan could be better than `found`, at most.
pub(super) fn gap(costs: &Costs<'_>, nodes: &[usize], found: &Prediction) -> f64 {
    let share = match costs.ask.objective {
        Objective::Tpot => 1.0 - least_token_us(costs, nodes) / 1e3 / found.tpot_ms,
        Objective::Ttft => 1.0 - least_first_us(costs, nodes) / 1e3 / found.ttft_ms,
        Objective::Throughput => most_tokens_per_s(costs, nodes) / found.throughput_tok_s - 1.0,
    };
    share.max(0.0)
}

/// No pipeline decodes a token of one stream in less: the quickest nodes are filled to the brim in any order, and the
/// fewest stages that memory allows are paid for, each but the last with the least hop that any node has.
fn least_token_us(costs: &Costs<'_>, nodes: &[usize]) -> f64 {
    let work = costs.decode(1);
    filled_us(costs, nodes, 1, |n| layer_least_us(&costs.compute(n, work)))
}

/// The same for the last chunk of a prompt, after what the first stage needs for those before it.
fn least_first_us(costs: &Costs<'_>, nodes: &[usize]) -> f64 {
    let chunks = costs.chunks();
    let all_us = |n: usize| {
        let each = chunks.iter().map(|work| layer_least_us(&costs.compute(n, *work)));
        each.fold((0.0, 0.0), |(sum, _), us| (sum + us, us))
    };
    let tokens = chunks.last().map_or(1, |work| work.sequence.new_tokens);
    let through_us = filled_us(costs, nodes, tokens, |n| all_us(n).1);
    // The slowest of `k` stages has the `k`-th part of the work of all chunks at least, and the last chunk, or the first,
    // still passes the others; one stage has all of it. Work that is spread over all nodes bounds both.
    let parallel: f64 = nodes.iter().map(|n| 1.0 / all_us(*n).0).sum();
    through_us.max(costs.layers as f64 / parallel)
}

fn layer_least_us(compute: &Compute) -> f64 {
    compute.upto.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min)
}

/// Time of all layers when the nodes with the least `layer_us` take as many as memory allows, and a step's software on
/// as many nodes as that takes at least, with the least hops for frames of `tokens` tokens between them.
fn filled_us(costs: &Costs<'_>, nodes: &[usize], tokens: u32, layer_us: impl Fn(usize) -> f64) -> f64 {
    let mut by_speed: Vec<(f64, usize)> =
        nodes.iter().map(|n| (layer_us(*n), most_layers(costs, *n))).collect();
    by_speed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut left, mut us) = (costs.layers, 0.0);
    for (each_us, most) in &by_speed {
        let taken = left.min(*most);
        us += taken as f64 * each_us;
        left -= taken;
    }
    let mut by_room: Vec<usize> = by_speed.iter().map(|(_, most)| *most).collect();
    by_room.sort_unstable_by(|a, b| b.cmp(a));
    let (mut room, mut stages) = (0, 0usize);
    for most in by_room {
        if room < costs.layers {
            room += most;
            stages += 1;
        }
    }
    let hops_us = least_hops_us(costs, nodes, tokens, stages.saturating_sub(1));
    us + stages as f64 * costs.software.per_step_us + hops_us
}

/// No `count` hops from different nodes take less, together.
fn least_hops_us(costs: &Costs<'_>, nodes: &[usize], tokens: u32, count: usize) -> f64 {
    if count == 0 || nodes.len() > PAIRS_OF {
        return count as f64 * costs.software.per_hop_us;
    }
    let bytes = costs.frames(tokens).between;
    let least_us = |a: &usize| {
        let others = nodes.iter().filter(|b| *b != a);
        others.map(|b| costs.hop_us(*a, *b, bytes)).fold(f64::INFINITY, f64::min)
    };
    let mut hops: Vec<f64> = nodes.iter().map(least_us).filter(|us| us.is_finite()).collect();
    hops.sort_by(f64::total_cmp);
    hops.iter().take(count).sum()
}

/// The most layers in a row that fit on `node` anywhere in the model.
pub(super) fn most_layers(costs: &Costs<'_>, node: usize) -> usize {
    let (reach, layers) = (costs.reach(node), costs.layers);
    if reach.solo {
        return layers;
    }
    let middle = (1..layers).map(|e| e - reach.from[e]).max().unwrap_or(0);
    middle.max(reach.first_end).max(layers - reach.last_from.min(layers))
}

/// No plan gives more tokens per second: every node computes all the time at its best batch, no hop takes time, and the
/// streams are on the nodes that make most of them.
///
/// Work is counted in whole models, a layer at its price (its share of the time of all layers, in the mean over
/// devices). At a batch of `b` a node does `b / c(b)` of them a second, where `c` is the time of a step over the whole
/// model, and keeps `b` streams busy with it. Whatever a plan has it do lies under the upper hull of these points, for
/// all nodes the same number of streams is there to be spread, and the steepest parts of the hulls are taken first.
fn most_tokens_per_s(costs: &Costs<'_>, nodes: &[usize]) -> f64 {
    let streams = costs.ask.load.concurrency.max(1);
    let price = prices(costs, nodes);
    let mut of_class: std::collections::BTreeMap<usize, Vec<(f64, f64)>> = std::collections::BTreeMap::new();
    let mut parts: Vec<(f64, f64)> = Vec::new();
    for node in nodes {
        let class = costs.class(*node);
        parts.extend(of_class.entry(class).or_insert_with(|| hull(costs, class, streams, &price)).iter());
    }
    // Most tokens per stream first.
    parts.sort_by(|a, b| (b.1 / b.0).total_cmp(&(a.1 / a.0)));
    let (mut left, mut per_s) = (f64::from(streams), 0.0);
    for (width, height) in parts {
        let taken = width.min(left);
        per_s += height * taken / width;
        left -= taken;
    }
    per_s
}

/// Each layer's share of a token's time, in the mean over the devices of `nodes`.
fn prices(costs: &Costs<'_>, nodes: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; costs.layers];
    let mut classes: Vec<usize> = nodes.iter().map(|n| costs.class(*n)).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let compute = costs.compute_of_class(class, costs.decode(1));
        for (i, price) in sum.iter_mut().enumerate() {
            *price += compute.range_us(i, i + 1) / compute.range_us(0, costs.layers);
        }
    }
    let all: f64 = sum.iter().sum();
    sum.into_iter().map(|s| s / all).collect()
}

/// The parts of the upper hull of a device's throughput over streams: widths in streams, heights in tokens per second.
fn hull(costs: &Costs<'_>, class: usize, streams: u32, price: &[f64]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = vec![(0.0, 0.0)];
    let mut batch = 1u32;
    while batch <= streams {
        let next = if batch < BATCHES_EACH {
            batch + 1
        } else {
            ((f64::from(batch) * BATCH_STEP) as u32).max(batch + 1)
        };
        let compute = costs.compute_of_class(class, costs.decode(batch));
        let step_us = |i: usize| compute.range_us(i, i + 1) / price[i];
        let whole_us = (0..price.len()).map(step_us).fold(f64::INFINITY, f64::min);
        // Up to the batch before the next a step is no quicker than this one.
        let largest = (next - 1).min(streams);
        let point = (f64::from(batch), f64::from(largest) / whole_us * 1e6);
        while points.len() > 1 && {
            let (a, b) = (points[points.len() - 2], points[points.len() - 1]);
            (b.1 - a.1) * (point.0 - b.0) <= (point.1 - b.1) * (b.0 - a.0)
        } {
            points.pop();
        }
        points.push(point);
        batch = next;
    }
    points.windows(2).map(|w| (w[1].0 - w[0].0, w[1].1 - w[0].1)).filter(|part| part.1 > 0.0).collect()
}
