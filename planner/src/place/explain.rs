//! Why a node holds no layers, with a figure.

use super::costs::Costs;
use super::pool::{Goal, Judged, Pool};
use super::refusal::too_little;
use super::{Candidate, LeftOut, Objective};
use crate::cost::predict::streams_of;
use crate::plan::{NodeId, Pipeline, Stage};
use crate::units::fmt_ms;

/// Replicas into which a node is put to see what it would do there, at most.
const REPLICAS_MAX: usize = 2;

/// Orders judged to find the place of a node in a long pipeline.
const ORDERS: usize = 20;

/// Where more nodes than this are left out, each is seen beside the first replica only.
const MANY: usize = 64;

/// Every node of the fleet without layers in `chosen`, and why. `usable` are those that could have some.
pub(super) fn left_out(costs: &Costs<'_>, usable: &[usize], chosen: &Candidate) -> Vec<LeftOut> {
    let mut used = vec![false; costs.fleet.nodes.len()];
    for stage in chosen.plan.stages() {
        used[stage.node.index()] = true;
    }
    let judge =
        Judge::new(costs, chosen, if used.iter().filter(|u| !**u).count() > MANY { 1 } else { REPLICAS_MAX });
    let unused = (0..used.len()).filter(|n| !used[*n]);
    unused
        .map(|n| {
            let why = if usable.binary_search(&n).is_ok() { judge.why(n) } else { unusable(costs, n) };
            LeftOut { node: NodeId(n as u32), why }
        })
        .collect()
}

fn unusable(costs: &Costs<'_>, n: usize) -> String {
    if costs.ask.constraints.excluded.contains(&NodeId(n as u32)) {
        "excluded".into()
    } else if !costs.fleet.nodes[n].has_model {
        "the weights are not on its disk".into()
    } else {
        too_little(costs, n)
    }
}

/// The chosen plan, and what it takes to see a node beside it.
struct Judge<'c, 'a> {
    costs: &'c Costs<'a>,
    replicas: &'c [Pipeline],
    chosen: &'c Candidate,
    /// Replicas beside which a node is seen.
    beside: usize,
    /// Tokens per second of the chosen replicas when there is one more.
    beside_one_more: f64,
}

impl<'c, 'a> Judge<'c, 'a> {
    fn new(costs: &'c Costs<'a>, chosen: &'c Candidate, beside: usize) -> Self {
        let replicas = &chosen.plan.replicas;
        let beside_one_more = costs.rate_among(replicas, replicas.len() as u32 + 1);
        Self { costs, replicas, chosen, beside, beside_one_more }
    }

    fn why(&self, n: usize) -> String {
        if let Some(far) = self.out_of_reach(n) {
            return far;
        }
        match self.costs.ask.objective {
            Objective::Tpot => self.slower(n, Goal::Token),
            Objective::Ttft => self.slower(n, Goal::First),
            Objective::Throughput => self.fewer(n),
        }
    }

    /// Nodes of the first replicas.
    fn neighbours(&self) -> impl Iterator<Item = usize> {
        self.replicas.iter().take(self.beside).flat_map(|r| &r.stages).map(|s| s.node.index())
    }

    fn name(&self, n: usize) -> &str {
        &self.costs.fleet.nodes[n].name
    }

