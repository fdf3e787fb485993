//! The real models against llama.cpp's greedy continuations.

use node::ids::Token;
use node::real::cpu::EngineOptions;
use node::real::kernels::Precision;
use planner::model::ggml::GgmlType;
use serde_json::Value;
use tests::models;

use crate::pipeline::{Pipeline, likeliest, log_probabilities};

const WIDENED: &str = include_str!("../../data/reference/smollm2-135m-dequant-f32.json");
const SMOLLM2: &str = include_str!("../../data/reference/smollm2-135m-instruct-q4_1.json");
const GEMMA3: &str = include_str!("../../data/reference/gemma3-270m-q4_k_m.json");

/// A continuation: the tokens in front, those that follow, and the best five of each step with log-probabilities.
struct Continuation {
    prompt: String,
    before: Vec<Token>,
    after: Vec<Token>,
    best: Vec<Vec<(Token, f64)>>,
}

fn continuations(json: &str) -> Vec<Continuation> {
    let json: Value = serde_json::from_str(json).expect("JSON");
    json["results"].as_array().expect("results").iter().map(continuation).collect()
}

fn continuation(result: &Value) -> Continuation {
    let id = |value: &Value| Token(value.as_u64().expect("an id") as u32);
    let ids = |value: &Value| value.as_array().expect("ids").iter().map(id).collect();
    let candidate = |value: &Value| (id(&value["id"]), value["logprob"].as_f64().expect("a log-probability"));
    let best = |step: &Value| step["top"].as_array().expect("candidates").iter().map(candidate).collect();
    Continuation {
        prompt: result["prompt"].as_str().expect("text").into(),
        before: ids(&result["prompt_tokens_add_special"]),
        after: ids(&result["output_tokens"]),
        best: result["steps"].as_array().expect("steps").iter().map(best).collect(),
    }
}

/// Differences of log-probabilities of the best five at each step, forced along the reference's tokens, and the steps at
/// which our likeliest token is another.
fn forced(pipeline: &mut Pipeline, reference: &Continuation) -> (Vec<f64>, Vec<usize>) {
    let after = &reference.after[..reference.after.len() - 1];
    let logits = pipeline.all_logits(&[&reference.before, after].concat());
    let vocabulary = logits.len() / (reference.before.len() + after.len());
    let rows = logits.chunks(vocabulary).skip(reference.before.len() - 1);
    let (mut differences, mut others) = (Vec::new(), Vec::new());
    for (step, (row, best)) in rows.zip(&reference.best).enumerate() {
        let ours = log_probabilities(row);
        differences.extend(best.iter().map(|(id, theirs)| (ours[id.0 as usize] - theirs).abs()));
        if likeliest(row) != reference.after[step] {
            others.push(step);
        }
    }
    (differences, others)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_f32_path_gives_every_token_of_the_widened_model() {
    let Some(path) = models::smollm2_in(GgmlType::F32) else { return };
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let mut pipeline = Pipeline::solo(&path, &options);
    for reference in continuations(WIDENED) {
        let (differences, others) = forced(&mut pipeline, &reference);
        assert!(others.is_empty(), "{:?}: other tokens at {others:?}", reference.prompt);
        let worst = differences.into_iter().fold(0.0, f64::max);
        assert!(worst < 0.03, "{:?}: a log-probability is {worst} off", reference.prompt);
    }
}

#[test]
fn widening_as_it_loads_is_the_same_as_a_widened_file() {
    let (Some(path), Some(widened)) = (models::smollm2(), models::smollm2_in(GgmlType::F32)) else { return };
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let tokens = &continuations(WIDENED)[0].before;
    let [a, b] = [path, widened].map(|path| Pipeline::solo(&path, &options).all_logits(tokens));
    assert!(a == b, "the same weights give the same bits");
}

#[test]
fn the_fast_path_stays_near_the_widened_model() {
    let Some(path) = models::smollm2() else { return };
    let mut pipeline = Pipeline::solo(&path, &EngineOptions::default());
    let all: Vec<f64> =
        continuations(WIDENED).iter().flat_map(|reference| forced(&mut pipeline, reference).0).collect();
    assert!(mean(&all) <= 0.1, "mean difference {}", mean(&all));
}

#[test]
fn the_fast_path_stays_near_llama_cpp_on_the_same_file() {
    let (Some(smollm2), Some(gemma3)) = (models::smollm2(), models::gemma3()) else { return };
    for (path, reference) in [(smollm2, SMOLLM2), (gemma3, GEMMA3)] {
        let mut pipeline = Pipeline::solo(&path, &EngineOptions::default());
        let all: Vec<f64> =
            continuations(reference).iter().flat_map(|reference| forced(&mut pipeline, reference).0).collect();
        assert!(mean(&all) <= 0.1, "{}: mean difference {}", path.display(), mean(&all));
    }
}
