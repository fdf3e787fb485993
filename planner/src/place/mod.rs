//! The searches that find plans.

use serde::{Deserialize, Serialize};

use self::costs::Costs;
use self::exact::{Exact, NODES_MAX};
use crate::cost::predict::{Load, predict};
use crate::fleet::{Fleet, NodeId};
use crate::model::Model;
use crate::plan::{Pipeline, Plan, Prediction};

mod costs;
mod exact;
mod prefill;
mod replicas;
mod ring;
mod rounds;
mod subsets;
mod tail;

/// What a plan should be best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Least time per output token of one stream.
    Tpot,
    /// Most output tokens per second at the asked concurrency.
    Throughput,
    /// Least time to first token.
    Ttft,
}

/// Which shapes of plan are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Whatever is best.
    Auto,
    /// One node.
    Solo,
    /// One pipeline of at least two stages.
    Pipeline,
    /// Several whole copies.
    Replicas,
}

/// What a plan must keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    /// Fewest layers a stage may have.
    pub min_layers: u32,
    /// Longest mean one-way delay between neighbours in the ring, microseconds.
    pub latency_cap_us: Option<f64>,
    /// Nodes that must take part.
    pub pinned: Vec<NodeId>,
    /// Nodes that must not (dead, distrusted).
    pub excluded: Vec<NodeId>,
    /// KV room for this many sessions at the asked context in each replica.
    pub sessions: u32,
    /// Tokens of context each session may use.
    pub context: u32,
    /// Allowed shapes.
    pub shape: Shape,
}

/// A question to the planner.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// What to be best at.
    pub objective: Objective,
    /// The load to be best under.
    pub load: Load,
    /// What to keep.
    pub constraints: Constraints,
}

/// A plan with what is predicted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The plan.
    pub plan: Plan,
    /// What it gives.
    pub prediction: Prediction,
}

/// Why a node holds no layers in the recommended plan.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// Which.
    pub node: NodeId,
    /// Why, in words and with a figure.
    pub why: String,
}

/// The planner's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Best by the asked objective.
    pub recommended: Candidate,
    /// No other plan found beats one of these in every objective.
    pub pareto: Vec<Candidate>,
    /// Every node without layers.
    pub left_out: Vec<LeftOut>,
    /// Whether the search was exact.
    pub exact: bool,
    /// At most this share better could a plan be that was not found; 0 when exact.
    pub gap: f64,
}

/// Why there is no plan: the constraint that is violated, with figures.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No node may be used.
    #[error("no usable node: {0}")]
    NoNodes(String),
    /// Everything together is too small.
    #[error("needs {need_bytes} bytes, the usable nodes have {have_bytes}")]
    Memory {
        /// Weights, KV and activations of the least demanding allowed plan.
        need_bytes: u64,
        /// Usable memory of all allowed nodes.
        have_bytes: u64,
    },
    /// It would fit but for another constraint.
    #[error("{0}")]
    Constraint(String),
}

/// The best placement of `model` on `fleet`.
///
/// # Errors
/// A [`Refusal`] that names the violated constraint.
pub fn place(fleet: &Fleet, model: &Model, ask: &Ask) -> Result<Placement, Refusal> {
    let costs = Costs::new(fleet, model, ask);
    let mut nodes = costs.usable();
    let usable = nodes.len();
    if nodes.len() > NODES_MAX {
        let us = |n: usize| costs.compute(n, costs.decode(1)).range_us(0, costs.layers);
        let last = |n: &usize| !ask.constraints.pinned.iter().any(|p| p.index() == *n);
        nodes.sort_by(|a, b| last(a).cmp(&last(b)).then(us(*a).total_cmp(&us(*b))));
        nodes.truncate(NODES_MAX);
        nodes.sort_unstable();
    }
    if nodes.is_empty() {
        return Err(Refusal::NoNodes(
            "none has the model on its disk, is not excluded, and holds a stage".into(),
        ));
    }
    let exact = Exact::new(&costs, &nodes)
        .ok_or_else(|| Refusal::Constraint("a pinned node cannot take part".into()))?;
    let objectives = [Objective::Tpot, Objective::Throughput, Objective::Ttft];
    let mut found = Vec::new();
    for objective in objectives {
        found.push((
            objective,
            exact
                .best(objective)
                .ok_or_else(|| Refusal::Constraint("no cut keeps all constraints".into()))?,
        ));
    }
    let candidates: Vec<Candidate> =
        found.iter().filter_map(|(_, f)| candidate(&costs, f.replicas.clone())).collect();
    let of = found.iter().position(|(o, _)| *o == ask.objective).expect("all objectives were searched");
    let recommended = candidates[of].clone();
    Ok(Placement {
        recommended,
        pareto: candidates,
        left_out: Vec::new(),
        exact: found[of].1.certain && usable <= NODES_MAX,
        gap: 0.0,
    })
}

/// A plan of these replicas with what is predicted of it.
fn candidate(costs: &Costs<'_>, replicas: Vec<Pipeline>) -> Option<Candidate> {
    let sessions = replicas.iter().flat_map(|r| &r.stages).map(|s| costs.sessions(s)).min()?;
    let c = &costs.ask.constraints;
    let plan = Plan {
        model: costs.model.name.clone(),
        replicas,
        experts: Vec::new(),
        context: c.context,
        sessions: sessions.max(c.sessions),
    };
    let prediction = predict(costs.fleet, costs.model, &plan, &costs.ask.load, &costs.software)?;
    Some(Candidate { plan, prediction })
}
