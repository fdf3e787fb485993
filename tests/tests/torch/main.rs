//! The engine on libtorch, on the processor: held to what others compute, to the CPU engine, and to itself. Needs the feature
//! `libtorch` and what `tests/scripts/fetch-torch` fetches; `docs/libtorch.md` says how to run it.
#![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

mod beside;
mod forms;
mod invariance;
mod logits;
mod mixed;
mod reference;
mod refusals;

use node::engine::{Sampling, Want, WorkOut};
use node::ids::Token;
use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::Precision;
use node::real::torch::{Device, Model, Residual, TorchOptions};
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use tests::chain::{Chain, Part, Stage};

const ARCHITECTURES: [Architecture; 4] =
    [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3, Architecture::Gemma3];

/// A tiny model whose rows are whole blocks of 256.
fn made(architecture: Architecture, kind: GgmlType) -> (tempfile::TempDir, GgufFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tiny = RandomModel::tiny(architecture);
    RandomModel { kind, width: 256, feed_forward: 512, head_width: 64, ..tiny }.write(&path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    (folder, file)
}

fn prompt(session: u64, count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + 11 * session as u32 + i * i % 7) % 250).collect()
}

fn options(precision: Precision) -> TorchOptions {
    let residual = if precision == Precision::F32 { Residual::F32 } else { Residual::default() };
    // Room for what the tests ask for, whatever the shape.
    TorchOptions {
        device: Device::Cpu,
        precision,
        residual,
        kv_bytes_max: 256 << 20,
        context_max: 1024,
        ..TorchOptions::default()
    }
}

fn chain(file: &GgufFile, cuts: &[u32], options: &TorchOptions) -> Chain<Model> {
    Chain::of(file, cuts, |_, range| Model::load(file, range, options).unwrap())
}

/// Decodes `count` tokens after the prompt, one by one.
fn decode<S: Stage>(
    chain: &mut Chain<S>,
    session: u64,
    prompt: &[u32],
    count: u32,
    sampling: &Sampling,
) -> Vec<u32> {
    let mut out = Vec::new();
    let mut tokens = prompt.to_vec();
    let mut start = 0;
    let past = prompt.iter().copied().map(Token).collect();
    let mut sampling = Sampling { past: Some(past), ..sampling.clone() };
    while (out.len() as u32) < count {
        let part = Part { session, start, tokens: tokens.clone(), want: Want::Sample(sampling.clone()) };
        start += tokens.len() as u32;
        let Ok(WorkOut::Token(sampled)) = chain.step(&[part]).remove(0) else { panic!("no token") };
        out.push(sampled.token.0);
        tokens = vec![sampled.token.0];
        sampling.past = None;
    }
    out
}

/// The greatest difference.
fn worst(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max)
}
