//! Gemma 3: norms before and after each block, most layers look through a sliding window with a rotation of their own,
//! embeddings scaled by the root of their width.
//!
//! The files hold each norm's weight with one added already.

use planner::plan::LayerRange;

use super::keys::Keys;
use super::parts::{AttentionBlock, FeedForward};
use super::rope::Pairs;
use super::{Activation, Attention, Device, Network, Ops, Rope, Shape};
use crate::real::weights::{LoadError, Weights};

/// All but each sixth layer slide. Source: `set_swa_pattern(6)` in `src/llama-model.cpp` of llama.cpp.
const PERIOD: u32 = 6;

/// Base of the sliding layers' rotation, unless the file has one. Source: the same place.
const SLIDING_BASE: f64 = 10_000.0;

/// The layers of the 27B model, whose scores are scaled by the width over the heads instead of a head's elements.
const LAYERS_27B: u32 = 62;

pub(super) struct Gemma<D: Device> {
    layers: Vec<Layer<D>>,
    eps: f32,
    full_rope: Rope,
    sliding_rope: Rope,
}

struct Layer<D: Device> {
    spec: Attention,
    attention_norm: D::Vector,
    attention: AttentionBlock<D>,
    attention_post_norm: D::Vector,
    feed_forward_norm: D::Vector,
    feed_forward: FeedForward<D>,
    feed_forward_post_norm: D::Vector,
}

pub(super) fn shape(keys: &Keys<'_>) -> Result<Shape, LoadError> {
    let shape = keys.shape()?;
    let logit_cap = keys.positive("final_logit_softcapping")?.map(|cap| cap as f32);
    Ok(Shape { embedding_scale: (shape.hidden as f32).sqrt(), logit_cap, ..shape })
}

impl<D: Device> Gemma<D> {
    pub(super) fn load(
        keys: &Keys<'_>,
        weights: &Weights<'_>,
        device: &D,
        range: LayerRange,
    ) -> Result<Self, LoadError> {
        let shape = shape(keys)?;
        let spec = attention(keys, &shape)?;
        let window = keys.optional("attention.sliding_window")?.filter(|window| *window > 0);
        let widths = (shape.hidden, keys.count("feed_forward_length")?);
        let load_layer = |index: u32| {
            let prefix = format!("blk.{index}");
            if index + 1 < range.end {
                weights.expect(&format!("blk.{}.", index + 1));
            }
            let norm =
                |part: &str| weights.vector(device, &format!("{prefix}.{part}_norm.weight"), shape.hidden);
            let is_sliding = !(index + 1).is_multiple_of(PERIOD);
            Ok(Layer {
                spec: Attention {
                    layer: (index - range.first) as usize,
                    window: window.filter(|_| is_sliding),
                    ..spec
                },
                attention_norm: norm("attn")?,
                attention: AttentionBlock::load(weights, device, &prefix, &shape, spec.heads, true)?,
                attention_post_norm: norm("post_attention")?,
                feed_forward_norm: norm("ffn")?,
                feed_forward: FeedForward::load(weights, device, &prefix, widths, Activation::Gelu)?,
                feed_forward_post_norm: norm("post_ffw")?,
            })
        };
        let layers = (range.first..range.end).map(load_layer).collect::<Result<_, LoadError>>()?;
        let full_rope = Rope::of_model(keys, weights, &shape, Pairs::Halves)?;
        let base = keys.positive("rope.freq_base_swa")?.unwrap_or(SLIDING_BASE);
        let sliding_rope = Rope::plain(full_rope.dims(), base, Pairs::Halves);
        Ok(Self { layers, eps: shape.eps, full_rope, sliding_rope })
    }
}

fn attention(keys: &Keys<'_>, shape: &Shape) -> Result<Attention, LoadError> {
    let spec = keys.attention(shape)?;
    let divisor = if shape.layers == LAYERS_27B { shape.hidden / spec.heads } else { shape.head_dim };
    let soft_cap = keys.positive("attn_logit_softcapping")?.map(|cap| cap as f32);
    Ok(Attention { scale: 1.0 / (divisor.max(1) as f32).sqrt(), soft_cap, ..spec })
}

impl<O: Ops> Network<O> for Gemma<O::Device> {
    fn layer(&self, ops: &mut O, index: usize, x: O::Rows) -> O::Rows {
        let layer = &self.layers[index];
        let rope = if layer.spec.window.is_some() { &self.sliding_rope } else { &self.full_rope };
        let h = ops.norm(&x, &layer.attention_norm, self.eps);
        let h = layer.attention.run(ops, h, &layer.spec, rope);
        let h = ops.norm(&h, &layer.attention_post_norm, self.eps);
        let x = ops.add(x, h);
        let h = ops.norm(&x, &layer.feed_forward_norm, self.eps);
        let h = layer.feed_forward.run(ops, h);
        let h = ops.norm(&h, &layer.feed_forward_post_norm, self.eps);
        ops.add(x, h)
    }
}
