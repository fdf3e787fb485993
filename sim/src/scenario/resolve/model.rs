//! The model: from the catalog, from a GGUF file, or from a shape written into the scenario.

use planner::model::{Attention, Experts, Layer, Model, catalog, gguf};

use crate::scenario::kind::{NameOr, Text};
use crate::scenario::leaf::Leaf;
use crate::scenario::raw::{RawExperts, RawModel, RawScenario};
use crate::scenario::reading::{Reading, above_zero, count_within, within};
use crate::scenario::tree::Value;

/// What Q4_K_M comes to over usual shapes, bits per weight (llama.cpp, `quantize --help`: 4.83 to 4.89).
const BITS_DEFAULT: f64 = 4.85;
/// Width of a head where the shape does not say; that of Llama, Qwen and Mistral.
const HEAD_WIDTH: u32 = 128;
/// More layers than any model has.
const LAYERS_MOST: u32 = 10_000;
/// More of anything else in a shape than any model has.
const WIDTH_MOST: u32 = 10_000_000;

/// The model of the scenario; what is wrong is noted.
pub(super) fn model(reading: &Reading, raw: &RawScenario) -> Option<Model> {
    let Some(leaf) = raw.model else {
        let cure = "write model = \"GLM-4.7-Flash Q4_K_M\" above the first table";
        reading.fault_here(raw.here, "the scenario has no model", cure);
        return None;
    };
    let slot = reading.at(leaf);
    if let Value::Text(name) = &slot.node.value {
        return from_catalog(reading, leaf, name);
    }
    let table: RawModel = reading.table(&slot.node, &slot.key);
    match (table.gguf, table.layers, table.name) {
        (Some(path), ..) => from_file(reading, path),
        (None, Some(_), _) => Shape::read(reading, &table).map(|shape| shape.model()),
        (None, None, Some(name)) => {
            let mut full = reading.get(Some(name))?;
            if let Some(quant) = reading.get(table.quant) {
                full = format!("{full} {quant}");
            }
            from_catalog(reading, leaf, &full)
        }
        (None, None, None) => {
            let cure = "give it `name` (catalog), `gguf` (a file), or `layers` and `hidden` (a shape)";
            reading.fault_in(leaf, "the model is not said", cure);
            None
        }
    }
}

fn from_catalog(reading: &Reading, leaf: Leaf<NameOr<RawModel>>, name: &str) -> Option<Model> {
    let told = |error: catalog::CatalogError| {
        let text = error.to_string();
        let (message, cure) = text.split_once("; ").unwrap_or((&text, "or describe it by a table [model]"));
        reading.fault_in(leaf, message, cure);
    };
    catalog::find(name).map_err(told).ok()
}

fn from_file(reading: &Reading, leaf: Leaf<Text>) -> Option<Model> {
    let written = reading.get(Some(leaf))?;
    let path = reading.sources.folder(&reading.at(leaf).node.span).join(written);
    let cure = "the path is relative to the scenario's file; only the header is read";
    gguf::read(&path).map_err(|error| reading.fault_in(leaf, error.to_string(), cure)).ok()
}

/// A transformer by its widths, as a model card has them.
struct Shape {
    name: String,
    quant: String,
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    ffn: u32,
    vocab: u32,
    tied: bool,
    experts: Option<ExpertShape>,
    bits: f64,
    size: Option<u64>,
    kv_per_token: Option<u64>,
    context_max: u32,
}

struct ExpertShape {
    count: u32,
    used: u32,
    ffn: u32,
    shared_ffn: u32,
    dense_layers: u32,
}

impl Shape {
    fn read(reading: &Reading, raw: &RawModel) -> Option<Self> {
        let count = |leaf| reading.checked(leaf, count_within(1, WIDTH_MOST));
        Self::check_keys(reading, raw);
        let layers = reading.checked(raw.layers, count_within(1, LAYERS_MOST));
        let hidden = count(raw.hidden);
        let experts = raw.experts.as_ref().and_then(|raw| ExpertShape::read(reading, raw));
        let (layers, hidden) = (layers?, hidden?);
        let heads = count(raw.heads).unwrap_or((hidden / HEAD_WIDTH).max(1));
        let not_empty = |bytes: &u64| above_zero("the size", "\"17 GB\"")(&(*bytes as f64));
        Some(Self {
            name: reading.get(raw.name).unwrap_or_else(|| "model".into()),
            quant: reading.get(raw.quant).unwrap_or_default(),
            layers,
            hidden,
            heads,
            kv_heads: count(raw.kv_heads).unwrap_or(heads),
            head_dim: count(raw.head_dim).unwrap_or((hidden / heads).max(1)),
            ffn: count(raw.ffn).unwrap_or(0),
            vocab: count(raw.vocab).unwrap_or(32_000),
            tied: reading.get(raw.tied).unwrap_or(false),
            experts,
            bits: reading.checked(raw.bits, within(0.5, 32.0)).unwrap_or(BITS_DEFAULT),
            size: reading.checked(raw.size, not_empty),
            kv_per_token: reading.get(raw.kv_per_token),
            context_max: count(raw.context_max).unwrap_or(8192),
        })
    }

