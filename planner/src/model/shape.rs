//! From tensors and a few hyperparameters to a [`Model`]: the same way for a GGUF header and for the catalog, so that
//! both count alike.
//!
//! What a tensor is for, its name tells (llama.cpp's names): `blk.7.ffn_up_exps.weight` belongs to the experts of layer
//! 7. How a layer attends is read off its tensors too: `attn_kv_a_mqa` means latent attention, `ssm_*` without `attn_k`
//! a recurrent layer.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Attention, Experts, Layer, Model};

/// Bytes of one element of the KV cache (f16).
const KV_ELEMENT_BYTES: u64 = 2;

/// Bytes of one element of a recurrent state (f32).
const STATE_ELEMENT_BYTES: u64 = 4;

/// A layer count beyond which a header is not believed.
pub const LAYERS_MAX: u32 = 4096;

/// Why tensors and hyperparameters do not make a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// No embedding: not the header of a language model.
    #[error("there is no tensor `token_embd.weight`: this is not a language model, or not its first part")]
    NoEmbedding,
    /// A tensor names a layer the model does not have.
    #[error("tensor `{tensor}` belongs to layer {layer}, but the model has {count} layers")]
    LayerBeyond {
        /// Name.
        tensor: String,
        /// The layer it names.
        layer: u32,
        /// What the header says there are.
        count: u32,
    },
    /// A layer without tensors.
    #[error("layer {layer} of {count} has no tensors: a part of the model is missing")]
    EmptyLayer {
        /// The first such.
        layer: u32,
        /// What the header says there are.
        count: u32,
    },
    /// More layers than any model has, or none.
    #[error("{count} layers is not between 1 and {LAYERS_MAX}")]
    LayerCount {
        /// What the header says.
        count: u32,
    },
    /// A tensor of experts that does not divide into as many as the header says.
    #[error("tensor `{tensor}` holds {found} experts, but the model has {count}")]
    ExpertCount {
        /// Name.
        tensor: String,
        /// Its last dimension.
        found: u64,
        /// What the header says there are.
        count: u32,
    },
    /// The gate cannot pick that many.
    #[error("the gate picks {used} of {count} experts; it must pick at least one and at most all")]
    ExpertsUsed {
        /// Picked.
        used: u32,
        /// Present.
        count: u32,
    },
    /// Sums beyond 64 bits.
    #[error("tensor `{tensor}` makes the model larger than 2^64 bytes")]
    TooLarge {
        /// The one that did.
        tensor: String,
    },
}

/// A tensor, as far as sizes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight<'a> {
    /// llama.cpp's name: `blk.7.attn_q.weight`.
    pub name: &'a str,
    /// Dimensions, fastest first.
    pub dims: &'a [u64],
    /// Bytes in the file.
    pub bytes: u64,
}

impl Weight<'_> {
    /// Elements; tensors whose product overflows were refused when their bytes were counted.
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1u64, |product, dim| product.saturating_mul(*dim))
    }

    /// The layer and what follows `blk.N.` in the name.
    fn in_layer(&self) -> Option<(u32, &str)> {
        let (number, rest) = self.name.strip_prefix("blk.")?.split_once('.')?;
        Some((number.parse().ok()?, rest))
    }
}

/// Layers that look back over a window only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingShape {
    /// Tokens looked back at.
    pub window: u32,
    /// Which layers do.
    pub layers: SlidingLayers,
}

/// Which layers look back over a window only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlidingLayers {
    /// All but each `period`-th: in a period of six the sixth, twelfth … attend to everything.
    AllButEach {
        /// Two or more; one means that none slides.
        period: u32,
    },
    /// One flag a layer.
    Listed(Vec<bool>),
}

impl SlidingShape {
    fn slides(&self, layer: u32) -> bool {
        match &self.layers {
            SlidingLayers::AllButEach { period } => layer % period.max(&1) + 1 < *period,
            SlidingLayers::Listed(flags) => flags.get(layer as usize).copied().unwrap_or(false),
        }
    }
}

/// Layers with a state of constant size instead of a KV cache (Mamba, gated delta nets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentShape {
    /// Elements of the state, with the convolution's window.
    pub state_elements: u64,
}

/// What the tensors do not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Hyperparameters {
    /// Name with quantisation.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Main quantisation.
    pub quant: String,
    /// Where the shape comes from.
    pub source: String,
    /// Layers a token passes.
    pub layers: u32,
    /// Blocks after them that only predict further tokens (`nextn`); nothing here loads them.
    pub extra_blocks: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Heads of each layer; the last value holds for the layers after it.
    pub heads: Vec<u32>,
    /// KV heads of each layer, likewise.
    pub kv_heads: Vec<u32>,
    /// Elements of a head's key.
    pub key_length: u32,
    /// Elements of a head's value.
    pub value_length: u32,
    /// Present where layers look back over a window only.
    pub sliding: Option<SlidingShape>,
    /// Present where layers are recurrent.
    pub recurrent: Option<RecurrentShape>,
    /// Experts of each mixture-of-experts layer; 0 without.
    pub experts: u32,
    /// Experts the gate picks.
    pub experts_used: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Longest context.
    pub context_max: u32,
}

