//! The engine against llama.cpp, token by token, on a real model.

use std::path::PathBuf;

use node::engine::{Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::real::kernels::Precision;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

fn models() -> PathBuf {
    std::env::var_os("MESHWRIGHT_MODELS").expect("MESHWRIGHT_MODELS names the folder of the models").into()
}

#[test]
fn the_f32_path_gives_every_token_of_the_reference() {
    let file = GgufFile::open(&models().join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let mut model = Model::load(&file, LayerRange::new(0, 30), &options).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(
        &std::fs::read("/work/shared/reference/smollm2-135m-dequant-f32.json").unwrap(),
    )
    .unwrap();
    for (i, result) in reference["results"].as_array().unwrap().iter().enumerate() {
        let ids = |key: &str| -> Vec<Token> {
            result[key].as_array().unwrap().iter().map(|id| Token(id.as_u64().unwrap() as u32)).collect()
        };
        let (prompt, output) = (ids("prompt_tokens"), ids("output_tokens"));
        let session = SessionId(i as u64);
        let all: Vec<Token> = prompt.iter().chain(&output).copied().collect();
        let work = Work {
            session,
            start: 0,
            count: all.len() as u32,
            input: Input::Tokens(all.clone()),
            want: Want::Verify(Sampling::GREEDY),
        };
        let out = model.step(&[work]).pop().unwrap().unwrap();
        let WorkOut::Tokens(tokens) = out else { panic!("{out:?}") };
        let tokens: Vec<Token> = tokens[prompt.len() - 1..].iter().map(|s| s.token).take(output.len()).collect();
        assert_eq!(tokens, output, "prompt {i}");
    }
}
