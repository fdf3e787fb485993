//! The search over many nodes: good plans, not certainly the best ones.
//!
//! Single pipelines grow from promising nodes, each time by the node that adds layers at the least cost with its hop,
//! and are then improved with their neighbourhood as a [`Pool`]. Replicas are all nodes that hold the model alone, and
//! pipelines grown from those that do not; how many of them serve is chosen by what they give together.

use std::collections::BTreeMap;

use super::bound::most_layers;
use super::costs::Costs;
use super::exact::Found;
use super::pool::{Goal, Judged, Pool};
use super::{Objective, Shape};
use crate::cost::predict::streams_of;
use crate::plan::{Pipeline, Stage};

/// Nodes from which single pipelines are grown, at most.
const SEEDS_MAX: usize = 48;

/// Nodes of a pool beside the pipeline that was grown.
const SPARES: usize = 4;

/// Orders judged by the local search around one of the most promising pipelines, of which there are [`CLIMBED`].
const ORDERS: usize = 600;
const CLIMBED: usize = 3;

/// Orders judged for each replica: there are many of them.
const ORDERS_OF_REPLICA: usize = 40;

/// A pool is filled with spares up to so many nodes.
const POOL_MAX: usize = 7;

/// Replicas up to which every number of them is tried; beyond, numbers grow by a tenth.
const REPLICAS_EACH: u32 = 48;

/// What growing looks at, per node.
#[derive(Debug, Clone, Copy)]
struct Trait {
    layer_us: f64,
    most: usize,
}

/// The search over many nodes.
pub(super) struct Wide<'c, 'a> {
    costs: &'c Costs<'a>,
    nodes: Vec<usize>,
    pinned: Vec<usize>,
    traits: BTreeMap<usize, Trait>,
}

impl<'c, 'a> Wide<'c, 'a> {
    pub(super) fn new(costs: &'c Costs<'a>, nodes: &[usize]) -> Self {
        let work = costs.decode(1);
        let of = |n: &usize| {
            let layer_us = costs.compute(*n, work).range_us(0, costs.layers) / costs.layers as f64;
            (*n, Trait { layer_us, most: most_layers(costs, *n) })
        };
        let traits = nodes.iter().map(of).collect();
        Self { costs, nodes: nodes.to_vec(), pinned: costs.pinned(), traits }
    }

    /// A good plan for `objective`; `None` where none was found.
    pub(super) fn best(&self, objective: Objective) -> Option<Found> {
        let replicas = match (objective, self.costs.ask.constraints.shape) {
            (Objective::Throughput, Shape::Auto) => {
                let one = self.one(objective).map(|p| vec![p]);
                let rate = |plan: &Vec<Pipeline>| self.costs.plan_rate(plan);
                let many = self.many();
                one.into_iter().chain(many).max_by(|a, b| rate(a).total_cmp(&rate(b)))
            }
            (Objective::Throughput, Shape::Replicas) => self.many(),
            (_, Shape::Solo | Shape::Pipeline) => self.one(objective).map(|p| vec![p]),
            (_, Shape::Auto) => self.one(objective).map(|p| vec![p]).or_else(|| self.accompanied(objective)),
            (_, Shape::Replicas) => self.accompanied(objective),
        }?;
        Some(Found { replicas, certain: false })
    }

    fn goal(&self, objective: Objective) -> Goal {
        match objective {
            Objective::Tpot => Goal::Token,
            Objective::Throughput => Goal::Round(self.costs.ask.load.concurrency.max(1)),
            Objective::Ttft => Goal::First,
        }
    }

    /// One good pipeline that takes in all pinned nodes.
    fn one(&self, objective: Objective) -> Option<Pipeline> {
        let goal = self.goal(objective);
        let best = self.pipeline(&self.nodes, &self.pinned, goal)?;
        Some(Pipeline { stages: best.stages })
    }

    /// A good pipeline with the fewest companions that the constraints want.
    fn accompanied(&self, objective: Objective) -> Option<Vec<Pipeline>> {
        let goal = self.goal(objective);
        let mut free = self.nodes.clone();
        let mut plan = Vec::new();
        let main = self.pipeline(&free, &[], goal)?;
        take(&mut free, &main.stages);
        plan.push(Pipeline { stages: main.stages });
        while let Some(pin) = self.pinned.iter().find(|p| free.contains(p)) {
            let with_pin = self.grown(&free, &[*pin], goal)?;
            take(&mut free, &with_pin.stages);
            plan.push(Pipeline { stages: with_pin.stages });
        }
        if plan.len() == 1 {
            plan.push(Pipeline { stages: self.pipeline(&free, &[], goal)?.stages });
        }
        Some(plan)
    }

