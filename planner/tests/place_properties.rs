//! What every answer of the planner keeps, on random fleets.
#![allow(clippy::unwrap_used, reason = "a test that fails here fails")]

mod made_up;

use made_up::{Case, Size, case, cases, every_plan};
use planner::cost::memory::stage_bytes;
use planner::fleet::{Fleet, NodeId};
use planner::place::{Objective, Placement, Refusal, Shape, place, replan};
use planner::plan::{Plan, Prediction};
use proptest::prelude::*;

const SMALL: Size = Size { nodes: 5, layers: 10, prompt: 1200 };
const LARGE: Size = Size { nodes: 24, layers: 24, prompt: 1200 };

/// Lower is better.
fn value(objective: Objective, p: &Prediction) -> f64 {
    match objective {
        Objective::Tpot => p.tpot_ms,
        Objective::Ttft => p.ttft_ms,
        Objective::Throughput => -p.throughput_tok_s,
    }
}

fn keeps_the_constraints(case: &Case, plan: &Plan) -> Result<(), TestCaseError> {
    let c = &case.ask.constraints;
    let mut seen = Vec::new();
    for replica in &plan.replicas {
        let mut done = 0;
        for stage in &replica.stages {
            let node = case.fleet.node(stage.node);
            prop_assert!(!seen.contains(&stage.node), "a node stands in the plan twice");
            seen.push(stage.node);
            prop_assert_eq!(stage.layers.first, done, "layers have a gap");
            done = stage.layers.end;
            prop_assert!(stage.layers.len() >= c.min_layers.max(1), "a stage has too few layers");
            prop_assert!(node.has_model && !c.excluded.contains(&stage.node), "that node must not take part");
            prop_assert!(plan.sessions >= c.sessions && plan.context == c.context);
            let bytes = stage_bytes(&case.model, stage.layers, c.context, c.sessions);
            prop_assert!(bytes <= node.device.usable_bytes(), "memory is exceeded");
        }
        prop_assert_eq!(done, case.model.layer_count());
        let ring = replica.stages.iter().zip(replica.stages.iter().skip(1));
        for (a, b) in ring {
            prop_assert!(every_plan::near(case, a.node, b.node), "neighbours are too far apart");
        }
    }
    prop_assert!(c.pinned.iter().all(|p| seen.contains(p)), "a pinned node is left out");
    let of_shape = match c.shape {
        Shape::Auto => true,
        Shape::Solo => seen.len() == 1,
        Shape::Pipeline => plan.replicas.len() == 1 && seen.len() > 1,
        Shape::Replicas => plan.replicas.len() > 1,
    };
    prop_assert!(of_shape, "the shape is not kept");
    Ok(())
}

fn answers_well(case: &Case, placement: &Placement) -> Result<(), TestCaseError> {
    keeps_the_constraints(case, &placement.recommended.plan)?;
    for candidate in &placement.pareto {
        keeps_the_constraints(case, &candidate.plan)?;
    }
    let used: Vec<NodeId> = placement.recommended.plan.stages().map(|s| s.node).collect();
    let mut all: Vec<NodeId> = placement.left_out.iter().map(|l| l.node).chain(used).collect();
    all.sort_unstable();
    prop_assert_eq!(all, case.fleet.ids().collect::<Vec<_>>(), "each node is used or left out");
    prop_assert!(placement.left_out.iter().all(|l| !l.why.is_empty()));
    prop_assert!(placement.gap >= 0.0 && (!placement.exact || placement.gap == 0.0));
    Ok(())
}

/// `fleet` without its last node, and the question without it.
fn without_last(case: &Case) -> Option<Case> {
    let last = NodeId(case.fleet.nodes.len() as u32 - 1);
    let mut less = case.clone();
    less.fleet.nodes.pop();
    less.fleet.overrides.retain(|o| o.from != last && o.to != last);
    less.ask.constraints.excluded.retain(|n| *n != last);
    let named = less.ask.constraints.pinned.contains(&last) || less.ask.load.head == Some(last);
    (!named && !less.fleet.nodes.is_empty()).then_some(less)
}

