//! The plan a run follows: the scenario's own cut, checked, or the planner's.

use planner::cost::memory::stage_bytes;
use planner::fleet::Fleet;
use planner::place::{Placement, Refusal, place};
use planner::plan::{LayerRange, NodeId, Pipeline, Plan, Stage};
use planner::units;

use super::RunError;
use crate::scenario::Scenario;

/// Why a cut given by hand cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// There is nothing in it.
    #[error("plan.split has no stages; give it at least one node with layers")]
    Empty,
    /// A stage does not begin where the one before ends.
    #[error(
        "plan.split: the stage of {node} begins at layer {first}, the layers before it end at {expected}; \
         let each stage begin where the one before ends, the first at 0"
    )]
    Gap {
        /// Whose stage.
        node: String,
        /// Where it begins.
        first: u32,
        /// Where it should.
        expected: u32,
    },
    /// A stage has no layers, or more than there are.
    #[error(
        "plan.split: the stage of {node} has layers {first}..{end} of 0..{layers}; give it at least one of these"
    )]
    Range {
        /// Whose stage.
        node: String,
        /// Where it begins.
        first: u32,
        /// Where it ends.
        end: u32,
        /// How many the model has.
        layers: u32,
    },
    /// Layers are missing at the end.
    #[error("plan.split ends at layer {end}, the model has {layers}; extend the last stage")]
    Short {
        /// Where it ends.
        end: u32,
        /// How many the model has.
        layers: u32,
    },
    /// A node has two stages.
    #[error("plan.split gives {node} two stages; give each node one range of layers")]
    Twice {
        /// Whose.
        node: String,
    },
    /// A node does not have the weights.
    #[error(
        "plan.split gives layers to {node}, which does not have the model; set has_model = true or take another node"
    )]
    NoModel {
        /// Whose.
        node: String,
    },
    /// A stage is larger than its device.
    #[error(
        "plan.split: the stage of {node} needs {}, the device has {} to give; move layers to another node, or ask for \
         less context or fewer sessions", units::fmt_bytes(*need), units::fmt_bytes(*have)
    )]
    TooLarge {
        /// Whose.
        node: String,
        /// Weights, KV of the asked sessions, activations, bytes.
        need: u64,
        /// Usable memory, bytes.
        have: u64,
    },
    /// Neighbours in the ring cannot reach each other.
    #[error("plan.split: there is no link from {from} to {to}; join their networks by a [[distance]]")]
    Unreachable {
        /// Sender.
        from: String,
        /// Receiver.
        to: String,
    },
}

/// The plan of the main run, where the planner has placed the model already.
pub(super) fn choose_from(
    scenario: &Scenario,
    placement: &Result<Placement, Refusal>,
) -> Result<Plan, RunError> {
    match (&scenario.plan.split, placement) {
        (Some(split), _) => Ok(cut(scenario, split)?),
        (None, Ok(placement)) => Ok(placement.recommended.plan.clone()),
        (None, Err(refusal)) => Err(RunError::NoPlan(refusal.clone())),
    }
}

/// The plan of the main run.
pub(super) fn choose(scenario: &Scenario) -> Result<Plan, RunError> {
    match &scenario.plan.split {
        Some(split) => Ok(cut(scenario, split)?),
        None => choose_from(scenario, &place(&scenario.fleet, &scenario.model, &scenario.plan.ask)),
    }
}

/// The plan that the scenario cuts by hand, if it does and the cut can run.
pub(crate) fn given(scenario: &Scenario) -> Option<Plan> {
    scenario.plan.split.as_ref().and_then(|split| cut(scenario, split).ok())
}

/// The plan of a cut given by hand.
fn cut(scenario: &Scenario, split: &[(NodeId, LayerRange)]) -> Result<Plan, SplitError> {
    let ask = &scenario.plan.ask;
    let stages: Vec<Stage> =
        split.iter().map(|(node, layers)| Stage { node: *node, layers: *layers }).collect();
    let plan = Plan {
        model: scenario.model.name.clone(),
        replicas: vec![Pipeline { stages }],
        experts: Vec::new(),
        context: ask.constraints.context,
        sessions: ask.constraints.sessions.max(1),
    };
    check(scenario, &plan)?;
    Ok(plan)
}

fn name(fleet: &Fleet, node: NodeId) -> String {
    fleet.nodes.get(node.index()).map_or_else(|| format!("node {}", node.0), |n| n.name.clone())
}

