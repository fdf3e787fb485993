//! A new plan after nodes were lost, that touches no more than it must, and what the change costs.
//!
//! Replicas that lost nobody stay as they are: their sessions notice nothing. Each of the others is repaired: its
//! neighbours in the ring take over the lost layers, or a spare node takes over the lost stage, or its nodes are cut
//! anew; or it is given up where others remain. Only when no replica is left whole is the plan made anew as well, and
//! taken where it is worth its loading. Worth is what a plan gives over [`HORIZON_US`], of which loading is lost.

use serde::{Deserialize, Serialize};

use super::costs::Costs;
use super::pool::{Goal, Pool};
use super::{Ask, Candidate, Objective, Refusal, Shape, candidate, place, refusal};
use crate::cost::memory::{load_us, weight_bytes};
use crate::cost::predict::streams_of;
use crate::fleet::Fleet;
use crate::model::Model;
use crate::plan::{LayerRange, NodeId, Pipeline, Plan, Prediction, Stage};

/// How long a plan is expected to serve, microseconds: ten minutes, the order of the time between changes in a mesh of
/// home machines. Longer makes plans better and changes dearer.
pub const HORIZON_US: f64 = 600e6;

/// Spare nodes that are tried in the place of a lost one.
const SPARES_MAX: usize = 4;

/// Orders judged when a long pipeline is cut anew.
const ORDERS: usize = 200;

/// Nodes of a pool from which a replica is cut anew.
const POOL_MAX: usize = 6;

/// What a change of plans costs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReplanCost {
    /// Weights each node reads from its disk, bytes; nodes that read none are absent.
    pub bytes_to_load: Vec<(NodeId, u64)>,
    /// Time until the last of them is done, all reading at once, microseconds.
    pub load_us: f64,
    /// Replicas of the old plan (by index) whose sessions are replayed: prompt and tokens so far in one prefill.
    pub replicas_touched: Vec<usize>,
    /// Sessions those may hold, at most: how many to replay.
    pub sessions_to_replay: u32,
    /// Stages that stay on their node with the layers they have.
    pub stages_unchanged: u32,
}

/// A new plan and what it costs to follow it.
#[derive(Debug, Clone, PartialEq)]
pub struct Replan {
    /// The plan.
    pub plan: Plan,
    /// What it gives.
    pub prediction: Prediction,
    /// What the change costs.
    pub cost: ReplanCost,
}

/// A plan for `ask` after the nodes `lost` can no longer take part, made from `old`. `fleet` is the fleet as it is now;
/// nodes keep their ids. Where the head was lost, it sits with the first stage from now on; a lost node is no longer
/// pinned.
///
/// # Errors
/// As [`place`], where neither a repair nor a new plan is possible.
pub fn replan(
    fleet: &Fleet,
    model: &Model,
    ask: &Ask,
    old: &Plan,
    lost: &[NodeId],
) -> Result<Replan, Refusal> {
    let ask = without_lost(ask, lost);
    let costs = Costs::new(fleet, model, &ask);
    if let Some(nonsense) = refusal::nonsense(&costs) {
        return Err(Refusal::Constraint(nonsense));
    }
    let repair = Repair { costs: &costs, old, usable: costs.usable() };
    let (mut plans, whole) = repair.plans();
    if !whole || plans.is_empty() {
        match place(fleet, model, &ask) {
            Ok(fresh) => plans.push(fresh.recommended),
            Err(refusal) if plans.is_empty() => return Err(refusal),
            Err(_) => {}
        }
    }
    let worth = |c: &Candidate| repair.worth(&c.plan.replicas);
    // The first of equals: repairs come before the new plan.
    let best = plans.into_iter().rev().max_by(|a, b| worth(a).total_cmp(&worth(b)));
    let Candidate { plan, prediction } = best.ok_or_else(|| refusal::refusal(&costs))?;
    let cost = cost(fleet, model, old, &plan);
    Ok(Replan { plan, prediction, cost })
}

