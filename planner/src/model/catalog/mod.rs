//! Known models at the usual quantisations, from data files (`planner/data/models/*.toml`).
//!
//! A data file holds a model's widths and where they come from. From these the catalog lists the tensors that the model's
//! GGUF has (`tensors`), gives each the type of the quantisation (`mix`), and counts as for a GGUF that was read. Tests hold
//! the sums against published file sizes and parameter counts.

mod data;
mod mix;
mod tensors;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use thiserror::Error;

pub use data::{
    ActiveCounts, AttentionEntry, Bias, Entry, ExpertsEntry, IndexEntry, LatentEntry, Published,
    PublishedSize, QueryKeyNorm, RecurrentEntry, SlidingEntry,
};

use self::mix::{Mix, Place, Traits};
use super::Model;
use super::ggml::GgmlType;
use super::shape::{Hyperparameters, RecurrentShape, SlidingLayers, SlidingShape, Weight, assemble};

/// The data, compiled in so that the planner needs no file at run time.
const FILES: [(&str, &str); 10] = [
    ("deepseek.toml", include_str!("../../../data/models/deepseek.toml")),
    ("gemma.toml", include_str!("../../../data/models/gemma.toml")),
    ("glm.toml", include_str!("../../../data/models/glm.toml")),
    ("gpt-oss.toml", include_str!("../../../data/models/gpt-oss.toml")),
    ("llama.toml", include_str!("../../../data/models/llama.toml")),
    ("llama-family.toml", include_str!("../../../data/models/llama-family.toml")),
    ("mistral.toml", include_str!("../../../data/models/mistral.toml")),
    ("mixtures.toml", include_str!("../../../data/models/mixtures.toml")),
    ("qwen.toml", include_str!("../../../data/models/qwen.toml")),
    ("small.toml", include_str!("../../../data/models/small.toml")),
];

/// The quantisation of a model that names none.
const USUAL_QUANT: &str = "Q4_K_M";

/// How many near names an error offers.
const NEAR_NAMES: usize = 5;

/// Words of a name that do not change the shape: `Llama-3.3-70B-Instruct` is `Llama-3.3-70B`.
const WORDS_WITHOUT_SHAPE: [&str; 4] = ["instruct", "chat", "it", "gguf"];

/// Why the catalog has no such model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// No model has that name.
    #[error(
        "no model `{name}` in the catalog; near: {near}. Write NAME or NAME QUANT, as in `GLM-4.7-Flash Q4_K_M`, or give \
         a GGUF file"
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What it may have meant.
        near: String,
    },
    /// The model is known, its quantisation is not.
    #[error("`{quant}` of `{model}` is no quantisation the catalog knows; it knows {known}")]
    UnknownQuant {
        /// The model.
        model: String,
        /// What was asked for.
        quant: String,
        /// What there is.
        known: String,
    },
}

/// The model of that name: `GLM-4.7-Flash Q4_K_M` or `glm-4.7-flash:q4_k_m`. Without a quantisation it is the model's usual
/// one, mostly `Q4_K_M`.
///
/// # Errors
/// [`CatalogError`] lists near names, or the quantisations there are.
pub fn find(name: &str) -> Result<Model, CatalogError> {
    let name = name.trim();
    if let Some(entry) = entry(name) {
        let quant = entry.usual_quant.as_deref().unwrap_or(USUAL_QUANT);
        return build_named(entry, quant);
    }
    if let Some((model, quant)) = name.rsplit_once([' ', ':'])
        && let Some(entry) = entry(model)
    {
        return build_named(entry, quant);
    }
    Err(CatalogError::UnknownModel { name: name.into(), near: near(name) })
}

/// Every model's name, without quantisation.
pub fn names() -> Vec<String> {
    entries().iter().map(|entry| entry.name.clone()).collect()
}

/// Every quantisation's name. Each works for each model.
pub fn quants() -> Vec<&'static str> {
    Mix::ALL.iter().map(|mix| mix.name()).collect()
}

/// Every model as the data has it, by file and place in it.
pub fn entries() -> &'static [Entry] {
    &catalog().entries
}

struct Catalog {
    entries: Vec<Entry>,
    /// Normalised names and aliases.
    by_name: BTreeMap<String, usize>,
}

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| read().unwrap_or_else(|broken| panic!("built-in model catalog: {broken}")))
}

/// Reads and checks the built-in files. Only an edit of the data can make it fail, and the unit tests call it.
fn read() -> Result<Catalog, String> {
    let mut catalog = Catalog { entries: Vec::new(), by_name: BTreeMap::new() };
    for (file_name, text) in FILES {
        let file: data::File = toml::from_str(text).map_err(|e| format!("{file_name}: {e}"))?;
        for entry in file.models {
            let at = catalog.entries.len();
            for name in entry.aliases.iter().chain([&entry.name]) {
                if catalog.by_name.insert(normalised(name), at).is_some() {
                    return Err(format!("{file_name}: `{name}` stands there twice"));
                }
            }
            catalog.entries.push(entry);
        }
    }
    Ok(catalog)
}