proptest! {
    #![proptest_config(cases(800))]

    #[test]
    fn plans_of_small_fleets_keep_every_constraint(case in case(SMALL)) {
        if let Ok(placement) = place(&case.fleet, &case.model, &case.ask) {
            answers_well(&case, &placement)?;
        }
    }

    #[test]
    fn one_more_node_never_makes_the_best_plan_worse(case in case(SMALL)) {
        let Some(less) = without_last(&case) else { return Ok(()) };
        let mut case = case;
        case.ask.constraints.excluded.retain(|n| n.index() < less.fleet.nodes.len());
        let Ok(before) = place(&less.fleet, &less.model, &less.ask) else { return Ok(()) };
        let after = place(&case.fleet, &case.model, &case.ask);
        prop_assert!(after.is_ok(), "there was a plan, with one more node there is none: {after:?}");
        let of = |p: &Placement| value(case.ask.objective, &p.recommended.prediction);
        let (before, after) = (of(&before), of(&after.unwrap()));
        prop_assert!(after <= before + 1e-9 * before.abs(), "{after} after {before}");
    }

    #[test]
    fn a_refusal_names_what_really_stands_in_the_way(case in case(SMALL)) {
        let Err(refusal) = place(&case.fleet, &case.model, &case.ask) else { return Ok(()) };
        stands_in_the_way(&case, &refusal)?;
    }

    #[test]
    fn the_front_has_no_plan_that_another_beats(case in case(SMALL)) {
        let Ok(placement) = place(&case.fleet, &case.model, &case.ask) else { return Ok(()) };
        let all = |p: &Prediction| [p.tpot_ms, p.ttft_ms, -p.throughput_tok_s];
        for a in &placement.pareto {
            for b in &placement.pareto {
                let (x, y) = (all(&a.prediction), all(&b.prediction));
                prop_assert!(a == b || x.iter().zip(&y).any(|(x, y)| x > y), "{x:?} beats {y:?}");
            }
        }
        let best = value(case.ask.objective, &placement.recommended.prediction);
        let front = placement.pareto.iter().map(|c| value(case.ask.objective, &c.prediction));
        let least = front.fold(f64::INFINITY, f64::min);
        prop_assert!((least - best).abs() <= 1e-9 * best.abs(), "{least} {best}");
    }
}

/// Takes away what the refusal names: then there is a plan; keeps it and takes away the rest: there is none.
fn stands_in_the_way(case: &Case, refusal: &Refusal) -> Result<(), TestCaseError> {
    match refusal {
        Refusal::NoNodes(_) => {
            let may =
                |n: &NodeId| case.fleet.node(*n).has_model && !case.ask.constraints.excluded.contains(n);
            prop_assert!(!case.fleet.ids().any(|n| may(&n)));
        }
        Refusal::Memory { need_bytes, have_bytes } => {
            prop_assert!(need_bytes > have_bytes);
            let mut roomy = case.clone();
            roomy.fleet.nodes.iter_mut().for_each(|n| n.device.memory_bytes += need_bytes * 2);
            let mut free = without(&roomy, &["shape", "pinned", "latency cap", "minimum layers"]);
            free.ask.load.head = None;
            prop_assert!(place(&free.fleet, &free.model, &free.ask).is_ok());
        }
        Refusal::Constraint(text) => {
            let limits = ["shape", "pinned", "latency cap", "minimum layers"];
            let named: Vec<&str> = limits.into_iter().filter(|l| text.contains(*l)).collect();
            let free = without(case, &named);
            let relaxed = place(&free.fleet, &free.model, &free.ask);
            if named.is_empty() {
                let mut roomy = without(case, &limits);
                prop_assert!(place(&roomy.fleet, &roomy.model, &roomy.ask).is_err(), "{text}");
                prop_assert!(text.contains("memory") || text.contains("reach"), "{text}");
                if text.starts_with("memory") {
                    roomy.fleet.nodes.iter_mut().for_each(|n| n.device.memory_bytes *= 100);
                    roomy.ask.load.head = None;
                } else {
                    let first = roomy.fleet.nodes[0].network;
                    roomy.fleet.nodes.iter_mut().for_each(|n| n.network = first);
                }
                prop_assert!(place(&roomy.fleet, &roomy.model, &roomy.ask).is_ok(), "{text}");
                return Ok(());
            }
            prop_assert!(relaxed.is_ok(), "{text}, but without it: {relaxed:?}");
            for kept in &named {
                let fewer: Vec<&str> = named.iter().copied().filter(|l| l != kept).collect();
                let case = without(case, &fewer);
                prop_assert!(
                    place(&case.fleet, &case.model, &case.ask).is_err(),
                    "{text}: {kept} is not needed"
                );
            }
        }
    }
    Ok(())
}

