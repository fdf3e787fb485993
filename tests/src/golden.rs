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

/// A test for each model of which transformers' logits are kept: `$holds` is given its name and its shape.
#[macro_export]
macro_rules! for_each_golden_model {
    ($holds:path) => {
        use node::real::gguf::random::{Architecture, RandomModel};

        #[test]
        fn llama() {
            $holds("llama", RandomModel::tiny(Architecture::Llama));
        }

        #[test]
        fn llama_with_a_table_of_frequencies() {
            let model = RandomModel { rope_table: true, ..RandomModel::tiny(Architecture::Llama) };
            $holds("llama3", model);
        }

        #[test]
        fn qwen2() {
            $holds("qwen2", RandomModel::tiny(Architecture::Qwen2));
        }

        #[test]
        fn qwen2_with_waves_stretched_by_yarn() {
            $holds("qwen2-yarn", RandomModel::tiny_yarn());
        }

        #[test]
        fn qwen3() {
            $holds("qwen3", RandomModel::tiny(Architecture::Qwen3));
        }

        #[test]
        fn gemma3() {
            $holds("gemma3", RandomModel::tiny(Architecture::Gemma3));
        }
    };
}

fn numbers(prompt: &serde_json::Value, key: &str) -> Vec<u32> {
    let numbers = prompt[key].as_array().expect(SHAPE).iter();
    numbers.map(|number| number.as_u64().expect(SHAPE) as u32).collect()
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect(SHAPE);
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
