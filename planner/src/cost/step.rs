//! One engine step: what a device needs to run a range of layers over a batch.

use super::constants::{LATENT_DISPATCH, PREFILL_CHUNK};
use crate::fleet::Device;
use crate::model::{Attention, Layer, Model};
use crate::plan::LayerRange;

/// One session's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens computed in this step: 1 for decode, more for a chunk of prefill or a verification.
    pub new_tokens: u32,
    /// Tokens already in its KV cache.
    pub context: u32,
    /// Positions whose logits are wanted, on the last stage.
    pub logits: u32,
}

impl Sequence {
    /// One decoded token after `context` others.
    pub fn decode(context: u32) -> Self {
        Self { new_tokens: 1, context, logits: 1 }
    }

    /// The chunks of a prompt's prefill, in order; the last one gives a token. An empty prompt counts as one token.
    pub fn prefill(prompt: u32) -> impl Iterator<Item = Self> {
        let prompt = prompt.max(1);
        (0..prompt).step_by(PREFILL_CHUNK as usize).map(move |context| {
            let new_tokens = PREFILL_CHUNK.min(prompt - context);
            Self { new_tokens, context, logits: u32::from(context + new_tokens == prompt) }
        })
    }
}

/// The parts of a step's time on a device, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepTime {
    /// Streaming weights, or multiplying with them, or reading them again from disk: whichever takes longest.
    pub weights_us: f64,
    /// Reading the KV cache, or computing scores and values where that takes longer.
    pub attention_us: f64,
    /// Starting kernels: per layer, more per mixture-of-experts layer and per layer of latent attention.
    pub dispatch_us: f64,
}

impl StepTime {
    /// The whole step.
    pub fn total_us(&self) -> f64 {
        self.weights_us + self.attention_us + self.dispatch_us
    }
}

/// Time of one step of `layers` of `model` on `device` over `batch`, by the roofline of each part: bytes over achieved
/// bandwidth or FLOPs over achieved throughput, whichever is longer (of a profiled device both, see
/// [`Measured`](crate::fleet::Measured)), plus the dispatch of the layers' kernels.
/// The head is included where `layers` ends the model and logits are wanted. A stage that is larger than the device's
/// usable memory pages: see [`Paging`].
pub fn step_time(model: &Model, device: &Device, layers: LayerRange, batch: &[Sequence]) -> StepTime {
    let tokens: u32 = batch.iter().map(|s| s.new_tokens).sum();
    let logits: u32 = batch.iter().map(|s| s.logits).sum();
    timed(model, device, layers, (tokens, logits), |layer| {
        batch.iter().map(|s| attention_work(layer, s)).fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d))
    })
}

/// [`step_time`] of `count` sequences that are all alike, in a time that does not grow with `count`.
pub fn uniform_step_time(
    model: &Model,
    device: &Device,
    layers: LayerRange,
    sequence: Sequence,
    count: u32,
) -> StepTime {
    let (tokens, logits) = (sequence.new_tokens * count, sequence.logits * count);
    timed(model, device, layers, (tokens, logits), |layer| {
        let (bytes, flop) = attention_work(layer, &sequence);
        (bytes * f64::from(count), flop * f64::from(count))
    })
}

/// KV bytes that one sequence's step reads in a layer, and the FLOPs of its scores and values.
fn attention_work(layer: &Layer, s: &Sequence) -> (f64, f64) {
    let seen = match layer.attention {
        Attention::Sliding { window } => (s.context + s.new_tokens).min(window),
        Attention::Full | Attention::Latent => s.context + s.new_tokens,
    };
    let kv_bytes = f64::from(seen) * layer.kv_bytes_per_token as f64;
    (kv_bytes, f64::from(seen) * f64::from(s.new_tokens) * layer.attention_flops_per_context)
}

fn timed(
    model: &Model,
    device: &Device,
    layers: LayerRange,
    (tokens, logits): (u32, u32),
    attention: impl Fn(&Layer) -> (f64, f64),
) -> StepTime {
    if tokens == 0 {
        return StepTime::default();
    }
    let rates = Rates::of(device);
    let mut time = StepTime::default();
    let mut paging = Paging::default();
    for layer in &model.layers[layers.indices()] {
        paging.add(layer, tokens);
        let flop = 2.0 * layer.active_params() * f64::from(tokens);
        time.weights_us += rates.layers.us(layer.active_bytes(tokens), flop);
        let (kv_bytes, flop) = attention(layer);
        time.attention_us += rates.attention.us(kv_bytes, flop);
        time.dispatch_us += dispatch_us(layer, device);
    }
    if layers.end == model.layer_count() && logits > 0 {
        let flop = 2.0 * model.head_params as f64 * f64::from(logits);
        time.weights_us += rates.head.us(model.head_bytes as f64, flop);
        time.dispatch_us += device.layer_overhead_us;
        paging.trunk_bytes += model.head_bytes;
    }
    time.weights_us = time.weights_us.max(paging.read_us(device));
    time
}

