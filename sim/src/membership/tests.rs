//! Each oracle catches the variant that breaks its promise, and nothing is found where nothing is broken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use node::membership::Config;

use super::spec::Spec;
use super::world::World;
use super::{Outcome, Sabotage, run, run_with};
use crate::seed::Seed;

/// A test for each broken variant that shows alike in every world: the module has the texts `BUSY` and `SPLIT`, and `catches`.
macro_rules! broken_variants_are_caught {
    () => {
        #[test]
        fn who_is_never_given_up_is_a_ghost() {
            catches(BUSY, Sabotage::EndlessSuspicion, "ghosts");
        }

        #[test]
        fn sides_that_never_knock_do_not_know_each_other() {
            catches(SPLIT, Sabotage::NoKnocking, "known");
        }

        #[test]
        fn a_believed_forgery_is_found() {
            catches(BUSY, Sabotage::BlindTrust, "believed: forgery");
        }

        #[test]
        fn a_step_back_to_an_older_item_is_found() {
            catches(BUSY, Sabotage::Amnesia, "believed: stale");
        }

        #[test]
        fn demand_that_nobody_tells_is_missed() {
            catches(BUSY, Sabotage::SecretDemand, "demand");
        }

        #[test]
        fn who_is_buried_on_the_word_of_a_liar_is_missed() {
            let text = BUSY.replace("kind = \"lie\"", "kind = \"accuse\"");
            catches(&text, Sabotage::Hasty, "alive");
        }

        #[test]
        fn an_honest_member_that_is_called_a_liar_is_found() {
            catches(SPLIT, Sabotage::Grudge, "trusted");
        }
    };
}

/// The same of those that serve; the module has `catches` for them.
macro_rules! broken_services_are_caught {
    () => {
        #[test]
        fn a_stampede_is_seen() {
            catches(ServingSabotage::Stampede, "single");
        }

        #[test]
        fn a_model_that_nobody_comes_forward_for_is_seen() {
            catches(ServingSabotage::NobodyComes, "served");
        }

        #[test]
        fn machines_that_take_up_and_give_up_over_and_over_are_seen() {
            catches(ServingSabotage::Restless, "calm");
        }

        #[test]
        fn a_forgotten_request_is_seen() {
            catches(ServingSabotage::NoRetry, "answered");
        }

        #[test]
        fn a_queue_without_a_bound_is_seen() {
            catches(ServingSabotage::EndlessQueue, "queues");
        }

        #[test]
        fn clients_that_hear_of_every_change_are_seen() {
            catches(ServingSabotage::Push, "clients");
        }
    };
}

pub(super) use broken_services_are_caught;

fn spec(text: &str) -> Spec {
    toml::from_str::<Spec>(text).unwrap().checked().unwrap()
}

const BUSY: &str = r#"
nodes = 24
seconds = 100.0
changes_per_s = 2.0
network = { loss = 0.05 }
demand = { per_s = 20.0, models = 3 }

[[fault]]
at_s = 15.0
kind = "lie"
count = 2

[[fault]]
at_s = 20.0
kind = "crash"
count = 2

[[fault]]
at_s = 30.0
kind = "change"
count = 3
"#;

const SPLIT: &str = r#"
nodes = 16
seconds = 110.0

[[fault]]
at_s = 10.0
kind = "partition"
count = 40
for_s = 30.0
"#;

fn found(outcome: &Outcome, oracle: &str) -> bool {
    outcome.violations.iter().any(|violation| violation.starts_with(oracle))
}

#[track_caller]
fn catches(text: &str, sabotage: Sabotage, oracle: &str) {
    let honest = run(&spec(text), 1);
    assert!(honest.violations.is_empty(), "{:?}", honest.violations);
    let broken = run_with(&spec(text), 1, Config::default(), Some(sabotage));
    assert!(found(&broken, oracle), "{sabotage:?} was not caught by {oracle}: {:?}", broken.violations);
}

broken_variants_are_caught!();

#[test]
fn gaps_that_nobody_mends_are_found() {
    let text = BUSY.replace("loss = 0.05", "loss = 0.1");
    catches(&text, Sabotage::NoMending, "records");
}

