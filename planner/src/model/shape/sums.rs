//! Sums over tensors, by where they are needed.

use std::collections::BTreeMap;

use super::{Hyperparameters, KEPT_ELEMENTS_MAX, ShapeError, Weight};
use crate::model::{Attention, Experts, Layer};

/// Bytes of one element of the KV cache (f16).
const KV_ELEMENT_BYTES: u64 = 2;

/// Bytes of one element of a recurrent state (f32).
const STATE_ELEMENT_BYTES: u64 = 4;

/// Sums over tensors, by where they are needed.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) token_embedding_bytes: u64,
    pub(super) token_embedding_params: u64,
    /// Positions and per-layer embeddings: looked up like the embedding.
    pub(super) other_embedding_bytes: u64,
    pub(super) output_bytes: u64,
    pub(super) output_params: u64,
    /// What stands in no layer and is read at each step: output norm, rotary factors.
    pub(super) norm_bytes: u64,
    pub(super) layers: BTreeMap<u32, LayerSums>,
    /// Of everything, so that no smaller sum can overflow.
    total_bytes: u64,
    total_params: u64,
}

impl Sums {
    pub(super) fn add(&mut self, weight: &Weight<'_>, hyper: &Hyperparameters) -> Result<(), ShapeError> {
        let too_large = || ShapeError::TooLarge { tensor: weight.name.into() };
        self.total_bytes = self.total_bytes.checked_add(weight.bytes).ok_or_else(too_large)?;
        self.total_params = self.total_params.checked_add(weight.elements()).ok_or_else(too_large)?;
        if let Some((layer, part)) = weight.in_layer() {
            return self.add_to_layer(layer, part, weight, hyper);
        }
        match weight.name {
            "token_embd.weight" => {
                self.token_embedding_bytes += weight.bytes;
                self.token_embedding_params += weight.elements();
            }
            "output.weight" => {
                self.output_bytes += weight.bytes;
                self.output_params += weight.elements();
            }
            name if name.contains("_embd") || name.starts_with("token_types") => {
                self.other_embedding_bytes += weight.bytes;
            }
            _ => self.norm_bytes += weight.bytes,
        }
        Ok(())
    }

    fn add_to_layer(
        &mut self,
        layer: u32,
        part: &str,
        weight: &Weight<'_>,
        hyper: &Hyperparameters,
    ) -> Result<(), ShapeError> {
        let count = hyper.layers;
        if layer >= count {
            if layer - count < hyper.extra_blocks {
                return Ok(());
            }
            return Err(ShapeError::LayerBeyond { tensor: weight.name.into(), layer, count });
        }
        self.layers.entry(layer).or_default().add(part, weight, hyper)
    }
}

/// One layer's tensors.
#[derive(Debug, Default)]
pub(super) struct LayerSums {
    trunk_bytes: u64,
    trunk_params: u64,
    expert_bytes: u64,
    expert_params: u64,
    key_elements: Option<u64>,
    value_elements: Option<u64>,
    /// Width of the compressed KV vector with its rotary part.
    latent_row: Option<u64>,
    /// Width of the compressed vector alone.
    latent_rank: Option<u64>,
    recurrent: bool,
    fused_attention: bool,
}

impl LayerSums {
    fn add(&mut self, part: &str, weight: &Weight<'_>, hyper: &Hyperparameters) -> Result<(), ShapeError> {
        let rows = weight.dims.get(1).copied();
        match part {
            "attn_k.weight" => self.key_elements = rows,
            "attn_v.weight" => self.value_elements = rows,
            "attn_qkv.weight" => self.fused_attention = true,
            "attn_kv_a_mqa.weight" => self.latent_row = rows,
            "attn_kv_a_norm.weight" => self.latent_rank = weight.dims.first().copied(),
            _ if part.starts_with("ssm_") => self.recurrent = true,
            _ => {}
        }
        match experts_in(part, weight) {
            None => {
                self.trunk_bytes += weight.bytes;
                self.trunk_params += weight.elements();
                return Ok(());
            }
            Some(found) if found != 1 && found != u64::from(hyper.experts) => {
                let (tensor, count) = (weight.name.into(), hyper.experts);
                return Err(ShapeError::ExpertCount { tensor, found, count });
            }
            Some(_) => {}
        }
        self.expert_bytes += weight.bytes;
        self.expert_params += weight.elements();
        Ok(())
    }

