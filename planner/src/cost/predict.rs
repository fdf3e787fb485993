//! What a whole plan gives, from the costs of its parts.

use super::constants::{FRAME_HEADER_BYTES, HANDSHAKE_BYTES, Software, TOKEN_FRAME_BYTES};
use super::step::{Sequence, step_time, uniform_step_time};
use super::transfer::{TransferTime, activation_frame_bytes, transfer_time};
use crate::fleet::{Fleet, NodeId};
use crate::model::Model;
use crate::plan::{Breakdown, Pipeline, Plan, Prediction};

/// The load a prediction is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Prompt length, tokens.
    pub prompt: u32,
    /// Tokens in the KV cache while decoding, on average.
    pub context: u32,
    /// Streams at once.
    pub concurrency: u32,
    /// Where the client's head runs; `None` puts it with each pipeline's first stage.
    pub head: Option<NodeId>,
}

/// What `plan` gives under `load`, with ring software costs `software`. `None` when two neighbours in the ring cannot
/// reach each other.
///
/// Of several replicas a single stream gets the one that is best for it: the time per token (with its breakdown) and the
/// time to first token are each that of the replica that is best at it. The streams of [`Load::concurrency`] are spread
/// evenly, the first replicas get the remainder.
pub fn predict(
    fleet: &Fleet,
    model: &Model,
    plan: &Plan,
    load: &Load,
    software: &Software,
) -> Option<Prediction> {
    let mut best: Option<Prediction> = None;
    let mut throughput = 0.0;
    let replicas = plan.replicas.len().max(1) as u32;
    for (i, pipeline) in plan.replicas.iter().enumerate() {
        let streams = streams_of(load.concurrency, replicas, i as u32);
        let p = predict_pipeline(fleet, model, pipeline, load, streams.max(1), software)?;
        if streams > 0 {
            throughput += p.throughput_tok_s;
        }
        best = Some(match best {
            None => p,
            Some(b) => {
                let first = if p.ttft_ms < b.ttft_ms { p } else { b };
                let token = if p.tpot_ms < b.tpot_ms { p } else { b };
                Prediction { ttft_ms: first.ttft_ms, opening_ms: first.opening_ms, ..token }
            }
        });
    }
    best.map(|b| Prediction { throughput_tok_s: throughput, ..b })
}

/// Streams that the replica of that index gets of `concurrency` (taken as one where it is zero) spread over `replicas`.
pub fn streams_of(concurrency: u32, replicas: u32, index: u32) -> u32 {
    let concurrency = concurrency.max(1);
    concurrency / replicas + u32::from(index < concurrency % replicas)
}

fn predict_pipeline(
    fleet: &Fleet,
    model: &Model,
    pipeline: &Pipeline,
    load: &Load,
    streams: u32,
    software: &Software,
) -> Option<Prediction> {
    let head = load.head.unwrap_or(pipeline.stages.first()?.node);
    let one = [Sequence::decode(load.context)];
    let mut breakdown = Breakdown::default();
    for stage in &pipeline.stages {
        let device = &fleet.node(stage.node).device;
        breakdown.compute_ms += step_time(model, device, stage.layers, &one).total_us() / 1e3;
        breakdown.software_ms += software.per_step_us / 1e3;
    }
    let ring = Ring { fleet, model, pipeline, head, software };
    for hop in ring.hops(1)? {
        breakdown.latency_ms += hop.latency_us / 1e3;
        breakdown.bandwidth_ms += hop.bandwidth_us / 1e3;
        breakdown.software_ms += hop.software_us / 1e3;
    }
    let tpot_ms = breakdown.total_ms();
    let first = ring.prefill_ms(load.prompt)?;
    let (ttft_ms, opening_ms) = (first.open, first.opening - first.open);
    let throughput_tok_s = throughput(fleet, model, pipeline, load.context, streams, tpot_ms, software);
    Some(Prediction { tpot_ms, ttft_ms, opening_ms, throughput_tok_s, breakdown })
}

/// One pipeline with the head it serves.
struct Ring<'a> {
    fleet: &'a Fleet,
    model: &'a Model,
    pipeline: &'a Pipeline,
    head: NodeId,
    software: &'a Software,
}

/// When something is done, where the ring's streams are open already, and where the first frame opens each.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    open: f64,
    opening: f64,
}

