//! The commands as a person or a script meets them: what they print, and their exit codes.

#![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

mod disk;
mod full;
mod get;
mod serve;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use node::real::gguf::random::{Architecture, RandomModel};
use serde_json::Value;

fn meshwright(arguments: &[&str], piped: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended already.
    let _ = child.stdin.take().unwrap().write_all(piped.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn done(arguments: &[&str], piped: &str) -> String {
    let output = meshwright(arguments, piped);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

#[track_caller]
fn refused(arguments: &[&str], code: i32) -> String {
    let output = meshwright(arguments, "");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr).to_owned()
}

/// A small model of random weights, made once.
fn model() -> PathBuf {
    static MADE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-random.gguf");
        RandomModel::tiny(Architecture::Llama).write(&path).unwrap();
        path
    })
    .clone()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&done(arguments, "")).unwrap()
}

#[test]
fn help_names_every_command_and_option() {
    let help = done(&["--help"], "");
    for word in
        ["run", "serve", "status", "models", "bench", "inspect", "completions", "Examples:", "Exit code:"]
    {
        assert!(help.contains(word), "{help}");
    }
    let run = done(&["run", "--help"], "");
    for word in
        ["--system", "--temperature", "--top-k", "--top-p", "--min-p", "--seed", "--stop", "--raw", "--json"]
    {
        assert!(run.contains(word), "{run}");
    }
    assert!(done(&["bench", "--help"], "").contains("--layers <FIRST..END>"));
    assert!(done(&["inspect", "--help"], "").contains("--tensors"));
}

#[test]
fn what_is_wrong_is_said_with_place_and_cure() {
    let missing = refused(&["inspect", "no-such.gguf"], 2);
    assert!(missing.starts_with("meshwright: cannot read no-such.gguf: "), "{missing}");
    let other = refused(&["run", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "Hi"], 2);
    assert!(other.contains("is not a GGUF file") && other.contains("give a .gguf file"), "{other}");
    let path = model();
    let path = path.to_str().unwrap();
    assert!(refused(&["run", path, "Hi", "--top-p", "7"], 2).contains("top_p must be above 0 and at most 1"));
    assert!(refused(&["run", path, "-"], 2).contains("the pipe was empty"));
    assert!(refused(&["bench", path, "--runs", "0"], 2).contains("at least 1"));
    assert!(refused(&["bench", path, "--layers", "0..99"], 1).contains("not 0 to 99"));
    assert!(refused(&["bench", path, "--layers", "5..5"], 2).contains("the second one greater"));
}

#[test]
fn inspect_shows_what_the_file_holds() {
    let path = model();
    let path = path.to_str().unwrap();
    let page = done(&["inspect", path, "--layers", "--metadata", "--tensors"], "");
    for word in [
        "architecture",
        "parameters",
        "quantisation",
        "tokenizer",
        "layer 0",
        "general.architecture",
        "token_embd.weight",
    ] {
        assert!(page.contains(word), "{word}: {page}");
    }
    let facts = json(&["inspect", path, "--json"]);
    assert_eq!(facts["model"]["architecture"], "llama");
    assert_eq!(facts["problems"], serde_json::json!([]));
    assert!(facts.get("tensors").is_none() && facts["tensor_count"].as_u64().unwrap() > 3);
}

#[test]
fn one_answer_is_the_same_for_the_same_seed() {
    let path = model();
    let path = path.to_str().unwrap();
    let arguments = ["run", path, "Hello", "--seed", "7", "-n", "12", "--temperature", "1", "--json"];
    let (one, two) = (json(&arguments), json(&arguments));
    assert_eq!(one["text"], two["text"]);
    assert_eq!(one["seed"], 7);
    assert!(one["tokens"].as_u64().unwrap() <= 12 && one["prompt_tokens"].as_u64().unwrap() > 0);
    let piped = done(&["run", path, "--seed", "7", "-n", "12", "--temperature", "1"], "Hello\n");
    assert_eq!(piped.trim_end(), one["text"].as_str().unwrap().trim_end());
}

#[test]
fn a_profile_has_every_range_that_was_asked_for() {
    let path = model();
    let path = path.to_str().unwrap();
    let arguments = [
        "bench",
        path,
        "--json",
        "--threads",
        "1",
        "--runs",
        "1",
        "-n",
        "2",
        "--prompt",
        "8",
        "--context",
        "4",
    ];
    let profile = json(&[&arguments[..], &["--layers", "0..1", "--layers", "1..2"]].concat());
    let ranges = profile["ranges"].as_array().unwrap();
    assert_eq!(ranges.len(), 2);
    for (range, first) in ranges.iter().zip([0, 1]) {
        assert_eq!((range["first"].as_u64(), range["end"].as_u64()), (Some(first), Some(first + 1)));
        assert!(range["decode"][0]["tok_s"].as_f64().unwrap() > 0.0);
        assert!(range["decode"][0]["roofline_share"].as_f64().unwrap() > 0.0);
        assert!(range["prefill"][0]["tok_s"].as_f64().unwrap() > 0.0);
    }
}