    /// The best pipeline over nodes of `free` that was found from a few seeds.
    fn pipeline(&self, free: &[usize], needed: &[usize], goal: Goal) -> Option<Judged> {
        let of_shape = |judged: &Judged| match self.costs.ask.constraints.shape {
            Shape::Solo => judged.stages.len() == 1,
            Shape::Pipeline => judged.stages.len() > 1,
            Shape::Auto | Shape::Replicas => true,
        };
        let seeds: Vec<Vec<usize>> = if needed.is_empty() {
            self.seeds(free).into_iter().map(|seed| vec![seed]).collect()
        } else {
            vec![needed.to_vec()]
        };
        let grow = |seed: &[usize], orders| self.grown_with(free, seed, needed, goal, orders);
        let grown = seeds.iter().filter_map(|seed| Some((grow(seed, 1)?, seed)));
        let mut grown: Vec<(Judged, &Vec<usize>)> = grown.filter(|(judged, _)| of_shape(judged)).collect();
        grown.sort_by(|a, b| a.0.us.total_cmp(&b.0.us));
        let climbed = grown.iter().take(CLIMBED).filter_map(|(_, seed)| grow(seed, ORDERS)).filter(of_shape);
        let climbed: Vec<Judged> = climbed.collect();
        let all = climbed.into_iter().chain(grown.into_iter().map(|(judged, _)| judged));
        all.min_by(|a, b| a.us.total_cmp(&b.us))
    }

    /// The quickest and the largest nodes of each network, the quickest first.
    fn seeds(&self, free: &[usize]) -> Vec<usize> {
        let mut networks: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for n in free {
            networks.entry(self.costs.fleet.nodes[*n].network.0).or_default().push(*n);
        }
        let mut seeds = Vec::new();
        for nodes in networks.values_mut() {
            nodes.sort_by(|a, b| self.traits[a].layer_us.total_cmp(&self.traits[b].layer_us));
            seeds.extend(nodes.iter().take(3));
            seeds.extend(nodes.iter().max_by_key(|n| (self.traits[n].most, std::cmp::Reverse(**n))));
        }
        seeds.sort_by(|a, b| self.traits[a].layer_us.total_cmp(&self.traits[b].layer_us).then(a.cmp(b)));
        seeds.dedup();
        seeds.truncate(SEEDS_MAX);
        seeds
    }

    /// A pipeline grown from `start`, all of it kept.
    fn grown(&self, free: &[usize], start: &[usize], goal: Goal) -> Option<Judged> {
        self.grown_with(free, start, start, goal, ORDERS)
    }

    fn grown_with(
        &self,
        free: &[usize],
        start: &[usize],
        needed: &[usize],
        goal: Goal,
        orders: usize,
    ) -> Option<Judged> {
        let mut chain = start.to_vec();
        let mut room: usize = chain.iter().map(|n| self.traits[n].most).sum();
        while chain.len() <= self.costs.layers {
            if room >= self.costs.layers {
                let mut nodes = chain.clone();
                self.add_spares(free, &mut nodes);
                if let Some(judged) = Pool::new(self.costs, &nodes, goal, orders).best(needed, &chain) {
                    return Some(judged);
                }
            }
            let next = self.next(free, &chain, self.costs.layers.saturating_sub(room).max(1))?;
            room += self.traits[&next].most;
            chain.push(next);
        }
        None
    }

    /// The node that adds layers at the least cost each, its hop included.
    fn next(&self, free: &[usize], chain: &[usize], left: usize) -> Option<usize> {
        let last = *chain.last()?;
        let bytes = self.costs.frames(1).between;
        let cost_us = |n: usize| {
            let Trait { layer_us, most } = self.traits[&n];
            let taken = most.min(left).max(1) as f64;
            (self.costs.hop_us(last, n, bytes) + self.costs.software.per_step_us) / taken + layer_us
        };
        let new = free.iter().filter(|n| !chain.contains(n) && self.traits[n].most > 0);
        let priced = new.map(|n| (cost_us(*n), *n)).filter(|(us, _)| us.is_finite());
        priced.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
    }

