//! What a GGUF file says of itself.

use std::collections::BTreeMap;

use planner::model::gguf::{GgufFile, Value};
use planner::model::{Attention, Model};
use serde::Serialize;

use crate::cli::arguments::Inspect;
use crate::ids::Token;
use crate::real::text::{ChatTemplate, Origin, Tokenizer};

/// The longest metadata text that is repeated, characters.
const TEXT_CHARS: usize = 120;

/// What a file holds. Sizes are bytes.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) files: Vec<FileFacts>,
    pub(super) gguf_version: u32,
    pub(super) license: Option<String>,
    /// The tensors' types, most bytes first.
    pub(super) types: Vec<TypeFacts>,
    pub(super) tensor_count: usize,
    pub(super) tensor_bytes: u64,
    /// The shape; absent where the tensors make no language model, with the reason in `problems`.
    pub(super) model: Option<ModelFacts>,
    pub(super) tokenizer: Option<TokenizerFacts>,
    pub(super) template: Option<TemplateFacts>,
    /// Why parts of the file cannot be used.
    pub(super) problems: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<Vec<LayerFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tensors: Option<Vec<TensorFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
pub(super) struct FileFacts {
    pub(super) path: String,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct TypeFacts {
    #[serde(rename = "type")]
    pub(super) name: &'static str,
    pub(super) tensors: usize,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ModelFacts {
    pub(super) architecture: String,
    pub(super) quantisation: String,
    pub(super) parameters: u64,
    pub(super) layers: u32,
    pub(super) hidden: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) vocabulary: u32,
    /// Tokens that the model was trained for; 0 where the file does not say.
    pub(super) context: u32,
    /// Of one layer, the mean of all.
    pub(super) layer_bytes: u64,
    pub(super) embedding_bytes: u64,
    pub(super) head_bytes: u64,
    /// Whether head and embedding are the same tensor.
    pub(super) tied: bool,
    /// What answering one token reads.
    pub(super) active_bytes: u64,
    /// Of all layers, f16, while the context is shorter than any window.
    pub(super) kv_bytes_per_token: u64,
    /// Experts of a layer, and those that a token passes; absent in dense models.
    pub(super) experts: Option<[u32; 2]>,
    /// Layers that look back over a window only, and its length.
    pub(super) sliding: Option<[u32; 2]>,
}

#[derive(Debug, Serialize)]
pub(super) struct LayerFacts {
    pub(super) layer: usize,
    pub(super) bytes: u64,
    pub(super) parameters: u64,
    pub(super) kv_bytes_per_token: u64,
    pub(super) attention: String,
}

#[derive(Debug, Serialize)]
pub(super) struct TensorFacts {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Fastest first.
    pub(super) dims: Vec<u64>,
    pub(super) bytes: u64,
    pub(super) part: u16,
    pub(super) at: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenizerFacts {
    pub(super) kind: String,
    pub(super) tokens: usize,
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
    /// Whether texts begin with `bos`.
    pub(super) adds_bos: bool,
    /// What ends an answer.
    pub(super) ends: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TemplateFacts {
    /// `file`, or the fallback that the vocabulary suggests.
    pub(super) origin: String,
    pub(super) bytes: usize,
}

impl Facts {
    pub(super) fn of(file: &GgufFile, asked: &Inspect) -> Self {
        let mut problems = Vec::new();
        let model = file.model().map_err(|e| problems.push(e.to_string())).ok();
        let tokenizer = Tokenizer::from_gguf(file).map_err(|e| problems.push(e.to_string())).ok();
        let template = tokenizer.as_ref().and_then(|t| {
            let template = ChatTemplate::from_gguf(file, t).map_err(|e| problems.push(e.to_string())).ok();
            template.map(|template| TemplateFacts::of(file, &template))
        });
        let text = |key| file.metadata.get(key).and_then(Value::as_str).map(printable);
        let tensor_bytes = file.tensors.values().map(|tensor| tensor.bytes).sum();
        Self {
            name: text("general.name").or(model.as_ref().map(|m| m.name.clone())).unwrap_or_default(),
            files: files(file),
            gguf_version: file.version,
            license: text("general.license"),
            types: types(file),
            tensor_count: file.tensors.len(),
            tensor_bytes,
            layers: model.as_ref().filter(|_| asked.layers).map(layers),
            model: model.as_ref().map(ModelFacts::of),
            tokenizer: tokenizer.as_ref().map(TokenizerFacts::of),
            template,
            problems,
            tensors: asked.tensors.then(|| tensors(file)),
            metadata: asked.metadata.then(|| metadata(file)),
        }
    }
}

fn files(file: &GgufFile) -> Vec<FileFacts> {
    let facts = |path: &std::path::PathBuf| FileFacts {
        path: path.display().to_string(),
        bytes: std::fs::metadata(path).map_or(0, |of_file| of_file.len()),
    };
    file.parts.iter().map(facts).collect()
}

fn types(file: &GgufFile) -> Vec<TypeFacts> {
    let mut types: BTreeMap<&'static str, TypeFacts> = BTreeMap::new();
    for tensor in file.tensors.values() {
        let name = tensor.ggml_type.name();
        let facts = types.entry(name).or_insert(TypeFacts { name, tensors: 0, bytes: 0 });
        facts.tensors += 1;
        facts.bytes = facts.bytes.saturating_add(tensor.bytes);
    }
    let mut types: Vec<TypeFacts> = types.into_values().collect();
    types.sort_by_key(|facts| std::cmp::Reverse(facts.bytes));
    types
}

fn layers(model: &Model) -> Vec<LayerFacts> {
    let facts = |(layer, of): (usize, &planner::model::Layer)| LayerFacts {
        layer,
        bytes: of.weight_bytes(),
        parameters: of.params(),
        kv_bytes_per_token: of.kv_bytes_per_token,
        attention: match of.attention {
            Attention::Full => "full".into(),
            Attention::Latent => "latent".into(),
            Attention::Sliding { window } => format!("sliding over {window}"),
        },
    };
    model.layers.iter().enumerate().map(facts).collect()
}

fn tensors(file: &GgufFile) -> Vec<TensorFacts> {
    let mut tensors: Vec<TensorFacts> = file
        .tensors
        .iter()
        .map(|(name, tensor)| TensorFacts {
            name: printable(name),
            kind: tensor.ggml_type.name(),
            dims: tensor.dims().to_vec(),
            bytes: tensor.bytes,
            part: tensor.part,
            at: tensor.at,
        })
        .collect();
    tensors.sort_by_key(|tensor| (tensor.part, tensor.at));
    tensors
}

fn metadata(file: &GgufFile) -> BTreeMap<String, String> {
    file.metadata.iter().map(|(key, value)| (printable(key), shown(value))).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Array(array) => format!("{} x {:?}", array.count, array.element),
        Value::Bool(flag) => flag.to_string(),
        other => match (other.as_u64(), other.as_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => format!("{}", number as f32),
            // Negative whole numbers.
            (None, None) => format!("{other:?}"),
        },
    }
}

/// A stranger's text on one line, without control characters, and cut.
fn printable(text: &str) -> String {
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS).collect();
    if text.chars().nth(TEXT_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

impl ModelFacts {
    fn of(model: &Model) -> Self {
        let layers = model.layer_count();
        let bytes: u64 = model.layers.iter().map(planner::model::Layer::weight_bytes).sum();
        let windows = model.layers.iter().filter_map(|layer| match layer.attention {
            Attention::Sliding { window } => Some(window),
            _ => None,
        });
        let sliding: Vec<u32> = windows.collect();
        Self {
            architecture: model.architecture.clone(),
            quantisation: model.quant.clone(),
            parameters: model.params(),
            layers,
            hidden: model.hidden,
            heads: model.heads,
            kv_heads: model.kv_heads,
            vocabulary: model.vocab,
            context: model.context_max,
            layer_bytes: bytes.checked_div(layers.into()).unwrap_or(0),
            embedding_bytes: model.embedding_bytes,
            head_bytes: model.head_bytes,
            tied: model.tied,
            active_bytes: model.active_bytes() as u64,
            kv_bytes_per_token: model.layers.iter().map(|layer| layer.kv_bytes_per_token).sum(),
            experts: model.layers.iter().find_map(|layer| layer.experts).map(|e| [e.count, e.used]),
            sliding: sliding.first().map(|window| [sliding.len() as u32, *window]),
        }
    }
}

impl TokenizerFacts {
    fn of(tokenizer: &Tokenizer) -> Self {
        let text = |token: Token| tokenizer.piece(token).map(printable).unwrap_or_default();
        Self {
            kind: tokenizer.name().to_owned(),
            tokens: tokenizer.len(),
            bos: tokenizer.bos().map(text),
            eos: tokenizer.eos().map(text),
            adds_bos: tokenizer.adds_bos(),
            ends: tokenizer.ends().iter().map(|token| text(*token)).collect(),
        }
    }
}

impl TemplateFacts {
    fn of(file: &GgufFile, template: &ChatTemplate) -> Self {
        let source = file.metadata.get("tokenizer.chat_template").and_then(Value::as_str);
        let origin = match template.origin() {
            Origin::File => "file".into(),
            Origin::Fallback(name) => format!("none in the file; {name} by its vocabulary"),
        };
        Self { origin, bytes: source.map_or(0, str::len) }
    }
}
