//! The tensors of an architecture, and their weights.

use planner::model::ggml::GgmlType;

use super::super::requantise::fitting;
use super::{Architecture, RandomModel};
use crate::real::formats::quantise;

/// A tensor to write.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) kind: GgmlType,
    /// Fastest first.
    pub(super) dims: Vec<u64>,
    values: Values,
}

/// What a tensor's weights are drawn from: `centre` and, evenly, `spread` either side of it.
#[derive(Clone, Copy)]
struct Values {
    centre: f32,
    spread: f32,
}

const NORM: Values = Values { centre: 1.0, spread: 0.3 };
const BIAS: Values = Values { centre: 0.0, spread: 0.3 };

impl Part {
    /// A matrix from `inputs` to `outputs`, drawn so that it keeps the size of what it is applied to.
    fn matrix(name: &str, inputs: u32, outputs: u32, kind: GgmlType) -> Self {
        // Evenly drawn numbers within r have the variance r^2 / 3.
        let values = Values { centre: 0.0, spread: (3.0 / inputs as f32).sqrt() };
        let kind = fitting(kind, inputs.into());
        Self { name: format!("{name}.weight"), kind, dims: vec![inputs.into(), outputs.into()], values }
    }

    fn vector(name: String, width: u32, values: Values) -> Self {
        Self { name, kind: GgmlType::F32, dims: vec![width.into()], values }
    }

    fn norm(name: &str, width: u32) -> Self {
        Self::vector(format!("{name}.weight"), width, NORM)
    }

    /// Bytes of the whole tensor.
    pub(super) fn bytes(&self) -> u64 {
        self.kind.tensor_bytes(&self.dims).expect("a format that fits its rows")
    }

    /// The tensor's rows, quantised, as many of them as hold `most` weights.
    pub(super) fn drawn(&self, seed: u64, most: u64) -> Vec<u8> {
        let row = self.dims[0];
        let rows = self.dims.get(1).copied().unwrap_or(1).min(most.div_ceil(row));
        let mut draws = Draws::new(seed, &self.name);
        let weights: Vec<f32> =
            (0..row * rows).map(|_| self.values.centre + self.values.spread * draws.next()).collect();
        let mut bytes = Vec::new();
        quantise(self.kind, &weights, &mut bytes).expect("random models are made in known formats");
        bytes
    }
}

/// Every tensor of the model, in the order of llama.cpp's converter.
pub(super) fn parts(model: &RandomModel) -> Vec<Part> {
    let mut parts = vec![Part::matrix("token_embd", model.width, model.vocabulary, model.kind)];
    for layer in 0..model.layers {
        attention(model, layer, &mut parts);
        feed_forward(model, layer, &mut parts);
    }
    parts.push(Part::norm("output_norm", model.width));
    if !model.tied {
        parts.push(Part::matrix("output", model.width, model.vocabulary, model.kind));
    }
    if model.rope_table {
        // Llama 3 slows its long waves by up to 8: here by 1 to 3.
        let slowed = Values { centre: 2.0, spread: 1.0 };
        parts.push(Part::vector("rope_freqs.weight".into(), model.head_width / 2, slowed));
    }
    parts
}

fn attention(model: &RandomModel, layer: u32, parts: &mut Vec<Part>) {
    let name = |part: &str| format!("blk.{layer}.{part}");
    let (queries, keys) = (model.heads * model.head_width, model.kv_heads * model.head_width);
    parts.push(Part::norm(&name("attn_norm"), model.width));
    for (part, outputs) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
        parts.push(Part::matrix(&name(part), model.width, outputs, model.kind));
        if model.architecture == Architecture::Qwen2 {
            parts.push(Part::vector(name(part) + ".bias", outputs, BIAS));
        }
    }
    parts.push(Part::matrix(&name("attn_output"), queries, model.width, model.kind));
    if model.architecture.has_head_norms() {
        parts.push(Part::norm(&name("attn_q_norm"), model.head_width));
        parts.push(Part::norm(&name("attn_k_norm"), model.head_width));
    }
    if model.architecture == Architecture::Gemma3 {
        parts.push(Part::norm(&name("post_attention_norm"), model.width));
    }
}

fn feed_forward(model: &RandomModel, layer: u32, parts: &mut Vec<Part>) {
    let name = |part: &str| format!("blk.{layer}.{part}");
    parts.push(Part::norm(&name("ffn_norm"), model.width));
    for part in ["ffn_gate", "ffn_up"] {
        parts.push(Part::matrix(&name(part), model.width, model.feed_forward, model.kind));
    }
    parts.push(Part::matrix(&name("ffn_down"), model.feed_forward, model.width, model.kind));
    if model.architecture == Architecture::Gemma3 {
        parts.push(Part::norm(&name("post_ffw_norm"), model.width));
    }
}

/// Numbers drawn evenly from [-1, 1). Source: SplitMix64 (Steele, Lea and Flood, 2014).
struct Draws(u64);

impl Draws {
    /// A stream of its own for each tensor: FNV-1a of its name goes into the seed.
    fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(seed ^ hash)
    }

    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let signed = (z ^ (z >> 31)) as i64 >> 40;
        signed as f32 / (1 << 23) as f32
    }
}
