//! The real models, beside llama.cpp and the CPU engine.

use node::real::cpu::{EngineOptions, Residual};
use node::real::kernels::Precision;
use planner::model::gguf::GgufFile;
use tests::chain::Chain;
use tests::models;
use tests::reference::{SMOLLM2_ENDS, apart, follow, reference};
use tests::text::{pieces, second_half, surprise};

use crate::{chain, options};

#[test]
fn in_f32_smollm2_says_every_token_of_llama_cpps() {
    let file = GgufFile::open(&models::smollm2()).unwrap();
    let results = reference("smollm2-135m-dequant-f32.json");
    let mut chain = chain(&file, &[], &options(Precision::F32));
    let found = follow(&mut chain, &results, &SMOLLM2_ENDS, "prompt_tokens");
    assert_eq!(found.others, 0);
    assert!(found.worst() < 0.03, "{}", found.worst());
}

#[test]
fn quantised_smollm2_stays_near_what_it_was_quantised_from() {
    let file = GgufFile::open(&models::smollm2()).unwrap();
    let results = reference("smollm2-135m-dequant-f32.json");
    let mut ours = chain(&file, &[], &options(Precision::Quantised));
    let found = follow(&mut ours, &results, &SMOLLM2_ENDS, "prompt_tokens");
    assert!(found.mean() <= 0.1, "{}", found.mean());
    let mut theirs = Chain::load(&file, &[], &EngineOptions::default());
    let (apart, others, steps) = apart(&mut ours, &mut theirs, &results, "prompt_tokens");
    println!("from the CPU engine: mean {apart}, the likeliest is another at {others} of {steps}");
    assert!(apart <= 0.15, "{apart}");
    assert!(others * 20 <= steps, "{others} of {steps}");
}

#[test]
fn quantised_gemma3_stays_near_the_cpu_engine_in_f32() {
    let (file, key) = (GgufFile::open(&models::gemma3()).unwrap(), "prompt_tokens_add_special");
    let results = reference("gemma3-270m-q4_k_m.json");
    let exact =
        EngineOptions { precision: Precision::F32, residual: Residual::F32, ..EngineOptions::default() };
    let mut theirs = Chain::load(&file, &[], &exact);
    let mut ours = chain(&file, &[], &options(Precision::Quantised));
    let found = follow(&mut ours, &results, &[1, 106], key);
    assert!(found.mean() <= 0.2, "{}", found.mean());
    let (apart, others, steps) = apart(&mut ours, &mut theirs, &results, key);
    println!("from the CPU engine in f32: mean {apart}, the likeliest is another at {others} of {steps}");
    assert!(apart <= 0.15, "{apart}");
}

#[test]
fn smollm2_is_hardly_more_surprised_by_a_text_than_on_the_cpu_engine() {
    let file = GgufFile::open(&models::smollm2()).unwrap();
    let piece = &pieces(&file)[1];
    let mut sums = [0.0, 0.0];
    let mut ours = chain(&file, &[], &options(Precision::Quantised));
    second_half(&mut ours, piece, |logits, next| sums[0] += surprise(logits, next));
    let mut theirs = Chain::load(&file, &[], &EngineOptions::default());
    second_half(&mut theirs, piece, |logits, next| sums[1] += surprise(logits, next));
    let [ours, theirs] = sums.map(|sum| (sum / (piece.len() / 2 - 1) as f64).exp());
    println!("perplexity of a piece: {ours}, the CPU engine {theirs}");
    assert!((ours / theirs - 1.0).abs() < 0.02, "{ours} for {theirs}");
}