/// Whether the plan's one pipeline is whole and fits.
fn check(scenario: &Scenario, plan: &Plan) -> Result<(), SplitError> {
    let (fleet, layers) = (&scenario.fleet, scenario.model.layer_count());
    let stages = plan.replicas.first().map(|p| p.stages.as_slice()).unwrap_or_default();
    let mut expected = 0;
    for (index, stage) in stages.iter().enumerate() {
        let node = name(fleet, stage.node);
        let (first, end) = (stage.layers.first, stage.layers.end);
        if stage.layers.is_empty() || end > layers {
            return Err(SplitError::Range { node, first, end, layers });
        }
        if first != expected {
            return Err(SplitError::Gap { node, first, expected });
        }
        if stages[..index].iter().any(|other| other.node == stage.node) {
            return Err(SplitError::Twice { node });
        }
        check_fit(scenario, plan, stage, node)?;
        expected = end;
    }
    match expected {
        0 => Err(SplitError::Empty),
        end if end < layers => Err(SplitError::Short { end, layers }),
        _ => check_links(fleet, stages),
    }
}

fn check_fit(scenario: &Scenario, plan: &Plan, stage: &Stage, node: String) -> Result<(), SplitError> {
    let machine = scenario.fleet.node(stage.node);
    if !machine.has_model {
        return Err(SplitError::NoModel { node });
    }
    let need = stage_bytes(&scenario.model, stage.layers, plan.context, plan.sessions);
    let have = machine.device.usable_bytes();
    if need > have {
        return Err(SplitError::TooLarge { node, need, have });
    }
    Ok(())
}

/// Every stage reaches the next, and the last the first: there the tokens go back to.
fn check_links(fleet: &Fleet, stages: &[Stage]) -> Result<(), SplitError> {
    let next = stages.iter().cycle().skip(1);
    for (from, to) in stages.iter().zip(next).filter(|(from, to)| from.node != to.node) {
        if fleet.path(from.node, to.node).is_none() {
            return Err(SplitError::Unreachable { from: name(fleet, from.node), to: name(fleet, to.node) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use planner::fleet::NetworkId;

    use super::*;
    use crate::report::sample;

    fn checked(split: &[(u32, u32, u32)], change: impl FnOnce(&mut Scenario)) -> Result<Plan, String> {
        let mut scenario = sample::scenario();
        let split = split.iter().map(|(node, first, end)| (NodeId(*node), LayerRange::new(*first, *end)));
        scenario.plan.split = Some(split.collect());
        change(&mut scenario);
        choose(&scenario).map_err(|error| error.to_string())
    }

    fn refused(split: &[(u32, u32, u32)], change: impl FnOnce(&mut Scenario)) -> String {
        checked(split, change).expect_err("the cut is wrong")
    }

    const GOOD: [(u32, u32, u32); 2] = [(0, 0, 40), (1, 40, 47)];

    #[test]
    fn a_whole_cut_that_fits_is_the_plan() {
        let plan = checked(&GOOD, |_| {}).expect("the cut is good");
        assert_eq!(plan.layers_of(NodeId(1)), Some(LayerRange::new(40, 47)));
    }

    #[test]
    fn a_cut_that_is_not_whole_says_where() {
        assert!(refused(&[], |_| {}).contains("has no stages"));
        assert!(
            refused(&[(0, 1, 47)], |_| {}).contains("max begins at layer 1, the layers before it end at 0")
        );
        assert!(refused(&[(0, 0, 40), (1, 41, 47)], |_| {}).contains("mini begins at layer 41"));
        assert!(refused(&[(0, 0, 40)], |_| {}).contains("ends at layer 40, the model has 47"));
        assert!(refused(&[(0, 0, 48)], |_| {}).contains("has layers 0..48 of 0..47"));
        assert!(refused(&[(0, 0, 0), (1, 0, 47)], |_| {}).contains("max has layers 0..0"));
        assert!(refused(&[(0, 0, 40), (0, 40, 47)], |_| {}).contains("gives max two stages"));
    }

    #[test]
    fn a_cut_that_cannot_run_says_why() {
        let small = |scenario: &mut Scenario| scenario.fleet.nodes[0].device.memory_bytes = 5_000_000_000;
        assert!(refused(&GOOD, small).contains("the stage of max needs"));
        let without = |scenario: &mut Scenario| scenario.fleet.nodes[1].has_model = false;
        assert!(refused(&GOOD, without).contains("gives layers to mini, which does not have the model"));
        let apart = |scenario: &mut Scenario| {
            let elsewhere = scenario.fleet.networks[0].clone();
            scenario.fleet.networks.push(elsewhere);
            scenario.fleet.nodes[1].network = NetworkId(1);
        };
        assert!(refused(&GOOD, apart).contains("no link from max to mini"));
    }
}