fn without_lost(ask: &Ask, lost: &[NodeId]) -> Ask {
    let mut ask = ask.clone();
    for node in lost {
        if !ask.constraints.excluded.contains(node) {
            ask.constraints.excluded.push(*node);
        }
    }
    let excluded = ask.constraints.excluded.clone();
    ask.constraints.pinned.retain(|id| !excluded.contains(id));
    ask.load.head = ask.load.head.filter(|id| !excluded.contains(id));
    ask
}

/// What it costs to go from `old` to `new`.
pub fn cost(fleet: &Fleet, model: &Model, old: &Plan, new: &Plan) -> ReplanCost {
    let mut cost = ReplanCost::default();
    for stage in new.stages() {
        let bytes = bytes_to_load(model, old.layers_of(stage.node), stage.layers);
        if bytes > 0 {
            cost.load_us = cost.load_us.max(load_us(&fleet.node(stage.node).device, bytes));
            cost.bytes_to_load.push((stage.node, bytes));
        }
        cost.stages_unchanged += u32::from(old.layers_of(stage.node) == Some(stage.layers));
    }
    let touched = |(_, replica): &(usize, &Pipeline)| !new.replicas.contains(replica);
    cost.replicas_touched = old.replicas.iter().enumerate().filter(touched).map(|(i, _)| i).collect();
    cost.sessions_to_replay = old.sessions.saturating_mul(cost.replicas_touched.len() as u32);
    cost
}

/// Weight bytes of `new` that a node which holds `held` does not have yet.
fn bytes_to_load(model: &Model, held: Option<LayerRange>, new: LayerRange) -> u64 {
    let Some(held) = held else { return weight_bytes(model, new) };
    let missing = new.indices().filter(|i| !held.indices().contains(i));
    let of_layers: u64 = missing.map(|i| model.layers[i].weight_bytes()).sum();
    let ends = |range: LayerRange| (range.first == 0, range.end == model.layer_count());
    let ((had_first, had_last), (first, last)) = (ends(held), ends(new));
    // A tied tensor serves both ends.
    let has_embedding = had_first || (model.tied && had_last);
    let has_head = had_last || (model.tied && had_first);
    let embedding = if first && !has_embedding { model.embedding_bytes } else { 0 };
    let head = if last && !has_head && !(model.tied && first) { model.head_bytes } else { 0 };
    of_layers + embedding + head
}

struct Repair<'c, 'a> {
    costs: &'c Costs<'a>,
    old: &'c Plan,
    usable: Vec<usize>,
}

impl Repair<'_, '_> {
    /// Plans in which what is whole of the old one stays as it is; and whether any of it is.
    fn plans(&self) -> (Vec<Candidate>, bool) {
        let whole = |p: &&Pipeline| {
            p.stages.iter().all(|s| self.may_hold(s)) && self.costs.way_us(&p.stages).is_finite()
        };
        let (untouched, broken): (Vec<&Pipeline>, Vec<&Pipeline>) = self.old.replicas.iter().partition(whole);
        let mut replicas: Vec<Pipeline> = untouched.iter().map(|p| (*p).clone()).collect();
        let taken = self.old.replicas.iter().flat_map(|r| &r.stages).map(|s| s.node.index());
        let taken: Vec<usize> = taken.collect();
        let mut spares: Vec<usize> = self.usable.iter().filter(|n| !taken.contains(n)).copied().collect();
        let mut plans = vec![replicas.clone()];
        for pipeline in broken {
            if let Some(repaired) = self.repaired(pipeline, &spares) {
                spares.retain(|n| !repaired.stages.iter().any(|s| s.node.index() == *n));
                replicas.push(repaired);
                plans.push(replicas.clone());
            }
        }
        let plans = plans.into_iter().filter(|p| self.is_allowed(p));
        (plans.filter_map(|p| candidate(self.costs, p)).collect(), !untouched.is_empty())
    }

