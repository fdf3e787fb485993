//! On small fleets the planner's answer is as good as that of trying every plan.
#![allow(clippy::unwrap_used, reason = "a test that fails here fails")]

mod made_up;

use std::collections::BTreeMap;

use made_up::{Case, Size, case, cases, every_plan};
use planner::place::{Objective, place};
use planner::plan::Prediction;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Lower is better.
fn value(objective: Objective, p: &Prediction) -> f64 {
    match objective {
        Objective::Tpot => p.tpot_ms,
        Objective::Ttft => p.ttft_ms,
        Objective::Throughput => -p.throughput_tok_s,
    }
}

fn as_good_as_every_plan(case: &Case) -> Result<(), TestCaseError> {
    let best = every_plan::best(case);
    let placement = place(&case.fleet, &case.model, &case.ask);
    match (best, placement) {
        (None, Err(_)) => Ok(()),
        (Some(best), Ok(placement)) => {
            let got = value(case.ask.objective, &placement.recommended.prediction);
            prop_assert!((got - best).abs() <= 1e-9 * best.abs(), "{got} but there is {best}: {placement:?}");
            prop_assert!(placement.exact);
            prop_assert_eq!(placement.gap, 0.0);
            Ok(())
        }
        (best, placement) => Err(TestCaseError::fail(format!("{best:?} by all plans, {placement:?}"))),
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn three_nodes_are_placed_as_by_trying_every_plan(case in case(Size { nodes: 3, layers: 12, prompt: 2500 })) {
        as_good_as_every_plan(&case)?;
    }

    #[test]
    fn four_nodes_are_placed_as_by_trying_every_plan(case in case(Size { nodes: 4, layers: 7, prompt: 2500 })) {
        as_good_as_every_plan(&case)?;
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn six_nodes_are_placed_as_by_trying_every_plan(case in case(Size { nodes: 6, layers: 8, prompt: 1500 })) {
        as_good_as_every_plan(&case)?;
    }

    #[test]
    fn twelve_layers_are_cut_as_by_trying_every_plan(case in case(Size { nodes: 5, layers: 12, prompt: 1500 })) {
        as_good_as_every_plan(&case)?;
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn six_nodes_and_twelve_layers_are_placed_as_by_trying_every_plan(
        case in case(Size { nodes: 6, layers: 12, prompt: 1200 })
    ) {
        as_good_as_every_plan(&case)?;
    }
}

#[test]
fn the_drawn_cases_have_plans_of_every_mode() {
    let mut runner = TestRunner::deterministic();
    let drawn = case(Size { nodes: 4, layers: 8, prompt: 1500 });
    let mut modes = BTreeMap::new();
    for _ in 0..300 {
        let case = drawn.new_tree(&mut runner).unwrap().current();
        let placement = place(&case.fleet, &case.model, &case.ask);
        let mode = placement.map_or("refused", |p| p.recommended.plan.mode().as_str());
        *modes.entry(mode).or_insert(0) += 1;
    }
    for mode in ["refused", "solo", "pipeline", "replicas"] {
        assert!(modes.get(mode).is_some_and(|count| *count >= 15), "{modes:?}");
    }
}
