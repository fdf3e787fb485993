//! The least time to first token: the chunks of a prompt flow through the stages one behind the other.
//!
//! One chunk is a sum along the ring. Several are a flow shop: a chunk waits for the stage to be done with the one
//! before it. What a partial ring leaves behind is the time at which each chunk leaves its last stage; of two that used
//! the same nodes for the same layers and end on the same node, one that is later in no chunk makes the other needless.
//! That, and what the rest must take at least, keeps the search small; beyond [`LABELS_MAX`] partial rings it gives up
//! being exact and says so.

use std::rc::Rc;

use super::costs::{Compute, Costs, Frames};
use super::ring::Ring;
use super::rounds::EQUAL;
use super::tail::Tail;
use crate::plan::{LayerRange, NodeId, Stage};

/// Partial rings kept at most: some 20 ms of work.
const LABELS_MAX: usize = 60_000;

/// Bounds on the slowest stage that are tried for a good first ring.
const BOUNDS: u32 = 16;

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
    chunks: Vec<Ring>,
    layers: usize,
    min_layers: usize,
}

/// A partial ring: when each chunk leaves its last stage.
#[derive(Debug, Clone)]
struct Label {
    left_us: Vec<f64>,
    stages: Vec<(usize, usize, usize)>,
}

impl Prefill {
    pub(super) fn new(costs: &Costs<'_>, nodes: &[usize]) -> Self {
        let works = costs.chunks();
        let mut chunks: Vec<Ring> = Vec::with_capacity(works.len());
        let mut frames: Option<(Frames, usize)> = None;
        for work in &works {
            let of_chunk = costs.frames(work.sequence.new_tokens);
            let known = frames.filter(|(f, _)| *f == of_chunk).map(|(_, at)| at);
            let ring = match known {
                Some(at) => chunks[at].with_work(costs, *work),
                None => Ring::new(costs, nodes, *work, of_chunk),
            };
            if known.is_none() {
                frames = Some((of_chunk, chunks.len()));
            }
            chunks.push(ring);
        }
        let pace: Vec<Rc<Compute>> = (0..nodes.len())
            .map(|j| {
                let all = chunks.iter().map(|c| c.compute[j].as_ref().clone());
                Rc::new(all.reduce(|a, b| a.plus(&b)).expect("a prompt has a chunk"))
            })
            .collect();
        let count = chunks.len() as f64;
        for chunk in &mut chunks {
            chunk.pace = pace.clone();
            chunk.pace_stage_us = costs.software.per_step_us * count;
        }
        Self { chunks, layers: costs.layers, min_layers: costs.min_layers() }
    }

    /// The ring over a subset that `allowed` lets pass that gives its first token earliest, if before `below_us`; and
    /// whether that is certain.
    pub(super) fn earliest(
        &self,
        below_us: f64,
        allowed: &dyn Fn(usize) -> bool,
    ) -> (Option<Earliest>, bool) {
        let first = self.promising(below_us, allowed);
        if self.chunks.len() == 1 {
            return (first, true);
        }
        let below_us = first.as_ref().map_or(below_us, |f| f.ttft_us);
        let (better, certain) = self.search(below_us, allowed);
        (better.or(first), certain)
    }

    /// A good ring, the best one where there is one chunk: the least sum of the first chunk under a few bounds on the
    /// slowest stage, each then judged by the time of all chunks.
    pub(super) fn promising(&self, below_us: f64, allowed: &dyn Fn(usize) -> bool) -> Option<Earliest> {
        let ring = &self.chunks[0];
        let mut best: Option<Earliest> = None;
        let mut bound_us = f64::INFINITY;
        for _ in 0..if self.chunks.len() == 1 { 1 } else { BOUNDS } {
            let found = ring.best(bound_us, ring.nodes.len());
            let mut slowest_us = 0.0f64;
            for (mask, of_mask) in found.iter().enumerate() {
                let limit_us = best.as_ref().map_or(below_us, |b| b.ttft_us) * (1.0 - EQUAL);
                let Some(of_mask) = of_mask.filter(|b| allowed(mask) && b.total_us < limit_us) else {
                    continue;
                };
                let stages = ring.stages(mask, &of_mask, bound_us);
                let ttft_us = self.ttft_us(&stages);
                slowest_us = slowest_us.max(stages.iter().map(|s| ring.pace_us(s)).fold(0.0, f64::max));
                if ttft_us < limit_us {
                    best = Some(Earliest { ttft_us, stages });
                }
            }
            if slowest_us == 0.0 {
                break;
            }
            bound_us = slowest_us * 0.85;
        }
        best
    }

    /// The ring of the first chunk, with the bound on stages for all chunks together.
    pub(super) fn first_chunk(&self) -> &Ring {
        &self.chunks[0]
    }

    /// Time to first token of a ring of these nodes.
    pub(super) fn ttft_us(&self, stages: &[Stage]) -> f64 {
        let ring = &self.chunks[0];
        let mut label: Option<Label> = None;
        let mut first = 0;
        for stage in stages {
            let j =
                ring.nodes.iter().position(|n| *n == stage.node.index()).expect("the stage is of this ring");
            let (l, e) = (stage.layers.first as usize, stage.layers.end as usize);
            label = Some(match &label {
                None => {
                    first = j;
                    self.begin(j, e)
                }
                Some(before) => self.follow(before, j, l, e),
            });
        }
        label.map_or(f64::INFINITY, |l| self.done_us(&l, first))
    }

