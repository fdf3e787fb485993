//! What the searches ask again and again, computed once: step times by device and batch as prefix sums over the layers,
//! what fits into each memory, and hops.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Ask;
use crate::cost::constants::{FRAME_HEADER_BYTES, RING, Software, TOKEN_FRAME_BYTES};
use crate::cost::memory::{activation_bytes, kv_bytes, stage_bytes, weight_bytes};
use crate::cost::step::{Sequence, uniform_step_time};
use crate::cost::transfer::{activation_frame_bytes, transfer_time};
use crate::fleet::{Device, Fleet, NodeId, Ways};
use crate::model::Model;
use crate::plan::LayerRange;

/// Steps of `count` sequences that are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// One of them.
    pub(super) sequence: Sequence,
    /// How many.
    pub(super) count: u32,
}

impl Work {
    fn key(self) -> [u32; 4] {
        [self.sequence.new_tokens, self.sequence.context, self.sequence.logits, self.count]
    }
}

/// Time of steps of one device over ranges of layers, microseconds.
#[derive(Debug, Clone)]
pub(super) struct Compute {
    /// `upto[e] - upto[l]` is the time of the layers `l..e`.
    pub(super) upto: Vec<f64>,
    /// What the head adds where the range ends the model.
    pub(super) head_us: f64,
}

impl Compute {
    /// Time of the layers `l..e`, with the head where they end the model.
    pub(super) fn range_us(&self, l: usize, e: usize) -> f64 {
        let head = if e + 1 == self.upto.len() { self.head_us } else { 0.0 };
        self.upto[e] - self.upto[l] + head
    }

    /// One after the other.
    pub(super) fn plus(&self, other: &Compute) -> Compute {
        let upto = self.upto.iter().zip(&other.upto).map(|(a, b)| a + b).collect();
        Compute { upto, head_us: self.head_us + other.head_us }
    }
}

/// Which ranges of layers fit into a device's memory. Sessions' KV and activation buffers are counted.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    /// The largest end of a first stage that is not the last; 0: none.
    pub(super) first_end: usize,
    /// For each end before the last: the least first layer, 1 at least, of a stage that ends there.
    pub(super) from: Vec<usize>,
    /// The least first layer, 1 at least, of a last stage; the number of layers where even one does not fit.
    pub(super) last_from: usize,
    /// Whether the whole model fits.
    pub(super) solo: bool,
}

impl Reach {
    /// Whether the stage `l..e` of `layers` layers fits.
    pub(super) fn fits(&self, l: usize, e: usize, layers: usize) -> bool {
        match (l == 0, e == layers) {
            (true, true) => self.solo,
            (true, false) => e <= self.first_end,
            (false, true) => l >= self.last_from,
            (false, false) => l >= self.from[e],
        }
    }
}

/// The bytes of the frames that carry one step round the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frames {
    /// Tokens to the first stage.
    pub(super) entry: u64,
    /// The residual stream between stages.
    pub(super) between: u64,
    /// The sampled token back to the head.
    pub(super) back: u64,
}

type ComputeKey = (usize, [u32; 4]);

/// One question with all that its searches look up.
pub(super) struct Costs<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) model: &'a Model,
    pub(super) ask: &'a Ask,
    pub(super) software: Software,
    pub(super) layers: usize,
    ways: Ways<'a>,
    /// Nodes with equal devices have the same class.
    class: Vec<usize>,
    devices: Vec<&'a Device>,
    /// Weight and KV bytes of all layers before.
    bytes_upto: Vec<u64>,
    /// By class and [`Work::key`].
    compute: RefCell<BTreeMap<ComputeKey, Rc<Compute>>>,
    reach: RefCell<BTreeMap<usize, Rc<Reach>>>,
}

