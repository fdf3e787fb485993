//! The engine against llama.cpp, token by token, on real models.
//!
//! `MESHWRIGHT_MODELS` names the folder of the models, which `tests/scripts` fetches; `MESHWRIGHT_REFERENCE` that of the
//! reference tokens.

use std::fs;
use std::path::PathBuf;

use node::engine::{Input, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::real::kernels::Precision;
use node::wire::Payload;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use serde_json::Value;

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

fn folder(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} names a folder")).into()
}

fn load(name: &str, precision: Precision) -> Model {
    let file = GgufFile::open(&folder("MESHWRIGHT_MODELS").join(name)).unwrap();
    let layers = LayerRange::new(0, file.model().unwrap().layer_count());
    Model::load(&file, layers, &EngineOptions { precision, ..EngineOptions::default() }).unwrap()
}

fn reference(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder("MESHWRIGHT_REFERENCE").join(name)).unwrap();
    let mut whole: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(whole["results"].take()).unwrap()
}

fn ids(result: &Value, key: &str) -> Vec<u32> {
    result[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Log-probabilities after each position of `tokens`, gone through in one step.
fn log_probabilities(model: &mut Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let session = SessionId(1);
    let input = Input::Tokens(tokens.iter().copied().map(Token).collect());
    let count = tokens.len() as u32;
    let out = model.step(&[Work { session, start: 0, count, input, want: Want::Logits }]).remove(0).unwrap();
    model.release(session);
    let WorkOut::Logits(Payload::Real(bytes)) = out else { panic!("no logits") };
    let logits: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    logits.chunks_exact(model.vocab()).map(normalised).collect()
}

fn normalised(logits: &[f32]) -> Vec<f32> {
    let greatest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - greatest).exp()).sum();
    logits.iter().map(|logit| logit - greatest - sum.ln() as f32).collect()
}

/// What a run along the reference's tokens found.
#[derive(Debug, Default)]
struct Agreement {
    /// |delta log-probability| of each candidate the reference lists.
    deltas: Vec<f32>,
    /// Steps at which the likeliest token (end of text left aside, as in the reference) is another.
    disagreements: usize,
}

/// Follows the reference's tokens, whatever the model would have chosen.
fn follow(model: &mut Model, results: &[Value], end_of_text: &[usize], prompt_key: &str) -> Agreement {
    let mut found = Agreement::default();
    for result in results {
        let (prompt, output) = (ids(result, prompt_key), ids(result, "output_tokens"));
        let all: Vec<u32> = prompt.iter().chain(&output).copied().collect();
        let after = log_probabilities(model, &all[..all.len() - 1]);
        let steps = result["steps"].as_array().unwrap();
        for ((step, ours), chosen) in steps.iter().zip(&after[prompt.len() - 1..]).zip(&output) {
            for candidate in step["top"].as_array().unwrap() {
                let theirs = candidate["logprob"].as_f64().unwrap() as f32;
                found.deltas.push((ours[candidate["id"].as_u64().unwrap() as usize] - theirs).abs());
            }
            let best = (0..ours.len())
                .filter(|id| !end_of_text.contains(id))
                .max_by(|a, b| ours[*a].total_cmp(&ours[*b]))
                .unwrap();
            found.disagreements += usize::from(best as u32 != *chosen);
        }
    }
    found
}

impl Agreement {
    fn mean(&self) -> f32 {
        self.deltas.iter().sum::<f32>() / self.deltas.len() as f32
    }

    fn worst(&self) -> f32 {
        self.deltas.iter().copied().fold(0.0, f32::max)
    }
}

#[test]
fn the_f32_path_gives_every_token_of_widened_smollm2() {
    let mut model = load(SMOLLM2, Precision::F32);
    let found = follow(&mut model, &reference("smollm2-135m-dequant-f32.json"), &[0, 2], "prompt_tokens");
    println!("worst {} mean {}", found.worst(), found.mean());
    assert_eq!(found.disagreements, 0);
    assert!(found.worst() < 0.03, "{}", found.worst());
}

#[test]
fn the_quantised_path_stays_near_widened_smollm2() {
    let mut model = load(SMOLLM2, Precision::Quantised);
    let found = follow(&mut model, &reference("smollm2-135m-dequant-f32.json"), &[0, 2], "prompt_tokens");
    println!("worst {} mean {} other {}", found.worst(), found.mean(), found.disagreements);
    assert!(found.mean() <= 0.1, "{}", found.mean());
}
