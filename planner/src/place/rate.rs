//! What given pipelines give, from the searches' tables: the same as [`crate::cost::predict`], many times over.

use super::costs::Costs;
use super::rounds::batches;
use crate::cost::predict::streams_of;
use crate::plan::{NodeId, Pipeline, Stage};

impl Costs<'_> {
    /// Time of a decode step's frames round the ring of `stages`.
    pub(super) fn way_us(&self, stages: &[Stage]) -> f64 {
        let (Some(first), Some(last)) = (stages.first(), stages.last()) else { return 0.0 };
        let head = self.ask.load.head.map_or(first.node.index(), NodeId::index);
        let frames = self.frames(1);
        let between: f64 = stages
            .windows(2)
            .map(|w| self.hop_us(w[0].node.index(), w[1].node.index(), frames.between))
            .sum();
        self.hop_us(head, first.node.index(), frames.entry)
            + between
            + self.hop_us(last.node.index(), head, frames.back)
    }

    /// Time of one stage's step with a batch of that many streams.
    pub(super) fn step_us(&self, stage: &Stage, batch: u32) -> f64 {
        let compute = self.compute(stage.node.index(), self.decode(batch));
        compute.range_us(stage.layers.first as usize, stage.layers.end as usize) + self.software.per_step_us
    }

    /// Time of a decode step of the whole model on one node, memory set aside.
    pub(super) fn compute_us(&self, node: usize) -> f64 {
        self.compute(node, self.decode(1)).range_us(0, self.layers)
    }

    /// Output tokens per second of a pipeline with that many streams.
    pub(super) fn rate(&self, stages: &[Stage], streams: u32) -> f64 {
        if streams == 0 {
            return 0.0;
        }
        let (groups, batch) = batches(streams, stages.len());
        let (mut sum_us, mut slowest_us) = (self.way_us(stages), 0.0f64);
        for us in stages.iter().map(|s| self.step_us(s, batch)) {
            sum_us += us;
            slowest_us = slowest_us.max(us);
        }
        f64::from(streams) / sum_us.max(slowest_us * f64::from(groups)) * 1e6
    }

    /// Output tokens per second of a plan at the asked concurrency.
    pub(super) fn plan_rate(&self, plan: &[Pipeline]) -> f64 {
        self.rate_among(plan, plan.len() as u32)
    }

    /// The same of some replicas of a plan that has `count` of them, these being the first.
    pub(super) fn rate_among(&self, first: &[Pipeline], count: u32) -> f64 {
        let streams = |i: usize| streams_of(self.ask.load.concurrency, count, i as u32);
        first.iter().enumerate().map(|(i, p)| self.rate(&p.stages, streams(i))).sum()
    }
}