fn without(case: &Case, limits: &[&str]) -> Case {
    let mut case = case.clone();
    let c = &mut case.ask.constraints;
    for limit in limits {
        match *limit {
            "shape" => c.shape = Shape::Auto,
            "pinned" => c.pinned.clear(),
            "latency cap" => c.latency_cap_us = None,
            _ => c.min_layers = 1,
        }
    }
    case
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn plans_of_large_fleets_keep_every_constraint_and_their_gap(case in case(LARGE)) {
        let Ok(placement) = place(&case.fleet, &case.model, &case.ask) else { return Ok(()) };
        answers_well(&case, &placement)?;
        if !case.ask.constraints.pinned.is_empty() {
            return Ok(());
        }
        // The best plan of any few of the nodes is no better than the gap allows.
        let of = |p: &Prediction| value(case.ask.objective, p);
        let (found, gap) = (of(&placement.recommended.prediction), placement.gap);
        for first in [0, 5, 11] {
            let mut few = case.clone();
            let others = case.fleet.ids().filter(|n| n.index() < first || n.index() >= first + 6);
            few.ask.constraints.excluded.extend(others);
            let Ok(best) = place(&few.fleet, &few.model, &few.ask) else { continue };
            let allowed = found - gap * found.abs();
            let best = of(&best.recommended.prediction);
            prop_assert!(best >= allowed - 1e-9 * allowed.abs(), "{best} is better than {found} by more than {gap}");
        }
    }

    /// Pinning a node by two rules of a scenario once put it into a pipeline of a large fleet twice.
    #[test]
    fn a_node_that_is_pinned_twice_stands_in_the_plan_once(case in case(LARGE), pin in any::<prop::sample::Index>()) {
        let mut case = case;
        let pin = NodeId(pin.index(case.fleet.nodes.len()) as u32);
        case.ask.constraints.pinned = vec![pin, pin];
        if let Ok(placement) = place(&case.fleet, &case.model, &case.ask) {
            answers_well(&case, &placement)?;
        }
    }

    #[test]
    fn a_replan_serves_without_the_lost_and_leaves_whole_replicas_alone(
        case in case(Size { nodes: 9, layers: 10, prompt: 600 }),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
    ) {
        let Ok(before) = place(&case.fleet, &case.model, &case.ask) else { return Ok(()) };
        let old = before.recommended.plan;
        let stages: Vec<_> = old.stages().map(|s| s.node).collect();
        let lost: Vec<NodeId> = lost.iter().map(|i| stages[i.index(stages.len())]).collect();
        let mut after = case.clone();
        after.ask.constraints.excluded.extend(lost.iter().copied());
        after.ask.constraints.pinned.retain(|p| !lost.contains(p));
        after.ask.load.head = after.ask.load.head.filter(|h| !lost.contains(h));
        let fresh = place(&after.fleet, &after.model, &after.ask);
        match replan(&case.fleet, &case.model, &case.ask, &old, &lost) {
            Err(refusal) => prop_assert!(fresh.is_err(), "{refusal}"),
            Ok(new) => {
                keeps_the_constraints(&after, &new.plan)?;
                let whole = |r: &&planner::plan::Pipeline| r.stages.iter().all(|s| !lost.contains(&s.node));
                let whole: Vec<_> = old.replicas.iter().filter(whole).collect();
                let kept = whole.iter().filter(|r| new.plan.replicas.contains(r)).count();
                let left = if case.ask.constraints.shape == Shape::Replicas || !after.ask.constraints.pinned.is_empty() {
                    kept
                } else {
                    whole.len()
                };
                prop_assert!(kept >= left, "a replica that lost nobody was changed");
                let held = |n: NodeId| old.layers_of(n);
                for stage in new.plan.stages() {
                    let bytes = new.cost.bytes_to_load.iter().find(|(n, _)| *n == stage.node).map_or(0, |b| b.1);
                    let same = held(stage.node) == Some(stage.layers);
                    prop_assert!(!same || bytes == 0, "it has those layers already");
                    let none = held(stage.node).is_none();
                    prop_assert!(!none || bytes == planner::cost::memory::weight_bytes(&case.model, stage.layers));
                }
            }
        }
    }
}

fn any_fleet() -> (Fleet, Case) {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let case = case(SMALL).new_tree(&mut runner).unwrap().current();
    (case.fleet.clone(), case)
}

#[test]
fn questions_without_sense_are_refused_and_not_a_panic() {
    let (fleet, case) = any_fleet();
    let far = NodeId(99);
    let mut no_layers = case.clone();
    no_layers.model.layers.clear();
    let mut far_head = case.clone();
    far_head.ask.load.head = Some(far);
    let mut far_pin = case.clone();
    far_pin.ask.constraints.pinned = vec![far];
    far_pin.ask.constraints.excluded = vec![far];
    for case in [no_layers, far_head, far_pin] {
        assert!(matches!(place(&case.fleet, &case.model, &case.ask), Err(Refusal::Constraint(_))));
    }
    let empty = Fleet { nodes: Vec::new(), overrides: Vec::new(), ..fleet };
    let mut ask = case.ask;
    (ask.load.head, ask.constraints.pinned) = (None, Vec::new());
    assert!(matches!(place(&empty, &case.model, &ask), Err(Refusal::NoNodes(_))));
}
