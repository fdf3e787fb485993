//! One engine step: what a device needs to run a range of layers over a batch.

use crate::fleet::Device;
use crate::model::{Attention, Model};
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
}

/// The parts of a step's time on a device, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepTime {
    /// Streaming weights, or multiplying with them where that takes longer.
    pub weights_us: f64,
    /// Reading the KV cache, or computing scores and values where that takes longer.
    pub attention_us: f64,
    /// Starting kernels: per layer, and more per mixture-of-experts layer.
    pub dispatch_us: f64,
}

impl StepTime {
    /// The whole step.
    pub fn total_us(&self) -> f64 {
        self.weights_us + self.attention_us + self.dispatch_us
    }
}

/// Time of one step of `layers` of `model` on `device` over `batch`, by the roofline of each part: bytes over achieved
/// bandwidth or FLOPs over achieved throughput, whichever is longer, plus the dispatch of the layers' kernels.
/// The head is included where `layers` ends the model and logits are wanted.
pub fn step_time(model: &Model, device: &Device, layers: LayerRange, batch: &[Sequence]) -> StepTime {
    let tokens: u32 = batch.iter().map(|s| s.new_tokens).sum();
    if tokens == 0 {
        return StepTime::default();
    }
    let bandwidth = device.bandwidth_bytes_per_s * device.bandwidth_efficiency;
    let flops = device.flops * device.flops_efficiency;
    let roofline_us = |bytes: f64, flop: f64| (bytes / bandwidth).max(flop / flops) * 1e6;
    let mut time = StepTime::default();
    for layer in &model.layers[layers.indices()] {
        time.weights_us +=
            roofline_us(layer.active_bytes(tokens), 2.0 * layer.active_params() * f64::from(tokens));
        let (mut kv_bytes, mut flop) = (0.0, 0.0);
        for s in batch {
            let seen = match layer.attention {
                Attention::Sliding { window } => (s.context + s.new_tokens).min(window),
                Attention::Full | Attention::Latent => s.context + s.new_tokens,
            };
            kv_bytes += f64::from(seen) * layer.kv_bytes_per_token as f64;
            flop += f64::from(seen) * f64::from(s.new_tokens) * layer.attention_flops_per_context;
        }
        time.attention_us += roofline_us(kv_bytes, flop);
        time.dispatch_us += device.layer_overhead_us;
        if layer.experts.is_some() {
            time.dispatch_us += device.expert_overhead_us;
        }
    }
    let logits: u32 = batch.iter().map(|s| s.logits).sum();
    if layers.end == model.layer_count() && logits > 0 {
        time.weights_us +=
            roofline_us(model.head_bytes as f64, 2.0 * model.head_params as f64 * f64::from(logits));
        time.dispatch_us += device.layer_overhead_us;
    }
    time
}