    pub(super) fn layer(&self, hyper: &Hyperparameters, layer: u32) -> Result<Layer, ShapeError> {
        let (attention, kv_bytes_per_token, attention_flops_per_context) = self.attention(hyper, layer)?;
        let experts = self.experts(hyper)?;
        let of_experts = |each: fn(&Experts) -> u64| experts.map_or(0, |e| u64::from(e.count) * each(&e));
        Ok(Layer {
            // Experts stored in tensors of different types share out with a remainder, which stays with the trunk.
            trunk_bytes: self.trunk_bytes + self.expert_bytes - of_experts(|e| e.bytes_each),
            trunk_params: self.trunk_params + self.expert_params - of_experts(|e| e.params_each),
            experts,
            attention,
            kv_bytes_per_token,
            attention_flops_per_context,
        })
    }

    fn experts(&self, hyper: &Hyperparameters) -> Result<Option<Experts>, ShapeError> {
        if self.expert_bytes == 0 {
            return Ok(None);
        }
        let (count, used) = (hyper.experts, hyper.experts_used);
        if used == 0 || used > count {
            return Err(ShapeError::ExpertsUsed { used, count });
        }
        Ok(Some(Experts {
            count,
            used,
            bytes_each: self.expert_bytes / u64::from(count),
            params_each: self.expert_params / u64::from(count),
        }))
    }

    /// Kind, KV bytes per token and FLOPs per token of context.
    ///
    /// Grouped attention keeps a key and a value per KV head, and each of its heads multiplies and adds over one key (score)
    /// and one value. Latent attention keeps one compressed vector with its rotary part for all heads; scores run over
    /// both, values over the compressed part (the "absorbed" form of DeepSeek-V2). A recurrent layer reads its whole state
    /// at each token, whatever the context: a window of one token that is as large as the state.
    fn attention(&self, hyper: &Hyperparameters, layer: u32) -> Result<(Attention, u64, f64), ShapeError> {
        let heads = f64::from(hyper.heads_of(layer));
        let bounded = |elements: u64| match elements {
            0..=KEPT_ELEMENTS_MAX => Ok(elements),
            _ => Err(ShapeError::KeptElements { layer, elements }),
        };
        if let Some(row) = self.latent_row {
            let (row, rank) = (bounded(row)?, self.latent_rank.unwrap_or(row));
            return Ok((Attention::Latent, row * KV_ELEMENT_BYTES, 2.0 * heads * (row as f64 + rank as f64)));
        }
        let kv_heads = u64::from(hyper.kv_heads_of(layer));
        let elements = bounded(self.kv_elements(hyper, kv_heads))?;
        if elements == 0 {
            let state = bounded(hyper.recurrent.filter(|_| self.recurrent).map_or(0, |r| r.state_elements))?;
            return Ok((Attention::Sliding { window: 1 }, state * STATE_ELEMENT_BYTES, 4.0 * state as f64));
        }
        let flops = 2.0 * heads * elements as f64 / kv_heads.max(1) as f64;
        let attention = match &hyper.sliding {
            Some(sliding) if sliding.slides(layer) => Attention::Sliding { window: sliding.window },
            _ => Attention::Full,
        };
        Ok((attention, elements * KV_ELEMENT_BYTES, flops))
    }

    /// Key and value elements kept per token; 0 for a layer that keeps none. A layer without values of its own keeps its
    /// keys twice.
    fn kv_elements(&self, hyper: &Hyperparameters, kv_heads: u64) -> u64 {
        match (self.key_elements, self.value_elements) {
            (Some(key), value) => key.saturating_add(value.unwrap_or(key)),
            (None, _) if self.fused_attention && !self.recurrent => {
                kv_heads.saturating_mul(u64::from(hyper.key_length) + u64::from(hyper.value_length))
            }
            (None, _) => 0,
        }
    }
}

/// How many experts a tensor of a layer holds, `None` for one of the trunk. Files hold all experts of a layer in one
/// tensor (`ffn_up_exps`), old ones one tensor for each (`ffn_up.3`).
fn experts_in(part: &str, weight: &Weight<'_>) -> Option<u64> {
    let mut words = part.split('.');
    let stem = words.next()?;
    if stem.ends_with("_exps") {
        return weight.dims.last().copied();
    }
    let single = matches!(stem, "ffn_gate" | "ffn_up" | "ffn_down")
        && words.next().is_some_and(|word| word.parse::<u32>().is_ok());
    single.then_some(1)
}
