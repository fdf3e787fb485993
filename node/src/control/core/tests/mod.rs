#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod bus;
#[path = "../../../../tests/world/fixture.rs"]
mod fixture;
mod hardship;
mod stories;

use planner::fleet::Fleet;
use planner::model::Model;
use planner::place::{Ask, Candidate, Placement, Refusal, Replan, ReplanCost};
use planner::plan::{Breakdown, LayerRange, NodeId, Pipeline, Plan, Prediction, Stage};

/// The two lowest nodes that may be used, predicted to be very fast if node 0 is one of them.
fn lowest_two(fleet: &Fleet, model: &Model, ask: &Ask) -> Result<Placement, Refusal> {
    let nodes: Vec<_> = fleet.ids().filter(|n| !ask.constraints.excluded.contains(n)).take(2).collect();
    let [a, b] = nodes[..] else { return Err(Refusal::NoNodes("fewer than two are left".into())) };
    let tpot_ms = if a == NodeId(0) { 1e-3 } else { 1e3 };
    let prediction = Prediction {
        tpot_ms,
        ttft_ms: 1.0,
        opening_ms: 0.0,
        throughput_tok_s: 1.0,
        breakdown: Breakdown::default(),
    };
    let recommended = Candidate { plan: plan_of(model, &[(a, b)]), prediction };
    Ok(Placement { recommended, pareto: Vec::new(), left_out: Vec::new(), exact: true, gap: 0.0 })
}

/// Whole replicas stay; the lowest two others make one more.
fn keep_whole(
    fleet: &Fleet,
    model: &Model,
    ask: &Ask,
    old: &Plan,
    lost: &[NodeId],
) -> Result<Replan, Refusal> {
    let mut plan = old.clone();
    plan.replicas.retain(|r| !r.stages.iter().any(|s| lost.contains(&s.node)));
    let mut ask = ask.clone();
    ask.constraints.excluded.extend(plan.stages().map(|s| s.node).chain(lost.iter().copied()));
    match lowest_two(fleet, model, &ask) {
        Ok(more) => plan.replicas.extend(more.recommended.plan.replicas),
        Err(refusal) if plan.replicas.is_empty() => return Err(refusal),
        Err(_) => {}
    }
    let prediction = Prediction {
        tpot_ms: 1.0,
        ttft_ms: 1.0,
        opening_ms: 0.0,
        throughput_tok_s: 1.0,
        breakdown: Breakdown::default(),
    };
    Ok(Replan { plan, prediction, cost: ReplanCost::default() })
}

fn plan_of(model: &Model, pairs: &[(NodeId, NodeId)]) -> Plan {
    let half = model.layer_count() / 2;
    let stages = |(a, b): &(NodeId, NodeId)| Pipeline {
        stages: vec![
            Stage { node: *a, layers: LayerRange::new(0, half) },
            Stage { node: *b, layers: LayerRange::new(half, model.layer_count()) },
        ],
    };
    Plan {
        model: model.name.clone(),
        replicas: pairs.iter().map(stages).collect(),
        experts: Vec::new(),
        context: 100,
        sessions: 1,
    }
}