/// How fast something is streamed and computed with.
#[derive(Debug, Clone, Copy)]
struct Rate {
    bytes_per_s: f64,
    flops: f64,
    /// Whether one waits for the other; else whichever takes longer counts.
    adds_up: bool,
}

impl Rate {
    fn us(self, bytes: f64, flop: f64) -> f64 {
        let (streamed, computed) = (bytes / self.bytes_per_s * 1e6, flop / self.flops * 1e6);
        if self.adds_up { streamed + computed } else { streamed.max(computed) }
    }
}

/// What a device reaches in each part of a step.
#[derive(Debug, Clone, Copy)]
struct Rates {
    layers: Rate,
    attention: Rate,
    head: Rate,
}

impl Rates {
    fn of(device: &Device) -> Self {
        let layers = Rate {
            bytes_per_s: device.bandwidth_bytes_per_s * device.bandwidth_efficiency,
            flops: device.flops * device.flops_efficiency,
            adds_up: device.measured.is_some(),
        };
        match device.measured {
            None => Self { layers, attention: layers, head: layers },
            Some(measured) => Self {
                layers,
                attention: Rate {
                    bytes_per_s: measured.kv_bytes_per_s,
                    flops: measured.attention_flops,
                    ..layers
                },
                head: Rate { bytes_per_s: measured.head_bytes_per_s, ..layers },
            },
        }
    }
}

/// Starting the kernels of one layer, microseconds.
fn dispatch_us(layer: &Layer, device: &Device) -> f64 {
    let experts = if layer.experts.is_some() { device.expert_overhead_us } else { 0.0 };
    let latent = match layer.attention {
        Attention::Latent => LATENT_DISPATCH * device.expert_overhead_us,
        Attention::Full | Attention::Sliding { .. } => 0.0,
    };
    device.layer_overhead_us + experts + latent
}

/// What a step reads from disk again because the stage's weights are larger than memory.
///
/// Weights are mapped from the file, and the least recently used page goes first. A token reads the layers in the same
/// order each time, so once what *every* token reads is larger than memory, each page is gone just before it is needed
/// again: all of it is read from disk. (Published: llama.cpp with a 35 GB model on 11 GB of VRAM and too little memory takes
/// 7.97 s a token, its processor's part of the file over the disk's 3.17 GB/s, where 26 GB still took 0.33 s.) Experts
/// that only some tokens read are in memory with the chance that memory holds them.
#[derive(Debug, Default)]
struct Paging {
    /// Bytes every token reads.
    trunk_bytes: u64,
    /// Bytes of all experts.
    expert_bytes: u64,
    /// Bytes of the experts that this step reads.
    expert_read_bytes: f64,
}

impl Paging {
    fn add(&mut self, layer: &Layer, tokens: u32) {
        self.trunk_bytes += layer.trunk_bytes;
        if layer.experts.is_some() {
            self.expert_bytes += layer.weight_bytes() - layer.trunk_bytes;
            self.expert_read_bytes += layer.active_bytes(tokens) - layer.trunk_bytes as f64;
        }
    }

