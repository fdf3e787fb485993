//! Every architecture against Hugging Face transformers, in f32, on tiny random models.

use std::fs;
use std::path::{Path, PathBuf};

use node::real::cpu::{EngineOptions, Residual};
use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::Precision;
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use tests::chain::Chain;

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/logits")
}

fn numbers(prompt: &serde_json::Value, key: &str) -> Vec<u32> {
    prompt[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn logits_are_those_of_transformers(name: &str, model: RandomModel) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    RandomModel { kind: GgmlType::F32, ..model }.write(&path).unwrap();
    let options =
        EngineOptions { precision: Precision::F32, residual: Residual::F32, ..EngineOptions::default() };
    let mut chain = Chain::load(&GgufFile::open(&path).unwrap(), &[], &options);
    let prompt = serde_json::from_slice(&fs::read(data().join("prompt.json")).unwrap()).unwrap();
    let ours = chain.logits(1, 0, &numbers(&prompt, "tokens"));
    let theirs = floats(&data().join(format!("{name}.f32")));
    let positions = numbers(&prompt, "positions");
    let width = theirs.len() / positions.len();
    assert_eq!(width, chain.vocab());
    for (position, theirs) in positions.iter().zip(theirs.chunks_exact(width)) {
        let ours = &ours[*position as usize * width..][..width];
        let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name} at {position}: {worst}");
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
