//! Whole runs, in both worlds.

use planner::plan::LayerRange;

use super::*;
use crate::outcome::Status;
use crate::report::sample;
use crate::scenario::EngineKind;

const WORLDS: [WorldKind; 2] = [WorldKind::Memory, WorldKind::Turmoil];

fn scenario() -> Scenario {
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
        eprintln!("{:?} {} {}", outcome.breakdown, decode_tok_s(outcome), outcome.ended_us);
    }
    let [memory, turmoil] = outcomes.map(|outcome| decode_tok_s(&outcome));
    assert!((memory / turmoil - 1.0).abs() < 0.01, "{memory} tok/s in memory, {turmoil} in turmoil");
}
