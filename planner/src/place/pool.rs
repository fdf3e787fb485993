//! A good pipeline over a pool of nodes: certain for a few, by local search over orders for more.

use std::collections::BTreeMap;

use super::costs::Costs;
use super::prefill::Prefill;
use super::ring::Ring;
use super::rounds::{EQUAL, batches, quickest};
use crate::plan::Stage;

/// Nodes of a pool that is searched through all of its subsets and orders.
const POOL_EXACT: usize = 7;

/// The same where bounds on the slowest stage have to be tried.
const POOL_EXACT_BOUNDED: usize = 4;

/// Bounds on the slowest stage tried for each order where the objective is no plain sum.
const HALVINGS: u32 = 8;

/// What a pipeline should be best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The time per token of one stream.
    Token,
    /// The round of so many streams.
    Round(u32),
    /// The time to first token.
    First,
}

/// A pipeline and what it takes by its goal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) us: f64,
    pub(super) stages: Vec<Stage>,
}

/// Some nodes, and a goal.
pub(super) struct Pool<'c, 'a> {
    costs: &'c Costs<'a>,
    goal: Goal,
    ring: Ring,
    prefill: Option<Prefill>,
    by_batch: BTreeMap<u32, Ring>,
    orders_left: usize,
}

impl<'c, 'a> Pool<'c, 'a> {
    /// A pool whose local search, if it needs one, judges at most `orders` orders.
    pub(super) fn new(costs: &'c Costs<'a>, nodes: &[usize], goal: Goal, orders: usize) -> Self {
        let ring = Ring::new(costs, nodes, costs.decode(1), costs.frames(1));
        let prefill = (goal == Goal::First).then(|| Prefill::new(costs, nodes));
        Self { costs, goal, ring, prefill, by_batch: BTreeMap::new(), orders_left: orders }
    }

    /// The best pipeline over a subset of the pool that takes in all of `needed`: certain for few nodes (but for the
    /// time to first token of a long prompt), else what a local search finds from `order`.
    pub(super) fn best(&mut self, needed: &[usize], order: &[usize]) -> Option<Judged> {
        let most = if self.goal == Goal::Token { POOL_EXACT } else { POOL_EXACT_BOUNDED };
        if self.ring.nodes.len() <= most { self.of_all(needed) } else { self.climb(needed, order) }
    }

    fn of_all(&self, needed: &[usize]) -> Option<Judged> {
        let nodes = &self.ring.nodes;
        let bits = |n: &usize| nodes.iter().position(|m| m == n).map_or(0, |j| 1usize << j);
        let needed: usize = needed.iter().map(bits).sum();
        let allowed = |mask: usize| mask > 0 && needed & !mask == 0;
        match (self.goal, &self.prefill) {
            (Goal::First, Some(prefill)) => {
                let found = prefill.promising(&allowed)?;
                Some(Judged { us: found.ttft_us, stages: found.stages })
            }
            (Goal::Round(streams), _) if streams > 1 => {
                let mut best: Option<Judged> = None;
                for stages in 1..=nodes.len() {
                    let below_us = best.as_ref().map_or(f64::INFINITY, |b| b.us);
                    let found = quickest(self.costs, nodes, stages, streams, below_us, &allowed);
                    best = found.map(|r| Judged { us: r.round_us, stages: r.stages }).or(best);
                }
                best
            }
            _ => {
                let best = self.ring.best(f64::INFINITY, nodes.len());
                let found = best.iter().enumerate().filter(|(mask, _)| allowed(*mask));
                let found = found.filter_map(|(mask, b)| b.map(|b| (mask, b)));
                let (mask, least) = found.min_by(|a, b| a.1.total_us.total_cmp(&b.1.total_us))?;
                Some(Judged { us: least.total_us, stages: self.ring.stages(mask, &least, f64::INFINITY) })
            }
        }
    }