#[test]
fn a_packet_without_a_bound_is_found() {
    let cold = BUSY.replace("nodes = 24", "nodes = 60\nstart = \"cold\"");
    catches(&cold, Sabotage::LongPackets, "bounds");
}

#[test]
fn a_liar_changes_nobodys_view_and_is_found_out() {
    for kind in ["lie", "accuse", "boast"] {
        let text = format!(
            "nodes = 12\nseconds = 150.0\nchanges_per_s = 0.5\ndemand = {{ per_s = 10.0, models = 3 }}\n\
             [[fault]]\nat_s = 5.0\nkind = \"{kind}\"\n\
             [[fault]]\nat_s = 30.0\nkind = \"crash\"\nfor_s = 20.0\n\
             [[fault]]\nat_s = 60.0\nkind = \"leave\""
        );
        for seed in 1..=5 {
            let outcome = run(&spec(&text), seed);
            assert!(outcome.violations.is_empty(), "{kind}, seed {seed}: {:?}", outcome.violations);
            let found: Vec<u32> = outcome.distrusted.values().copied().collect();
            assert!(matches!(found[..], [others] if others >= 4), "{kind}, seed {seed}: {found:?}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (a, b) = (run(&spec(BUSY), 7), run(&spec(BUSY), 7));
    assert_eq!(a, b);
    assert_ne!(a.bytes, run(&spec(BUSY), 8).bytes);
}

#[test]
fn what_a_member_sends_at_rest_does_not_grow_with_the_mesh() {
    let rest = |nodes: u32| run(&spec(&format!("nodes = {nodes}\nseconds = 300.0")), 1).rest_bytes_per_s;
    let (small, large) = (rest(10), rest(80));
    assert!(large < 1.5 * small, "{small} B/s of ten members, {large} of eighty");
}

#[test]
fn a_crash_is_known_to_all_long_before_the_heartbeats_of_others() {
    let text = "nodes = 60\nseconds = 40.0\n[[fault]]\nat_s = 10.0\nkind = \"crash\"\ncount = 3";
    for seed in 1..=5 {
        for timing in run(&spec(text), seed).timings {
            assert!(timing.all_s.is_some_and(|all| all < 12.0), "{timing:?}");
        }
    }
}

#[test]
fn a_flood_counts_for_its_ceiling_and_honest_demand_stands() {
    let text = "nodes = 30\nseconds = 60.0\ndemand = { per_s = 20.0, models = 3 }\n\
                [[fault]]\nat_s = 20.0\nkind = \"flood\"";
    let outcome = run(&spec(text), 1);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
}

#[test]
fn the_promises_hold_under_everything_at_once() {
    let text = include_str!("../../../scenarios/membership/chaos.toml");
    for seed in 1..=8 {
        let outcome = run(&spec(text), seed);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_its_key() {
    for (text, key) in [
        ("nodes = 1\nseconds = 1.0", "nodes"),
        ("nodes = 5\nseconds = -1.0", "seconds"),
        ("nodes = 5\nseconds = 1.0\nnetwork = { loss = 1.5 }", "network"),
        ("nodes = 5\nseconds = 1.0\n[[fault]]\nat_s = -1.0\nkind = \"crash\"", "fault"),
    ] {
        let error = toml::from_str::<Spec>(text).unwrap().checked().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    assert!(toml::from_str::<Spec>("nodes = 5\nseconds = 1.0\nnode = 3").is_err());
}

/// Members as tasks over turmoil's streams.
mod in_turmoil {
    use super::*;
    use crate::membership::serving::ServingSabotage;
    use crate::membership::{Way, run_so};
    use crate::scenario::WorldKind;

    /// Streams lose nothing of themselves: some members do.
    const BUSY: &str = r#"
nodes = 8
seconds = 60.0
changes_per_s = 2.0
demand = { per_s = 10.0, models = 2 }
promise = { demand_percent = 25.0 }

[[fault]]
at_s = 8.0
kind = "lie"
count = 2

[[fault]]
at_s = 10.0
kind = "lossy"
count = 3
for_s = 15.0

[[fault]]
at_s = 12.0
kind = "crash"
count = 2

[[fault]]
at_s = 15.0
kind = "change"
count = 3

[[fault]]
at_s = 30.0
kind = "crash"
for_s = 5.0
"#;

    const SPLIT: &str = r#"
nodes = 6
seconds = 60.0

[[fault]]
at_s = 5.0
kind = "partition"
count = 40
for_s = 15.0
"#;

    const SERVING: &str = r#"
nodes = 8
seconds = 70.0
demand = { per_s = 6.0, models = 2 }

[serving]
models = ["Llama-3.1-8B", "Mistral-7B"]
machines = ["rtx-4090", "rtx-3090"]
sessions = 4
queue = 8
clients = 60
promise = { moves_per_minute = 2.5 }

[[serving.kill]]
at_s = 20.0
model = 0
for_s = 10.0

[[serving.kill]]
at_s = 32.0
model = 1
for_s = 10.0

[[serving.kill]]
at_s = 44.0
model = 0
for_s = 5.0

[[fault]]
at_s = 52.0
kind = "pause"
for_s = 8.0
"#;

    fn run_it(text: &str, seed: u64, way: Way) -> (Outcome, Vec<String>) {
        run_so(&spec(text), seed, Way { world: Some(WorldKind::Turmoil), ..way })
    }

    #[track_caller]
    fn catches(text: &str, sabotage: Sabotage, oracle: &str) {
        let (broken, _) = run_it(text, 1, Way { sabotage: Some(sabotage), ..Way::default() });
        assert!(found(&broken, oracle), "{sabotage:?} was not caught by {oracle}: {:?}", broken.violations);
    }

    #[test]
    fn nothing_is_found_where_nothing_is_broken() {
        for text in [BUSY, SPLIT, SERVING] {
            let (outcome, _) = run_it(text, 1, Way::default());
            assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        }
    }

    broken_variants_are_caught!();

    #[test]
    fn gaps_that_nobody_mends_are_found() {
        // Streams lose nothing, so members do, for a while.
        let lossy = "\n[[fault]]\nat_s = 3.0\nkind = \"lossy\"".repeat(6);
        let text = format!("nodes = 12\nseconds = 50.0\nchanges_per_s = 0.6\n{lossy}");
        let (honest, _) = run_it(&text, 1, Way::default());
        assert!(!found(&honest, "records"), "{:?}", honest.violations);
        catches(&text, Sabotage::NoMending, "records");
    }

    #[test]
    fn a_packet_without_a_bound_is_found() {
        let cold = SERVING.replace("nodes = 8", "nodes = 16\nstart = \"cold\"");
        catches(&cold, Sabotage::LongPackets, "bounds");
    }

    mod serving {
        use super::*;

        #[track_caller]
        fn catches(sabotage: ServingSabotage, oracle: &str) {
            let (broken, _) = run_it(SERVING, 1, Way { serving_sabotage: Some(sabotage), ..Way::default() });
            let Outcome { violations, serving, .. } = &broken;
            assert!(
                found(&broken, oracle),
                "{sabotage:?} was not caught by {oracle}: {violations:?}, {serving:?}"
            );
        }

        broken_services_are_caught!();
    }

    #[test]
    fn the_same_seed_is_the_same_run_to_the_byte() {
        let text = include_str!("../../../scenarios/membership/turmoil.toml");
        let run = |seed| run_it(text, seed, Way { is_logged: true, ..Way::default() });
        let (one, two) = (run(5), run(5));
        assert!(one.1.len() > 100, "{} lines", one.1.len());
        assert_eq!(one, two);
        assert_ne!(one.1, run(6).1);
    }

    #[test]
    fn the_driver_keeps_its_promises_over_streams_in_memory_as_well() {
        let spec = spec(SPLIT);
        let world = World::new(&spec, 1, Config::default(), None, None);
        let world = crate::membership::hosted::in_memory(world, Seed::new(1)).unwrap();
        assert_eq!(crate::membership::oracle::violations(&world), Vec::<String>::new());
    }
}
