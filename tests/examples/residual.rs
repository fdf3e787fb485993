//! What the types of the residual stream cost a model: `cargo run --release -p tests --example residual -- MODEL.gguf`.
//!
//! First the greatest magnitude after each layer over the fixed text of the tests. Then for each type its bytes a token,
//! the text's perplexity, how far the log-probabilities of the text's tokens are from those with f32 in the mean, how
//! often the likeliest token is another, and how many greedy answers go the same way. The model is cut in three, which
//! only q8 can see. f32 at a lower level of the kernels stands beside them: what rounding of the last bits does alone.
//!
//! With `--f32` weights and activations are f32 too, so that nothing but the residual stream is rounded; answers are left
//! out, since that is slow.

use std::path::Path;
use std::process::ExitCode;

use node::engine::{Sampling, Want, WorkOut};
use node::real::cpu::{EngineOptions, Residual};
use node::real::kernels::{Level, Precision};
use node::wire::Payload;
use planner::model::gguf::GgufFile;
use tests::chain::{Chain, Part};
use tests::text::{likeliest, pieces, second_half, surprise};

/// Tokens of a prompt that is answered, and of its answer.
const PROMPT: usize = 64;
const ANSWER: usize = 48;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, precision) = match arguments.as_slice() {
        [path] => (path, Precision::Quantised),
        [flag, path] if flag == "--f32" => (path, Precision::F32),
        _ => {
            eprintln!("error: give one model: `residual model.gguf` or `residual --f32 model.gguf`");
            return ExitCode::from(2);
        }
    };
    match GgufFile::open(Path::new(path)) {
        Ok(file) => {
            if precision == Precision::Quantised {
                greatest(&file);
            }
            types(&file, precision);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// The greatest magnitude after each layer but the last, and the root of the mean square.
fn greatest(file: &GgufFile) {
    let shape = node::real::arch::shape(file).expect("a known architecture");
    let cuts: Vec<u32> = (1..shape.layers).collect();
    let mut chain =
        Chain::load(file, &cuts, &EngineOptions { residual: Residual::F32, ..EngineOptions::default() });
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
    /// Of each token that follows, and the likeliest in its place.
    surprises: Vec<f64>,
    likeliest: Vec<u32>,
    answers: Vec<Vec<u32>>,
}

fn types(file: &GgufFile, precision: Precision) {
    let shape = node::real::arch::shape(file).expect("a known architecture");
    println!(
        "level type bytes perplexity mean-difference other-likeliest same-answers tokens-before-they-part"
    );
    let run = |level, residual| {
        seen(file, &EngineOptions { level, precision, residual, ..EngineOptions::default() })
    };
    let exact = run(Level::best(), Residual::F32);
    let tell = |level: Level, residual: Residual, seen: &Seen| {
        let count = exact.likeliest.len();
        let perplexity = (seen.surprises.iter().sum::<f64>() / count as f64).exp();
        let apart = seen.surprises.iter().zip(&exact.surprises).map(|(a, b)| (a - b).abs()).sum::<f64>();
        let others = seen.likeliest.iter().zip(&exact.likeliest).filter(|(a, b)| a != b).count();
        let same = |(a, b): (&Vec<u32>, &Vec<u32>)| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let same: Vec<usize> = seen.answers.iter().zip(&exact.answers).map(same).collect();
        let (whole, answers) = (same.iter().filter(|same| **same == ANSWER).count(), same.len());
        let (before, all) = (same.iter().sum::<usize>(), answers * ANSWER);
        let (bytes, apart) = (residual.row_bytes(shape.hidden), apart / count as f64);
        println!(
            "{level} {residual} {bytes} {perplexity:.4} {apart:.5} {others}/{count} {whole}/{answers} {before}/{all}"
        );
    };
    tell(Level::best(), Residual::F32, &exact);
    let lower = if Level::best() == Level::Avx512 { Level::Avx2 } else { Level::Portable };
    tell(lower, Residual::F32, &run(lower, Residual::F32));
    for residual in [Residual::Bf16, Residual::F16, Residual::Q8] {
        tell(Level::best(), residual, &run(Level::best(), residual));
    }
}

fn seen(file: &GgufFile, options: &EngineOptions) -> Seen {
    let layers = file.model().expect("a model").layer_count();
    let mut chain = Chain::load(file, &[layers / 3, 2 * layers / 3], options);
    let mut seen = Seen { surprises: Vec::new(), likeliest: Vec::new(), answers: Vec::new() };
    for piece in pieces(file) {
        second_half(&mut chain, &piece, |logits, next| {
            seen.surprises.push(surprise(logits, next));
            seen.likeliest.push(likeliest(logits));
        });
        if options.precision == Precision::Quantised {
            seen.answers.extend(piece.chunks_exact(PROMPT).map(|prompt| answer(&mut chain, prompt)));
        }
    }
    seen
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
