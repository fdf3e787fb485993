//! The metadata keys of a tokeniser, each read under a bound.

use std::path::Path;

use indexmap::IndexSet;
use planner::model::gguf::{Array, GgufFile, Value, ValueType};

use super::error::TextError;
use crate::ids::Token;

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
pub(super) const KINDS: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(super) const EOT: &str = "tokenizer.ggml.eot_token_id";
pub(super) const EOM: &str = "tokenizer.ggml.eom_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub(super) const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
pub(super) const TEMPLATE: &str = "tokenizer.chat_template";

/// The most tokens of a vocabulary, and the most merges. The largest in use has 262,144 and 580,604.
const ENTRIES_MAX: u64 = 1 << 20;

/// The longest token, bytes. Runs of spaces are the longest in use, under 1 KiB.
const TOKEN_BYTES_MAX: usize = 1 << 12;

/// What converters write for a special token that a model does not have.
const NO_TOKEN: u64 = u32::MAX as u64;

/// The tokeniser's metadata in a file.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a> {
    file: &'a GgufFile,
}

impl<'a> Metadata<'a> {
    pub(super) fn of(file: &'a GgufFile) -> Self {
        Self { file }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.first_part()
    }

    pub(super) fn corrupt(&self, key: &'static str, problem: impl Into<String>) -> TextError {
        TextError::corrupt(self.path(), key, problem)
    }

    pub(super) fn missing(&self, key: &'static str) -> TextError {
        TextError::Missing { file: self.path().into(), key }
    }

