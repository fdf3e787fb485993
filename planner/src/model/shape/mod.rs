//! From tensors and a few hyperparameters to a [`Model`]: the same way for a GGUF header and for the catalog, so that
//! both count alike.
//!
//! What a tensor is for, its name tells (llama.cpp's names): `blk.7.ffn_up_exps.weight` belongs to the experts of layer
//! 7. How a layer attends is read off its tensors too: `attn_kv_a_mqa` means latent attention, `ssm_*` without `attn_k`
//! a recurrent layer.

mod sums;

use thiserror::Error;

use self::sums::Sums;
use super::Model;

/// A layer count beyond which a header is not believed.
pub const LAYERS_MAX: u32 = 4096;

/// Elements of KV or state that one layer may keep per token. The largest known keep some 20,000 of KV and some 2 million
/// of state; a bound keeps later sums inside 64 bits.
pub const KEPT_ELEMENTS_MAX: u64 = 1 << 26;

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
    /// More KV or state than any model keeps.
    #[error(
        "layer {layer} would keep {elements} elements of KV or state per token, above the limit of {KEPT_ELEMENTS_MAX}"
    )]
    KeptElements {
        /// The first such.
        layer: u32,
        /// What it would keep.
        elements: u64,
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
