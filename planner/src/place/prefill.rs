//! The least time to first token: the chunks of a prompt flow through the stages one behind the other.
//!
//! One chunk is a sum along the ring. Several are a flow shop: a chunk waits for the stage to be done with the one
//! before it. A good ring comes from the least sum of the first chunk under a few bounds on the slowest stage, each then
//! judged by all chunks and improved by moving layers between neighbours; [`super::flow`] looks for a better one.

use std::rc::Rc;

use super::costs::{Compute, Costs, Frames};
use super::flow::Flow;
use super::ring::Ring;
use super::rounds::EQUAL;
use crate::plan::Stage;

/// Bounds on the slowest stage that are tried for a good first ring.
const BOUNDS: u32 = 10;

/// Each bound is this share of the slowest stage found under the one before.
const BOUND_STEP: f64 = 0.85;

/// What the search gives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Earliest {
    /// Time to first token.
    pub(super) ttft_us: f64,
    /// The ring's stages.
    pub(super) stages: Vec<Stage>,
}

/// A ring of nodes with the costs of each chunk.
pub(super) struct Prefill {
    /// Per chunk: costs and hops of that chunk alone. The bound on stages is for all chunks together.
    pub(super) chunks: Vec<Ring>,
}

impl Prefill {
    pub(super) fn new(costs: &Costs<'_>, nodes: &[usize]) -> Self {
        let works = costs.chunks();
        let mut chunks: Vec<Ring> = Vec::with_capacity(works.len());
        let mut known: Option<(Frames, usize)> = None;
        for work in &works {
            let frames = costs.frames(work.sequence.new_tokens);
            let ring = match known.filter(|(of, _)| *of == frames) {
                Some((_, at)) => chunks[at].with_work(costs, *work),
                None => {
                    known = Some((frames, chunks.len()));
                    Ring::new(costs, nodes, *work, frames)
                }
            };
            chunks.push(ring);
        }
        let together = |j: usize| {
            let all = chunks.iter().map(|c| c.compute[j].as_ref().clone());
            Rc::new(all.reduce(|a: Compute, b| a.plus(&b)).expect("a prompt has a chunk"))
        };
        let pace: Vec<Rc<Compute>> = (0..nodes.len()).map(together).collect();
        let count = chunks.len() as f64;
        for chunk in &mut chunks {
            chunk.pace = pace.clone();
            chunk.pace_stage_us = costs.software.per_step_us * count;
        }
        Self { chunks }
    }

    /// The ring of the first chunk, with the bound on stages for all chunks together.
    pub(super) fn first_chunk(&self) -> &Ring {
        &self.chunks[0]
    }

    /// The ring over a subset that `allowed` lets pass that gives its first token earliest; and whether that is certain.
    pub(super) fn earliest(&self, allowed: &dyn Fn(usize) -> bool) -> (Option<Earliest>, bool) {
        if self.chunks.len() == 1 {
            return (self.of_one_chunk(allowed), true);
        }
        let first = self.promising(allowed);
        let below_us = first.as_ref().map_or(f64::INFINITY, |f| f.ttft_us);
        let (better, certain) = Flow::new(self, below_us, allowed).search();
        (better.or(first), certain)
    }

    /// A good ring, the best one where there is one chunk.
    pub(super) fn promising(&self, allowed: &dyn Fn(usize) -> bool) -> Option<Earliest> {
        if self.chunks.len() == 1 {
            return self.of_one_chunk(allowed);
        }
        let ring = self.first_chunk().relaxed();
        let mut best: Option<Earliest> = None;
        let mut bound_us = f64::INFINITY;
        for _ in 0..BOUNDS {
            let sweep = ring.sweep(bound_us, ring.nodes.len());
            let mut slowest_us = 0.0f64;
            let mut found: Option<Earliest> = None;
            for mask in (1..sweep.best.len()).filter(|mask| allowed(*mask)) {
                let Some(stages) = sweep.stages(mask) else { continue };
                slowest_us = slowest_us.max(stages.iter().map(|s| ring.pace_us(s)).fold(0.0, f64::max));
                let ttft_us = self.ttft_us(&stages);
                if ttft_us < found.as_ref().map_or(f64::INFINITY, |f| f.ttft_us) {
                    found = Some(Earliest { ttft_us, stages });
                }
            }
            let Some(found) = found.map(|f| self.balanced(f)) else { break };
            if best.as_ref().is_none_or(|b| found.ttft_us < b.ttft_us) {
                best = Some(found);
            }
            bound_us = slowest_us * BOUND_STEP;
        }
        best
    }

