//! Every architecture against Hugging Face transformers, in f32, on tiny random models.

use node::real::kernels::Precision;
use tests::golden;

use crate::{chain, options};

fn logits_are_those_of_transformers(name: &str, model: RandomModel) {
    let found = golden::worst(name, model, |file| chain(file, &[], &options(Precision::F32)));
    for (position, worst) in found {
        assert!(worst < 1e-4, "{name} at {position}: {worst}");
    }
}

tests::for_each_golden_model!(logits_are_those_of_transformers);