    /// What the pool's nodes give in this order (places in the pool), each with a stage.
    fn judge(&mut self, order: &[usize]) -> Option<Judged> {
        self.orders_left = self.orders_left.saturating_sub(1);
        match self.goal {
            Goal::Round(streams) if streams > 1 => self.judge_round(order, streams),
            Goal::First => self.judge_first(order),
            _ => self.ring.cut(order, f64::INFINITY).map(|(us, stages)| Judged { us, stages }),
        }
    }

    fn judge_round(&mut self, order: &[usize], streams: u32) -> Option<Judged> {
        let (groups, batch) = batches(streams, order.len());
        let (costs, ring) = (self.costs, &self.ring);
        let ring = self.by_batch.entry(batch).or_insert_with(|| ring.with_work(costs, costs.decode(batch)));
        let groups = f64::from(groups);
        halve(|bound_us| {
            let (sum_us, stages) = ring.cut(order, bound_us / groups)?;
            let slowest_us = stages.iter().map(|s| ring.pace_us(s)).fold(0.0, f64::max) * groups;
            Some((sum_us, slowest_us, Judged { us: sum_us.max(slowest_us), stages }))
        })
    }

    fn judge_first(&self, order: &[usize]) -> Option<Judged> {
        let prefill = self.prefill.as_ref()?;
        let ring = prefill.first_chunk();
        halve(|bound_us| {
            let (sum_us, stages) = ring.cut(order, bound_us)?;
            let slowest_us = stages.iter().map(|s| ring.pace_us(s)).fold(0.0, f64::max);
            Some((sum_us, slowest_us, Judged { us: prefill.ttft_us(&stages), stages }))
        })
    }

    /// From `order` by single moves: drop a node, take one in, put one elsewhere, exchange one for another.
    fn climb(&mut self, needed: &[usize], order: &[usize]) -> Option<Judged> {
        let places = |nodes: &[usize]| {
            nodes.iter().filter_map(|n| self.ring.nodes.iter().position(|m| m == n)).collect::<Vec<_>>()
        };
        let (needed, mut order) = (places(needed), places(order));
        let mut best = self.judge(&order);
        loop {
            let mut better = None;
            for changed in neighbours(&order, self.ring.nodes.len()) {
                if self.orders_left == 0 || needed.iter().any(|n| !changed.contains(n)) {
                    continue;
                }
                let Some(judged) = self.judge(&changed) else { continue };
                if best.as_ref().is_none_or(|b| judged.us < b.us * (1.0 - EQUAL)) {
                    best = Some(judged);
                    better = Some(changed);
                    break;
                }
            }
            match better {
                Some(changed) => order = changed,
                None => return best,
            }
        }
    }
}

/// Halves the bound on the slowest stage between what the least sum has and zero; the best of what came up.
fn halve(mut under: impl FnMut(f64) -> Option<(f64, f64, Judged)>) -> Option<Judged> {
    let (mut high_us, mut low_us) = (f64::INFINITY, 0.0);
    let mut bound_us = f64::INFINITY;
    let mut best: Option<Judged> = None;
    for _ in 0..HALVINGS {
        match under(bound_us) {
            Some((_, slowest_us, judged)) => {
                high_us = slowest_us;
                if best.as_ref().is_none_or(|b| judged.us < b.us) {
                    best = Some(judged);
                }
            }
            None => low_us = bound_us,
        }
        if !high_us.is_finite() || low_us.is_infinite() {
            break;
        }
        bound_us = (low_us + high_us) / 2.0;
    }
    best
}

/// All orders one move away, among `count` places.
fn neighbours(order: &[usize], count: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for i in 0..order.len() {
        let mut without = order.to_vec();
        let moved = without.remove(i);
        if !without.is_empty() {
            all.push(without.clone());
        }
        for to in (0..=without.len()).filter(|to| *to != i) {
            let mut other = without.clone();
            other.insert(to, moved);
            all.push(other);
        }
    }
    for new in (0..count).filter(|n| !order.contains(n)) {
        for i in 0..=order.len() {
            let mut with = order.to_vec();
            with.insert(i, new);
            all.push(with);
        }
        for i in 0..order.len() {
            let mut exchanged = order.to_vec();
            exchanged[i] = new;
            all.push(exchanged);
        }
    }
    all
}