    fn check_keys(reading: &Reading, raw: &RawModel) {
        if raw.hidden.is_none() {
            let message = "a model given by its shape needs `hidden`";
            reading.fault_here(
                raw.here,
                message,
                "write the width of its residual stream, such as hidden = 4096",
            );
        }
        if raw.bits.is_some() && raw.size.is_some() {
            reading.fault_here(raw.here, "`bits` and `size` both say how large it is", "keep one of them");
        }
        let dense = raw.experts.as_ref().is_none_or(|experts| experts.dense_layers.is_some());
        if raw.ffn.is_none() && dense {
            let message = "a model with dense layers needs `ffn`";
            let cure = "write the inner width of its feed-forward layers, such as ffn = 11008";
            reading.fault_here(raw.here, message, cure);
        }
    }

    /// Parameters of attention and norms of one layer: queries and output, keys and values.
    fn attention_params(&self) -> u64 {
        let width = u64::from(self.head_dim) * u64::from(self.hidden);
        2 * width * u64::from(self.heads) + 2 * width * u64::from(self.kv_heads)
    }

    /// Parameters of a gated feed-forward layer: gate, up, down.
    fn gated(&self, inner: u32) -> u64 {
        3 * u64::from(self.hidden) * u64::from(inner)
    }

    fn all_params(&self) -> u64 {
        let layers: u64 = (0..self.layers).map(|i| self.trunk_params(i) + self.expert_params(i)).sum();
        let table = u64::from(self.vocab) * u64::from(self.hidden);
        layers + table * if self.tied { 1 } else { 2 }
    }

    fn experts_of(&self, layer: u32) -> Option<&ExpertShape> {
        self.experts.as_ref().filter(|e| layer >= e.dense_layers)
    }

    fn trunk_params(&self, layer: u32) -> u64 {
        self.attention_params()
            + match self.experts_of(layer) {
                Some(e) => self.gated(e.shared_ffn) + u64::from(e.count) * u64::from(self.hidden),
                None => self.gated(self.ffn),
            }
    }

    fn expert_params(&self, layer: u32) -> u64 {
        self.experts_of(layer).map_or(0, |e| u64::from(e.count) * self.gated(e.ffn))
    }

    fn model(&self) -> Model {
        let bits = self.size.map_or(self.bits, |size| size as f64 * 8.0 / self.all_params() as f64);
        let bytes = |params: u64| (params as f64 * bits / 8.0).round() as u64;
        let kv = 2 * 2 * u64::from(self.kv_heads) * u64::from(self.head_dim);
        let layer = |i: u32| Layer {
            trunk_bytes: bytes(self.trunk_params(i)),
            trunk_params: self.trunk_params(i),
            experts: self.experts_of(i).map(|e| Experts {
                count: e.count,
                used: e.used,
                bytes_each: bytes(self.gated(e.ffn)),
                params_each: self.gated(e.ffn),
            }),
            attention: if self.kv_per_token.is_some() { Attention::Latent } else { Attention::Full },
            kv_bytes_per_token: self.kv_per_token.unwrap_or(kv),
            // Scores and values: a multiplication and an addition each, per head and width.
            attention_flops_per_context: 4.0 * f64::from(self.heads) * f64::from(self.head_dim),
        };
        let table = u64::from(self.vocab) * u64::from(self.hidden);
        Model {
            name: if self.quant.is_empty() {
                self.name.clone()
            } else {
                format!("{} {}", self.name, self.quant)
            },
            architecture: "described".into(),
            quant: self.quant.clone(),
            hidden: self.hidden,
            heads: self.heads,
            kv_heads: self.kv_heads,
            vocab: self.vocab,
            context_max: self.context_max,
            embedding_bytes: bytes(table),
            head_bytes: bytes(table),
            head_params: table,
            tied: self.tied,
            layers: (0..self.layers).map(layer).collect(),
            source: "the scenario's [model] table".into(),
        }
    }
}

impl ExpertShape {
    fn read(reading: &Reading, raw: &RawExperts) -> Option<Self> {
        for (key, missing) in
            [("count", raw.count.is_none()), ("used", raw.used.is_none()), ("ffn", raw.ffn.is_none())]
        {
            if missing {
                let cure = "write experts = { count = 64, used = 4, ffn = 1536 }";
                reading.fault_here(raw.here, format!("experts need `{key}`"), cure);
            }
        }
        let count = reading.checked(raw.count, count_within(1, LAYERS_MOST))?;
        Some(Self {
            count,
            used: reading.checked(raw.used, count_within(1, count))?,
            ffn: reading.checked(raw.ffn, count_within(1, WIDTH_MOST))?,
            shared_ffn: reading.checked(raw.shared_ffn, count_within(0, WIDTH_MOST)).unwrap_or(0),
            dense_layers: reading.checked(raw.dense_layers, count_within(0, LAYERS_MOST)).unwrap_or(0),
        })
    }
}
