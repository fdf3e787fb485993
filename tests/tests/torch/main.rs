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

use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::Precision;
use node::real::torch::{Device, Model, Residual, TorchOptions};
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use tests::chain::Chain;

/// A tiny model whose rows are whole blocks of 256.
fn made(architecture: Architecture, kind: GgmlType) -> (tempfile::TempDir, GgufFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let tiny = RandomModel::tiny(architecture);
    RandomModel { kind, width: 256, feed_forward: 512, head_width: 64, ..tiny }.write(&path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    (folder, file)
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

/// The greatest difference.
fn worst(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max)
}
