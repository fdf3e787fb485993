//! Shapes of models: what the planner must know of one, and no more.
//!
//! * [`gguf`]: the shape out of a GGUF header, without reading a tensor.
//! * [`catalog`]: shapes of known models at the usual quantisations, from data files.
//! * [`shape`]: from tensors to a model, the same way for both.
//! * [`ggml`]: element types and their sizes.

pub mod catalog;
pub mod ggml;
pub mod gguf;
pub mod shape;

use serde::{Deserialize, Serialize};

/// How a layer attends; decides kernel count and the KV bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// Multi-head, grouped-query or multi-query attention over the whole context.
    Full,
    /// The same over the last `window` tokens. A recurrent layer (gated delta net, Mamba) stands here with a window of one
    /// token that is as large as its state.
    Sliding {
        /// Tokens looked back at.
        window: u32,
    },
    /// Multi-head latent attention (DeepSeek-V2 and after): one compressed KV vector per token.
    Latent,
}

/// The experts of one mixture-of-experts layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Experts {
    /// How many the layer has.
    pub count: u32,
    /// How many the gate picks per token.
    pub used: u32,
    /// Weight bytes of one expert.
    pub bytes_each: u64,
    /// Parameters of one expert.
    pub params_each: u64,
}

/// One transformer layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Weight bytes every token reads: attention, norms, dense FFN or shared experts, gate.
    pub trunk_bytes: u64,
    /// Parameters of the same.
    pub trunk_params: u64,
    /// Present in a mixture-of-experts layer.
    pub experts: Option<Experts>,
    /// How it attends.
    pub attention: Attention,
    /// Bytes of KV per token of context at f16.
    pub kv_bytes_per_token: u64,
    /// FLOPs per token of context and new token, for scores and values.
    pub attention_flops_per_context: f64,
}

impl Layer {
    /// All weight bytes of the layer.
    pub fn weight_bytes(&self) -> u64 {
        self.trunk_bytes + self.experts.map_or(0, |e| u64::from(e.count) * e.bytes_each)
    }

    /// Weight bytes that a step over `tokens` tokens reads, when each token picks its experts independently:
    /// `E·(1 − (1 − k/E)^tokens)` distinct experts are touched.
    pub fn active_bytes(&self, tokens: u32) -> f64 {
        let experts = self.experts.map_or(0.0, |e| {
            let (count, used) = (f64::from(e.count), f64::from(e.used));
            let missed = (1.0 - used / count).max(0.0).powi(tokens.min(i32::MAX as u32) as i32);
            count * (1.0 - missed) * e.bytes_each as f64
        });
        self.trunk_bytes as f64 + experts
    }

    /// All parameters of the layer.
    pub fn params(&self) -> u64 {
        self.trunk_params + self.experts.map_or(0, |e| u64::from(e.count) * e.params_each)
    }

    /// Parameters that one token multiplies with.
    pub fn active_params(&self) -> f64 {
        self.trunk_params as f64 + self.experts.map_or(0.0, |e| f64::from(e.used) * e.params_each as f64)
    }
}

/// A model's shape. Bytes are those of the file: exact when read from a GGUF header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name and quantisation, as people write it: `GLM-4.7-Flash Q4_K_M`.
    pub name: String,
    /// `general.architecture` of the GGUF.
    pub architecture: String,
    /// The file's main quantisation: `Q4_K_M`.
    pub quant: String,
    /// Width of the residual stream, elements.
    pub hidden: u32,
    /// Attention heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// The longest context the model was trained for, tokens.
    pub context_max: u32,
    /// Bytes of the token embedding; a step reads one row per token. The first stage holds it.
    pub embedding_bytes: u64,
    /// Bytes of output norm and head, read whole by every step that samples. The last stage holds it. For tied
    /// embeddings these are the embedding's bytes again, and a node that holds first and last stage holds them once.
    pub head_bytes: u64,
    /// Parameters of the head.
    pub head_params: u64,
    /// Whether head and embedding are the same tensor.
    pub tied: bool,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Where the shape comes from.
    pub source: String,
}

impl Model {
    /// Number of layers.
    pub fn layer_count(&self) -> u32 {
        self.layers.len() as u32
    }

    /// All weight bytes, a tied tensor counted once.
    pub fn weight_bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(Layer::weight_bytes).sum();
        let ends = if self.tied {
            self.embedding_bytes.max(self.head_bytes)
        } else {
            self.embedding_bytes + self.head_bytes
        };
        layers + ends
    }

    /// Parameters of the token embedding.
    pub fn embedding_params(&self) -> u64 {
        u64::from(self.vocab) * u64::from(self.hidden)
    }

    /// All parameters, a tied tensor counted once.
    pub fn params(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(Layer::params).sum();
        let ends = if self.tied {
            self.embedding_params().max(self.head_params)
        } else {
            self.embedding_params().saturating_add(self.head_params)
        };
        layers.saturating_add(ends)
    }

    /// Parameters that one token multiplies with: its experts, all else of each layer, the head. Published figures of
    /// active parameters mostly count the embedding too, of which a token only looks up a row.
    pub fn active_params(&self) -> f64 {
        self.layers.iter().map(Layer::active_params).sum::<f64>() + self.head_params as f64
    }

    /// Weight bytes one decoded token of one stream reads.
    pub fn active_bytes(&self) -> f64 {
        self.layers.iter().map(|l| l.active_bytes(1)).sum::<f64>() + self.head_bytes as f64
    }
}
