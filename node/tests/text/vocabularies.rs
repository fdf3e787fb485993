//! The small vocabularies of `tests/golden/tokens`, as GGUF files.

use std::path::{Path, PathBuf};

use node::ids::Token;
use node::real::text::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::writer::Writer;

/// What a file's `tokenizer.ggml.*` keys hold.
#[derive(Debug, Deserialize)]
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: Vec<i32>,
    #[serde(default)]
    pub(crate) merges: Vec<String>,
    #[serde(default)]
    pub(crate) scores: Vec<f32>,
}

/// The tokens of each text of the corpus: special tokens as text, and special tokens parsed and added.
#[derive(Debug, Deserialize)]
pub(crate) struct Ids {
    pub(crate) text: Vec<Vec<u32>>,
    pub(crate) special: Vec<Vec<u32>>,
}

pub(crate) fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokens")
}

pub(crate) fn corpus() -> Vec<String> {
    golden("corpus.json")
}

/// The byte-level vocabulary, cut in the way that `pre` names.
pub(crate) fn bpe(pre: &str) -> Writer {
    let vocabulary: Vocabulary = golden("bpe.json");
    Writer::new()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .texts("tokenizer.ggml.tokens", &vocabulary.tokens)
        .integers("tokenizer.ggml.token_type", &vocabulary.kinds)
        .texts("tokenizer.ggml.merges", &vocabulary.merges)
        .number("tokenizer.ggml.bos_token_id", 0)
        .number("tokenizer.ggml.eos_token_id", 2)
}

/// The SentencePiece vocabulary.
pub(crate) fn spm(space_prefix: bool) -> Writer {
    let vocabulary: Vocabulary = golden("spm.json");
    Writer::new()
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &vocabulary.tokens)
        .integers("tokenizer.ggml.token_type", &vocabulary.kinds)
        .floats("tokenizer.ggml.scores", &vocabulary.scores)
        .number("tokenizer.ggml.unknown_token_id", 0)
        .number("tokenizer.ggml.bos_token_id", 1)
        .number("tokenizer.ggml.eos_token_id", 2)
        .flag("tokenizer.ggml.add_space_prefix", space_prefix)
}

pub(crate) fn tokenizer(writer: &Writer) -> Tokenizer {
    Tokenizer::from_gguf(&writer.write().open()).unwrap()
}

pub(crate) fn numbers(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}