impl Hyperparameters {
    fn heads_of(&self, layer: u32) -> u32 {
        of_layer(&self.heads, layer)
    }

    fn kv_heads_of(&self, layer: u32) -> u32 {
        of_layer(&self.kv_heads, layer)
    }
}

fn of_layer(values: &[u32], layer: u32) -> u32 {
    values.get(layer as usize).or(values.last()).copied().unwrap_or(0)
}

/// Puts a model together.
///
/// # Errors
/// [`ShapeError`] where tensors and hyperparameters contradict each other.
pub fn assemble<'a>(
    hyper: &Hyperparameters,
    weights: impl Iterator<Item = Weight<'a>>,
) -> Result<Model, ShapeError> {
    if hyper.layers == 0 || hyper.layers > LAYERS_MAX {
        return Err(ShapeError::LayerCount { count: hyper.layers });
    }
    let mut sums = Sums::default();
    for weight in weights {
        sums.add(&weight, hyper)?;
    }
    if sums.token_embedding_bytes == 0 {
        return Err(ShapeError::NoEmbedding);
    }
    let mut layers = Vec::with_capacity(sums.layers.len());
    for layer in 0..hyper.layers {
        let parts = sums.layers.get(&layer).ok_or(ShapeError::EmptyLayer { layer, count: hyper.layers })?;
        layers.push(parts.layer(hyper, layer)?);
    }
    let tied = sums.output_bytes == 0;
    let (matrix_bytes, matrix_params) = if tied {
        (sums.token_embedding_bytes, sums.token_embedding_params)
    } else {
        (sums.output_bytes, sums.output_params)
    };
    Ok(Model {
        name: hyper.name.clone(),
        architecture: hyper.architecture.clone(),
        quant: hyper.quant.clone(),
        hidden: hyper.hidden,
        heads: hyper.heads.iter().copied().max().unwrap_or(0),
        kv_heads: hyper.kv_heads.iter().copied().max().unwrap_or(0),
        vocab: hyper.vocab,
        context_max: hyper.context_max,
        embedding_bytes: sums.token_embedding_bytes + sums.other_embedding_bytes,
        head_bytes: matrix_bytes + sums.norm_bytes,
        head_params: matrix_params,
        tied,
        layers,
        source: hyper.source.clone(),
    })
}

/// Sums over tensors, by where they are needed.
#[derive(Debug, Default)]
struct Sums {
    token_embedding_bytes: u64,
    token_embedding_params: u64,
    /// Positions and per-layer embeddings: looked up like the embedding.
    other_embedding_bytes: u64,
    output_bytes: u64,
    output_params: u64,
    /// What stands in no layer and is read at each step: output norm, rotary factors.
    norm_bytes: u64,
    layers: BTreeMap<u32, LayerSums>,
    /// Of everything, so that no smaller sum can overflow.
    total_bytes: u64,
    total_params: u64,
}

impl Sums {
    fn add(&mut self, weight: &Weight<'_>, hyper: &Hyperparameters) -> Result<(), ShapeError> {
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
struct LayerSums {
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

    fn layer(&self, hyper: &Hyperparameters, layer: u32) -> Result<Layer, ShapeError> {
        let (attention, kv_bytes_per_token, attention_flops_per_context) = self.attention(hyper, layer);
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
    fn attention(&self, hyper: &Hyperparameters, layer: u32) -> (Attention, u64, f64) {
        let heads = f64::from(hyper.heads_of(layer));
        if let Some(row) = self.latent_row {
            let rank = self.latent_rank.unwrap_or(row);
            let flops = 2.0 * heads * (row as f64 + rank as f64);
            return (Attention::Latent, row.saturating_mul(KV_ELEMENT_BYTES), flops);
        }
        let kv_heads = u64::from(hyper.kv_heads_of(layer));
        let elements = self.kv_elements(hyper, kv_heads);
        if elements == 0 {
            let state = hyper.recurrent.filter(|_| self.recurrent).map_or(0, |r| r.state_elements);
            let bytes = state.saturating_mul(STATE_ELEMENT_BYTES);
            return (Attention::Sliding { window: 1 }, bytes, 4.0 * state as f64);
        }
        let flops = 2.0 * heads * elements as f64 / kv_heads.max(1) as f64;
        let attention = match &hyper.sliding {
            Some(sliding) if sliding.slides(layer) => Attention::Sliding { window: sliding.window },
            _ => Attention::Full,
        };
        (attention, elements.saturating_mul(KV_ELEMENT_BYTES), flops)
    }

    /// Key and value elements kept per token; 0 for a layer that keeps none. A layer without values of its own keeps its
    /// keys twice.
    fn kv_elements(&self, hyper: &Hyperparameters, kv_heads: u64) -> u64 {
        match (self.key_elements, self.value_elements) {
            (Some(key), value) => key.saturating_add(value.unwrap_or(key)),
            (None, _) if self.fused_attention && !self.recurrent => {
                kv_heads * (u64::from(hyper.key_length) + u64::from(hyper.value_length))
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
