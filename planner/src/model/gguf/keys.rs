//! From metadata to the planner's [`Model`].

use std::collections::BTreeMap;

use super::error::shown;
use super::{ArrayReader, GgufError, GgufFile, Value, split};
use crate::model::Model;
use crate::model::ggml::GgmlType;
use crate::model::shape::{
    Hyperparameters, LAYERS_MAX, RecurrentShape, SlidingLayers, SlidingShape, Weight, assemble,
};

/// The longest name that is taken over from a file, characters.
const NAME_CHARS_MAX: usize = 128;

/// llama.cpp's file types, by `general.file_type`.
const FILE_TYPES: [(u64, &str); 32] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (38, "MXFP4"),
];

/// Architectures whose sliding layers llama.cpp knows without a key: all but each so-many-th slide.
/// Source: `set_swa_pattern` in `src/llama-model.cpp`. In other architectures a window is only believed with its pattern:
/// counting too much KV is safe, too little is not.
const SLIDING_PERIODS: [(&str, u32); 7] = [
    ("gemma2", 2),
    ("gemma3", 6),
    ("gemma3n", 5),
    ("gpt-oss", 2),
    ("cohere2", 4),
    ("exaone4", 4),
    ("olmo2", 4),
];

impl GgufFile {
    /// The shape of the model, exact to the byte. Blocks that only predict further tokens (`nextn`) are left out.
    ///
    /// # Errors
    /// [`GgufError`] where a key is missing or of another kind, or tensors and metadata contradict each other.
    pub fn model(&self) -> Result<Model, GgufError> {
        let hyper = self.hyperparameters()?;
        let weights = self.tensors.iter().map(|(name, tensor)| Weight {
            name,
            dims: tensor.dims(),
            bytes: tensor.bytes,
        });
        assemble(&hyper, weights).map_err(|cause| GgufError::Shape { file: self.first_part().into(), cause })
    }

    fn hyperparameters(&self) -> Result<Hyperparameters, GgufError> {
        let architecture = self.text("general.architecture")?;
        let keys = Keys { file: self, architecture };
        let blocks = keys.required("block_count")?;
        let extra_blocks = keys.or("nextn_predict_layers", 0)?;
        let hidden = keys.required("embedding_length")?;
        let heads = keys.of_layers("attention.head_count")?.unwrap_or_else(|| vec![0]);
        let kv_heads = keys.of_layers("attention.head_count_kv")?.unwrap_or_else(|| heads.clone());
        let head = hidden / heads.iter().copied().max().unwrap_or(0).max(1);
        let quant = self.quant();
        Ok(Hyperparameters {
            name: format!("{} {quant}", self.name()),
            architecture: printable(architecture),
            quant,
            source: format!("GGUF header of {}", self.first_part().display()),
            layers: blocks.saturating_sub(extra_blocks),
            extra_blocks,
            hidden,
            heads,
            kv_heads,
            key_length: keys.or("attention.key_length", head)?,
            value_length: keys.or("attention.value_length", head)?,
            sliding: keys.sliding()?,
            recurrent: keys.recurrent()?,
            experts: keys.or("expert_count", 0)?,
            experts_used: keys.or("expert_used_count", 0)?,
            vocab: self.vocab(&keys)?,
            context_max: keys.or("context_length", 0)?,
        })
    }

    /// Text that must be there.
    fn text(&self, key: &str) -> Result<&str, GgufError> {
        let value = self
            .metadata
            .get(key)
            .ok_or_else(|| GgufError::MissingKey { file: self.first_part().into(), key: key.into() })?;
        value.as_str().ok_or_else(|| self.wrong(key, value, "text"))
    }

    fn wrong(&self, key: &str, value: &Value, expected: &'static str) -> GgufError {
        let (file, key) = (self.first_part().into(), shown(key));
        GgufError::KeyValue { file, key, found: value.shown(), expected }
    }

    /// `general.name`, or the file's.
    fn name(&self) -> String {
        let path = self.first_part();
        let of_file = match split::PartName::parse(path) {
            Some(part) => part.stem,
            None => path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        };
        let said = self.metadata.get("general.name").and_then(Value::as_str).map(printable);
        said.filter(|name| !name.is_empty()).unwrap_or_else(|| printable(&of_file))
    }

