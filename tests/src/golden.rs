//! Logits of Hugging Face transformers on tiny random models, which `tests/scripts/golden-logits.py` wrote.

use std::fs;
use std::path::Path;

use node::real::gguf::random::RandomModel;
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;

use crate::chain::{Chain, Stage};

/// Why they can be read.
const SHAPE: &str = "the logits in tests/data are whole";

/// How far the logits of a chain that `load` makes are from transformers': the worst of each position that was kept. The
/// model is written in f32.
///
/// # Panics
/// Where the model cannot be written or read, which fails the test.
pub fn worst<S: Stage>(
    name: &str,
    model: RandomModel,
    load: impl FnOnce(&GgufFile) -> Chain<S>,
) -> Vec<(u32, f32)> {
    let folder = tempfile::tempdir().expect("a folder for the model");
    let path = folder.path().join("model.gguf");
    RandomModel { kind: GgmlType::F32, ..model }.write(&path).expect("the model can be written");
    let mut chain = load(&GgufFile::open(&path).expect("a model that was just written"));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/logits");
    let prompt = fs::read(data.join("prompt.json")).expect(SHAPE);
    let prompt: serde_json::Value = serde_json::from_slice(&prompt).expect(SHAPE);
    let ours = chain.logits(1, 0, &numbers(&prompt, "tokens"));
    let theirs = floats(&data.join(format!("{name}.f32")));
    let positions = numbers(&prompt, "positions");
    let width = theirs.len() / positions.len();
    assert_eq!(width, chain.vocab());
    let worst = |(position, theirs): (u32, &[f32])| {
        let ours = &ours[position as usize * width..][..width];
        let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name} at {position}: {worst}");
        (position, worst)
    };
    positions.into_iter().zip(theirs.chunks_exact(width)).map(worst).collect()
}

fn numbers(prompt: &serde_json::Value, key: &str) -> Vec<u32> {
    let numbers = prompt[key].as_array().expect(SHAPE).iter();
    numbers.map(|number| number.as_u64().expect(SHAPE) as u32).collect()
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect(SHAPE);
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
