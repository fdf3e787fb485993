//! The clock scale of a run in turmoil: the smallest whose error stays under one per cent, because turmoil's cost is per
//! step.
//!
//! A frame that is sent within one step can be read in the next at the earliest, so one that should arrive sooner than two
//! steps later may be late by the difference. What a token loses on its way round the ring is at most the sum over its
//! hops: that, as a share of the token's predicted time, is the error.

use planner::cost::constants::TOKEN_FRAME_BYTES;
use planner::cost::predict::{Load, predict};
use planner::cost::transfer::{activation_frame_bytes, transfer_time};
use planner::fleet::NodeId;
use planner::plan::{Pipeline, Plan};

use crate::over_turmoil::SCALE_MAX;
use crate::scenario::Scenario;

/// The most that steps may add to the time of a token, as a share of it.
const ERROR_MOST: f64 = 0.01;

/// Steps a frame needs from its sender to its receiver.
const STEPS_PER_FRAME: f64 = 2.0;

/// A token's way through one pipeline of the plan.
#[derive(Debug)]
struct Way {
    hops_us: Vec<f64>,
    token_us: f64,
}

impl Way {
    /// The most by which the token is late, as a share of its time.
    fn error(&self, scale: u32) -> f64 {
        let frame_us = STEPS_PER_FRAME * 1e3 / f64::from(scale);
        let late_us: f64 = self.hops_us.iter().map(|hop_us| (frame_us - hop_us).max(0.0)).sum();
        if late_us > 0.0 { late_us / self.token_us } else { 0.0 }
    }
}

/// What steps do to the tokens of a run.
#[derive(Debug)]
pub(super) struct Steps {
    ways: Vec<Way>,
    error_most: f64,
}

impl Steps {
    /// Every way through the plan's pipelines. Where faults may change the plan, each hop counts as the shortest of the
    /// fleet, and none may be late at all: a late pong becomes another verdict, and that another run.
    pub(super) fn new(scenario: &Scenario, plan: &Plan, entries: &[NodeId], may_change: bool) -> Self {
        let shortest_us = may_change.then(|| shortest_us(scenario));
        let ways = plan.replicas.iter().flat_map(|pipeline| {
            entries.iter().map(move |head| way(scenario, plan, pipeline, *head, shortest_us))
        });
        Self { ways: ways.collect(), error_most: if may_change { 0.0 } else { ERROR_MOST } }
    }

    /// The most that steps add to the time of a token at this scale, as a share of it.
    pub(super) fn error(&self, scale: u32) -> f64 {
        self.ways.iter().map(|way| way.error(scale)).fold(0.0, f64::max)
    }

    /// The smallest scale at which that is small enough, or else the finest.
    pub(super) fn smallest_scale(&self) -> u32 {
        (1..SCALE_MAX).find(|scale| self.error(*scale) <= self.error_most).unwrap_or(SCALE_MAX)
    }
}

fn way(scenario: &Scenario, plan: &Plan, pipeline: &Pipeline, head: NodeId, shortest_us: Option<f64>) -> Way {
    let mut hops_us = hops_us(scenario, pipeline, head);
    if let Some(shortest_us) = shortest_us {
        hops_us = vec![shortest_us; hops_us.len().max(2)];
    }
    let alone = Plan { replicas: vec![pipeline.clone()], ..plan.clone() };
    let load = Load { head: Some(head), ..scenario.plan.ask.load };
    let predicted = predict(&scenario.fleet, &scenario.model, &alone, &load, &scenario.software);
    Way { hops_us, token_us: predicted.map_or(0.0, |p| p.tpot_ms * 1e3) }
}

/// The least time of each hop of a token: from the head through the stages and back.
fn hops_us(scenario: &Scenario, pipeline: &Pipeline, head: NodeId) -> Vec<f64> {
    let stages = pipeline.stages.iter().map(|stage| stage.node);
    let way: Vec<NodeId> = [head].into_iter().chain(stages).chain([head]).collect();
    let activations = activation_frame_bytes(&scenario.model, &scenario.software, 1);
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
        let mean = transfer_time(&path, bytes, &scenario.software);
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

    fn steps(scenario: &Scenario, nodes: &[u32], may_change: bool) -> Steps {
        Steps::new(scenario, &plan(nodes), &[NodeId(nodes[0])], may_change)
    }

    fn on_one_machine() -> Scenario {
        let mut scenario = sample::scenario();
        scenario.fleet.nodes[1].machine = scenario.fleet.nodes[0].machine.clone();
        scenario
    }

    #[test]
    fn delays_of_two_steps_and_more_need_no_scale() {
        assert_eq!(steps(&sample::scenario(), &[0, 1, 2], false).smallest_scale(), 1);
        assert_eq!(steps(&sample::scenario(), &[0], false).error(1), 0.0, "one node sends nothing");
    }

    #[test]
    fn a_short_hop_may_cost_less_than_one_per_cent_of_the_token() {
        let mut scenario = on_one_machine();
        scenario.fleet.nodes[2].device = scenario.fleet.nodes[0].device.clone();
        let steps = steps(&scenario, &[0, 1, 2], false);
        let chosen = steps.smallest_scale();
        assert!(chosen > 1 && steps.error(chosen) <= 0.01 && steps.error(chosen - 1) > 0.01, "{chosen}");
        let hop_us = least_us(&scenario, NodeId(0), NodeId(1), TOKEN_FRAME_BYTES);
        let late_us = 2e3 / f64::from(chosen) - hop_us;
        let error = late_us / steps.ways[0].token_us;
        assert!((steps.error(chosen) / error - 1.0).abs() < 0.1, "{late_us} us of {:?}", steps.ways[0]);
    }

    #[test]
    fn where_the_plan_may_change_the_shortest_hop_counts() {
        let scenario = on_one_machine();
        assert_eq!(steps(&scenario, &[0, 2], false).smallest_scale(), 1);
        let changing = steps(&scenario, &[0, 2], true);
        assert!(changing.smallest_scale() > 1 && changing.error(changing.smallest_scale()) == 0.0);
    }
}
