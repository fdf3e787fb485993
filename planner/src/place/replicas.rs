//! The best division of a few nodes into replicas, for the most output tokens per second.
//!
//! For each number of replicas the streams each gets are known, and the best division is dynamic programming over
//! subsets. What a subset gives as one pipeline is expensive to find, a bound on it is cheap: so the division is searched
//! with bounds, the subsets it used are then computed, and again, until the best division stands on computed ones alone.

use std::collections::BTreeMap;

use super::costs::Costs;
use super::rounds::{EQUAL, Round, batches, quickest};
use super::subsets::Subsets;
use crate::cost::predict::streams_of;
use crate::plan::{NodeId, Pipeline, Stage};

/// Output tokens per second of subsets as one pipeline.
pub(super) struct Rates<'s, 'c, 'a> {
    costs: &'c Costs<'a>,
    subsets: &'s Subsets,
    /// Nodes that can stand for each other, as the lowest of their kind.
    kind: Vec<usize>,
    bounds: BTreeMap<(usize, u32), f64>,
    known: BTreeMap<(usize, u32), Option<Round>>,
}

impl<'s, 'c, 'a> Rates<'s, 'c, 'a> {
    pub(super) fn new(costs: &'c Costs<'a>, subsets: &'s Subsets) -> Self {
        let kind = kinds(costs, subsets);
        Self { costs, subsets, kind, bounds: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// The subset of the lowest nodes of the same kinds: it gives the same.
    fn stand_in(&self, mask: usize) -> usize {
        let mut taken = 0usize;
        for j in (0..self.kind.len()).filter(|j| mask & (1 << j) != 0) {
            let alike = |i: &usize| self.kind[*i] == self.kind[j] && taken & (1 << i) == 0;
            let lowest = (0..self.kind.len()).find(alike).expect("a node is of its own kind");
            taken |= 1 << lowest;
        }
        taken
    }

    /// At least what `mask` gives with that many streams; minus infinity where it cannot be a pipeline.
    fn at_most(&mut self, mask: usize, streams: u32) -> f64 {
        let Some(best) = self.subsets.best[mask] else { return f64::NEG_INFINITY };
        if streams == 0 {
            return 0.0;
        }
        let key = (self.stand_in(mask), streams);
        if let Some(known) = self.known.get(&key) {
            return known.as_ref().map_or(f64::NEG_INFINITY, |r| rate(streams, r.round_us));
        }
        if let Some(bound) = self.bounds.get(&key) {
            return *bound;
        }
        let balanced_us = self.balanced_us(mask, streams);
        let bound = rate(streams, best.total_us.max(balanced_us)) * (1.0 + EQUAL);
        self.bounds.insert(key, bound);
        bound
    }

    /// A round takes at least this long: no division of as many layers over these nodes has a quicker slowest stage.
    fn balanced_us(&self, mask: usize, streams: u32) -> f64 {
        let count = mask.count_ones() as usize;
        let (groups, batch) = batches(streams, count);
        let work = self.costs.decode(batch);
        let quickest_us = |j: usize| {
            let upto = &self.costs.compute(self.subsets.nodes[j], work).upto;
            upto.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min)
        };
        let layer_us: Vec<f64> =
            (0..self.kind.len()).filter(|j| mask & (1 << j) != 0).map(quickest_us).collect();
        let step_us = self.costs.software.per_step_us;
        let done = |us: f64| layer_us.iter().map(|l| ((us - step_us) / l).floor().max(0.0)).sum::<f64>();
        let layers = self.costs.layers as f64;
        let (mut low, mut high) = (0.0, step_us + layers * layer_us[0]);
        while high - low > high * 1e-4 {
            let middle = (low + high) / 2.0;
            *(if done(middle) >= layers { &mut high } else { &mut low }) = middle;
        }
        low * f64::from(groups)
    }

    fn compute(&mut self, mask: usize, streams: u32) {
        let stand_in = self.stand_in(mask);
        if streams == 0 || self.known.contains_key(&(stand_in, streams)) {
            return;
        }
        let all = &self.subsets.nodes;
        let nodes: Vec<usize> = (0..all.len()).filter(|j| stand_in & (1 << j) != 0).map(|j| all[j]).collect();
        let round = quickest(self.costs, &nodes, nodes.len(), streams, f64::INFINITY, &|_| true);
        self.known.insert((stand_in, streams), round);
    }

    fn is_known(&self, mask: usize, streams: u32) -> bool {
        streams == 0 || self.known.contains_key(&(self.stand_in(mask), streams))
    }

    /// The pipeline of a computed subset: its stand-in's, with the nodes put in the place of those that stood for them.
    fn pipeline(&self, mask: usize, streams: u32) -> Option<Pipeline> {
        if streams == 0 {
            return self.subsets.pipeline(mask);
        }
        let stand_in = self.stand_in(mask);
        let round = self.known.get(&(stand_in, streams))?.as_ref()?;
        let mut free = mask;
        let mut place = |stage: &Stage| {
            let all = &self.subsets.nodes;
            let stood = all.iter().position(|n| *n == stage.node.index()).expect("stages are of these nodes");
            let alike = |i: &usize| free & (1 << i) != 0 && self.kind[*i] == self.kind[stood];
            let taken = (0..all.len()).find(alike).expect("a stand-in has as many of each kind");
            free &= !(1 << taken);
            Stage { node: NodeId(all[taken] as u32), ..*stage }
        };
        Some(Pipeline { stages: round.stages.iter().map(&mut place).collect() })
    }

    /// The best division into exactly `replicas`, if it gives more than `above` tokens per second.
    fn divide(&mut self, replicas: u32, above: f64) -> Option<(f64, Vec<Pipeline>)> {
        let concurrency = self.costs.ask.load.concurrency;
        let most = streams_of(concurrency, replicas, 0);
        let least = streams_of(concurrency, replicas, replicas - 1);
        let with_most = (0..replicas).filter(|i| streams_of(concurrency, replicas, *i) == most).count();
        let with_most = if most == least { 0 } else { with_most };
        let of_least = replicas as usize - with_most;
        let mut above = above;
        let mut best = None;
        loop {
            let Some((bound, parts)) = self.division((most, with_most), (least, of_least)) else {
                return best;
            };
            if bound <= above * (1.0 + EQUAL) && above > f64::NEG_INFINITY {
                return best;
            }
            let settled = parts.iter().all(|(mask, streams)| self.is_known(*mask, *streams));
            for (mask, streams) in &parts {
                self.compute(*mask, *streams);
            }
            let value: f64 = parts.iter().map(|(mask, streams)| self.at_most(*mask, *streams)).sum();
            if value > above {
                let pipelines = parts.iter().filter_map(|(mask, streams)| self.pipeline(*mask, *streams));
                (above, best) = (value, Some((value, pipelines.collect())));
            }
            if settled {
                return best;
            }
        }
    }

    /// The division with the highest bound: parts with their streams, those with more streams first.
    fn division(
        &mut self,
        (most, with_most): (u32, usize),
        (least, of_least): (u32, usize),
    ) -> Option<(f64, Vec<(usize, u32)>)> {
        let all = self.subsets.all();
        let rates: Vec<[f64; 2]> =
            (0..=all).map(|mask| [self.at_most(mask, most), self.at_most(mask, least)]).collect();
        let width = of_least + 1;
        let states = (with_most + 1) * width;
        let mut value = vec![f64::NEG_INFINITY; (all + 1) * states];
        let mut choice = vec![(0usize, 0usize); (all + 1) * states];
        value[0] = 0.0;
        for mask in 1..=all {
            let lowest = mask & mask.wrapping_neg();
            let (done, now) = value.split_at_mut(mask * states);
            if self.subsets.pinned & lowest == 0 {
                now[..states].copy_from_slice(&done[(mask & !lowest) * states..][..states]);
            }
            let rest = mask & !lowest;
            let mut others = rest;
            loop {
                let part = others | lowest;
                if rates[part][1] > f64::NEG_INFINITY {
                    let before = &done[(mask & !part) * states..][..states];
                    for state in 0..states {
                        let (a, b) = (state / width, state % width);
                        let least_from = (b > 0).then(|| (before[state.wrapping_sub(1)] + rates[part][1], 1));
                        let most_from =
                            (a > 0).then(|| (before[state.wrapping_sub(width)] + rates[part][0], 0));
                        for (us, which) in least_from.into_iter().chain(most_from) {
                            if us > now[state] {
                                now[state] = us;
                                choice[mask * states + state] = (part, which);
                            }
                        }
                    }
                }
                if others == 0 {
                    break;
                }
                others = (others - 1) & rest;
            }
        }
        let bound = value[all * states + states - 1];
        if bound == f64::NEG_INFINITY {
            return None;
        }
        let (mut mask, mut state) = (all, states - 1);
        let mut parts = Vec::new();
        while mask > 0 {
            let (part, which) = choice[mask * states + state];
            if part == 0 {
                mask &= mask - 1;
                continue;
            }
            parts.push((part, [most, least][which]));
            mask &= !part;
            state -= if which == 1 { 1 } else { width };
        }
        parts.sort_by_key(|(mask, streams)| (std::cmp::Reverse(*streams), *mask));
        Some((bound, parts))
    }

    /// The best plan of several replicas, if it gives more than `above` tokens per second.
    pub(super) fn best(&mut self, above: f64) -> Option<(f64, Vec<Pipeline>)> {
        let mut best: Option<(f64, Vec<Pipeline>)> = None;
        for replicas in 2..=self.subsets.nodes.len() as u32 {
            let above = best.as_ref().map_or(above, |b| b.0);
            best = self.divide(replicas, above).or(best);
        }
        best
    }
}

fn rate(streams: u32, round_us: f64) -> f64 {
    f64::from(streams) / round_us * 1e6
}

/// For each node the lowest one that could take its place in every plan without a difference.
fn kinds(costs: &Costs<'_>, subsets: &Subsets) -> Vec<usize> {
    let (nodes, ring) = (&subsets.nodes, &subsets.ring);
    let alike = |a: usize, b: usize| {
        let others = (0..nodes.len()).filter(|x| *x != a && *x != b);
        let same = |m: &Vec<Vec<f64>>| {
            m[a][b] == m[b][a] && others.clone().all(|x| m[a][x] == m[b][x] && m[x][a] == m[x][b])
        };
        costs.class(nodes[a]) == costs.class(nodes[b])
            && same(&ring.hop)
            && ring.entry[a] == ring.entry[b]
            && (if ring.head_given { ring.back[a][a] == ring.back[b][b] } else { same(&ring.back) })
    };
    (0..nodes.len()).map(|b| (0..b).find(|a| alike(*a, b)).unwrap_or(b)).collect()
}
