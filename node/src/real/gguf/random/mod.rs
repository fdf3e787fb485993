//! Models with random weights: every architecture and format at any size, from a seed, with a tokeniser that works.
//!
//! They say nothing of use, but they compute what real ones do: tests hold engines against each other on tiny ones, and
//! benches measure the speed of large ones, which depends on shapes and formats and not on values.

mod tensors;
mod vocabulary;

use std::path::Path;

use planner::model::ggml::GgmlType;

use super::{GgufWriter, WriteError};
use tensors::parts;

/// Weights of a matrix that are drawn; a larger matrix repeats its rows, so that large models are made in seconds.
const DISTINCT_WEIGHTS: u64 = 1 << 20;

/// Which transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, Mistral, SmolLM2.
    Llama,
    /// Qwen 2 and 2.5: biases on query, key and value.
    Qwen2,
    /// Qwen 3: norms on each head's query and key.
    Qwen3,
    /// Gemma 3: norms before and after, sliding windows in five layers of six.
    Gemma3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Gemma3];

    /// `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    /// Whether heads have norms of their own for query and key.
    fn has_head_norms(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }
}

/// The shape of a random model.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomModel {
    /// Which transformer.
    pub architecture: Architecture,
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Width inside the feed-forward network.
    pub feed_forward: u32,
    /// Query heads.
    pub heads: u32,
    /// Heads of key and value.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_width: u32,
    /// Tokens; at least [`RandomModel::LEAST_VOCABULARY`].
    pub vocabulary: u32,
    /// Longest context the metadata promise, tokens.
    pub context: u32,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// Whether Llama 3's table of rotary frequencies is among the tensors.
    pub rope_table: bool,
    /// How many times longer the waves of layers that see everything are (`rope.scaling.factor`); 1 for as they are.
    pub rope_factor: f32,
    /// Tokens the waves were trained for, if they become longer as YaRN has it; 0 for all by the factor.
    pub yarn_context: u32,
    /// Tokens that a sliding window sees; 0 for none. Gemma 3 only.
    pub window: u32,
    /// Format of the matrices, or what llama.cpp falls back to where their rows do not fit.
    pub kind: GgmlType,
    /// What the weights are drawn from.
    pub seed: u64,
}

impl RandomModel {
    /// The bytes, the special tokens and the merged words of the made-up vocabulary.
    pub const LEAST_VOCABULARY: u32 = vocabulary::LEAST;

    /// A model of under a million weights whose shapes have nothing in common by accident: fewer heads of key and value
    /// than of query, heads whose widths do not add up to the residual stream's where the architecture allows it, and for
    /// Gemma 3 seven layers, of which one sees everything, a window shorter than a test's prompt, and longer waves as in
    /// its models of 4B and more.
    pub fn tiny(architecture: Architecture) -> Self {
        let gemma = architecture == Architecture::Gemma3;
        Self {
            architecture,
            layers: if gemma { 7 } else { 3 },
            width: 64,
            feed_forward: 160,
            heads: 4,
            kv_heads: 2,
            head_width: if architecture.has_head_norms() { 32 } else { 16 },
            vocabulary: 320,
            context: 256,
            tied: gemma || architecture == Architecture::Qwen3,
            rope_base: if gemma { 1e6 } else { 1e4 },
            rope_table: false,
            rope_factor: if gemma { 8.0 } else { 1.0 },
            yarn_context: 0,
            window: if gemma { 8 } else { 0 },
            kind: GgmlType::F32,
            seed: 1,
        }
    }

    /// A llama of 660 million weights, the size that a small machine runs comfortably and no cache holds: what speed is
    /// measured on.
    pub fn llama_660m(kind: GgmlType) -> Self {
        Self {
            layers: 12,
            width: 2048,
            feed_forward: 5632,
            heads: 32,
            kv_heads: 4,
            head_width: 64,
            vocabulary: 49_152,
            context: 4096,
            tied: false,
            kind,
            ..Self::tiny(Architecture::Llama)
        }
    }