    fn may_hold(&self, stage: &Stage) -> bool {
        let n = stage.node.index();
        let (l, e) = (stage.layers.first as usize, stage.layers.end as usize);
        self.usable.binary_search(&n).is_ok()
            && e <= self.costs.layers
            && e - l >= self.costs.min_layers()
            && self.costs.reach(n).fits(l, e, self.costs.layers)
    }

    fn is_allowed(&self, replicas: &[Pipeline]) -> bool {
        let c = &self.costs.ask.constraints;
        let of_shape = match c.shape {
            Shape::Auto => !replicas.is_empty(),
            Shape::Solo => replicas.len() == 1 && replicas[0].stages.len() == 1,
            Shape::Pipeline => replicas.len() == 1 && replicas[0].stages.len() > 1,
            Shape::Replicas => replicas.len() > 1,
        };
        let stages = || replicas.iter().flat_map(|r| &r.stages);
        of_shape && c.pinned.iter().all(|p| stages().any(|s| s.node == *p))
    }

    /// The pipeline without its lost nodes, in the way that is worth most.
    fn repaired(&self, pipeline: &Pipeline, spares: &[usize]) -> Option<Pipeline> {
        let mut ways = self.absorbed(pipeline);
        let spares = self.nearest(pipeline, spares);
        for spare in &spares {
            ways.extend(self.replaced(pipeline, *spare));
        }
        ways.extend(self.cut_anew(pipeline, &spares));
        let worth = |p: &Pipeline| self.worth(std::slice::from_ref(p));
        let sound = |p: &Pipeline| {
            p.stages.iter().all(|s| self.may_hold(s)) && self.costs.way_us(&p.stages).is_finite()
        };
        ways.into_iter().filter(sound).rev().max_by(|a, b| worth(a).total_cmp(&worth(b)))
    }

    /// Those that are left keep their layers and take over the lost ones between them, divided in every way.
    fn absorbed(&self, pipeline: &Pipeline) -> Vec<Pipeline> {
        let left: Vec<Stage> = pipeline.stages.iter().filter(|s| self.may_hold(s)).copied().collect();
        let mut ways: Vec<Vec<Stage>> = vec![Vec::new()];
        for (i, stage) in left.iter().enumerate() {
            let from = if i == 0 { 0 } else { left[i - 1].layers.end };
            let mut longer = Vec::new();
            for way in &ways {
                // The lost layers before this stage: the part up to `cut` goes to the stage before.
                let cuts = if i == 0 { 0..=0 } else { from..=stage.layers.first };
                for cut in cuts {
                    let mut way = way.clone();
                    if let Some(before) = way.last_mut() {
                        before.layers.end = cut;
                    }
                    way.push(Stage { node: stage.node, layers: LayerRange::new(cut, stage.layers.end) });
                    longer.push(way);
                }
            }
            ways = self.best_ways(longer);
        }
        let close = |mut stages: Vec<Stage>| {
            stages.last_mut()?.layers.end = self.costs.layers as u32;
            Some(Pipeline { stages })
        };
        ways.into_iter().filter_map(close).collect()
    }

    /// Of many partial ways those that fit, as many as are worth a look.
    fn best_ways(&self, ways: Vec<Vec<Stage>>) -> Vec<Vec<Stage>> {
        let closed =
            |way: &Vec<Stage>| way.split_last().is_none_or(|(_, done)| done.iter().all(|s| self.may_hold(s)));
        let mut ways: Vec<Vec<Stage>> = ways.into_iter().filter(closed).collect();
        let us = |way: &Vec<Stage>| way.iter().map(|s| self.costs.step_us(s, 1)).sum::<f64>();
        ways.sort_by(|a, b| us(a).total_cmp(&us(b)));
        ways.truncate(self.costs.layers + 1);
        ways
    }

