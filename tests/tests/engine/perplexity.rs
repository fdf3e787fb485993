//! How surprised the real models are by a text, beside llama.cpp with flash attention, its default
//! (`tests/scripts/golden-perplexity.py`).

use std::fs;
use std::path::Path;

use node::real::cpu::EngineOptions;
use planner::model::gguf::GgufFile;
use serde_json::Value;
use tests::chain::Chain;
use tests::models;
use tests::text::{CONTEXT, PIECES, pieces, second_half, surprise};

fn perplexity_is_that_of_llama_cpp(path: &Path) {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/reference/perplexity.json");
    let reference: Value = serde_json::from_slice(&fs::read(reference).unwrap()).unwrap();
    assert_eq!(reference["context"], CONTEXT);
    assert_eq!(reference["chunks"], PIECES);
    let theirs = &reference["models"][path.file_stem().unwrap().to_str().unwrap()];
    let theirs = theirs["perplexity_with_flash_attention"].as_f64().unwrap();
    let file = GgufFile::open(path).unwrap();
    // Tests run side by side, one to a core.
    let options = EngineOptions { threads: 1, ..EngineOptions::default() };
    let mut chain = Chain::load(&file, &[], &options);
    let (mut sum, mut count) = (0.0, 0);
    for piece in pieces(&file) {
        second_half(&mut chain, &piece, |logits, next| {
            sum += surprise(logits, next);
            count += 1;
        });
    }
    assert_eq!(count, PIECES * (CONTEXT / 2 - 1));
    let ours = (sum / f64::from(count as u32)).exp();
    println!("{}: {ours}, llama.cpp {theirs}", path.display());
    assert!((ours / theirs - 1.0).abs() < 0.005, "{}: {ours}, llama.cpp {theirs}", path.display());
}

#[test]
fn smollm2_is_as_surprised_as_in_llama_cpp() {
    perplexity_is_that_of_llama_cpp(&models::smollm2());
}

#[test]
fn gemma3_is_as_surprised_as_in_llama_cpp() {
    perplexity_is_that_of_llama_cpp(&models::gemma3());
}
