//! What the types of the residual stream cost a model: `cargo run --release -p tests --example residual -- MODEL.gguf`.
//!
//! The greatest magnitude after each layer over the fixed text of the tests, and for each type its bytes a token, the
//! text's perplexity, how often the likeliest token is another than with f32 along the text, and how many greedy answers
//! go the same way. The model is cut in three, which only q8 can see.

use std::path::Path;
use std::process::ExitCode;

use node::engine::{Sampling, Want, WorkOut};
use node::real::cpu::{EngineOptions, Residual};
use node::wire::Payload;
use planner::model::gguf::GgufFile;
use tests::chain::{Chain, Part};
use tests::text::{likeliest, pieces, second_half, surprise};

/// Tokens of a prompt that is answered, and of its answer.
const PROMPT: usize = 64;
const ANSWER: usize = 48;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path] = arguments.as_slice() else {
        eprintln!("error: give one model: `residual model.gguf`");
        return ExitCode::from(2);
    };
    match GgufFile::open(Path::new(path)) {
        Ok(file) => {
            greatest(&file);
            types(&file);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn options(residual: Residual) -> EngineOptions {
    EngineOptions { residual, ..EngineOptions::default() }
}

/// The greatest magnitude after each layer but the last, and the root of the mean square.
fn greatest(file: &GgufFile) {
    let shape = node::real::arch::shape(file).expect("a known architecture");
    let cuts: Vec<u32> = (1..shape.layers).collect();
    let mut chain = Chain::load(file, &cuts, &options(Residual::F32));
    let mut found = vec![(0f32, 0f64, 0u64); cuts.len()];
    for tokens in pieces(file) {
        let rows = tokens.len();
        let part = Part { session: 1, start: 0, tokens, want: Want::Nothing };
        let outs = chain.step_seen(&[part], |stage, tensors| {
            let [Payload::Real(bytes)] = tensors else { panic!("one tensor of real numbers") };
            let values = Residual::F32.decode(bytes, rows, shape.hidden).expect("what a stage wrote");
            let (largest, squares, count) = &mut found[stage];
            *largest = values.iter().fold(*largest, |largest, value| largest.max(value.abs()));
            *squares += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            *count += values.len() as u64;
        });
        outs.into_iter().for_each(|out| drop(out.expect("a sound step")));
        chain.truncate(1, 0);
    }
    println!("after layer, greatest magnitude, root mean square");
    for (layer, (largest, squares, count)) in found.into_iter().enumerate() {
        println!("{layer:>4} {largest:>12.1} {:>12.3}", (squares / count as f64).sqrt());
    }
}

/// What a type does to a model.
struct Seen {
    perplexity: f64,
    likeliest: Vec<u32>,
    answers: Vec<Vec<u32>>,
}

fn types(file: &GgufFile) {
    let shape = node::real::arch::shape(file).expect("a known architecture");
    println!(
        "type, bytes a token, perplexity, other likeliest tokens, same answers, tokens before they part"
    );
    let exact = seen(file, Residual::F32);
    for residual in Residual::ALL {
        let seen = if residual == Residual::F32 { None } else { Some(seen(file, residual)) };
        let seen = seen.as_ref().unwrap_or(&exact);
        let others = seen.likeliest.iter().zip(&exact.likeliest).filter(|(a, b)| a != b).count();
        let parts = |(a, b): (&Vec<u32>, &Vec<u32>)| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let parts: Vec<usize> = seen.answers.iter().zip(&exact.answers).map(parts).collect();
        println!(
            "{residual:>5} {:>6} {:.4} {others} of {} {} of {} {} of {}",
            residual.row_bytes(shape.hidden),
            seen.perplexity,
            exact.likeliest.len(),
            parts.iter().filter(|same| **same == ANSWER).count(),
            parts.len(),
            parts.iter().sum::<usize>(),
            parts.len() * ANSWER,
        );
    }
}

fn seen(file: &GgufFile, residual: Residual) -> Seen {
    let layers = file.model().expect("a model").layer_count();
    let mut chain = Chain::load(file, &[layers / 3, 2 * layers / 3], &options(residual));
    let (mut sum, mut best, mut answers) = (0.0, Vec::new(), Vec::new());
    for piece in pieces(file) {
        second_half(&mut chain, &piece, |logits, next| {
            sum += surprise(logits, next);
            best.push(likeliest(logits));
        });
        answers.extend(piece.chunks_exact(PROMPT).map(|prompt| answer(&mut chain, prompt)));
    }
    Seen { perplexity: (sum / best.len() as f64).exp(), likeliest: best, answers }
}

fn answer(chain: &mut Chain, prompt: &[u32]) -> Vec<u32> {
    let (mut start, mut tokens, mut said) = (0, prompt.to_vec(), Vec::new());
    while said.len() < ANSWER {
        let count = tokens.len() as u32;
        let part = Part { session: 1, start, tokens, want: Want::Sample(Sampling::GREEDY) };
        let Ok(WorkOut::Token(sampled)) = chain.step(&[part]).remove(0) else { panic!("no token") };
        start += count;
        said.push(sampled.token.0);
        tokens = vec![sampled.token.0];
    }
    chain.truncate(1, 0);
    said
}