    /// The spare node takes over the lost stages, where they lie side by side.
    fn replaced(&self, pipeline: &Pipeline, spare: usize) -> Option<Pipeline> {
        let lost: Vec<usize> =
            (0..pipeline.stages.len()).filter(|i| !self.may_hold(&pipeline.stages[*i])).collect();
        let (first, last) = (*lost.first()?, *lost.last()?);
        if last - first + 1 != lost.len() {
            return None;
        }
        let layers = LayerRange::new(pipeline.stages[first].layers.first, pipeline.stages[last].layers.end);
        let mut stages = pipeline.stages.clone();
        stages.splice(first..=last, [Stage { node: NodeId(spare as u32), layers }]);
        Some(Pipeline { stages })
    }

    /// The spares that would do the lost stages' work soonest, hops included.
    fn nearest(&self, pipeline: &Pipeline, spares: &[usize]) -> Vec<usize> {
        let us = |n: &usize| {
            let Some(with) = self.replaced(pipeline, *n) else { return self.costs.compute_us(*n) };
            let steps: f64 = with.stages.iter().map(|s| self.costs.step_us(s, 1)).sum();
            steps + self.costs.way_us(&with.stages)
        };
        let mut timed: Vec<(f64, usize)> = spares.iter().map(|n| (us(n), *n)).collect();
        timed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        timed.into_iter().map(|(_, n)| n).take(SPARES_MAX).collect()
    }

    /// What is left of the pipeline's nodes, and spares, cut as if they held nothing.
    fn cut_anew(&self, pipeline: &Pipeline, spares: &[usize]) -> Option<Pipeline> {
        let nodes = pipeline.stages.iter().map(|s| s.node.index());
        let mut nodes: Vec<usize> = nodes.filter(|n| self.usable.binary_search(n).is_ok()).collect();
        let room = POOL_MAX.saturating_sub(nodes.len());
        nodes.extend(spares.iter().take(room));
        if nodes.is_empty() {
            return None;
        }
        let streams = streams_of(self.costs.ask.load.concurrency, self.old.replicas.len().max(1) as u32, 0);
        let goal = match self.costs.ask.objective {
            Objective::Tpot => Goal::Token,
            Objective::Throughput => Goal::Round(streams.max(1)),
            Objective::Ttft => Goal::First,
        };
        let needed: Vec<usize> = self.costs.pinned().into_iter().filter(|p| nodes.contains(p)).collect();
        let judged = Pool::new(self.costs, &nodes, goal, ORDERS).best(&needed, &nodes)?;
        Some(Pipeline { stages: judged.stages })
    }

    /// What replicas give by the asked objective over the horizon, each without the time in which it loads.
    fn worth(&self, replicas: &[Pipeline]) -> f64 {
        let count = replicas.len() as u32;
        let each = replicas.iter().enumerate().map(|(i, pipeline)| {
            let load = |s: &Stage| {
                let bytes = bytes_to_load(self.costs.model, self.old.layers_of(s.node), s.layers);
                load_us(&self.costs.fleet.node(s.node).device, bytes)
            };
            let load_us = pipeline.stages.iter().map(load).fold(0.0, f64::max);
            let share = HORIZON_US / (HORIZON_US + load_us);
            share
                * match self.costs.ask.objective {
                    Objective::Throughput => self
                        .costs
                        .rate(&pipeline.stages, streams_of(self.costs.ask.load.concurrency, count, i as u32)),
                    Objective::Tpot => self.costs.rate(&pipeline.stages, 1),
                    Objective::Ttft => 1.0 / self.first_us(pipeline),
                }
        });
        match self.costs.ask.objective {
            Objective::Throughput => each.sum(),
            Objective::Tpot | Objective::Ttft => each.fold(0.0, f64::max),
        }
    }

    fn first_us(&self, pipeline: &Pipeline) -> f64 {
        candidate(self.costs, vec![pipeline.clone()]).map_or(f64::INFINITY, |c| c.prediction.ttft_ms * 1e3)
    }
}
