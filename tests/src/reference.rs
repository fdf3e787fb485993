//! What llama.cpp said on real models, and how far a chain is from it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::chain::{Chain, Stage};
use crate::text::likeliest;

/// Why a reference can be read.
const SHAPE: &str = "the references in tests/data are whole";

/// The prompts, outputs and candidates in a file of `tests/data/reference`.
///
/// # Panics
/// Where a reference is not what it should be, which fails the test.
pub fn reference(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/reference").join(name);
    let mut whole: Value = serde_json::from_str(&fs::read_to_string(path).expect(SHAPE)).expect(SHAPE);
    serde_json::from_value(whole["results"].take()).expect(SHAPE)
}

/// Tokens of a result.
///
/// # Panics
/// Where a reference is not what it should be, which fails the test.
pub fn ids(result: &Value, key: &str) -> Vec<u32> {
    result[key].as_array().expect(SHAPE).iter().map(|id| id.as_u64().expect(SHAPE) as u32).collect()
}

/// Log-probabilities after each position of `tokens`, gone through in one step.
fn log_probabilities<S: Stage>(chain: &mut Chain<S>, tokens: &[u32]) -> Vec<Vec<f32>> {
    let logits = chain.logits(1, 0, tokens);
    chain.truncate(1, 0);
    logits.chunks_exact(chain.vocab()).map(normalised).collect()
}

fn normalised(logits: &[f32]) -> Vec<f32> {
    let greatest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - greatest).exp()).sum();
    logits.iter().map(|logit| logit - greatest - sum.ln() as f32).collect()
}

/// What a run along the reference's tokens found.
#[derive(Debug, Default)]
pub struct Agreement {
    /// |delta log-probability| of each candidate the reference lists.
    pub deltas: Vec<f32>,
    /// Steps at which the likeliest token (ends of text left aside, as in the reference) is another.
    pub others: usize,
}

impl Agreement {
    /// Of the deltas.
    pub fn mean(&self) -> f32 {
        self.deltas.iter().sum::<f32>() / self.deltas.len() as f32
    }

    /// Of the deltas.
    pub fn worst(&self) -> f32 {
        self.deltas.iter().copied().fold(0.0, f32::max)
    }
}

/// Follows the reference's tokens, whatever the model would have chosen.
///
/// # Panics
/// Where a reference is not what it should be, which fails the test.
pub fn follow<S: Stage>(
    chain: &mut Chain<S>,
    results: &[Value],
    ends: &[usize],
    prompt_key: &str,
) -> Agreement {
    let mut found = Agreement::default();
    for result in results {
        let (prompt, output) = (ids(result, prompt_key), ids(result, "output_tokens"));
        let all: Vec<u32> = prompt.iter().chain(&output).copied().collect();
        let after = log_probabilities(chain, &all[..all.len() - 1]);
        let steps = result["steps"].as_array().expect(SHAPE);
        for ((step, ours), chosen) in steps.iter().zip(&after[prompt.len() - 1..]).zip(&output) {
            for candidate in step["top"].as_array().expect(SHAPE) {
                let theirs = candidate["logprob"].as_f64().expect(SHAPE) as f32;
                found.deltas.push((ours[candidate["id"].as_u64().expect(SHAPE) as usize] - theirs).abs());
            }
            let allowed = (0..ours.len()).filter(|id| !ends.contains(id));
            let best = allowed.max_by(|a, b| ours[*a].total_cmp(&ours[*b])).expect(SHAPE);
            found.others += usize::from(best as u32 != *chosen);
        }
    }
    println!("mean {} worst {} others {}", found.mean(), found.worst(), found.others);
    found
}

/// Tokens after which SmolLM2 ends, and which the reference does not let it choose.
pub const SMOLLM2_ENDS: [usize; 2] = [0, 2];

/// Mean |delta log-probability| between two chains over the candidates that `results` lists, and how often the likeliest
/// of all tokens is another.
///
/// # Panics
/// Where a reference is not what it should be, which fails the test.
pub fn apart<S: Stage, T: Stage>(
    one: &mut Chain<S>,
    other: &mut Chain<T>,
    results: &[Value],
    prompt_key: &str,
) -> (f32, usize, usize) {
    let (mut deltas, mut others, mut steps) = (Vec::new(), 0, 0);
    for result in results {
        let (prompt, output) = (ids(result, prompt_key), ids(result, "output_tokens"));
        let all: Vec<u32> = prompt.iter().chain(&output).copied().collect();
        let ours = log_probabilities(one, &all[..all.len() - 1]);
        let theirs = log_probabilities(other, &all[..all.len() - 1]);
        for (i, step) in result["steps"].as_array().expect(SHAPE).iter().enumerate() {
            let (ours, theirs) = (&ours[prompt.len() - 1 + i], &theirs[prompt.len() - 1 + i]);
            let top = step["top"].as_array().expect(SHAPE).iter();
            let top = top.map(|candidate| candidate["id"].as_u64().expect(SHAPE) as usize);
            deltas.extend(top.map(|id| (ours[id] - theirs[id]).abs()));
            others += usize::from(likeliest(ours) != likeliest(theirs));
            steps += 1;
        }
    }
    (deltas.iter().sum::<f32>() / deltas.len() as f32, others, steps)
}