impl Ring<'_> {
    /// Time to first token of one prompt, milliseconds: chunks flow through the stages one behind the other.
    fn prefill_ms(&self, prompt: u32) -> Option<Done> {
        let openings_us = self.openings_us()?;
        let mut stages_us = vec![Done::default(); self.pipeline.stages.len()];
        let (mut hops, mut hops_of) = (Vec::new(), 0);
        for chunk in Sequence::prefill(prompt) {
            if std::mem::replace(&mut hops_of, chunk.new_tokens) != chunk.new_tokens {
                hops = self.hops(chunk.new_tokens)?;
            }
            self.pass(&mut stages_us, chunk, &hops, (chunk.context == 0).then_some(openings_us.as_slice()));
        }
        let (last, back, opening_us) = (stages_us.last()?, hops.last()?, openings_us.last()?);
        let token_us = back.total_us();
        let open = (last.open + token_us) / 1e3;
        Some(Done { open, opening: (last.opening + token_us + opening_us) / 1e3 })
    }

    /// Passes a chunk along `hops`. `stages_us` is when each stage was done with the chunk before, and then with this one.
    fn pass(
        &self,
        stages_us: &mut [Done],
        work: Sequence,
        hops: &[TransferTime],
        openings_us: Option<&[f64]>,
    ) {
        let mut ready_us = Done::default();
        for (i, (stage, done_us)) in self.pipeline.stages.iter().zip(stages_us).enumerate() {
            let hop_us = hops[i].total_us();
            ready_us.open += hop_us;
            ready_us.opening += hop_us;
            ready_us.opening += openings_us.map_or(0.0, |openings_us| openings_us[i]);
            let device = &self.fleet.node(stage.node).device;
            let step_us = step_time(self.model, device, stage.layers, &[work]).total_us();
            let after =
                |ready_us: f64, done_us: f64| ready_us.max(done_us) + step_us + self.software.per_step_us;
            ready_us.open = after(ready_us.open, done_us.open);
            ready_us.opening = after(ready_us.opening, done_us.opening);
            *done_us = ready_us;
        }
    }

    /// The hops of one frame of `tokens` tokens: into each stage, and back to the head with the token sampled. Where both
    /// ends are on one node a hop costs nothing.
    fn hops(&self, tokens: u32) -> Option<Vec<TransferTime>> {
        let activations = activation_frame_bytes(self.model, self.software, tokens);
        let ids = FRAME_HEADER_BYTES + 4 * u64::from(tokens);
        let last = self.pipeline.stages.len();
        let bytes = |i| {
            if i == last {
                TOKEN_FRAME_BYTES
            } else if i == 0 {
                ids
            } else {
                activations
            }
        };
        let hop = |(i, (from, to))| self.transfer(from, to, bytes(i));
        self.ways().enumerate().map(hop).collect()
    }

    /// What opening the stream of each hop takes, microseconds: a greeting there and its answer back.
    fn openings_us(&self) -> Option<Vec<f64>> {
        let greet_us = |from, to| Some(self.transfer(from, to, HANDSHAKE_BYTES)?.total_us());
        self.ways().map(|(from, to)| Some(greet_us(from, to)? + greet_us(to, from)?)).collect()
    }

    /// From where to where each hop goes.
    fn ways(&self) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        let nodes = || self.pipeline.stages.iter().map(|stage| stage.node);
        std::iter::once(self.head).chain(nodes()).zip(nodes().chain([self.head]))
    }

    fn transfer(&self, from: NodeId, to: NodeId, bytes: u64) -> Option<TransferTime> {
        if from == to {
            return Some(TransferTime::default());
        }
        Some(transfer_time(&self.fleet.path(from, to)?, bytes, self.software))
    }
}

/// Batches that turn in the ring at once: as many as it has stages, if there are so many streams.
fn groups_of(pipeline: &Pipeline, streams: u32) -> u32 {
    streams.min(pipeline.stages.len() as u32).max(1)
}

/// Streams that a stage decodes in one step.
pub(super) fn batch_of(pipeline: &Pipeline, streams: u32) -> u32 {
    streams.div_ceil(groups_of(pipeline, streams)).max(1)
}

/// Output tokens per second of `streams` streams: the streams are spread over as many batches as the ring has stages,
/// and the ring turns either at its slowest stage's pace or at the time one batch needs for a round, whichever is longer.
fn throughput(
    fleet: &Fleet,
    model: &Model,
    pipeline: &Pipeline,
    context: u32,
    streams: u32,
    tpot_ms: f64,
    software: &Software,
) -> f64 {
    let groups = groups_of(pipeline, streams);
    let batch = batch_of(pipeline, streams);
    let one = Sequence::decode(context);
    let (mut slowest_us, mut extra_us) = (0.0f64, 0.0);
    for stage in &pipeline.stages {
        let device = &fleet.node(stage.node).device;
        let batched = uniform_step_time(model, device, stage.layers, one, batch).total_us();
        slowest_us = slowest_us.max(batched + software.per_step_us);
        extra_us += batched - uniform_step_time(model, device, stage.layers, one, 1).total_us();
    }
    let round_us = (tpot_ms * 1e3 + extra_us).max(slowest_us * f64::from(groups));
    f64::from(streams) / round_us * 1e6
}