impl<'a> Costs<'a> {
    pub(super) fn new(fleet: &'a Fleet, model: &'a Model, ask: &'a Ask) -> Self {
        let mut classes: BTreeMap<[u64; 13], usize> = BTreeMap::new();
        let mut devices = Vec::new();
        let mut class = Vec::with_capacity(fleet.nodes.len());
        for node in &fleet.nodes {
            let next = classes.len();
            let found = *classes.entry(figures(&node.device)).or_insert(next);
            if found == next {
                devices.push(&node.device);
            }
            class.push(found);
        }
        let c = &ask.constraints;
        let mut bytes_upto = vec![0u64];
        for i in 0..model.layer_count() {
            let one = LayerRange::new(i, i + 1);
            let kv = kv_bytes(model, one, c.context).saturating_mul(u64::from(c.sessions));
            let sum = model.layers[i as usize].weight_bytes().saturating_add(kv);
            bytes_upto.push(bytes_upto[i as usize].saturating_add(sum));
        }
        Self {
            fleet,
            model,
            ask,
            software: RING,
            layers: model.layers.len(),
            ways: Ways::new(fleet),
            class,
            devices,
            bytes_upto,
            compute: RefCell::default(),
            reach: RefCell::default(),
        }
    }

    /// Nodes of equal class have equal devices.
    pub(super) fn class(&self, node: usize) -> usize {
        self.class[node]
    }

    /// Nodes that must take part, ascending. Somebody may name one twice; it stands in a plan once.
    pub(super) fn pinned(&self) -> Vec<usize> {
        let pinned: BTreeSet<usize> = self.ask.constraints.pinned.iter().map(|id| id.index()).collect();
        pinned.into_iter().collect()
    }

    /// Nodes that constraints let take part: they have the model and are not excluded.
    pub(super) fn allowed(&self) -> Vec<usize> {
        let mut out = vec![false; self.fleet.nodes.len()];
        for id in &self.ask.constraints.excluded {
            if let Some(slot) = out.get_mut(id.index()) {
                *slot = true;
            }
        }
        (0..self.fleet.nodes.len()).filter(|i| !out[*i] && self.fleet.nodes[*i].has_model).collect()
    }

    /// Of those, the ones whose memory holds some stage, and that compute at all.
    pub(super) fn usable(&self) -> Vec<usize> {
        let holds = |i: &usize| {
            let reach = self.reach(*i);
            let (least, layers) = (self.min_layers(), self.layers);
            let middle = (1..layers).any(|e| e >= reach.from[e] + least);
            let room = reach.solo || reach.first_end >= least || middle || reach.last_from + least <= layers;
            room && self.compute_us(*i).is_finite()
        };
        self.allowed().into_iter().filter(holds).collect()
    }

    /// Fewest layers of a stage, one at least.
    pub(super) fn min_layers(&self) -> usize {
        self.ask.constraints.min_layers.max(1) as usize
    }

    /// Time of `work` on `node`.
    pub(super) fn compute(&self, node: usize, work: Work) -> Rc<Compute> {
        self.compute_of_class(self.class[node], work)
    }

    pub(super) fn compute_of_class(&self, class: usize, work: Work) -> Rc<Compute> {
        let mut memo = self.compute.borrow_mut();
        let entry = memo.entry((class, work.key()));
        Rc::clone(entry.or_insert_with(|| Rc::new(self.measure(self.devices[class], work))))
    }

    fn measure(&self, device: &Device, work: Work) -> Compute {
        // Layer by layer no stage pages, and none that fits into memory does.
        let device = Device { memory_bytes: u64::MAX, reserved_bytes: 0, ..device.clone() };
        let silent = Sequence { logits: 0, ..work.sequence };
        let time = |i: u32, s: Sequence| {
            uniform_step_time(self.model, &device, LayerRange::new(i, i + 1), s, work.count).total_us()
        };
        let mut upto = vec![0.0];
        for i in 0..self.model.layer_count() {
            upto.push(upto[i as usize] + time(i, silent));
        }
        let last = self.model.layer_count().saturating_sub(1);
        let head_us = if self.layers == 0 { 0.0 } else { time(last, work.sequence) - time(last, silent) };
        Compute { upto, head_us }
    }

    /// Memory of the stage `l..e`, bytes.
    pub(super) fn stage_bytes(&self, l: usize, e: usize) -> u64 {
        let range = LayerRange::new(l as u32, e as u32);
        let c = &self.ask.constraints;
        stage_bytes(self.model, range, c.context, c.sessions)
    }

