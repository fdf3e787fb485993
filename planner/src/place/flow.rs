//! The certain search for the least time to first token of a prompt of several chunks.
//!
//! What a partial ring leaves behind is the time at which each chunk leaves its last stage. Of two that used the same
//! nodes for the same layers and end on the same node, one that is later in no chunk makes the other needless. And a
//! partial ring is hopeless where what the rest takes at least is too much: the last chunk through the rest of the ring
//! ([`Tail`]); all chunks through a stage, then the last one through the rest; and all chunks through the slowest of the
//! stages to come, which cannot all be quick. Beyond [`LABELS_MAX`] partial rings the search gives up being certain and
//! says so.

use std::collections::BTreeMap;

use super::prefill::{Earliest, Prefill};
use super::ring::Ring;
use super::rounds::EQUAL;
use super::tail::Tail;
use crate::plan::{LayerRange, NodeId, Stage};

/// Partial rings kept at most.
const LABELS_MAX: usize = 100_000;

/// A partial ring by its last stage.
#[derive(Debug, Clone, Copy)]
struct Label {
    /// The partial ring before.
    before: Option<u32>,
    node: usize,
    first_layer: usize,
    end: usize,
}

/// What a node can do of the rest at most.
struct Pace {
    layer_us: f64,
    layers_max: usize,
}

pub(super) struct Flow<'p> {
    prefill: &'p Prefill,
    below_us: f64,
    allowed: &'p dyn Fn(usize) -> bool,
    tail: Tail,
    pace: Vec<Pace>,
    /// No layer takes less for the first or the last chunk, on any node.
    layer_least_us: f64,
    labels: Vec<Label>,
    /// When each chunk leaves each label's last stage.
    left_us: Vec<f64>,
    best: Option<(f64, Vec<Stage>)>,
}

/// Partial rings by nodes used, last node and layers done.
type Open = BTreeMap<(usize, usize, usize), Vec<u32>>;

impl<'p> Flow<'p> {
    /// A search for a ring that is quicker than `below_us`.
    pub(super) fn new(prefill: &'p Prefill, below_us: f64, allowed: &'p dyn Fn(usize) -> bool) -> Self {
        let chunks = &prefill.chunks;
        let (first, last) = (&chunks[0], &chunks[chunks.len() - 1]);
        let least = |upto: &[f64]| upto.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
        let pace = |j: usize| Pace { layer_us: least(&first.pace[j].upto), layers_max: longest(first, j) };
        let ends = first.compute.iter().chain(&last.compute);
        Self {
            prefill,
            below_us,
            allowed,
            tail: Tail::new(&last.relaxed()),
            pace: (0..first.nodes.len()).map(pace).collect(),
            layer_least_us: ends.map(|c| least(&c.upto)).fold(f64::INFINITY, f64::min),
            labels: Vec::new(),
            left_us: Vec::new(),
            best: None,
        }
    }

    /// The best ring below the limit, and whether there is certainly none better.
    pub(super) fn search(mut self) -> (Option<Earliest>, bool) {
        for first in 0..self.pace.len() {
            self.from(first);
        }
        let certain = self.labels.len() < LABELS_MAX;
        (self.best.map(|(ttft_us, stages)| Earliest { ttft_us, stages }), certain)
    }

    /// All rings that begin on node `first`.
    fn from(&mut self, first: usize) {
        if !self.prefill.chunks[0].entry[first].is_finite() {
            return;
        }
        let mut open = Open::new();
        self.extend(None, 0, first, first, &mut open);
        // Longer rings have larger sets of nodes: everything that leads to a state comes before it.
        while let Some(((mask, _, _), labels)) = open.pop_first() {
            for j in (0..self.pace.len()).filter(|j| mask & (1 << j) == 0) {
                for label in &labels {
                    self.extend(Some(*label), mask, j, first, &mut open);
                }
            }
        }
    }

