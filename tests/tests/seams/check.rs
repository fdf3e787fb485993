//! Many seeds under the oracles, and one of them again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sim::check::{Check, Verdict, check, replay};
use sim::scenario::WorldKind;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(name)
}

fn churn(first: u64, last: u64) -> Check {
    Check {
        path: shipped("churn.toml"),
        overrides: Vec::new(),
        seeds: first..=last,
        world: Some(WorldKind::Memory),
        threads: 2,
        failures_most: 3,
    }
}

fn judged(check_of: &Check) -> Verdict {
    let done = AtomicU64::new(0);
    let verdict = check(check_of, &|progress| {
        done.fetch_max(progress.done, Ordering::Relaxed);
    });
    let verdict = verdict.unwrap();
    assert_eq!(done.into_inner(), verdict.checked, "the watcher heard of every seed");
    verdict
}

#[test]
fn the_oracles_hold_while_machines_come_and_go() {
    let verdict = judged(&churn(1, 40));
    assert_eq!(verdict.failures, [], "{}", verdict.failures[0].replay);
    assert_eq!(verdict.checked, 40);
    assert!(verdict.faults > 40, "{} faults are hardly a trial", verdict.faults);
    assert!(verdict.resumed > 40, "{} resumed requests are hardly a trial", verdict.resumed);
}

#[test]
fn the_oracles_hold_when_machines_die_faster_than_they_load_and_questions_come_anywhere() {
    let mut check_of = churn(1, 20);
    for (key, value) in
        [("churn.mttf", "6 s"), ("churn.mttr", "2 s"), ("workload.entry", "[\"desk\", \"shelf\"]")]
    {
        check_of.overrides.push((key.into(), value.into()));
    }
    let verdict = judged(&check_of);
    assert_eq!(verdict.failures, [], "{}", verdict.failures[0].replay);
    assert!(verdict.faults > 200, "{} faults", verdict.faults);
}

#[test]
fn the_number_of_threads_changes_no_verdict() {
    let one = judged(&Check { threads: 1, ..churn(1, 6) });
    assert_eq!(one, judged(&Check { threads: 4, ..churn(1, 6) }));
}

#[test]
fn a_seed_that_cannot_be_run_is_a_failure_with_its_command() {
    let mut check_of = churn(1, 30);
    // With some seeds the five are too small for the model, whatever the cut.
    check_of.overrides.push(("plan.context".into(), "{ uniform = [1000, 200000] }".into()));
    check_of.threads = 4;
    let verdict = judged(&check_of);
    assert_eq!(verdict.failures.len(), check_of.failures_most, "the check ends after so many");
    let first = &verdict.failures[0];
    assert!(first.violations[0].starts_with("no plan"), "{:?}", first.violations);
    let command = format!("-- replay {} --seed {} --world memory", check_of.path.display(), first.seed);
    assert!(first.replay.contains(&command), "{}", first.replay);
    assert!(first.replay.contains("--set 'plan.context="), "{}", first.replay);
}

#[test]
fn a_replay_shows_what_the_check_saw_the_same_every_time() {
    let shown = || replay(&shipped("churn.toml"), &[], Some(3), Some(WorldKind::Memory)).unwrap();
    let (first, second) = (shown(), shown());
    assert_eq!(first.log, second.log);
    let text = first.log.join("\n");
    for part in ["* crash of shelf", "desk Attempted", "desk Emitted", "PeerLost", "Adopted", "LoadEnded"] {
        assert!(text.contains(part), "{part} is not in the log");
    }
    assert_eq!(first.recording.outcome.seed, 3);
}