fn entry(name: &str) -> Option<&'static Entry> {
    let catalog = catalog();
    catalog.by_name.get(&normalised(name)).map(|at| &catalog.entries[*at])
}

/// Names compare without case, with spaces, underscores and hyphens alike, and without words such as `Instruct`.
fn normalised(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split([' ', '-', '_']).filter(|word| !word.is_empty());
    let kept: Vec<&str> = words.filter(|word| !WORDS_WITHOUT_SHAPE.contains(word)).collect();
    kept.join("-")
}

fn near(name: &str) -> String {
    let wanted = normalised(name);
    let names = entries().iter().map(|entry| entry.name.as_str());
    crate::near::names(&wanted, names, NEAR_NAMES)
}

fn build_named(entry: &Entry, quant: &str) -> Result<Model, CatalogError> {
    let mix = Mix::parse(quant.trim()).ok_or_else(|| CatalogError::UnknownQuant {
        model: entry.name.clone(),
        quant: quant.trim().into(),
        known: quants().join(", "),
    })?;
    Ok(build(entry, mix).unwrap_or_else(|broken| panic!("built-in model catalog: {}: {broken}", entry.name)))
}

/// Counts the model. Only an edit of the data can make it fail, and a unit test builds every model at every quantisation.
fn build(entry: &Entry, mix: Mix) -> Result<Model, String> {
    let traits = traits(entry)?;
    let tensors: Vec<(tensors::Tensor, u64)> = tensors::tensors(entry)
        .into_iter()
        .map(|tensor| {
            let row = tensor.dims[0];
            let place = Place { role: tensor.role, expert: tensor.expert, layer: tensor.layer, row };
            let bytes = mix.encoding(&place, &traits).bytes(&tensor.dims);
            (tensor, bytes)
        })
        .collect();
    let weights = tensors.iter().map(|(tensor, bytes)| Weight {
        name: &tensor.name,
        dims: &tensor.dims,
        bytes: *bytes,
    });
    assemble(&hyperparameters(entry, mix), weights).map_err(|e| e.to_string())
}

fn traits(entry: &Entry) -> Result<Traits, String> {
    let attention = &entry.attention;
    let native = entry.experts.as_ref().and_then(|experts| experts.native.as_deref());
    let known = |name: &str| GgmlType::ALL.iter().copied().find(|t| t.name() == name);
    let native_experts = match native {
        None => None,
        Some(name) => Some(known(name).ok_or(format!("no type `{name}`"))?),
    };
    Ok(Traits {
        layers: entry.layers,
        grouping: attention.heads / attention.kv_heads.max(1),
        experts: entry.experts.as_ref().map_or(0, |experts| experts.count),
        tied: entry.tied,
        seventy_b: entry.layers == 80
            && attention.kv_heads < attention.heads
            && matches!(entry.architecture.as_str(), "llama" | "qwen2"),
        native_experts,
    })
}

fn hyperparameters(entry: &Entry, mix: Mix) -> Hyperparameters {
    let attention = &entry.attention;
    let source = match &entry.assumed {
        None => entry.source.clone(),
        Some(assumed) => format!("{}; assumed: {assumed}", entry.source),
    };
    Hyperparameters {
        name: format!("{} {}", entry.name, mix.name()),
        architecture: entry.architecture.clone(),
        quant: mix.name().into(),
        source,
        layers: entry.layers,
        extra_blocks: 0,
        hidden: entry.hidden,
        heads: vec![attention.heads],
        kv_heads: vec![attention.kv_heads],
        key_length: attention.head,
        value_length: attention.head,
        sliding: attention.sliding.as_ref().map(|sliding| SlidingShape {
            window: sliding.window,
            layers: SlidingLayers::AllButEach { period: sliding.period },
        }),
        recurrent: attention.recurrent.as_ref().map(recurrent_shape),
        experts: entry.experts.as_ref().map_or(0, |experts| experts.count),
        experts_used: entry.experts.as_ref().map_or(0, |experts| experts.used),
        vocab: entry.vocab,
        context_max: entry.context,
    }
}

/// A gated delta net keeps a matrix of key by value for each value head, and the convolution's last tokens.
fn recurrent_shape(recurrent: &RecurrentEntry) -> RecurrentShape {
    let keys = u64::from(recurrent.key_heads) * u64::from(recurrent.key);
    let values = u64::from(recurrent.value_heads) * u64::from(recurrent.value);
    let window = u64::from(recurrent.convolution.saturating_sub(1)) * (2 * keys + values);
    RecurrentShape { state_elements: u64::from(recurrent.key) * values + window }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
