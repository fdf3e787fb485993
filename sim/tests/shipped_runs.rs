//! Every shipped scenario of up to eight nodes, run: alike in both worlds, and the same in every process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::{Path, PathBuf};
use std::process::Command;

use planner::cost::capacity::{Requests, requests_per_second};
use planner::cost::constants::RING;
use planner::cost::predict::predict;
use sim::outcome::{Outcome, Status};
use sim::run::run;
use sim::scenario::{Scenario, WorldKind, load};

const NODES_MOST: usize = 8;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn small_scenarios() -> Vec<(PathBuf, Scenario)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let toml = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let loaded = toml.map(|path| {
        let scenario = load(&path, &[], None).unwrap();
        (path, scenario)
    });
    loaded.filter(|(_, scenario)| scenario.fleet.nodes.len() <= NODES_MOST).collect()
}

fn decode_tok_s(outcome: &Outcome) -> f64 {
    let gaps = outcome.requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|gap| gap[1] - gap[0]));
    let (sum_us, count) = gaps.fold((0.0, 0.0), |(sum, count), gap| (sum + gap, count + 1.0));
    count / sum_us * 1e6
}

/// Also where faults strike. There it hangs on the seed: a token that comes a microsecond later may share another step,
/// and a crash may then hit a load that in the other world was over. `churn.toml` says which seed it takes and why.
#[test]
fn the_worlds_agree_within_one_per_cent() {
    for (_, scenario) in small_scenarios() {
        let [memory, turmoil] = [WorldKind::Memory, WorldKind::Turmoil].map(|world| {
            let outcome = run(&scenario, scenario.seed, world, false).unwrap();
            assert_eq!(outcome.violations, Vec::<String>::new(), "{} in {world:?}", scenario.name);
            assert!(outcome.requests.iter().all(|r| r.status == Status::Completed), "{}", scenario.name);
            decode_tok_s(&outcome)
        });
        let apart = (memory / turmoil - 1.0).abs();
        assert!(apart < 0.01, "{}: {memory} tok/s in memory, {turmoil} in turmoil", scenario.name);
    }
}

/// A request that meets no other waits for its prompt's way through the stages and for streams to be opened on it: the
/// cost model knows both. The run differs from it by seeded errors of devices and by jitter.
#[test]
fn the_cost_model_foresees_the_first_token_of_a_single_request() {
    let mut seen = 0;
    for (_, scenario) in small_scenarios().into_iter().filter(|(_, s)| s.workload.requests == 1) {
        let outcome = run(&scenario, scenario.seed, WorldKind::Memory, false).unwrap();
        let load = &scenario.plan.ask.load;
        let predicted = predict(&scenario.fleet, &scenario.model, &outcome.plan, load, &RING).unwrap();
        let predicted_ms = predicted.ttft_ms + predicted.opening_ms;
        let run_ms = (outcome.requests[0].tokens_us[0] - outcome.requests[0].asked_us) / 1e3;
        let off = predicted_ms / run_ms - 1.0;
        assert!(off.abs() < 0.1, "{}: {predicted_ms} ms predicted, {run_ms} ms in the run", scenario.name);
        seen += 1;
    }
    assert!(seen >= 5, "{seen} scenarios have one request");
}

#[test]
fn two_processes_print_the_same_bytes_in_both_worlds() {
    let printed = |world: &str, seed: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_sim"))
            .arg(folder().join("wifi2.toml"))
            .args(["--json", "--no-files", "--world", world, "--seed", seed])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    for world in ["memory", "turmoil"] {
        assert_eq!(printed(world, "5"), printed(world, "5"), "{world}");
        assert_ne!(printed(world, "5"), printed(world, "6"), "{world}");
    }
}

/// Sixteen prompts at once keep the slowest stage busy for most of a minute. The heads once took that for silence: each
/// session got a token, was given up and replayed, for ever.
#[test]
fn a_crowd_of_prompts_is_slow_and_not_silent() {
    let settings = [("workload.users", "16"), ("workload.requests", "48")].map(|(k, v)| (k.into(), v.into()));
    let scenario = load(&folder().join("lan4.toml"), &settings, None).unwrap();
    let outcome = run(&scenario, scenario.seed, WorldKind::Memory, false).unwrap();
    assert!(outcome.requests.iter().all(|r| r.status == Status::Completed && r.resumptions == 0));
    let alike = Requests { prompt: 256, output: 128, concurrency: 16 };
    let most = requests_per_second(&scenario.fleet, &scenario.model, &outcome.plan, &alike);
    let reached = 48.0 / (outcome.ended_us / 1e6) / most;
    assert!((0.85..1.2).contains(&reached), "{reached} of what the busiest stage can do");
}
