//! Each oracle catches the variant that breaks its promise, and nothing is found where nothing is broken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::membership::serving::ServingSabotage;
use crate::membership::spec::Spec;
use crate::membership::{Outcome, run, run_serving};

fn spec(text: &str) -> Spec {
    toml::from_str::<Spec>(text).unwrap().checked().unwrap()
}

const BUSY: &str = r#"
nodes = 16
seconds = 150.0
demand = { per_s = 10.0, models = 2 }

[serving]
models = ["Llama-3.1-8B", "Mistral-7B"]
machines = ["rtx-4090", "rtx-3090"]
sessions = 4
queue = 8
clients = 400

[[serving.kill]]
at_s = 60.0
model = 0
for_s = 30.0

[[serving.kill]]
at_s = 90.0
model = 1
for_s = 30.0

[[fault]]
at_s = 70.0
kind = "pause"
count = 2
for_s = 15.0
"#;

fn found(outcome: &Outcome, oracle: &str) -> bool {
    outcome.violations.iter().any(|violation| violation.starts_with(oracle))
}

#[track_caller]
fn catches(sabotage: ServingSabotage, oracle: &str) {
    // The same seeds find nothing where nothing is broken.
    let broken = (1..=4).map(|seed| run_serving(&spec(BUSY), seed, sabotage)).collect::<Vec<_>>();
    let told: Vec<_> = broken.iter().map(|outcome| (&outcome.violations, &outcome.serving)).collect();
    let is_caught = broken.iter().any(|outcome| found(outcome, oracle));
    assert!(is_caught, "{sabotage:?} was not caught by {oracle}: {told:?}");
}

#[test]
fn nothing_is_found_where_nothing_is_broken() {
    for seed in 1..=4 {
        let outcome = run(&spec(BUSY), seed);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
        let served = outcome.serving.unwrap();
        assert!(served.answered > 1_000 && served.begun_after_death_s.count > 0, "{served:?}");
    }
}

crate::membership::tests::broken_services_are_caught!();

/// All is served and quiet when one of them begins to lie.
fn quiet(lie: &str) -> Spec {
    let text = format!(
        "nodes = 10\nseconds = 110.0\ndemand = {{ per_s = 3.0, models = 2 }}\n\
         [serving]\nmodels = [\"Llama-3.1-8B\", \"Mistral-7B\"]\nmachines = [\"rtx-4090\", \"rtx-3090\"]\nclients = 50\n{lie}"
    );
    spec(&text)
}

#[test]
fn a_liar_changes_nobodys_plan_but_what_is_thought_of_it() {
    for kind in ["lie", "accuse", "boast", "flood"] {
        let lie = format!("[[fault]]\nat_s = 50.0\nkind = \"{kind}\"");
        for seed in 1..=3 {
            let (honest, lied) = (run(&quiet(""), seed), run(&quiet(&lie), seed));
            assert!(lied.violations.is_empty(), "{kind}, seed {seed}: {:?}", lied.violations);
            let (before, after) = (honest.serving.unwrap(), lied.serving.unwrap());
            assert!(before.last_move_s < 50.0, "seed {seed}: it was not quiet: {}", before.last_move_s);
            assert_eq!(after.last_move_s, before.last_move_s, "{kind}, seed {seed}: somebody moved");
            assert_eq!(after.replicas, before.replicas, "{kind}, seed {seed}");
            let found: Vec<u32> = lied.distrusted.values().copied().collect();
            // Whoever floods is cut to its ceiling, and may be asked that much.
            let is_found =
                matches!(found[..], [others] if others >= 2) || kind == "flood" && found.is_empty();
            assert!(is_found, "{kind}, seed {seed}: {found:?}");
        }
    }
}

#[test]
fn machines_that_say_they_serve_and_do_not_are_found_out() {
    let text = include_str!("../../../../../scenarios/membership/pretenders.toml");
    for seed in 1..=3 {
        let outcome = run(&spec(text), seed);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    assert_eq!(run(&spec(BUSY), 7), run(&spec(BUSY), 7));
}

#[test]
fn passive_clients_leave_what_members_send_and_keep_as_it_was() {
    let text = BUSY.replace("[[fault]]", "[[unused]]");
    let (text, _) = text.split_once("[[serving.kill]]").unwrap();
    let of = |clients: &str| run(&spec(&text.replace("clients = 400", clients)), 1);
    let (none, many) = (of("clients = 0"), of("clients = 10000"));
    let change = many.bytes as f64 / none.bytes as f64;
    assert!((0.9..1.1).contains(&change), "{} bytes without clients, {} with them", none.bytes, many.bytes);
    assert!(many.violations.is_empty(), "{:?}", many.violations);
}

#[test]
fn what_cannot_be_served_is_refused_with_its_key() {
    for (change, key) in [
        (("\"Mistral-7B\"", "\"Mistral-9B\""), "serving.models"),
        (("\"rtx-3090\"", "\"rtx-30900\""), "serving.machines"),
        (("sessions = 4", "sessions = 0"), "serving.sessions"),
        (("models = 2", "models = 3"), "demand.models"),
    ] {
        let text = BUSY.replace(change.0, change.1);
        let error = toml::from_str::<Spec>(&text).unwrap().checked().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}
