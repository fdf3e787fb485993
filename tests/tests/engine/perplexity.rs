//! How surprised the real models are by a text, beside llama.cpp with flash attention, its default
//! (`tests/scripts/golden-perplexity.py`).

use std::fs;
use std::path::{Path, PathBuf};

use node::engine::Want;
use node::real::cpu::EngineOptions;
use node::real::text::Tokenizer;
use planner::model::gguf::GgufFile;
use serde_json::Value;
use tests::chain::{Chain, Part, values};
use tests::models;

/// Positions whose logits are in memory together.
const ROWS: usize = 32;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Natural logarithm of one over the probability of `next` after logits like these.
fn surprise(logits: &[f32], next: u32) -> f64 {
    let greatest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - greatest).exp())).sum();
    sum.ln() + f64::from(greatest - logits[next as usize])
}

/// The sum of surprises over the second half of `tokens`.
fn second_half(chain: &mut Chain, tokens: &[u32]) -> f64 {
    let (half, vocab) = (tokens.len() / 2, chain.vocab());
    let part = |start: usize, tokens: &[u32], want| Part {
        session: 1,
        start: start as u32,
        tokens: tokens.to_vec(),
        want,
    };
    chain.step(&[part(0, &tokens[..half], Want::Nothing)]).remove(0).unwrap();
    let mut sum = 0.0;
    for start in (half..tokens.len() - 1).step_by(ROWS) {
        let end = (start + ROWS).min(tokens.len() - 1);
        let out = chain.step(&[part(start, &tokens[start..end], Want::Logits)]).remove(0).unwrap();
        let logits = values(out);
        let after = logits.chunks_exact(vocab).zip(&tokens[start + 1..=end]);
        sum += after.map(|(logits, next)| surprise(logits, *next)).sum::<f64>();
    }
    chain.truncate(1, 0);
    sum
}

fn perplexity_is_that_of_llama_cpp(path: &Path) {
    let reference: Value =
        serde_json::from_slice(&fs::read(data("reference/perplexity.json")).unwrap()).unwrap();
    let number = |key: &str| reference[key].as_u64().unwrap() as usize;
    let (context, chunks) = (number("context"), number("chunks"));
    let theirs = &reference["models"][path.file_stem().unwrap().to_str().unwrap()];
    let begins = theirs["begins_text"].as_bool().unwrap();
    let file = GgufFile::open(path).unwrap();
    let text = fs::read_to_string(data("text/gpl-2.txt")).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let tokens: Vec<u32> = tokenizer.encode(&text, begins, false).into_iter().map(|token| token.0).collect();
    // Tests run side by side, one to a core.
    let options = EngineOptions { threads: 1, ..EngineOptions::default() };
    let mut chain = Chain::load(&file, &[], &options);
    let mut sum = 0.0;
    for chunk in tokens.chunks_exact(context).take(chunks) {
        let mut chunk = chunk.to_vec();
        if begins {
            chunk[0] = tokens[0];
        }
        sum += second_half(&mut chain, &chunk);
    }
    let ours = (sum / (chunks * (context / 2 - 1)) as f64).exp();
    let theirs = theirs["perplexity_with_flash_attention"].as_f64().unwrap();
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