    /// Time of reading what is missing, microseconds.
    fn read_us(&self, device: &Device) -> f64 {
        let usable = device.usable_bytes();
        if self.trunk_bytes + self.expert_bytes <= usable {
            return 0.0;
        }
        let missing = if self.trunk_bytes > usable {
            self.trunk_bytes as f64 + self.expert_read_bytes
        } else {
            let room = (usable - self.trunk_bytes) as f64;
            self.expert_read_bytes * (1.0 - room / self.expert_bytes as f64)
        };
        missing / device.disk_bytes_per_s * 1e6
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the built-in catalog has these devices")]

    use super::*;
    use crate::fleet::{Measured, catalog};
    use crate::model::Experts;

    fn layer(trunk_bytes: u64, experts: Option<Experts>, attention: Attention) -> Layer {
        Layer {
            trunk_bytes,
            trunk_params: trunk_bytes * 5 / 3,
            experts,
            attention,
            kv_bytes_per_token: 2048,
            attention_flops_per_context: 16_384.0,
        }
    }

    fn model(layers: Vec<Layer>) -> Model {
        Model {
            name: "made up".into(),
            architecture: "llama".into(),
            quant: "Q4_K_M".into(),
            hidden: 4096,
            heads: 32,
            kv_heads: 8,
            vocab: 128_000,
            context_max: 8192,
            embedding_bytes: 300_000_000,
            head_bytes: 400_000_000,
            head_params: 524_000_000,
            tied: false,
            layers,
            source: "this test".into(),
        }
    }

    fn dense(count: usize) -> Model {
        model(vec![layer(130_000_000, None, Attention::Full); count])
    }

    fn whole(model: &Model) -> LayerRange {
        LayerRange::new(0, model.layer_count())
    }

    #[test]
    fn decode_streams_the_weights_and_starts_the_kernels() {
        let (model, device) = (dense(32), catalog::device("apple-m4-max").unwrap());
        let time = step_time(&model, &device, whole(&model), &[Sequence::decode(0)]);
        let bytes = 32.0 * 130e6 + 400e6;
        let streamed_us = bytes / (device.bandwidth_bytes_per_s * device.bandwidth_efficiency) * 1e6;
        assert!((time.weights_us - streamed_us).abs() < 1e-6);
        assert!((time.dispatch_us - 33.0 * device.layer_overhead_us).abs() < 1e-9);
    }

    #[test]
    fn of_a_profiled_device_streaming_and_computing_add_up_at_the_rates_of_each_part() {
        let (model, device) = (dense(4), catalog::device("apple-m4-max").unwrap());
        let measured = Measured { head_bytes_per_s: 1e9, kv_bytes_per_s: 2e9, attention_flops: 3e9 };
        let profiled = Device { measured: Some(measured), ..device.clone() };
        let time = step_time(&model, &profiled, whole(&model), &[Sequence::decode(999)]);
        let (bytes_per_s, flops) = (
            device.bandwidth_bytes_per_s * device.bandwidth_efficiency,
            device.flops * device.flops_efficiency,
        );
        let params = 4.0 * (130_000_000.0f64 * 5.0 / 3.0).floor() + 524e6;
        let weights_us = (4.0 * 130e6 / bytes_per_s + 400e6 / 1e9 + 2.0 * params / flops) * 1e6;
        assert!((time.weights_us / weights_us - 1.0).abs() < 1e-6, "{} and {weights_us}", time.weights_us);
        let attention_us = 4.0 * 1000.0 * (2048.0 / 2e9 + 16_384.0 / 3e9) * 1e6;
        assert!((time.attention_us / attention_us - 1.0).abs() < 1e-9, "{}", time.attention_us);
    }

    #[test]
    fn stages_of_a_cut_add_up_to_the_whole() {
        let (model, device) = (dense(32), catalog::device("rtx-3090").unwrap());
        let batch = [Sequence::decode(700), Sequence { new_tokens: 9, context: 40, logits: 1 }];
        let all = step_time(&model, &device, whole(&model), &batch).total_us();
        let parts: f64 = [(0, 10), (10, 11), (11, 32)]
            .map(|(a, b)| step_time(&model, &device, LayerRange::new(a, b), &batch).total_us())
            .iter()
            .sum();
        assert!((all - parts).abs() < 1e-6 * all);
    }

    #[test]
    fn experts_and_latent_attention_start_more_kernels() {
        let experts = Experts { count: 64, used: 4, bytes_each: 5_000_000, params_each: 9_000_000 };
        let device = catalog::device("apple-m4-max").unwrap();
        let dispatch = |experts, attention| {
            let model = model(vec![layer(20_000_000, experts, attention)]);
            let batch = [Sequence { new_tokens: 1, context: 0, logits: 0 }];
            step_time(&model, &device, whole(&model), &batch).dispatch_us
        };
        let plain = dispatch(None, Attention::Full);
        let mixture = dispatch(Some(experts), Attention::Full);
        let latent = dispatch(Some(experts), Attention::Latent);
        assert_eq!(mixture - plain, device.expert_overhead_us);
        assert!((latent - mixture - LATENT_DISPATCH * device.expert_overhead_us).abs() < 1e-9);
    }

    #[test]
    fn weights_beyond_memory_are_read_from_disk_for_every_token() {
        let (model, device) = (dense(64), catalog::device("apple-m1").unwrap());
        assert!(model.weight_bytes() < device.usable_bytes());
        let small = Device { memory_bytes: 8 << 30, reserved_bytes: 2 << 30, ..device.clone() };
        let read =
            |device: &Device| step_time(&model, device, whole(&model), &[Sequence::decode(0)]).weights_us;
        let bytes = 64.0 * 130e6 + 400e6;
        assert!((read(&small) - bytes / small.disk_bytes_per_s * 1e6).abs() < 1.0);
        assert!(read(&small) > 10.0 * read(&device));
    }

    #[test]
    fn of_experts_beyond_memory_only_the_missing_share_is_read() {
        let experts = Experts { count: 64, used: 4, bytes_each: 5_000_000, params_each: 9_000_000 };
        let model = model(vec![layer(20_000_000, Some(experts), Attention::Full); 40]);
        let fits = catalog::device("raspberry-pi-4").unwrap();
        let trunk_bytes = 40 * 20_000_000 + 400_000_000;
        let half = trunk_bytes + 40 * 64 * 5_000_000 / 2;
        let device = Device { memory_bytes: half, reserved_bytes: 0, ..fits };
        let time = step_time(&model, &device, whole(&model), &[Sequence::decode(0)]);
        let missing = 40.0 * 4.0 * 5e6 / 2.0;
        assert!((time.weights_us - missing / device.disk_bytes_per_s * 1e6).abs() < 1.0);
    }
}