    fn of_one_chunk(&self, allowed: &dyn Fn(usize) -> bool) -> Option<Earliest> {
        let ring = self.first_chunk();
        let found = ring.best(f64::INFINITY, ring.nodes.len());
        let of_mask = |(mask, best): (usize, &Option<_>)| best.filter(|_| allowed(mask)).map(|b| (mask, b));
        let timed = found.iter().enumerate().filter_map(of_mask);
        let (mask, best) = timed.min_by(|a, b| a.1.total_us.total_cmp(&b.1.total_us))?;
        Some(Earliest { ttft_us: best.total_us, stages: ring.stages(mask, &best, f64::INFINITY) })
    }

    /// The same ring with layers moved between neighbours as long as that helps.
    fn balanced(&self, mut best: Earliest) -> Earliest {
        let mut step = 8;
        while step > 0 {
            let better = (1..best.stages.len()).flat_map(|i| [(i, step), (i, -step)]).find_map(|(i, by)| {
                let stages = self.moved(&best.stages, i, by)?;
                let ttft_us = self.ttft_us(&stages);
                (ttft_us < best.ttft_us * (1.0 - EQUAL)).then_some(Earliest { ttft_us, stages })
            });
            match better {
                Some(better) => best = better,
                None => step /= 2,
            }
        }
        best
    }

    /// `stages` with the border before stage `i` moved, where both stages still hold.
    fn moved(&self, stages: &[Stage], i: usize, by: i64) -> Option<Vec<Stage>> {
        let ring = self.first_chunk();
        let border = u32::try_from(i64::from(stages[i].layers.first) + by).ok()?;
        if border <= stages[i - 1].layers.first || border >= stages[i].layers.end {
            return None;
        }
        let mut stages = stages.to_vec();
        (stages[i - 1].layers.end, stages[i].layers.first) = (border, border);
        let holds = |s: &Stage| {
            let (l, e) = (s.layers.first as usize, s.layers.end as usize);
            e >= l + ring.min_layers && ring.reach[self.place_of(s)].fits(l, e, ring.layers)
        };
        stages[i - 1..=i].iter().all(holds).then_some(stages)
    }

    fn place_of(&self, stage: &Stage) -> usize {
        let nodes = &self.first_chunk().nodes;
        nodes.iter().position(|n| *n == stage.node.index()).expect("the stage is of this ring")
    }

    /// Time to first token of a ring of these nodes.
    pub(super) fn ttft_us(&self, stages: &[Stage]) -> f64 {
        let mut left_us = vec![0.0; self.chunks.len()];
        let mut before: Option<usize> = None;
        for stage in stages {
            let j = self.place_of(stage);
            self.pass(before, j, (stage.layers.first as usize, stage.layers.end as usize), &mut left_us);
            before = Some(j);
        }
        match (stages.first(), before) {
            (Some(first), Some(last)) => {
                left_us[left_us.len() - 1] + self.chunks[0].back[last][self.place_of(first)]
            }
            _ => f64::INFINITY,
        }
    }

    /// From when each chunk leaves the stage on `before` (the head where there is none) to when it leaves the next one.
    pub(super) fn pass(&self, before: Option<usize>, j: usize, (l, e): (usize, usize), left_us: &mut [f64]) {
        let mut free_us = 0.0f64;
        for (chunk, left_us) in self.chunks.iter().zip(left_us) {
            let comes_us = before.map_or(chunk.entry[j], |last| *left_us + chunk.hop[last][j]);
            free_us = free_us.max(comes_us) + chunk.compute[j].range_us(l, e) + chunk.per_stage_us;
            *left_us = free_us;
        }
    }
}