    /// Text, if the key is there.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, TextError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.corrupt(key, "is no text"));
        self.file.metadata.get(key).map(text).transpose()
    }

    /// A truth value, if the key is there.
    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, TextError> {
        let flag =
            |value: &Value| value.as_bool().ok_or_else(|| self.corrupt(key, "is neither true nor false"));
        self.file.metadata.get(key).map(flag).transpose()
    }

    /// A token of a vocabulary of `count`, if the key is there and names one.
    pub(super) fn token(&self, key: &'static str, count: usize) -> Result<Option<Token>, TextError> {
        let Some(value) = self.file.metadata.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(NO_TOKEN) => Ok(None),
            Some(id) if id < count as u64 => Ok(Some(Token(id as u32))),
            Some(id) => Err(self.corrupt(key, format!("is {id}, outside the vocabulary of {count}"))),
            None if is_negative(value) => Ok(None),
            None => Err(self.corrupt(key, "is no token's number")),
        }
    }

    /// Different, non-empty texts, in order.
    pub(super) fn tokens(&self, key: &'static str) -> Result<IndexSet<String>, TextError> {
        let array = self.array(key, &[ValueType::String])?.ok_or_else(|| self.missing(key))?;
        let mut tokens = IndexSet::with_capacity(array.count as usize);
        for (id, value) in self.elements(key)?.enumerate() {
            let text = self.token_text(key, id, value?)?;
            let (first, new) = tokens.insert_full(text);
            if !new {
                return Err(self.corrupt(key, format!("has the same text for tokens {first} and {id}")));
            }
        }
        Ok(tokens)
    }

    /// Pairs of texts, each written with a space between.
    pub(super) fn pairs(&self, key: &'static str) -> Result<Option<Vec<(String, String)>>, TextError> {
        let Some(array) = self.array(key, &[ValueType::String])? else { return Ok(None) };
        let mut pairs = Vec::with_capacity(array.count as usize);
        for (rank, value) in self.elements(key)?.enumerate() {
            let text = self.token_text(key, rank, value?)?;
            let pair =
                split_pair(&text).ok_or_else(|| self.corrupt(key, format!("has no pair at {rank}")))?;
            pairs.push(pair);
        }
        Ok(Some(pairs))
    }

    /// Finite numbers, one for each of `count` tokens.
    pub(super) fn scores(&self, key: &'static str, count: usize) -> Result<Option<Vec<f32>>, TextError> {
        let kinds = [ValueType::F32, ValueType::F64, ValueType::I32];
        let number = |value: &Value| value.as_f64().or_else(|| as_i64(value).map(|n| n as f64));
        // Adding zero makes of -0.0 the 0.0 that it equals.
        self.numbers(key, count, &kinds, |v| number(v).map(|n| n as f32 + 0.0).filter(|n| n.is_finite()))
    }

    /// Small whole numbers, one for each of `count` tokens.
    pub(super) fn kinds(&self, key: &'static str, count: usize) -> Result<Option<Vec<i64>>, TextError> {
        self.numbers(key, count, &[ValueType::I32, ValueType::U32], as_i64)
    }

    fn numbers<T>(
        &self,
        key: &'static str,
        count: usize,
        kinds: &[ValueType],
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, TextError> {
        let Some(array) = self.array(key, kinds)? else { return Ok(None) };
        if array.count != count as u64 {
            return Err(self.corrupt(key, format!("has {} values for {count} tokens", array.count)));
        }
        let mut numbers = Vec::with_capacity(count);
        for (id, value) in self.elements(key)?.enumerate() {
            let number =
                read(&value?).ok_or_else(|| self.corrupt(key, format!("has no number for token {id}")))?;
            numbers.push(number);
        }
        Ok(Some(numbers))
    }

    /// The array under `key`, of one of these types and within bounds; `None` where there is no such key.
    fn array(&self, key: &'static str, kinds: &[ValueType]) -> Result<Option<Array>, TextError> {
        let Some(value) = self.file.metadata.get(key) else { return Ok(None) };
        let array = value.as_array().ok_or_else(|| self.corrupt(key, "is no array"))?;
        if array.count > 0 && !kinds.contains(&array.element) {
            return Err(self.corrupt(key, format!("is an array of {:?}", array.element)));
        }
        if array.count > ENTRIES_MAX {
            return Err(
                self.corrupt(key, format!("has {} entries, above the limit of {ENTRIES_MAX}", array.count))
            );
        }
        Ok(Some(*array))
    }

    fn elements(&self, key: &'static str) -> Result<planner::model::gguf::ArrayReader, TextError> {
        self.file.array(key)?.ok_or_else(|| self.missing(key))
    }

    fn token_text(&self, key: &'static str, at: usize, value: Value) -> Result<String, TextError> {
        let Value::String(text) = value else { return Err(self.corrupt(key, "is no array of texts")) };
        match text.len() {
            // As llama.cpp does: a text that nobody types stands for one that is missing.
            0 => Ok(format!("[EMPTY_{at}]")),
            bytes if bytes > TOKEN_BYTES_MAX => {
                Err(self
                    .corrupt(key, format!("has {bytes} bytes at {at}, above the limit of {TOKEN_BYTES_MAX}")))
            }
            _ => Ok(text),
        }
    }
}

/// At the first space that is not its first character, as llama.cpp splits.
fn split_pair(text: &str) -> Option<(String, String)> {
    let first = text.chars().next()?.len_utf8();
    let at = first + text[first..].find(' ')?;
    let (left, right) = (&text[..at], &text[at + 1..]);
    (!right.is_empty()).then(|| (left.into(), right.into()))
}

fn as_i64(value: &Value) -> Option<i64> {
    match *value {
        Value::I8(v) => Some(v.into()),
        Value::I16(v) => Some(v.into()),
        Value::I32(v) => Some(v.into()),
        Value::I64(v) => Some(v),
        _ => value.as_u64().and_then(|v| v.try_into().ok()),
    }
}

fn is_negative(value: &Value) -> bool {
    as_i64(value).is_some_and(|number| number < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split_at_the_first_inner_space() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(split_pair("Ġ t"), pair("Ġ", "t"));
        assert_eq!(split_pair("  a"), pair(" ", "a"));
        assert_eq!(split_pair("a  b"), pair("a", " b"));
        assert_eq!(split_pair("ab"), None);
        assert_eq!(split_pair("a "), None);
        assert_eq!(split_pair(""), None);
    }
}
