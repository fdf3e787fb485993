//! Every architecture against Hugging Face transformers, in f32, on tiny random models.

use node::real::cpu::{EngineOptions, Residual};
use node::real::kernels::Precision;
use tests::chain::Chain;
use tests::golden;

fn logits_are_those_of_transformers(name: &str, model: RandomModel) {
    let options =
        EngineOptions { precision: Precision::F32, residual: Residual::F32, ..EngineOptions::default() };
    for (position, worst) in golden::worst(name, model, |file| Chain::load(file, &[], &options)) {
        assert!(worst < 1e-4, "{name} at {position}: {worst}");
    }
}

tests::for_each_golden_model!(logits_are_those_of_transformers);
