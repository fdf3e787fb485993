//! Every architecture against Hugging Face transformers, in f32, on tiny random models.

use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::Precision;
use tests::golden;

use crate::{chain, options};

fn logits_are_those_of_transformers(name: &str, model: RandomModel) {
    let found = golden::worst(name, model, |file| chain(file, &[], &options(Precision::F32)));
    for (position, worst) in found {
        assert!(worst < 1e-4, "{name} at {position}: {worst}");
    }
}

#[test]
fn llama() {
    logits_are_those_of_transformers("llama", RandomModel::tiny(Architecture::Llama));
}

#[test]
fn llama_with_a_table_of_frequencies() {
    let model = RandomModel { rope_table: true, ..RandomModel::tiny(Architecture::Llama) };
    logits_are_those_of_transformers("llama3", model);
}

#[test]
fn qwen2() {
    logits_are_those_of_transformers("qwen2", RandomModel::tiny(Architecture::Qwen2));
}

#[test]
fn qwen2_with_waves_stretched_by_yarn() {
    logits_are_those_of_transformers("qwen2-yarn", RandomModel::tiny_yarn());
}

#[test]
fn qwen3() {
    logits_are_those_of_transformers("qwen3", RandomModel::tiny(Architecture::Qwen3));
}

#[test]
fn gemma3() {
    logits_are_those_of_transformers("gemma3", RandomModel::tiny(Architecture::Gemma3));
}
