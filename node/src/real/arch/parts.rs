//! Blocks that architectures share.

use super::{Activation, Attention, Device, Ops, Rope, Shape};
use crate::real::weights::{LoadError, Weights};

/// Projections of an attention block, and the norms of its heads where the architecture has them.
pub(super) struct AttentionBlock<D: Device> {
    query: D::Linear,
    key: D::Linear,
    value: D::Linear,
    output: D::Linear,
    head_norms: Option<(D::Vector, D::Vector)>,
    eps: f32,
}

impl<D: Device> AttentionBlock<D> {
    pub(super) fn load(
        weights: &Weights<'_>,
        device: &D,
        prefix: &str,
        shape: &Shape,
        heads: usize,
        has_head_norms: bool,
    ) -> Result<Self, LoadError> {
        let (hidden, head_dim) = (shape.hidden, shape.head_dim);
        let (q_width, kv_width) = (heads * head_dim, shape.kv_heads * head_dim);
        let linear =
            |part: &str, rows, cols| weights.linear(device, &format!("{prefix}.attn_{part}"), rows, cols);
        let norm =
            |part: &str| weights.vector(device, &format!("{prefix}.attn_{part}_norm.weight"), head_dim);
        Ok(Self {
            query: linear("q", q_width, hidden)?,
            key: linear("k", kv_width, hidden)?,
            value: linear("v", kv_width, hidden)?,
            output: linear("output", hidden, q_width)?,
            head_norms: if has_head_norms { Some((norm("q")?, norm("k")?)) } else { None },
            eps: shape.eps,
        })
    }

    pub(super) fn run<O: Ops<Device = D>>(
        &self,
        ops: &mut O,
        x: O::Rows,
        attention: &Attention,
        rope: &Rope,
    ) -> O::Rows {
        let [mut q, mut k, v] = ops.linear(x, [&self.query, &self.key, &self.value]);
        if let Some((query_norm, key_norm)) = &self.head_norms {
            q = ops.norm(&q, query_norm, self.eps);
            k = ops.norm(&k, key_norm, self.eps);
        }
        let q = ops.rope(q, attention.head_dim, rope);
        let k = ops.rope(k, attention.head_dim, rope);
        let mixed = ops.attend(attention, q, k, v);
        let [out] = ops.linear(mixed, [&self.output]);
        out
    }
}

/// A gated feed-forward block: `down(activation(gate(x)) * up(x))`.
pub(super) struct FeedForward<D: Device> {
    gate: D::Linear,
    up: D::Linear,
    down: D::Linear,
    activation: Activation,
}

impl<D: Device> FeedForward<D> {
    pub(super) fn load(
        weights: &Weights<'_>,
        device: &D,
        prefix: &str,
        (hidden, inner): (usize, usize),
        activation: Activation,
    ) -> Result<Self, LoadError> {
        let linear =
            |part: &str, rows, cols| weights.linear(device, &format!("{prefix}.ffn_{part}"), rows, cols);
        Ok(Self {
            gate: linear("gate", inner, hidden)?,
            up: linear("up", inner, hidden)?,
            down: linear("down", hidden, inner)?,
            activation,
        })
    }

    pub(super) fn run<O: Ops<Device = D>>(&self, ops: &mut O, x: O::Rows) -> O::Rows {
        let [gate, up] = ops.linear(x, [&self.gate, &self.up]);
        let inner = ops.gated(self.activation, gate, up);
        let [out] = ops.linear(inner, [&self.down]);
        out
    }
}
