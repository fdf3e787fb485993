//! A model's metadata under its architecture's name, each value with its bounds.

use planner::model::gguf::{GgufFile, Value};

use super::super::weights::LoadError;
use super::{Attention, Shape};

/// No width, head count or layer count of a model is above this.
const DIMENSION_MAX: u64 = 1 << 20;

/// The keys of a file's architecture.
pub(super) struct Keys<'a> {
    file: &'a GgufFile,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(file: &'a GgufFile) -> Result<Self, LoadError> {
        let key = "general.architecture";
        let architecture = match file.metadata.get(key) {
            None => return Err(LoadError::MissingKey { key: key.into() }),
            Some(value) => value.as_str().ok_or_else(|| wrong(key.into(), value, "text"))?,
        };
        Ok(Self { file, architecture })
    }

    pub(super) fn architecture(&self) -> &'a str {
        self.architecture
    }

    fn get(&self, key: &str) -> Option<(String, &'a Value)> {
        let name = format!("{}.{key}", self.architecture);
        self.file.metadata.get(&name).map(|value| (name, value))
    }

    fn missing(&self, key: &str) -> LoadError {
        LoadError::MissingKey { key: format!("{}.{key}", self.architecture) }
    }

    pub(super) fn optional(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let Some((name, value)) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().filter(|number| *number <= DIMENSION_MAX);
        number.map(|number| Some(number as usize)).ok_or_else(|| wrong(name, value, "one number up to 2^20"))
    }

    /// A number of one or more.
    pub(super) fn count(&self, key: &str) -> Result<usize, LoadError> {
        let count = self.optional(key)?.ok_or_else(|| self.missing(key))?;
        if count == 0 {
            return Err(self.refused(key, "0", "at least 1"));
        }
        Ok(count)
    }

    /// A finite number.
    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, LoadError> {
        let Some((name, value)) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| wrong(name, value, "a finite number"))
    }

    /// A number above zero.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>, LoadError> {
        match self.float(key)? {
            Some(number) if number <= 0.0 => Err(self.refused(key, &number.to_string(), "above 0")),
            number => Ok(number),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        let Some((name, value)) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(name, value, "text"))
    }

    /// The value of `key` cannot be computed with.
    pub(super) fn refused(&self, key: &str, found: &str, expected: &'static str) -> LoadError {
        let found = found.chars().take(64).collect();
        LoadError::Key { key: format!("{}.{key}", self.architecture), found, expected }
    }

    /// What every architecture says in the same words.
    pub(super) fn shape(&self) -> Result<Shape, LoadError> {
        if self.optional("expert_count")?.unwrap_or(0) > 0 {
            return Err(self.refused(
                "expert_count",
                "above 0",
                "a dense model: experts are not computed yet",
            ));
        }
        let hidden = self.count("embedding_length")?;
        let heads = self.count("attention.head_count")?;
        let kv_heads = self.optional("attention.head_count_kv")?.unwrap_or(heads);
        if kv_heads == 0 || heads % kv_heads != 0 {
            let found = format!("{kv_heads} for {heads} heads");
            return Err(self.refused("attention.head_count_kv", &found, "a divisor of the head count"));
        }
        let head_dim = self.optional("attention.key_length")?.unwrap_or(hidden / heads);
        let value_dim = self.optional("attention.value_length")?.unwrap_or(head_dim);
        if head_dim == 0 || head_dim % 2 != 0 || head_dim != value_dim {
            let found = format!("{head_dim} with values of {value_dim}");
            return Err(self.refused(
                "attention.key_length",
                &found,
                "an even number, equal for keys and values",
            ));
        }
        let eps = self.positive("attention.layer_norm_rms_epsilon")?;
        Ok(Shape {
            hidden,
            layers: self.count("block_count")? as u32,
            kv_heads,
            head_dim,
            context: self.context()?,
            eps: eps.ok_or_else(|| self.missing("attention.layer_norm_rms_epsilon"))? as f32,
            embedding_scale: 1.0,
            logit_cap: None,
        })
    }

    /// Trained context, which may be above any bound that widths have.
    fn context(&self) -> Result<u32, LoadError> {
        let Some((name, value)) = self.get("context_length") else { return Ok(0) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| wrong(name, value, "a number below 2^32"))
    }

    /// Attention over the whole context with scores over the square root of a head's elements.
    pub(super) fn attention(&self, shape: &Shape) -> Result<Attention, LoadError> {
        Ok(Attention {
            layer: 0,
            heads: self.count("attention.head_count")?,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            window: None,
            soft_cap: None,
        })
    }
}

fn wrong(key: String, value: &Value, expected: &'static str) -> LoadError {
    let found = match value {
        Value::String(text) => {
            format!("`{}`", text.chars().take(64).flat_map(char::escape_debug).collect::<String>())
        }
        Value::Array(array) => format!("an array of {} values", array.count),
        other => format!("{other:?}"),
    };
    LoadError::Key { key, found, expected }
}
