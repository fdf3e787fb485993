//! Llama and its kin (SmolLM2, Mistral, Llama 3.x): norm, attention, add; norm, gated feed-forward, add.

use planner::plan::LayerRange;

use super::keys::Keys;
use super::parts::{AttentionBlock, FeedForward};
use super::rope::Pairs;
use super::{Activation, Attention, Device, Network, Ops, Rope};
use crate::real::weights::{LoadError, Weights};

/// The same layer several times over. Qwen differs from Llama only in what `load` is told.
pub(super) struct Llama<D: Device> {
    layers: Vec<Layer<D>>,
    attention: Attention,
    rope: Rope,
    eps: f32,
}

struct Layer<D: Device> {
    attention_norm: D::Vector,
    attention: AttentionBlock<D>,
    feed_forward_norm: D::Vector,
    feed_forward: FeedForward<D>,
}

pub(super) fn load<D: Device>(
    keys: &Keys<'_>,
    weights: &Weights<'_>,
    device: &D,
    range: LayerRange,
) -> Result<Llama<D>, LoadError> {
    Llama::load(keys, weights, device, range, Pairs::Neighbours, false)
}

impl<D: Device> Llama<D> {
    pub(super) fn load(
        keys: &Keys<'_>,
        weights: &Weights<'_>,
        device: &D,
        range: LayerRange,
        pairs: Pairs,
        has_head_norms: bool,
    ) -> Result<Self, LoadError> {
        let shape = keys.shape()?;
        let attention = keys.attention(&shape)?;
        let widths = (shape.hidden, keys.count("feed_forward_length")?);
        let load_layer = |index| {
            let prefix = format!("blk.{index}");
            if index + 1 < range.end {
                weights.expect(&format!("blk.{}.", index + 1));
            }
            let norm =
                |part: &str| weights.vector(device, &format!("{prefix}.{part}_norm.weight"), shape.hidden);
            Ok(Layer {
                attention_norm: norm("attn")?,
                attention: AttentionBlock::load(
                    weights,
                    device,
                    &prefix,
                    &shape,
                    attention.heads,
                    has_head_norms,
                )?,
                feed_forward_norm: norm("ffn")?,
                feed_forward: FeedForward::load(weights, device, &prefix, widths, Activation::Silu)?,
            })
        };
        Ok(Self {
            layers: (range.first..range.end).map(load_layer).collect::<Result<_, LoadError>>()?,
            rope: Rope::of_model(keys, weights, &shape, pairs)?,
            attention,
            eps: shape.eps,
        })
    }
}

impl<O: Ops> Network<O> for Llama<O::Device> {
    fn layer(&self, ops: &mut O, index: usize, x: O::Rows) -> O::Rows {
        let layer = &self.layers[index];
        let attention = Attention { layer: index, ..self.attention };
        let h = ops.norm(&x, &layer.attention_norm, self.eps);
        let h = layer.attention.run(ops, h, &attention, &self.rope);
        let x = ops.add(x, h);
        let h = ops.norm(&x, &layer.feed_forward_norm, self.eps);
        let h = layer.feed_forward.run(ops, h);
        ops.add(x, h)
    }
}
