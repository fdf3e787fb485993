//! The program as a person or a script meets it: what stands on stdout, on stderr and in files, and the exit codes.
#![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn sim(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).current_dir(root).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// wifi2, shortened, in the world that needs no dilation.
const QUICK: [&str; 6] = ["scenarios/wifi2.toml", "--world", "memory", "--set", "workload.output=8", "--set"];

fn quick(more: &[&str]) -> Output {
    let mut arguments = QUICK.to_vec();
    arguments.push("run.baselines=[\"llama-rpc\"]");
    arguments.extend(more);
    sim(&arguments)
}

#[test]
fn json_is_one_object_and_nothing_else() {
    let output = quick(&["--json", "--no-files"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for key in [
        "scenario",
        "seed",
        "world",
        "plan",
        "decode_tok_s",
        "tpot_ms",
        "ttft_ms",
        "breakdown_ms",
        "baselines",
        "requests",
    ] {
        assert!(!object[key].is_null(), "{key} is missing");
    }
    assert_eq!((object["scenario"].as_str(), object["world"].as_str()), (Some("wifi2"), Some("memory")));
    assert!(object["baselines"]["llama-rpc"]["decode_tok_s"].as_f64().unwrap() > 1.0);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_wall_time_goes_to_stderr() {
    let (one, two) = (quick(&["--json", "--no-files"]), quick(&["--json", "--no-files"]));
    assert_eq!(stdout(&one), stdout(&two));
    assert!(stderr(&one).contains("wall time"));
    assert!(!stdout(&one).contains("wall"));
}

#[test]
fn several_scenarios_stand_below_one_key() {
    let changes = ["--world", "memory", "--set", "workload.output=4", "--set", "run.baselines=[]"];
    let mut arguments = vec!["scenarios/solo.toml", "scenarios/wifi2.toml", "--json", "--no-files"];
    arguments.extend(changes);
    let output = sim(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let names: Vec<&str> =
        object["scenarios"].as_array().unwrap().iter().map(|s| s["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["solo", "wifi2"]);
}

#[test]
fn seeds_and_sweeps_are_in_the_object_and_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let sweep = ["--sweep", "network.home.rtt=5 ms..45 ms:3", "--seeds", "1..2"];
    let mut arguments = vec!["--json", "--no-plots", "--out", out.to_str().unwrap()];
    arguments.extend(sweep);
    let output = quick(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let points = object["sweep"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 3);
    let speed =
        |i: usize| points[i]["result"]["engines"]["llama-rpc"]["decode_tok_s"]["mean"].as_f64().unwrap();
    assert!(speed(0) > speed(1) && speed(1) > speed(2), "a longer round trip is slower: {points:?}");
    assert_eq!(object["seeds"]["seeds"].as_array().unwrap().len(), 2);
    for file in ["requests.csv", "sweep.csv", "seeds.csv", "manifest.json"] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["files"].as_array().unwrap().len(), 2, "the scenario and what it includes");
}

#[test]
fn a_trace_is_written_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let output = quick(&["--no-files", "--trace", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 10);
}

#[test]
fn mistakes_exit_with_two_and_say_where() {
    let unknown = sim(&["scenarios/wifi2.toml", "--set", "network.home.rtt=30"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stdout(&unknown).is_empty());
    assert!(stderr(&unknown).contains("network.home.rtt: a whole number where a duration should be"));
    for arguments in [
        &["scenarios/no-such.toml"][..],
        &[],
        &["scenarios/wifi2.toml", "--seeds", "3..1"],
        &["scenarios/wifi2.toml", "--seed", "1", "--seeds", "1..2"],
        &["scenarios/wifi2.toml", "--sweep", "network.home.rtt"],
        &["scenarios/wifi2.toml", "--world", "mars"],
        &["scenarios", "no-such-folder"],
    ] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
}

#[test]
fn a_model_that_fits_nowhere_has_no_plan_and_no_run() {
    let output = sim(&["plan", "scenarios/lan4.toml", "--set", "model=Llama-3.1-405B"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("No plan: "), "{}", stdout(&output));
    let output = sim(&["scenarios/solo.toml", "--no-files", "--set", "node.max.device.memory=2 GB"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("solo cannot be run: no plan"), "{}", stderr(&output));
}

#[test]
fn schemas_are_json_and_scenarios_are_listed() {
    let scenario: Value = serde_json::from_str(&stdout(&sim(&["schema"]))).unwrap();
    assert_eq!(scenario["title"].as_str(), Some("Meshwright scenario"));
    let report: Value = serde_json::from_str(&stdout(&sim(&["schema", "--output"]))).unwrap();
    assert!(report["properties"]["decode_tok_s"].is_object());
    let list = stdout(&sim(&["scenarios"]));
    assert!(list.contains("wifi3.toml\n    What would three nodes on home Wi-Fi get"), "{list}");
}

#[test]
fn a_plan_is_printed_without_a_run() {
    let output = sim(&["plan", "scenarios/wifi3.toml", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let stages = object["recommended"]["stages"].as_array().unwrap();
    let layers: i64 =
        stages.iter().map(|s| s["layers"][1].as_i64().unwrap() - s["layers"][0].as_i64().unwrap()).sum();
    assert_eq!(layers % 47, 0, "whole copies of the model: {stages:?}");
}

#[test]
fn a_check_counts_its_seeds_and_a_replay_tells_the_story() {
    let changes = ["--world", "memory", "--set", "workload.requests=3"];
    let mut check = vec!["check", "scenarios/churn.toml", "--seeds", "1..3", "--json"];
    check.extend(changes);
    let output = sim(&check);
    assert!(output.status.success(), "{}", stderr(&output));
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((object["seeds"].as_u64(), object["checked"].as_u64()), (Some(3), Some(3)));
    assert_eq!(object["failed"].as_array().map(Vec::len), Some(0), "{object}");
    let mut replay = vec!["replay", "scenarios/churn.toml", "--seed", "2"];
    replay.extend(changes);
    let (one, two) = (stdout(&sim(&replay)), stdout(&sim(&replay)));
    assert_eq!(one, two);
    assert!(one.contains("request 0 asks") && one.ends_with("every oracle holds\n"), "{one}");
}