    /// The file type, or the element type that most bytes have.
    fn quant(&self) -> String {
        let file_type = self.metadata.get("general.file_type").and_then(Value::as_u64);
        if let Some((_, name)) = FILE_TYPES.iter().find(|(id, _)| Some(*id) == file_type) {
            return (*name).into();
        }
        let mut bytes: BTreeMap<GgmlType, u64> = BTreeMap::new();
        for tensor in self.tensors.values() {
            let sum = bytes.entry(tensor.ggml_type).or_default();
            *sum = sum.saturating_add(tensor.bytes);
        }
        let most = bytes.into_iter().max_by_key(|(_, sum)| *sum);
        most.map_or_else(|| "unknown".into(), |(ggml_type, _)| ggml_type.name().into())
    }

    /// Rows of the embedding, else what the metadata say.
    fn vocab(&self, keys: &Keys<'_>) -> Result<u32, GgufError> {
        let rows = self.tensors.get("token_embd.weight").and_then(|tensor| tensor.dims().get(1).copied());
        let tokens = self.metadata.get("tokenizer.ggml.tokens").and_then(Value::as_array).map(|a| a.count);
        match rows.or(tokens) {
            Some(count) => u32::try_from(count)
                .map_err(|_| self.wrong("vocabulary", &Value::U64(count), "less than 2^32 tokens")),
            None => keys.or("vocab_size", 0),
        }
    }
}

/// A stranger's text without control characters, and cut.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

/// The keys of an architecture.
struct Keys<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn number(&self, key: &str, value: &Value) -> Result<u32, GgufError> {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.file.wrong(key, value, "a whole number below 2^32"))
    }

    fn optional(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let key = self.name(key);
        self.file.metadata.get(&key).map(|value| self.number(&key, value)).transpose()
    }

    fn or(&self, key: &str, default: u32) -> Result<u32, GgufError> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    fn required(&self, key: &str) -> Result<u32, GgufError> {
        let missing =
            || GgufError::MissingKey { file: self.file.first_part().into(), key: shown(&self.name(key)) };
        self.optional(key)?.ok_or_else(missing)
    }

    /// The elements of an array with one for each layer; `None` for a key that is absent or holds a single value.
    fn listed(&self, key: &str) -> Result<Option<ArrayReader>, GgufError> {
        let Some(value) = self.file.metadata.get(key) else { return Ok(None) };
        let Some(array) = value.as_array() else { return Ok(None) };
        if array.count > u64::from(LAYERS_MAX) {
            return Err(self.file.wrong(key, value, "at most one value a layer"));
        }
        self.file.array(key)
    }

    /// One number for all layers, or one for each.
    fn of_layers(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        let name = self.name(key);
        match self.listed(&name)? {
            Some(values) => {
                values.map(|value| self.number(&name, &value?)).collect::<Result<_, _>>().map(Some)
            }
            None => Ok(self.optional(key)?.map(|number| vec![number])),
        }
    }

    /// Whether a layer slides, by a truth value or a number.
    fn flag(&self, key: &str, value: &Value) -> Result<bool, GgufError> {
        let flag = value.as_bool().or_else(|| value.as_u64().map(|number| number != 0));
        flag.ok_or_else(|| self.file.wrong(key, value, "true or false for each layer"))
    }

    fn sliding(&self) -> Result<Option<SlidingShape>, GgufError> {
        let Some(window) = self.optional("attention.sliding_window")?.filter(|window| *window > 0) else {
            return Ok(None);
        };
        let key = self.name("attention.sliding_window_pattern");
        let layers = match self.listed(&key)? {
            Some(values) => {
                SlidingLayers::Listed(values.map(|value| self.flag(&key, &value?)).collect::<Result<_, _>>()?)
            }
            None => {
                let known = SLIDING_PERIODS.iter().find(|(name, _)| *name == self.architecture);
                let period =
                    self.or("attention.sliding_window_pattern", known.map_or(1, |(_, period)| *period))?;
                SlidingLayers::AllButEach { period }
            }
        };
        Ok(Some(SlidingShape { window, layers }))
    }

    /// State of a Mamba layer or a gated delta net, as llama.cpp keeps it: inner width by state width, and the convolution's
    /// last tokens.
    fn recurrent(&self) -> Result<Option<RecurrentShape>, GgufError> {
        let Some(inner) = self.optional("ssm.inner_size")? else { return Ok(None) };
        let (inner, state) = (u128::from(inner), u128::from(self.or("ssm.state_size", 0)?));
        let groups = u128::from(self.or("ssm.group_count", 0)?);
        let window = u128::from(self.or("ssm.conv_kernel", 1)?.saturating_sub(1));
        let elements = inner * state + window.saturating_mul(inner + 2 * groups * state);
        Ok(Some(RecurrentShape { state_elements: u64::try_from(elements).unwrap_or(u64::MAX) }))
    }
}
