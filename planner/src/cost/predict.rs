//! What a whole plan gives, from the costs of its parts.

use super::constants::{FRAME_HEADER_BYTES, HANDSHAKE_BYTES, PREFILL_CHUNK, Software, TOKEN_FRAME_BYTES};
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

/// The hops of one token: into the first stage where the head sits elsewhere, between stages, and back to the head.
fn hops(
    fleet: &Fleet,
    model: &Model,
    pipeline: &Pipeline,
    head: NodeId,
    tokens: u32,
    software: &Software,
) -> Option<Vec<TransferTime>> {
    let mut out = Vec::with_capacity(pipeline.stages.len() + 1);
    let mut at = head;
    let mut bytes = FRAME_HEADER_BYTES + 4 * u64::from(tokens);
    for stage in &pipeline.stages {
        if stage.node != at {
            out.push(transfer_time(&fleet.path(at, stage.node)?, bytes, software));
        }
        at = stage.node;
        bytes = activation_frame_bytes(model, software, tokens);
    }
    if at != head {
        out.push(transfer_time(&fleet.path(at, head)?, TOKEN_FRAME_BYTES, software));
    }
    Some(out)
}

fn predict_pipeline(
    fleet: &Fleet,
    model: &Model,
    pipeline: &Pipeline,
    load: &Load,
    streams: u32,
    software: &Software,
) -> Option<Prediction> {
    let first = pipeline.stages.first()?;
    let head = load.head.unwrap_or(first.node);
    let one = [Sequence::decode(load.context)];
    let mut breakdown = Breakdown::default();
    for stage in &pipeline.stages {
        let device = &fleet.node(stage.node).device;
        breakdown.compute_ms += step_time(model, device, stage.layers, &one).total_us() / 1e3;
        breakdown.software_ms += software.per_step_us / 1e3;
    }
    for hop in hops(fleet, model, pipeline, head, 1, software)? {
        breakdown.latency_ms += hop.latency_us / 1e3;
        breakdown.bandwidth_ms += hop.bandwidth_us / 1e3;
        breakdown.software_ms += hop.software_us / 1e3;
    }
    let tpot_ms = breakdown.total_ms();
    let ring = Ring { fleet, model, pipeline, head, software };
    let ttft_ms = ring.prefill_ms(load.prompt, false)?;
    let opening_ms = ring.prefill_ms(load.prompt, true)? - ttft_ms;
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

impl Ring<'_> {
    /// Time to first token of one prompt: chunks flow through the stages one behind the other. Where the streams are
    /// still `opening`, the first frame of each hop waits one round trip.
    fn prefill_ms(&self, prompt: u32, opening: bool) -> Option<f64> {
        let mut done_us = vec![0.0f64; self.pipeline.stages.len()];
        let prompt = prompt.max(1);
        let mut last_us = 0.0;
        for at in (0..prompt).step_by(PREFILL_CHUNK as usize) {
            let tokens = PREFILL_CHUNK.min(prompt - at);
            let ends = at + tokens >= prompt;
            let opens = opening && at == 0;
            last_us = self.chunk_us(&mut done_us, tokens, at, ends, opens)?;
        }
        let at = self.pipeline.stages.last()?.node;
        if at != self.head {
            last_us +=
                transfer_time(&self.fleet.path(at, self.head)?, TOKEN_FRAME_BYTES, self.software).total_us();
            last_us += if opening { self.opening_us(at, self.head)? } else { 0.0 };
        }
        Some(last_us / 1e3)
    }

    /// When the last stage is done with a chunk of `tokens` tokens behind `at` others; `done_us` is when each stage was
    /// done with the chunk before, and then with this one.
    fn chunk_us(&self, done_us: &mut [f64], tokens: u32, at: u32, ends: bool, opens: bool) -> Option<f64> {
        let mut ready_us = 0.0f64;
        let mut from = self.head;
        let mut bytes = FRAME_HEADER_BYTES + 4 * u64::from(tokens);
        for (stage, done_us) in self.pipeline.stages.iter().zip(done_us) {
            if stage.node != from {
                ready_us +=
                    transfer_time(&self.fleet.path(from, stage.node)?, bytes, self.software).total_us();
                ready_us += if opens { self.opening_us(from, stage.node)? } else { 0.0 };
            }
            let work = [Sequence { new_tokens: tokens, context: at, logits: u32::from(ends) }];
            let device = &self.fleet.node(stage.node).device;
            let step_us = step_time(self.model, device, stage.layers, &work).total_us();
            ready_us = ready_us.max(*done_us) + step_us + self.software.per_step_us;
            *done_us = ready_us;
            from = stage.node;
            bytes = activation_frame_bytes(self.model, self.software, tokens);
        }
        Some(ready_us)
    }

    /// Opening a stream: a greeting there and its answer back.
    fn opening_us(&self, from: NodeId, to: NodeId) -> Option<f64> {
        let way =
            |a, b| Some(transfer_time(&self.fleet.path(a, b)?, HANDSHAKE_BYTES, self.software).total_us());
        Some(way(from, to)? + way(to, from)?)
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