    fn begin(&self, j: usize, e: usize) -> Label {
        let mut free_us = 0.0f64;
        let leave = |chunk: &Ring| {
            free_us = free_us.max(chunk.entry[j]) + chunk.compute[j].range_us(0, e) + chunk.per_stage_us;
            free_us
        };
        Label { left_us: self.chunks.iter().map(leave).collect(), stages: vec![(j, 0, e)] }
    }

    fn follow(&self, before: &Label, j: usize, l: usize, e: usize) -> Label {
        let last = before.stages[before.stages.len() - 1].0;
        let mut free_us = 0.0f64;
        let leave = |(chunk, left_us): (&Ring, &f64)| {
            let comes_us = left_us + chunk.hop[last][j];
            free_us = free_us.max(comes_us) + chunk.compute[j].range_us(l, e) + chunk.per_stage_us;
            free_us
        };
        let left_us = self.chunks.iter().zip(&before.left_us).map(leave).collect();
        let mut stages = before.stages.clone();
        stages.push((j, l, e));
        Label { left_us, stages }
    }

    /// When the first token is back at the head.
    fn done_us(&self, label: &Label, first: usize) -> f64 {
        let last = label.stages[label.stages.len() - 1].0;
        label.left_us[label.left_us.len() - 1] + self.chunks[0].back[last][first]
    }

    fn search(&self, below_us: f64, allowed: &dyn Fn(usize) -> bool) -> (Option<Earliest>, bool) {
        let ring = &self.chunks[self.chunks.len() - 1];
        let mut search = Search { prefill: self, below_us, best: None, room: LABELS_MAX, allowed };
        for first in 0..ring.nodes.len() {
            let back_to = (!ring.head_given).then_some(first);
            let tail = Tail::new(ring, back_to);
            search.from(first, &tail);
        }
        let certain = search.room > 0;
        let earliest = search.best.map(|(ttft_us, label)| {
            let stage = |(j, l, e): &(usize, usize, usize)| Stage {
                node: NodeId(ring.nodes[*j] as u32),
                layers: LayerRange::new(*l as u32, *e as u32),
            };
            Earliest { ttft_us, stages: label.stages.iter().map(stage).collect() }
        });
        (earliest, certain)
    }
}

struct Search<'a> {
    prefill: &'a Prefill,
    below_us: f64,
    best: Option<(f64, Label)>,
    room: usize,
    allowed: &'a dyn Fn(usize) -> bool,
}

impl Search<'_> {
    /// All rings that begin on node `first`.
    fn from(&mut self, first: usize, tail: &Tail) {
        let ring = &self.prefill.chunks[0];
        let (k, layers, least) = (ring.nodes.len(), self.prefill.layers, self.prefill.min_layers);
        if !ring.entry[first].is_finite() {
            return;
        }
        let width = layers + 1;
        let mut labels: Vec<Vec<Label>> = vec![Vec::new(); (1 << k) * k * width];
        let at = |mask: usize, last: usize, done: usize| (mask * k + last) * width + done;
        for e in (least..=layers).filter(|e| ring.reach[first].fits(0, *e, layers)) {
            let label = self.prefill.begin(first, e);
            self.keep(label, 1 << first, first, tail, &mut labels[at(1 << first, first, e)]);
        }
        for mask in (1..1usize << k).filter(|m| m & (1 << first) != 0) {
            for last in (0..k).filter(|j| mask & (1 << j) != 0) {
                for l in 1..layers {
                    let here = std::mem::take(&mut labels[at(mask, last, l)]);
                    for j in (0..k).filter(|j| mask & (1 << j) == 0 && ring.hop[last][*j].is_finite()) {
                        for e in (l + least..=layers).filter(|e| ring.reach[j].fits(l, *e, layers)) {
                            for before in &here {
                                let label = self.prefill.follow(before, j, l, e);
                                let slot = &mut labels[at(mask | 1 << j, j, e)];
                                self.keep(label, mask | 1 << j, first, tail, slot);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Keeps a partial ring where it may still lead to a better one, and a whole one where it is better.
    fn keep(&mut self, label: Label, mask: usize, first: usize, tail: &Tail, slot: &mut Vec<Label>) {
        let limit_us = self.below_us * (1.0 - EQUAL);
        let (last, _, done) = label.stages[label.stages.len() - 1];
        if done == self.prefill.layers {
            let ttft_us = self.prefill.done_us(&label, first);
            if ttft_us < limit_us && (self.allowed)(mask) {
                self.below_us = ttft_us;
                self.best = Some((ttft_us, label));
            }
            return;
        }
        let left_us = label.left_us[label.left_us.len() - 1];
        let hopeless = left_us + tail.least_us(mask, last, done) >= limit_us;
        let needless = |old: &Label| old.left_us.iter().zip(&label.left_us).all(|(a, b)| a <= b);
        if hopeless || self.room == 0 || slot.iter().any(needless) {
            return;
        }
        slot.retain(|old| !label.left_us.iter().zip(&old.left_us).all(|(a, b)| a <= b));
        self.room -= 1;
        slot.push(label);
    }
}