    /// What fits on `node`.
    pub(super) fn reach(&self, node: usize) -> Rc<Reach> {
        let class = self.class[node];
        let mut memo = self.reach.borrow_mut();
        Rc::clone(memo.entry(class).or_insert_with(|| Rc::new(self.reach_of(self.devices[class]))))
    }

    fn reach_of(&self, device: &Device) -> Reach {
        let (layers, usable) = (self.layers, device.usable_bytes());
        let buffers = activation_bytes(self.model);
        let fits = |l: usize, e: usize, ends: u64| {
            let stage = (self.bytes_upto[e] - self.bytes_upto[l]).saturating_add(ends);
            stage.saturating_add(buffers) <= usable
        };
        let embedding = self.model.embedding_bytes;
        let first_end = (1..layers).take_while(|e| fits(0, *e, embedding)).last().unwrap_or(0);
        let mut l = 1;
        // Where not even one layer fits, a stage would begin where it ends: there is none.
        let advance = |e: usize| {
            while l < e && !fits(l, e, 0) {
                l += 1;
            }
            l
        };
        let from = (0..layers).map(advance).collect();
        let head = self.model.head_bytes;
        let last_from = (1..layers).find(|l| fits(*l, layers, head)).unwrap_or(layers);
        let whole = LayerRange::new(0, layers as u32);
        let of_layers = self.model.layers.iter().map(|l| l.weight_bytes()).sum::<u64>();
        let ends = weight_bytes(self.model, whole) - of_layers;
        Reach { first_end, from, last_from, solo: fits(0, layers, ends) }
    }

    /// Time of a frame of `bytes` between two nodes; infinite where the constraints or the network forbid the hop.
    pub(super) fn hop_us(&self, from: usize, to: usize, bytes: u64) -> f64 {
        if from == to {
            return 0.0;
        }
        let (from, to) = (NodeId(from as u32), NodeId(to as u32));
        let cap_us = self.ask.constraints.latency_cap_us.unwrap_or(f64::INFINITY);
        match self.ways.path(from, to) {
            Some(path) if path.delay.mean_us() <= cap_us => {
                transfer_time(&path, bytes, &self.software).total_us()
            }
            _ => f64::INFINITY,
        }
    }

    /// Mean one-way delay between two nodes, microseconds; `None` where they cannot reach each other.
    pub(super) fn delay_us(&self, from: usize, to: usize) -> Option<f64> {
        self.ways.path(NodeId(from as u32), NodeId(to as u32)).map(|path| path.delay.mean_us())
    }

    /// The frames of a step that carries `tokens` tokens.
    pub(super) fn frames(&self, tokens: u32) -> Frames {
        Frames {
            entry: FRAME_HEADER_BYTES + 4 * u64::from(tokens),
            between: activation_frame_bytes(self.model, &self.software, tokens),
            back: TOKEN_FRAME_BYTES,
        }
    }

    /// Decoding one token of each of `count` streams.
    pub(super) fn decode(&self, count: u32) -> Work {
        Work { sequence: Sequence::decode(self.ask.load.context), count }
    }

    /// The steps of a prompt's prefill, in order.
    pub(super) fn chunks(&self) -> Vec<Work> {
        Sequence::prefill(self.ask.load.prompt).map(|sequence| Work { sequence, count: 1 }).collect()
    }
}

/// All that decides what a device costs and holds.
fn figures(d: &Device) -> [u64; 13] {
    let measured = d
        .measured
        .map_or([0; 3], |m| [m.head_bytes_per_s, m.kv_bytes_per_s, m.attention_flops].map(f64::to_bits));
    [
        measured[0],
        measured[1],
        measured[2],
        d.kind as u64,
        d.memory_bytes,
        d.reserved_bytes,
        d.bandwidth_bytes_per_s.to_bits(),
        d.bandwidth_efficiency.to_bits(),
        d.flops.to_bits(),
        d.flops_efficiency.to_bits(),
        d.layer_overhead_us.to_bits(),
        d.expert_overhead_us.to_bits(),
        d.disk_bytes_per_s.to_bits(),
    ]
}
