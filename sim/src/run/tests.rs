//! Whole runs, in both worlds.

use planner::plan::LayerRange;

use super::*;
use crate::outcome::Status;
use crate::report::sample;
use crate::scenario::EngineKind;

const WORLDS: [WorldKind; 2] = [WorldKind::Memory, WorldKind::Turmoil];

pub(super) fn scenario() -> Scenario {
    let mut scenario = sample::scenario();
    scenario.plan.split =
        Some(vec![(NodeId(0), LayerRange::new(0, 40)), (NodeId(1), LayerRange::new(40, 47))]);
    scenario.baselines = vec![EngineKind::LlamaRpc];
    scenario
}

fn decode_tok_s(outcome: &Outcome) -> f64 {
    let gaps = outcome.requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|gap| gap[1] - gap[0]));
    let (sum, count) = gaps.fold((0.0, 0.0), |(sum, count), gap| (sum + gap, count + 1.0));
    count / sum * 1e6
}

#[test]
fn every_request_is_answered_in_both_worlds_alike() {
    let outcomes = WORLDS.map(|world| run(&scenario(), 7, world, false).expect("it can be run"));
    for outcome in &outcomes {
        assert_eq!(outcome.violations, Vec::<String>::new());
        assert_eq!(outcome.requests.len(), 6);
        assert!(outcome.requests.iter().all(|r| r.status == Status::Completed && r.tokens.len() == 48));
        assert!(outcome.nodes.iter().all(|n| n.kv_left == 0 && n.steps > 0 && n.busy > 0.0 && n.busy < 1.0));
        let mean_ms = 1e3 / decode_tok_s(outcome);
        assert!((outcome.breakdown.total_ms() / mean_ms - 1.0).abs() < 1e-6, "the parts are not the whole");
    }
    let [memory, turmoil] = outcomes.map(|outcome| decode_tok_s(&outcome));
    assert!((memory / turmoil - 1.0).abs() < 0.01, "{memory} tok/s in memory, {turmoil} in turmoil");
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    for world in WORLDS {
        let bytes = |seed| {
            let outcome = run(&scenario(), seed, world, false).expect("it can be run");
            serde_json::to_string(&outcome).expect("an outcome is plain data")
        };
        assert_eq!(bytes(7), bytes(7), "{world:?}");
        assert_ne!(bytes(7), bytes(8), "{world:?}");
    }
}

#[test]
fn layers_are_in_memory_from_the_start_and_are_read_again_after_a_crash() {
    let quiet = run(&scenario(), 7, WorldKind::Memory, true).expect("it can be run");
    assert!(quiet.spans.iter().all(|span| span.kind != "load"), "nothing is loaded while all is well");
    let first_ms = (quiet.requests[0].tokens_us[0] - quiet.requests[0].asked_us) / 1e3;
    assert!(first_ms < 2_000.0, "the first token took {first_ms} ms");
    let broken = run(&crashing(), 7, WorldKind::Memory, true).expect("it can be run");
    assert!(broken.spans.iter().any(|span| span.kind == "load"));
}

/// The small machine dies three seconds in, for ever; the laptop is there to take its place.
pub(super) fn crashing() -> Scenario {
    let mut scenario = scenario();
    scenario.faults = vec![Fault { at_us: 3e6, kind: FaultKind::Crash(NodeId(1)) }];
    scenario
}

#[test]
fn a_crash_is_a_pause_and_not_an_error() {
    for world in WORLDS {
        let outcome = run(&crashing(), 7, world, false).expect("it can be run");
        assert_eq!(outcome.violations, Vec::<String>::new(), "{world:?}");
        assert!(outcome.requests.iter().any(|r| r.resumptions > 0), "{world:?}");
        assert!(outcome.epoch.0 > 1, "{world:?}");
        let crash = outcome.incidents.iter().find(|i| i.what == "crash of mini").expect("it crashed");
        let pause_us = crash.pause_us.expect("tokens stopped");
        assert!(pause_us > 100e3 && pause_us < 60e6, "{world:?}: tokens stopped for {pause_us} us");
    }
}

#[test]
fn a_client_whose_node_dies_goes_on_at_another() {
    for world in WORLDS {
        let mut scenario = crashing();
        scenario.faults[0].kind = FaultKind::Crash(NodeId(2));
        scenario.workload.entry = vec![NodeId(2), NodeId(0)];
        let outcome = run(&scenario, 7, world, false).expect("it can be run");
        assert_eq!(outcome.violations, Vec::<String>::new(), "{world:?}");
        let moved: Vec<_> =
            outcome.requests.iter().filter(|r| r.entry == "laptop" && r.resumptions > 0).collect();
        assert!(!moved.is_empty(), "{world:?}: nobody was asking the laptop when it died");
        assert!(moved.iter().all(|r| r.status == Status::Completed && r.tokens.len() == 48), "{world:?}");
    }
}

#[test]
fn turmoil_refuses_more_hosts_than_it_can_carry() {
    let mut scenario = scenario();
    for copy in 0..TURMOIL_HOSTS_MOST {
        let mut node = scenario.fleet.nodes[2].clone();
        node.name = format!("laptop-{copy}");
        scenario.fleet.nodes.push(node);
    }
    let refused = run(&scenario, 7, WorldKind::Turmoil, false).expect_err("too many");
    assert!(refused.to_string().contains("--world memory"), "{refused}");
}