    /// The neighbourhood of a chain: nodes that would follow its ends at the least cost.
    fn add_spares(&self, free: &[usize], nodes: &mut Vec<usize>) {
        let most = if nodes.len() < POOL_MAX { POOL_MAX } else { nodes.len() + SPARES };
        while nodes.len() < most {
            let Some(next) = self.next(free, nodes, self.costs.layers) else { return };
            nodes.push(next);
        }
    }

    /// Several replicas: every node that holds the model alone, and pipelines of those that do not.
    fn many(&self) -> Option<Vec<Pipeline>> {
        let mut free = self.nodes.clone();
        let whole = |n: &usize| self.costs.reach(*n).solo && self.costs.layers >= self.costs.min_layers();
        let mut groups: Vec<Vec<Stage>> = Vec::new();
        let streams = self.costs.ask.load.concurrency.max(1).div_ceil(free.len() as u32);
        for node in self.nodes.iter().filter(|n| whole(n)) {
            groups.extend(
                Pool::new(self.costs, &[*node], Goal::Token, 1).best(&[], &[*node]).map(|j| j.stages),
            );
        }
        for group in &groups {
            take(&mut free, group);
        }
        let mut by_room = free.clone();
        by_room.sort_by_key(|n| (!self.pinned.contains(n), std::cmp::Reverse(self.traits[n].most), *n));
        for seed in by_room {
            if !free.contains(&seed) {
                continue;
            }
            let pinned: Vec<usize> = if self.pinned.contains(&seed) { vec![seed] } else { Vec::new() };
            match self.grouped(&free, seed, &pinned, Goal::Round(streams)) {
                Some(group) => {
                    take(&mut free, &group.stages);
                    groups.push(group.stages);
                }
                None => free.retain(|n| *n != seed),
            }
        }
        self.serving(groups)
    }

    /// A pipeline from `seed` over as few nodes as hold the model: the others are for other replicas.
    fn grouped(&self, free: &[usize], seed: usize, needed: &[usize], goal: Goal) -> Option<Judged> {
        let mut chain = vec![seed];
        let mut room = self.traits[&seed].most;
        while chain.len() <= self.costs.layers {
            if room >= self.costs.layers
                && let Some(judged) =
                    Pool::new(self.costs, &chain, goal, ORDERS_OF_REPLICA).best(needed, &chain)
            {
                return Some(judged);
            }
            let next = self.next(free, &chain, self.costs.layers.saturating_sub(room).max(1))?;
            room += self.traits[&next].most;
            chain.push(next);
        }
        None
    }

    /// Those of `groups` that give most together: pinned ones always, of the others the quickest.
    fn serving(&self, groups: Vec<Vec<Stage>>) -> Option<Vec<Pipeline>> {
        let is_pinned = |g: &[Stage]| g.iter().any(|s| self.pinned.contains(&s.node.index()));
        let covered = |p: &&usize| groups.iter().flatten().any(|s| s.node.index() == **p);
        if self.pinned.iter().filter(covered).count() < self.pinned.len() || groups.len() < 2 {
            return None;
        }
        let concurrency = self.costs.ask.load.concurrency.max(1);
        let pinned = groups.iter().filter(|g| is_pinned(g)).count().max(2) as u32;
        let most = (groups.len() as u32).min(concurrency.max(pinned));
        let mut best: Option<(f64, Vec<usize>)> = None;
        let mut count = pinned;
        while count <= most {
            let streams = streams_of(concurrency, count, 0);
            let mut rated: Vec<(bool, f64, usize)> = groups
                .iter()
                .enumerate()
                .map(|(i, g)| (is_pinned(g), self.costs.rate(g, streams), i))
                .collect();
            rated.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
            rated.truncate(count as usize);
            rated.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.cmp(&b.2)));
            let of = |(i, r): (usize, &(bool, f64, usize))| {
                self.costs.rate(&groups[r.2], streams_of(concurrency, count, i as u32))
            };
            let value: f64 = rated.iter().enumerate().map(of).sum();
            if best.as_ref().is_none_or(|b| value > b.0) {
                best = Some((value, rated.iter().map(|r| r.2).collect()));
            }
            count = if count < REPLICAS_EACH || count == most {
                count + 1
            } else {
                (count + count / 10).min(most)
            };
        }
        let (_, chosen) = best?;
        Some(chosen.into_iter().map(|i| Pipeline { stages: groups[i].clone() }).collect())
    }
}

fn take(free: &mut Vec<usize>, stages: &[Stage]) {
    free.retain(|n| !stages.iter().any(|s| s.node.index() == *n));
}
