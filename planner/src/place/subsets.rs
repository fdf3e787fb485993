//! Which subsets of a few nodes may hold the pipeline that matters, given what the others must do.

use super::costs::Costs;
use super::ring::{Best, Ring};
use super::{Constraints, Shape};
use crate::plan::Pipeline;

/// A few nodes, what each subset can do as one pipeline, and what the constraints want of all.
pub(super) struct Subsets {
    pub(super) nodes: Vec<usize>,
    /// The ring of one stream's decode steps.
    pub(super) ring: Ring,
    /// The best pipeline for one stream over exactly the nodes of each subset.
    pub(super) best: Vec<Option<Best>>,
    /// The nodes that must take part.
    pub(super) pinned: usize,
    shape: Shape,
    /// Per subset: the least time of one stream summed over the pipelines it can be divided into, and the first of them.
    packed: Vec<Option<(f64, usize)>>,
}

impl Subsets {
    /// `None` where a pinned node is not among `nodes`.
    pub(super) fn new(costs: &Costs<'_>, nodes: &[usize]) -> Option<Self> {
        let Constraints { pinned, shape, .. } = &costs.ask.constraints;
        let bit = |id: &crate::plan::NodeId| nodes.iter().position(|n| *n == id.index()).map(|j| 1usize << j);
        let pinned = pinned.iter().map(bit).try_fold(0, |all, b| b.map(|b| all | b))?;
        let ring = Ring::new(costs, nodes, costs.decode(1), costs.frames(1));
        let best = ring.best(f64::INFINITY, nodes.len());
        let packed = pack(&best);
        Some(Self { nodes: nodes.to_vec(), ring, best, pinned, shape: *shape, packed })
    }

    /// All nodes.
    pub(super) fn all(&self) -> usize {
        (1 << self.nodes.len()) - 1
    }

    /// Whether the nodes of `mask` can make one pipeline.
    pub(super) fn feasible(&self, mask: usize) -> bool {
        self.best[mask].is_some()
    }

    /// Whether one pipeline over `mask` alone is a plan that the constraints let pass.
    pub(super) fn may_be_alone(&self, mask: usize) -> bool {
        let of_shape = match self.shape {
            Shape::Auto => true,
            Shape::Solo => mask.count_ones() == 1,
            Shape::Pipeline => mask.count_ones() > 1,
            Shape::Replicas => false,
        };
        of_shape && self.pinned & !mask == 0
    }

    /// Whether several replicas are allowed.
    pub(super) fn replicas_allowed(&self) -> bool {
        matches!(self.shape, Shape::Auto | Shape::Replicas)
    }

    /// The fewest other nodes that make the plan whole when `mask` is one of its replicas.
    pub(super) fn companions(&self, mask: usize) -> Option<usize> {
        if !self.replicas_allowed() {
            return None;
        }
        let (rest, needed) = (self.all() & !mask, self.pinned & !mask);
        let mut best: Option<(u32, f64, usize)> = None;
        let mut others = rest;
        while others > 0 {
            if needed & !others == 0
                && let Some((us, _)) = self.packed[others]
            {
                let found = (others.count_ones(), us, others);
                let better = |b: (u32, f64, usize)| (found.0, found.1) < (b.0, b.1);
                if best.is_none_or(better) {
                    best = Some(found);
                }
            }
            others = (others - 1) & rest;
        }
        best.map(|b| b.2)
    }

    /// Whether a pipeline over `mask` is part of some plan that the constraints let pass.
    pub(super) fn allowed(&self) -> Vec<bool> {
        (0..=self.all())
            .map(|mask| {
                mask > 0
                    && self.feasible(mask)
                    && (self.may_be_alone(mask) || self.companions(mask).is_some())
            })
            .collect()
    }

    /// The best pipeline for one stream over exactly `mask`.
    pub(super) fn pipeline(&self, mask: usize) -> Option<Pipeline> {
        let best = self.best[mask]?;
        Some(Pipeline { stages: self.ring.stages(mask, &best, f64::INFINITY) })
    }

    /// The plan around `main`, a pipeline over `mask`: alone where that may be, else with the companions it needs.
    pub(super) fn complete(&self, mask: usize, main: Pipeline) -> Vec<Pipeline> {
        let mut replicas = vec![main];
        if self.may_be_alone(mask) {
            return replicas;
        }
        let mut rest = self.companions(mask).unwrap_or(0);
        while let Some((_, part)) = self.packed[rest].filter(|_| rest > 0) {
            replicas.extend(self.pipeline(part));
            rest &= !part;
        }
        replicas
    }

    /// The subset of nodes that `pipeline` uses.
    pub(super) fn mask_of(&self, pipeline: &Pipeline) -> usize {
        let uses = |n: &usize| pipeline.stages.iter().any(|s| s.node.index() == *n);
        self.nodes.iter().enumerate().filter(|(_, n)| uses(n)).map(|(j, _)| 1 << j).sum()
    }
}

fn pack(best: &[Option<Best>]) -> Vec<Option<(f64, usize)>> {
    let mut packed: Vec<Option<(f64, usize)>> = vec![None; best.len()];
    packed[0] = Some((0.0, 0));
    for mask in 1..best.len() {
        let lowest = mask & mask.wrapping_neg();
        let mut part = mask;
        while part > 0 {
            if part & lowest != 0
                && let (Some(of_part), Some((rest_us, _))) = (best[part], packed[mask & !part])
            {
                let us = of_part.total_us + rest_us;
                if packed[mask].is_none_or(|(least, _)| us < least) {
                    packed[mask] = Some((us, part));
                }
            }
            part = (part - 1) & mask;
        }
    }
    packed
}
