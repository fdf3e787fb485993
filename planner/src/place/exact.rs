//! The exact search: all subsets, orders, cuts and divisions into replicas of a few nodes.

use super::Objective;
use super::costs::Costs;
use super::prefill::{Earliest, Prefill};
use super::replicas::Rates;
use super::rounds::quickest;
use super::subsets::Subsets;
use crate::plan::Pipeline;

/// Nodes up to which the search is exact.
pub(super) const NODES_MAX: usize = 8;

/// The best replicas for one objective.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) replicas: Vec<Pipeline>,
    /// Whether it is certain that there is none better.
    pub(super) certain: bool,
}

/// The exact search over one set of nodes.
pub(super) struct Exact<'c, 'a> {
    costs: &'c Costs<'a>,
    pub(super) subsets: Subsets,
    allowed: Vec<bool>,
}

impl<'c, 'a> Exact<'c, 'a> {
    /// `None` where a pinned node is not among `nodes`.
    pub(super) fn new(costs: &'c Costs<'a>, nodes: &[usize]) -> Option<Self> {
        let subsets = Subsets::new(costs, nodes)?;
        let allowed = subsets.allowed();
        Some(Self { costs, subsets, allowed })
    }

    /// The best plan for `objective`; `None` where there is no plan at all.
    pub(super) fn best(&self, objective: Objective) -> Option<Found> {
        match objective {
            Objective::Tpot => self.for_one_stream(),
            Objective::Throughput => self.for_many_streams(),
            Objective::Ttft => self.for_first_token(|prefill, allowed| prefill.earliest(allowed)),
        }
    }

    /// A good plan for another objective than the asked one, for the front: the best but for a long prompt's first token.
    pub(super) fn good(&self, objective: Objective) -> Option<Found> {
        match objective {
            Objective::Ttft => self.for_first_token(|prefill, allowed| (prefill.promising(allowed), false)),
            Objective::Tpot | Objective::Throughput => self.best(objective),
        }
    }

    fn for_one_stream(&self) -> Option<Found> {
        let candidates = self.subsets.best.iter().enumerate().filter(|(mask, _)| self.allowed[*mask]);
        let timed = candidates.filter_map(|(mask, best)| best.map(|b| (mask, b.total_us)));
        let quicker = |a: &(usize, f64), b: &(usize, f64)| {
            a.1.total_cmp(&b.1).then(a.0.count_ones().cmp(&b.0.count_ones())).then(a.0.cmp(&b.0))
        };
        let (mask, _) = timed.min_by(quicker)?;
        let replicas = self.subsets.complete(mask, self.subsets.pipeline(mask)?);
        Some(Found { replicas, certain: true })
    }

    fn for_first_token(
        &self,
        search: impl Fn(&Prefill, &dyn Fn(usize) -> bool) -> (Option<Earliest>, bool),
    ) -> Option<Found> {
        let prefill = Prefill::new(self.costs, &self.subsets.nodes);
        let (found, certain) = search(&prefill, &|mask| self.allowed[mask]);
        let main = Pipeline { stages: found?.stages };
        let replicas = self.subsets.complete(self.subsets.mask_of(&main), main);
        Some(Found { replicas, certain })
    }

    fn for_many_streams(&self) -> Option<Found> {
        let streams = self.costs.ask.load.concurrency.max(1);
        let subsets = &self.subsets;
        let mut best: Option<(f64, Vec<Pipeline>)> = None;
        for stages in 1..=subsets.nodes.len() {
            let below_us = best.as_ref().map_or(f64::INFINITY, |b| b.0);
            let alone = |mask: usize| subsets.feasible(mask) && subsets.may_be_alone(mask);
            let found = quickest(self.costs, &subsets.nodes, stages, streams, below_us, &alone);
            best = found.map(|r| (r.round_us, vec![Pipeline { stages: r.stages }])).or(best);
        }
        if subsets.replicas_allowed() {
            let above = best.as_ref().map_or(f64::NEG_INFINITY, |b| f64::from(streams) / b.0 * 1e6);
            if let Some((_, replicas)) = Rates::new(self.costs, subsets).best(above) {
                return Some(Found { replicas, certain: true });
            }
        }
        best.map(|(_, replicas)| Found { replicas, certain: true })
    }
}