    /// A stage on node `j` behind the partial ring `before`, with every end it may have.
    fn extend(&mut self, before: Option<u32>, mask: usize, j: usize, first: usize, open: &mut Open) {
        let prefill = self.prefill;
        let (opening, closing) = (&prefill.chunks[0], &prefill.chunks[prefill.chunks.len() - 1]);
        let (layers, count) = (opening.layers, prefill.chunks.len());
        let last = before.map(|b| self.labels[b as usize]);
        let (l, comes): (usize, Vec<f64>) = match (before, last) {
            (Some(b), Some(last)) => (last.end, self.left_us[b as usize * count..][..count].to_vec()),
            _ => (0, vec![0.0; count]),
        };
        let reach_us = |chunk: &Ring| last.map_or(chunk.entry[j], |s| chunk.hop[s.node][j]);
        if !reach_us(opening).is_finite() {
            return;
        }
        let joined = mask | 1 << j;
        let mut onward_us = vec![f64::INFINITY; layers + 1];
        self.tail.onward(!joined & ((1 << self.pace.len()) - 1), j, &mut onward_us);
        let (first_us, last_us) = (comes[0] + reach_us(opening), comes[count - 1] + reach_us(closing));
        let mut left_us = comes.clone();
        for (e, onward_us) in onward_us.iter().enumerate().skip(l + opening.min_layers) {
            let limit_us = self.below_us * (1.0 - EQUAL);
            let all_us = first_us + opening.pace[j].range_us(l, e) + opening.pace_stage_us;
            if all_us >= limit_us {
                break;
            }
            let one_us = last_us + closing.compute[j].range_us(l, e) + closing.per_stage_us;
            let rest_us = if e == layers { closing.back[j][first] } else { *onward_us };
            if all_us.max(one_us) + rest_us >= limit_us || !opening.reach[j].fits(l, e, layers) {
                continue;
            }
            left_us.copy_from_slice(&comes);
            prefill.pass(last.map(|s| s.node), j, (l, e), &mut left_us);
            let label = Label { before, node: j, first_layer: l, end: e };
            if e == layers {
                self.close(label, joined, left_us[count - 1] + rest_us);
            } else if left_us[count - 1] + rest_us < limit_us && !self.crowded(joined, e, left_us[0]) {
                self.keep(label, &left_us, open.entry((joined, j, e)).or_default());
            }
        }
    }

    /// Whether the nodes left cannot do the rest: each has room for so many layers until all chunks are through, when
    /// the first is there at `from_us` and the layers of the others take their time before or after.
    fn crowded(&self, mask: usize, done: usize, from_us: f64) -> bool {
        let ring = &self.prefill.chunks[0];
        let rest = ring.layers - done;
        let spare_us = self.below_us - from_us - ring.pace_stage_us - rest as f64 * self.layer_least_us;
        let room = |j: usize| {
            let pace = &self.pace[j];
            let more_us = pace.layer_us - self.layer_least_us;
            let most = if more_us > 0.0 { (spare_us.max(0.0) / more_us) as usize } else { rest };
            most.min(pace.layers_max).min(rest)
        };
        let free = (0..self.pace.len()).filter(|j| mask & (1 << j) == 0);
        spare_us < 0.0 || free.map(room).sum::<usize>() < rest
    }

    /// Keeps a partial ring unless another makes it needless.
    fn keep(&mut self, label: Label, left_us: &[f64], slot: &mut Vec<u32>) {
        let count = left_us.len();
        let all = &self.left_us;
        let of = |label: u32| &all[label as usize * count..][..count];
        let no_later = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a <= b);
        if self.labels.len() >= LABELS_MAX || slot.iter().any(|old| no_later(of(*old), left_us)) {
            return;
        }
        slot.retain(|old| !no_later(left_us, of(*old)));
        slot.push(self.labels.len() as u32);
        self.labels.push(label);
        self.left_us.extend_from_slice(left_us);
    }

    /// A whole ring.
    fn close(&mut self, label: Label, mask: usize, ttft_us: f64) {
        if ttft_us >= self.below_us * (1.0 - EQUAL) || !(self.allowed)(mask) {
            return;
        }
        let nodes = &self.prefill.chunks[0].nodes;
        let stage = |s: &Label| Stage {
            node: NodeId(nodes[s.node] as u32),
            layers: LayerRange::new(s.first_layer as u32, s.end as u32),
        };
        let mut stages = vec![stage(&label)];
        let mut at = label;
        while let Some(before) = at.before {
            at = self.labels[before as usize];
            stages.push(stage(&at));
        }
        stages.reverse();
        self.below_us = ttft_us;
        self.best = Some((ttft_us, stages));
    }
}

/// The most layers in a row that fit on place `j` of the ring.
fn longest(ring: &Ring, j: usize) -> usize {
    let (reach, layers) = (&ring.reach[j], ring.layers);
    if reach.solo {
        return layers;
    }
    let middle = (1..layers).map(|e| e - reach.from[e]).max().unwrap_or(0);
    middle.max(reach.first_end).max(layers - reach.last_from.min(layers))
}
