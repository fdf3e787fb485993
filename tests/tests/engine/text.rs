//! Tokens of the real models on the multilingual corpus, as llama.cpp makes them (`tests/scripts/golden-tokens.py`).

use std::path::Path;

use node::ids::Token;
use node::real::text::Tokenizer;
use planner::model::gguf::GgufFile;
use serde_json::Value;
use tests::models;

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokens").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(tokens: &[Token]) -> Vec<u64> {
    tokens.iter().map(|token| token.0.into()).collect()
}

fn assert_same(model: &Path, name: &str) {
    let tokenizer = Tokenizer::from_gguf(&GgufFile::open(model).unwrap()).unwrap();
    let (corpus, want) = (golden("corpus.json"), golden(name));
    let mut differences = Vec::new();
    for (i, text) in corpus.as_array().unwrap().iter().enumerate() {
        let text = text.as_str().unwrap();
        for (way, special) in [("text", false), ("special", true)] {
            let want: Vec<u64> = serde_json::from_value(want[way][i].clone()).unwrap();
            let got = ids(&tokenizer.encode(text, special, special));
            if got != want {
                differences.push(format!("{way} {text:?}:\n  got  {got:?}\n  want {want:?}"));
            }
        }
        let back = tokenizer.decode(&tokenizer.encode(text, false, false));
        let spaces = if tokenizer.name() == "SentencePiece" { text.replace('▁', " ") } else { text.into() };
        assert_eq!(back, spaces);
    }
    assert!(differences.is_empty(), "{} differ\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn smollm2_reads_text_as_llama_cpp_does() {
    let model = models::smollm2();
    assert_same(&model, "smollm2.json");
}

#[test]
fn gemma3_reads_text_as_llama_cpp_does() {
    let model = models::gemma3();
    assert_same(&model, "gemma3.json");
}
