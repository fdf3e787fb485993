//! Perplexity of a fixed text against llama.cpp's: `tests/scripts/golden-perplexity.py`.

use std::path::Path;

use node::ids::Token;
use node::real::cpu::EngineOptions;
use node::real::text::Tokenizer;
use planner::model::gguf::GgufFile;
use serde_json::Value;
use tests::models;

use crate::pipeline::{Pipeline, log_probabilities};

const TEXT: &str = include_str!("../../data/text/gpl-2.txt");

/// Share by which ours may differ.
const MOST: f64 = 0.005;

#[test]
fn smollm2_is_as_surprised_as_under_llama_cpp() {
    let Some(path) = models::smollm2() else { return };
    check(&path);
}

#[test]
fn gemma3_is_as_surprised_as_under_llama_cpp() {
    let Some(path) = models::gemma3() else { return };
    check(&path);
}

fn check(path: &Path) {
    let theirs: Value = serde_json::from_str(include_str!("../../data/reference/perplexity.json")).expect("JSON");
    let name = path.file_stem().expect("a name").to_str().expect("plain");
    let model = &theirs["models"][name];
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    let (context, chunks) = (number(&theirs["context"]), number(&theirs["chunks"]));
    let begins = model["begins_text"].as_bool().expect("yes or no");
    let tokens = tokens(path, begins);
    let first = tokens[0];
    let mut pipeline = Pipeline::solo(path, &EngineOptions::default());
    let mut losses = Vec::new();
    for chunk in tokens.chunks_exact(context).take(chunks) {
        let mut chunk = chunk.to_vec();
        if begins {
            chunk[0] = first;
        }
        losses.extend(second_half(&mut pipeline, &chunk));
    }
    assert_eq!(losses.len(), number(&model["scored"]));
    let ours = (losses.iter().sum::<f64>() / losses.len() as f64).exp();
    let theirs = model["perplexity"].as_f64().expect("a number");
    let off = (ours / theirs - 1.0).abs();
    assert!(off <= MOST, "{name}: ours {ours:.4}, llama.cpp's {theirs:.4}, {:.2} % off", off * 100.0);
}

fn tokens(path: &Path, begins: bool) -> Vec<Token> {
    let file = GgufFile::open(path).expect("a model");
    let tokenizer = Tokenizer::from_gguf(&file).expect("a tokeniser");
    tokenizer.encode(TEXT, begins, false)
}

/// Loss at each position of the second half, whose next token is in the chunk.
fn second_half(pipeline: &mut Pipeline, chunk: &[Token]) -> Vec<f64> {
    let logits = pipeline.all_logits(chunk);
    let vocabulary = logits.len() / chunk.len();
    let rows = logits.chunks(vocabulary).zip(&chunk[1..]).skip(chunk.len() / 2);
    rows.map(|(row, next)| -log_probabilities(row)[next.0 as usize]).collect()
}
