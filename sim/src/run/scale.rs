//! The clock scale of a run in turmoil: as small as the figures allow, because turmoil's cost is per step.
//!
//! A frame that is sent within one step can be read in the next at the earliest, so one that should arrive sooner than two
//! steps later may be late by the difference. What a token loses on its way round the ring is the sum over its hops.

use planner::cost::constants::{RING, TOKEN_FRAME_BYTES};
use planner::cost::predict::predict;
use planner::cost::transfer::{activation_frame_bytes, transfer_time};
use planner::fleet::NodeId;
use planner::plan::{Pipeline, Plan};

use crate::scenario::Scenario;

/// The most that steps may add to the time of a token, as a share of it.
const ERROR_MOST: f64 = 0.005;

/// Steps a frame needs from its sender to its receiver.
const STEPS_PER_FRAME: f64 = 2.0;

/// Steps in a simulated millisecond beyond which nothing gets better: one is a microsecond then.
const SCALE_MOST: u32 = 1_000;

/// The smallest scale at which no pipeline of the plan loses more than half a per cent of a token's time. Where faults may
/// change the plan, every hop counts as the shortest of the fleet.
pub(super) fn smallest(scenario: &Scenario, plan: &Plan, entries: &[NodeId], may_change: bool) -> u32 {
    let shortest_us = may_change.then(|| shortest_us(scenario));
    let needed = plan.replicas.iter().flat_map(|pipeline| {
        entries.iter().map(move |head| needed(scenario, plan, pipeline, *head, shortest_us))
    });
    needed.max().unwrap_or(1)
}

fn needed(
    scenario: &Scenario,
    plan: &Plan,
    pipeline: &Pipeline,
    head: NodeId,
    shortest_us: Option<f64>,
) -> u32 {
    let mut hops = hops_us(scenario, pipeline, head);
    if let Some(shortest_us) = shortest_us {
        hops = vec![shortest_us; hops.len().max(2)];
    }
    let alone = Plan { replicas: vec![pipeline.clone()], ..plan.clone() };
    let load = planner::cost::predict::Load { head: Some(head), ..scenario.plan.ask.load };
    let predicted = predict(&scenario.fleet, &scenario.model, &alone, &load, &RING);
    let allowed_us = predicted.map_or(0.0, |p| p.tpot_ms * 1e3 * ERROR_MOST);
    let late_us = |scale: u32| {
        let frame_us = STEPS_PER_FRAME * 1e3 / f64::from(scale);
        hops.iter().map(|hop_us| (frame_us - hop_us).max(0.0)).sum::<f64>()
    };
    (1..SCALE_MOST).find(|scale| late_us(*scale) <= allowed_us).unwrap_or(SCALE_MOST)
}

/// The least time of each hop of a token: from the head through the stages and back.
fn hops_us(scenario: &Scenario, pipeline: &Pipeline, head: NodeId) -> Vec<f64> {
    let stages = pipeline.stages.iter().map(|stage| stage.node);
    let way: Vec<NodeId> = [head].into_iter().chain(stages).chain([head]).collect();
    let activations = activation_frame_bytes(&scenario.model, &RING, 1);
    let hops = way.windows(2).enumerate().filter(|(_, hop)| hop[0] != hop[1]);
    hops.map(|(index, hop)| {
        let ids = index == 0 || index + 2 == way.len();
        let bytes = if ids { TOKEN_FRAME_BYTES } else { activations };
        least_us(scenario, hop[0], hop[1], bytes)
    })
    .collect()
}

/// The least a frame takes from one node to another; no time where there is no way.
fn least_us(scenario: &Scenario, from: NodeId, to: NodeId, bytes: u64) -> f64 {
    scenario.fleet.path(from, to).map_or(0.0, |path| {
        let mean = transfer_time(&path, bytes, &RING);
        path.delay.base_us + mean.bandwidth_us + mean.software_us
    })
}

/// The shortest hop between any two nodes that can reach each other.
fn shortest_us(scenario: &Scenario) -> f64 {
    let ids = || scenario.fleet.ids();
    let pairs = ids().flat_map(|from| ids().map(move |to| (from, to))).filter(|(from, to)| from != to);
    let joined = pairs.filter(|(from, to)| scenario.fleet.path(*from, *to).is_some());
    joined.map(|(from, to)| least_us(scenario, from, to, TOKEN_FRAME_BYTES)).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use planner::plan::{LayerRange, Stage};

    use super::*;
    use crate::report::sample;

    fn plan(nodes: &[u32]) -> Plan {
        let share = 47 / nodes.len() as u32;
        let stages = nodes.iter().enumerate().map(|(i, node)| Stage {
            node: NodeId(*node),
            layers: LayerRange::new(i as u32 * share, (i as u32 + 1) * share),
        });
        let replicas = vec![Pipeline { stages: stages.collect() }];
        Plan { model: "any".into(), replicas, experts: Vec::new(), context: 512, sessions: 1 }
    }

    fn scale(scenario: &Scenario, nodes: &[u32], may_change: bool) -> u32 {
        smallest(scenario, &plan(nodes), &[NodeId(nodes[0])], may_change)
    }

    #[test]
    fn delays_of_two_steps_and_more_need_no_scale() {
        assert_eq!(scale(&sample::scenario(), &[0, 1, 2], false), 1);
        assert_eq!(scale(&sample::scenario(), &[0], false), 1, "one node sends nothing");
    }

    #[test]
    fn one_short_hop_may_cost_half_a_per_cent_of_the_token() {
        let mut scenario = sample::scenario();
        scenario.fleet.nodes[1].machine = scenario.fleet.nodes[0].machine.clone();
        let hop_us = least_us(&scenario, NodeId(0), NodeId(1), TOKEN_FRAME_BYTES);
        let chosen = scale(&scenario, &[0, 1, 2], false);
        let late_us = 2e3 / f64::from(chosen) - hop_us;
        let token_us =
            predict(&scenario.fleet, &scenario.model, &plan(&[0, 1, 2]), &scenario.plan.ask.load, &RING)
                .expect("they reach each other")
                .tpot_ms
                * 1e3;
        assert!(late_us > 0.0 && late_us <= 0.005 * token_us, "{late_us} us late of {token_us}");
        assert!(chosen > 1);
    }

    #[test]
    fn where_the_plan_may_change_the_shortest_hop_counts() {
        let mut scenario = sample::scenario();
        scenario.fleet.nodes[1].machine = scenario.fleet.nodes[0].machine.clone();
        assert_eq!(scale(&scenario, &[0, 2], false), 1);
        assert!(scale(&scenario, &[0, 2], true) > 1);
    }
}
