//! Each architecture on tiny random weights against Hugging Face transformers, in f32: `tests/scripts/golden-logits.py`.

use std::fs;
use std::path::Path;

use node::ids::Token;
use node::real::cpu::EngineOptions;
use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::Precision;

use crate::pipeline::Pipeline;

/// How far a logit may be off. Both sides round to f32 in orders of their own, which here leaves a few millionths.
const MOST: f32 = 1e-4;

#[test]
fn llama_computes_what_transformers_does() {
    check("llama", RandomModel::tiny(Architecture::Llama));
}

#[test]
fn llama_with_a_table_of_rotary_frequencies_computes_what_transformers_does() {
    check("llama3", RandomModel { rope_table: true, ..RandomModel::tiny(Architecture::Llama) });
}

#[test]
fn qwen2_computes_what_transformers_does() {
    check("qwen2", RandomModel::tiny(Architecture::Qwen2));
}

#[test]
fn qwen3_computes_what_transformers_does() {
    check("qwen3", RandomModel::tiny(Architecture::Qwen3));
}

#[test]
fn gemma3_computes_what_transformers_does() {
    check("gemma3", RandomModel::tiny(Architecture::Gemma3));
}

fn check(name: &str, model: RandomModel) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    model.write(&path).expect("it can be written");
    let (tokens, positions) = prompt();
    let options = EngineOptions { threads: 1, precision: Precision::F32, ..EngineOptions::default() };
    let logits = Pipeline::solo(&path, &options).all_logits(&tokens);
    let expected = expected(name);
    let vocabulary = model.vocabulary as usize;
    assert_eq!(expected.len(), positions.len() * vocabulary);
    for (position, expected) in positions.into_iter().zip(expected.chunks(vocabulary)) {
        let ours = &logits[position * vocabulary..][..vocabulary];
        let worst = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= MOST, "{name}, position {position}: a logit is {worst} off");
    }
}

fn prompt() -> (Vec<Token>, Vec<usize>) {
    let json: serde_json::Value = serde_json::from_str(include_str!("../../data/logits/prompt.json")).expect("JSON");
    let numbers = |key: &str| -> Vec<u64> {
        json[key].as_array().expect("a list").iter().map(|n| n.as_u64().expect("a number")).collect()
    };
    let tokens = numbers("tokens").into_iter().map(|id| Token(id as u32)).collect();
    (tokens, numbers("positions").into_iter().map(|at| at as usize).collect())
}

fn expected(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/logits/{name}.f32"));
    let bytes = fs::read(path).expect("golden logits");
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