    /// A large model's shape by its usual name, in `kind`: `1.5b` is Qwen 2.5's, `8b` and `70b` are Llama 3.1's, `32b` is
    /// Qwen 2.5's, each with its heads, widths and vocabulary. `None` for other names.
    pub fn large(name: &str, kind: GgmlType) -> Option<Self> {
        let (layers, width, feed_forward, heads, kv_heads, vocabulary, tied) = match name {
            "1.5b" => (28, 1536, 8960, 12, 2, 151_936, true),
            "8b" => (32, 4096, 14_336, 32, 8, 128_256, false),
            "32b" => (64, 5120, 27_648, 40, 8, 152_064, false),
            "70b" => (80, 8192, 28_672, 64, 8, 128_256, false),
            _ => return None,
        };
        let is_qwen = matches!(name, "1.5b" | "32b");
        let architecture = if is_qwen { Architecture::Qwen2 } else { Architecture::Llama };
        let shape = Self {
            layers,
            width,
            feed_forward,
            heads,
            kv_heads,
            vocabulary,
            tied,
            kind,
            ..Self::tiny(architecture)
        };
        Some(Self { head_width: 128, context: 8192, ..shape })
    }

    /// A tiny Qwen 2 whose waves are stretched to four times the context they were trained for.
    pub fn tiny_yarn() -> Self {
        Self { rope_factor: 4.0, yarn_context: 32, ..Self::tiny(Architecture::Qwen2) }
    }

    /// Writes the model to `path`. The same shape and seed give the same bytes.
    ///
    /// # Errors
    /// [`WriteError`].
    ///
    /// # Panics
    /// Where [`RandomModel::kind`] is none that [`crate::real::formats::quantise`] knows, or the vocabulary is too small.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        let parts = parts(self);
        let mut writer = GgufWriter::default();
        self.metadata(&mut writer);
        vocabulary::write(self.vocabulary, &mut writer);
        for part in &parts {
            writer.tensor(part.name.as_str(), part.kind, &part.dims);
        }
        let mut sink = writer.create(path)?;
        for part in &parts {
            let distinct = part.drawn(self.seed, DISTINCT_WEIGHTS);
            let mut left = part.bytes();
            while left > 0 {
                let bytes = left.min(distinct.len() as u64);
                sink.write(&distinct[..bytes as usize])?;
                left -= bytes;
            }
        }
        sink.finish()
    }

    fn metadata(&self, writer: &mut GgufWriter) {
        let name = self.architecture.name();
        let key = |rest: &str| format!("{name}.{rest}");
        writer
            .set("general.architecture", name)
            .set("general.name", format!("random {name}, seed {}", self.seed).as_str())
            .set("general.quantization_version", 2u32)
            .set(key("block_count"), self.layers)
            .set(key("context_length"), self.context)
            .set(key("embedding_length"), self.width)
            .set(key("feed_forward_length"), self.feed_forward)
            .set(key("vocab_size"), self.vocabulary)
            .set(key("attention.head_count"), self.heads)
            .set(key("attention.head_count_kv"), self.kv_heads)
            .set(key("attention.layer_norm_rms_epsilon"), 1e-6f32)
            .set(key("rope.freq_base"), self.rope_base);
        if self.architecture.has_head_norms() {
            writer.set(key("attention.key_length"), self.head_width);
            writer.set(key("attention.value_length"), self.head_width);
        } else {
            writer.set(key("rope.dimension_count"), self.head_width);
        }
        if self.rope_factor != 1.0 {
            writer.set(key("rope.scaling.type"), if self.yarn_context > 0 { "yarn" } else { "linear" });
            writer.set(key("rope.scaling.factor"), self.rope_factor);
        }
        if self.yarn_context > 0 {
            writer.set(key("rope.scaling.original_context_length"), self.yarn_context);
        }
        if self.window > 0 {
            writer.set(key("attention.sliding_window"), self.window);
        }
    }
}