    fn out_of_reach(&self, n: usize) -> Option<String> {
        let near = self.neighbours().filter_map(|m| Some((self.costs.delay_us(m, n)?, m)));
        let Some((delay_us, nearest)) = near.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            let other = self.neighbours().next().map_or("the others", |m| self.name(m));
            return Some(format!("cannot reach {other}: their networks are not joined"));
        };
        let cap_us = self.costs.ask.constraints.latency_cap_us.filter(|cap_us| delay_us > *cap_us)?;
        Some(format!(
            "{} from {}, over the latency cap of {}",
            fmt_ms(delay_us / 1e3),
            self.name(nearest),
            fmt_ms(cap_us / 1e3)
        ))
    }

    /// What the node does to the time of one stream, in the replica where it does least harm.
    fn slower(&self, n: usize, goal: Goal) -> String {
        let with = self.replicas.iter().take(self.beside).filter_map(|r| self.with(n, r, goal));
        let Some(with) = with.min_by(|a, b| a.us.total_cmp(&b.us)) else {
            return "fits into no cut beside the nodes that are used".into();
        };
        let (what, now_ms) = match goal {
            Goal::First => ("to the first token", self.chosen.prediction.ttft_ms),
            Goal::Token | Goal::Round(_) => ("per token", self.chosen.prediction.tpot_ms),
        };
        let more_ms = with.us / 1e3 - now_ms;
        if more_ms <= now_ms * 1e-6 {
            return "makes no difference: a plan with it is as good".into();
        }
        format!("adds {} {what}: {}", fmt_ms(more_ms), self.share(n, &with.stages))
    }

    /// The best pipeline over a replica's nodes and this one, with this one in it.
    fn with(&self, n: usize, replica: &Pipeline, goal: Goal) -> Option<Judged> {
        let mut nodes: Vec<usize> = replica.stages.iter().map(|s| s.node.index()).collect();
        nodes.push(n);
        Pool::new(self.costs, &nodes, goal, ORDERS).best(&[n], &nodes)
    }

    /// The node's layers in a plan with it, and what they take there and now.
    fn share(&self, n: usize, stages: &[Stage]) -> String {
        let Some(stage) = stages.iter().find(|s| s.node.index() == n) else {
            return "for its hops alone".into();
        };
        let step_us = |node: usize, first: usize, end: usize| {
            self.costs.compute(node, self.costs.decode(1)).range_us(first, end)
        };
        let (first, end) = (stage.layers.first as usize, stage.layers.end as usize);
        let here_ms = step_us(n, first, end) / 1e3;
        let (mut there_ms, mut names) = (0.0, Vec::new());
        for now in &self.replicas[0].stages {
            let (from, to) = (first.max(now.layers.first as usize), end.min(now.layers.end as usize));
            if from < to {
                there_ms += step_us(now.node.index(), from, to) / 1e3;
                names.push(self.name(now.node.index()));
            }
        }
        let count = stage.layers.len();
        let layers = if count == 1 { "its 1 layer".into() } else { format!("its {count} layers") };
        let hops_ms = (self.costs.way_us(stages) - self.costs.way_us(&self.replicas[0].stages)) / 1e3;
        let hops = if hops_ms > 0.0 { format!(", and hops {} more", fmt_ms(hops_ms)) } else { String::new() };
        format!(
            "{layers} would take {} a token here and {} on {}{hops}",
            fmt_ms(here_ms),
            fmt_ms(there_ms),
            names.join(" and ")
        )
    }

    /// What the node does to the tokens per second, in the place where it does least harm.
    fn fewer(&self, n: usize) -> String {
        let now = self.chosen.prediction.throughput_tok_s;
        let count = self.replicas.len() as u32;
        let concurrency = self.costs.ask.load.concurrency;
        let in_replica = self.replicas.iter().enumerate().take(self.beside).filter_map(|(i, replica)| {
            let streams = streams_of(concurrency, count, i as u32);
            let with = self.with(n, replica, Goal::Round(streams.max(1)))?;
            Some(now - self.costs.rate(&replica.stages, streams) + self.costs.rate(&with.stages, streams))
        });
        let inside = in_replica.max_by(f64::total_cmp);
        let streams = streams_of(concurrency, count + 1, count);
        let alone = self
            .costs
            .reach(n)
            .solo
            .then(|| Pool::new(self.costs, &[n], Goal::Token, 1).best(&[n], &[n]))
            .flatten()
            .map(|solo| self.beside_one_more + self.costs.rate(&solo.stages, streams));
        match (inside, alone) {
            (_, Some(_)) if streams == 0 => {
                format!(
                    "{} streams have {count} replicas already: as one more it would get none",
                    concurrency.max(1)
                )
            }
            (inside, Some(alone)) if inside.is_none_or(|inside| alone >= inside) => {
                lowers("as a replica of its own", now, alone)
            }
            (Some(inside), _) => lowers("in a pipeline with those that are used", now, inside),
            _ => "fits into no cut beside the nodes that are used".into(),
        }
    }
}

fn lowers(place: &str, now: f64, with: f64) -> String {
    if with >= now * (1.0 - 1e-6) {
        return format!("makes no difference: {place} it gives {with:.1} tok/s in all, as now");
    }
    format!("{place} it lowers the whole from {now:.1} to {with:.1} tok/s")
}
