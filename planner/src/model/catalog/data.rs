//! The format of the catalog's data files (`planner/data/models/*.toml`).

use serde::Deserialize;

/// One file: models of a family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "model")]
    pub(super) models: Vec<Entry>,
}

/// One model as the data has it. Widths are in elements.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name without quantisation: `Llama-3.3-70B`.
    pub name: String,
    /// Other names of the same shape.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// `general.architecture` of its GGUF.
    pub architecture: String,
    /// Where the shape comes from.
    pub source: String,
    /// What of it is assumed, and why; absent where nothing is.
    pub assumed: Option<String>,
    /// The quantisation meant where none is named; `Q4_K_M` if absent.
    pub usual_quant: Option<String>,
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Longest context, tokens.
    pub context: u32,
    /// Whether head and embedding are the same tensor.
    #[serde(default)]
    pub tied: bool,
    /// How layers attend.
    pub attention: AttentionEntry,
    /// Width of the dense feed-forward part, where there is one.
    pub feed_forward: Option<u32>,
    /// Mixture of experts.
    pub experts: Option<ExpertsEntry>,
    /// Norms after attention and feed-forward as well as before (Gemma 3).
    #[serde(default)]
    pub post_norms: bool,
    /// Parameters as published.
    pub published: Option<Published>,
    /// Sizes of files as published, against which the catalog is tested.
    #[serde(default)]
    pub sizes: Vec<PublishedSize>,
}

/// How layers attend.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionEntry {
    /// Heads.
    pub heads: u32,
    /// Heads with a key and value of their own.
    pub kv_heads: u32,
    /// Width of a head's key and value (not of latent attention).
    pub head: u32,
    /// A bias on the projections.
    #[serde(default)]
    pub bias: Bias,
    /// A norm of queries and keys.
    #[serde(default)]
    pub query_key_norm: QueryKeyNorm,
    /// The query projection also makes a gate of the same width (Qwen3-Next).
    #[serde(default)]
    pub gated: bool,
    /// One learnt value a head beside the scores (gpt-oss).
    #[serde(default)]
    pub sinks: bool,
    /// Latent attention.
    pub latent: Option<LatentEntry>,
    /// Layers that look back over a window only.
    pub sliding: Option<SlidingEntry>,
    /// Recurrent layers between those that attend.
    pub recurrent: Option<RecurrentEntry>,
}

/// Which projections have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// Query, key and value.
    QueryKeyValue,
    /// These and the output.
    All,
}

/// How queries and keys are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueryKeyNorm {
    /// Not.
    #[default]
    None,
    /// Each head, with one weight for all.
    Head,
    /// All heads together.
    Full,
}

/// Multi-head latent attention.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentEntry {
    /// Rank of the query's projection.
    pub query_rank: u32,
    /// Rank of the compressed KV vector.
    pub kv_rank: u32,
    /// Width of a head's key without its rotary part.
    pub nope: u32,
    /// Width of the rotary part.
    pub rope: u32,
    /// Width of a head's value.
    pub value: u32,
    /// Sparse attention's index (DeepSeek-V3.2, GLM-5).
    pub index: Option<IndexEntry>,
}

/// The small attention that chooses which tokens the large one looks at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// Its heads.
    pub heads: u32,
    /// Their width.
    pub head: u32,
}

/// Layers that look back over a window only.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingEntry {
    /// Tokens looked back at.
    pub window: u32,
    /// All but each so-many-th layer do.
    pub period: u32,
}

/// Gated delta nets between the layers that attend.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentEntry {
    /// All but each so-many-th layer are recurrent.
    pub period: u32,
    /// Heads of keys.
    pub key_heads: u32,
    /// Heads of values.
    pub value_heads: u32,
    /// Width of a head's key.
    pub key: u32,
    /// Width of a head's value.
    pub value: u32,
    /// Tokens under the convolution.
    pub convolution: u32,
}

/// Mixture of experts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertsEntry {
    /// Experts of a layer.
    pub count: u32,
    /// Picked per token.
    pub used: u32,
    /// Width of one.
    pub width: u32,
    /// Width of the shared expert; 0 without.
    #[serde(default)]
    pub shared_width: u32,
    /// The shared expert has a gate of its own (Qwen).
    #[serde(default)]
    pub shared_gate: bool,
    /// Layers at the start that are dense.
    #[serde(default)]
    pub dense_layers: u32,
    /// A learnt correction of the gate's scores (DeepSeek-V3 and after).
    #[serde(default)]
    pub score_bias: bool,
    /// Biases on gate and experts (gpt-oss).
    #[serde(default)]
    pub bias: bool,
    /// The type in which its makers published the experts.
    pub native: Option<String>,
}

/// Parameters as published.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// All of them, in thousand millions.
    pub total_b: f64,
    /// Those one token uses; absent for dense models, and where only a rounded name (`A3B`) says it.
    pub active_b: Option<f64>,
    /// What `active_b` counts.
    #[serde(default)]
    pub active_counts: ActiveCounts,
    /// By whom.
    pub source: String,
}

/// What a published figure of active parameters counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActiveCounts {
    /// Embedding and head, once each.
    #[default]
    Both,
    /// The head, not the embedding.
    NoEmbedding,
    /// Layers alone.
    NeitherEmbeddingNorHead,
}

/// The size of a file as published.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedSize {
    /// Of which quantisation.
    pub quant: String,
    /// With its unit.
    pub size: String,
    /// By whom.
    pub source: String,
}
