//! The pipeline with the least sum of stage and hop times, by dynamic programming over (nodes used, last node, layers
//! done): stage times are differences of prefix sums, hops depend on neighbours alone.

use crate::cost::constants::{RING, TOKEN_FRAME_BYTES};
use crate::cost::memory::stage_bytes;
use crate::cost::step::{Sequence, step_time};
use crate::cost::transfer::{activation_frame_bytes, transfer_time};
use crate::fleet::{Fleet, NodeId};
use crate::model::Model;
use crate::plan::{LayerRange, Pipeline, Stage};

use super::Ask;

/// What the search looks up: times of layer ranges per node, of hops per pair.
pub(super) struct Table<'a> {
    fleet: &'a Fleet,
    model: &'a Model,
    ask: &'a Ask,
    /// The nodes searched over.
    pub(super) nodes: Vec<NodeId>,
    /// By node: time of layers before an index, microseconds; one more entry with the head.
    before: Vec<Vec<f64>>,
    /// By pair: activations forward; `None` where they may not be neighbours.
    hop: Vec<Vec<Option<f64>>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(fleet: &'a Fleet, model: &'a Model, ask: &'a Ask, nodes: Vec<NodeId>) -> Self {
        let one = [Sequence::decode(ask.load.context)];
        let layers = model.layer_count();
        let before = nodes.iter().map(|n| {
            let device = &fleet.node(*n).device;
            let mut sums = vec![0.0];
            for l in 0..layers {
                let us = step_time(model, device, LayerRange::new(l, l + 1), &one).total_us();
                sums.push(sums[l as usize] + us);
            }
            sums
        });
        let before: Vec<_> = before.collect();
        let bytes = activation_frame_bytes(model, &RING, 1);
        let pair = |a: &NodeId, b: &NodeId| {
            let path = fleet.path(*a, *b).filter(|_| a != b)?;
            let near = ask.constraints.latency_cap_us.is_none_or(|cap| path.delay.mean_us() <= cap);
            near.then(|| transfer_time(&path, bytes, &RING).total_us())
        };
        let hop = nodes.iter().map(|a| nodes.iter().map(|b| pair(a, b)).collect()).collect();
        Self { fleet, model, ask, nodes, before, hop }
    }

    fn fits(&self, node: usize, layers: LayerRange) -> bool {
        let c = &self.ask.constraints;
        layers.len() >= c.min_layers.max(1)
            && stage_bytes(self.model, layers, c.context, c.sessions)
                <= self.fleet.node(self.nodes[node]).device.usable_bytes()
    }

    fn into_first(&self, first: usize) -> Option<f64> {
        let head = self.ask.load.head.filter(|h| *h != self.nodes[first])?;
        Some(transfer_time(&self.fleet.path(head, self.nodes[first])?, 100, &RING).total_us())
    }

    fn back(&self, last: usize, first: usize) -> Option<f64> {
        let head = self.ask.load.head.unwrap_or(self.nodes[first]);
        if head == self.nodes[last] {
            return Some(0.0);
        }
        Some(transfer_time(&self.fleet.path(self.nodes[last], head)?, TOKEN_FRAME_BYTES, &RING).total_us())
    }

    /// The best pipeline of each set of nodes, by bit mask.
    pub(super) fn best_by_set(&self) -> Vec<Option<(f64, Pipeline)>> {
        let n = self.nodes.len();
        let mut best: Vec<Option<(f64, Pipeline)>> = vec![None; 1 << n];
        for first in 0..n {
            self.from_first(first, &mut best);
        }
        best
    }

    fn from_first(&self, first: usize, best: &mut [Option<(f64, Pipeline)>]) {
        let (n, layers) = (self.nodes.len(), self.model.layer_count() as usize);
        let needs_way_in = self.ask.load.head.is_some_and(|h| h != self.nodes[first]);
        let way_in = match self.into_first(first) {
            None if needs_way_in => return,
            way => way.unwrap_or(0.0),
        };
        let at = |set: usize, last: usize, done: usize| (set * n + last) * (layers + 1) + done;
        let mut cost = vec![f64::INFINITY; (1 << n) * n * (layers + 1)];
        let mut from = vec![(0u8, 0u16); cost.len()];
        let fits = |node: usize, a: usize, b: usize| self.fits(node, LayerRange::new(a as u32, b as u32));
        for end in 1..=layers {
            if fits(first, 0, end) {
                cost[at(1 << first, first, end)] = way_in + RING.per_step_us + self.before[first][end];
            }
        }
        let room: Vec<Vec<usize>> = (0..n)
            .map(|v| {
                (0..=layers).map(|a| (a + 1..=layers).rev().find(|b| fits(v, a, *b)).unwrap_or(a)).collect()
            })
            .collect();
        for set in (0..1usize << n).filter(|s| s & (1 << first) != 0) {
            for last in (0..n).filter(|v| set & (1 << v) != 0) {
                for done in 1..layers {
                    let here = cost[at(set, last, done)];
                    if !here.is_finite() {
                        continue;
                    }
                    for next in (0..n).filter(|v| set & (1 << v) == 0) {
                        let Some(hop) = self.hop[last][next] else { continue };
                        let base = here + hop + RING.per_step_us - self.before[next][done];
                        for end in done + 1..=room[next][done] {
                            if (end - done) < self.ask.constraints.min_layers as usize {
                                continue;
                            }
                            let slot = at(set | 1 << next, next, end);
                            let total = base + self.before[next][end];
                            if total < cost[slot] {
                                cost[slot] = total;
                                from[slot] = (last as u8, done as u16);
                            }
                        }
                    }
                }
            }
            for last in (0..n).filter(|v| set & (1 << v) != 0) {
                let total = cost[at(set, last, layers)] + self.back(last, first).unwrap_or(f64::INFINITY);
                if total.is_finite() && best[set].as_ref().is_none_or(|(b, _)| total < *b) {
                    best[set] = Some((total, self.trace(&from, &at, set, last, first)));
                }
            }
        }
    }

    fn trace(
        &self,
        from: &[(u8, u16)],
        at: &impl Fn(usize, usize, usize) -> usize,
        mut set: usize,
        mut last: usize,
        first: usize,
    ) -> Pipeline {
        let mut end = self.model.layer_count() as usize;
        let mut stages = Vec::new();
        loop {
            let (before, done) = if last == first { (0, 0) } else { from[at(set, last, end)] };
            let layers = LayerRange::new(u32::from(done), end as u32);
            stages.push(Stage { node: self.nodes[last], layers });
            if last == first {
                break;
            }
            set &= !(1 << last);
            last = before as usize;
            end = done as usize;
        }
        stages.reverse();
        Pipeline { stages }
    }
}
