//! The searches that find plans.
//!
//! * `exact`: up to eight nodes. `subsets` says which of them may work together, `ring` finds the best cut and order for a
//!   sum of times, `rounds` for many streams, `prefill`, `flow` and `tail` for the first token, `replicas` divides.
//! * `wide`: more nodes. Pipelines grow and are improved as a `pool`; `bound` says how far from the best they may be.
//! * `costs`, `rate`: what all of them look up.
//! * `refusal`, `explain`, `help`: why there is no plan, why a node is left out, what would be better.
//! * `cut`: a plan whose cuts somebody has chosen.
//! * `replan`: the next plan after a loss, and what the change costs.

mod bound;
mod costs;
mod cut;
mod exact;
mod explain;
mod flow;
mod help;
mod pool;
mod prefill;
mod rate;
mod refusal;
mod replan;
mod replicas;
mod ring;
mod rounds;
mod subsets;
mod tail;
mod wide;

use serde::{Deserialize, Serialize};

use self::costs::Costs;
pub use self::cut::cut;
use self::exact::{Exact, Found, NODES_MAX};
pub use self::help::{Help, NODES_MOST, Suggestion, does_it_help, merit, would_help_most, would_help_plan};
use self::refusal::refusal;
pub use self::replan::{HORIZON_US, Replan, ReplanCost, cost as replan_cost, replan};
use self::rounds::EQUAL;
use self::wide::Wide;
use crate::cost::predict::{Load, predict};
use crate::fleet::{Fleet, NodeId};
use crate::model::Model;
use crate::plan::{Pipeline, Plan, Prediction};
use crate::units::fmt_bytes;

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
    #[error("needs {}, the usable nodes have {}", fmt_bytes(*need_bytes), fmt_bytes(*have_bytes))]
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
    if let Some(nonsense) = refusal::nonsense(&costs) {
        return Err(Refusal::Constraint(nonsense));
    }
    let nodes = costs.usable();
    let search = Search::new(&costs, &nodes).ok_or_else(|| refusal(&costs))?;
    let recommended = search.best(ask.objective).ok_or_else(|| refusal(&costs))?;
    let others = [Objective::Tpot, Objective::Throughput, Objective::Ttft];
    let others = others.into_iter().filter(|o| *o != ask.objective);
    let (chosen, certain) = (recommended.replicas, recommended.certain);
    let recommended = candidate(&costs, chosen).ok_or_else(|| refusal(&costs))?;
    let mut found = vec![recommended.clone()];
    found.extend(others.filter_map(|o| search.good(o)).filter_map(|f| candidate(&costs, f.replicas)));
    let gap = if certain { 0.0 } else { bound::gap(&costs, &nodes, &recommended.prediction) };
    let left_out = explain::left_out(&costs, &nodes, &recommended);
    Ok(Placement { recommended, pareto: pareto(found), left_out, exact: certain, gap })
}

/// The search that suits the number of nodes.
enum Search<'c, 'a> {
    Exact(Box<Exact<'c, 'a>>),
    Wide(Box<Wide<'c, 'a>>),
}

impl<'c, 'a> Search<'c, 'a> {
    /// `None` where a node that must take part cannot.
    fn new(costs: &'c Costs<'a>, nodes: &[usize]) -> Option<Self> {
        if nodes.len() <= NODES_MAX {
            return Exact::new(costs, nodes).map(|exact| Search::Exact(Box::new(exact)));
        }
        let usable = |id: &NodeId| nodes.contains(&id.index());
        let all = costs.ask.constraints.pinned.iter().all(usable);
        all.then(|| Search::Wide(Box::new(Wide::new(costs, nodes))))
    }

    fn best(&self, objective: Objective) -> Option<Found> {
        match self {
            Search::Exact(exact) => exact.best(objective),
            Search::Wide(wide) => wide.best(objective),
        }
    }

    /// A plan for another objective than the asked one.
    fn good(&self, objective: Objective) -> Option<Found> {
        match self {
            Search::Exact(exact) => exact.good(objective),
            Search::Wide(wide) => wide.best(objective),
        }
    }
}

/// Those that none of the others beats in every objective, each once.
fn pareto(found: Vec<Candidate>) -> Vec<Candidate> {
    let values = |c: &Candidate| {
        let p = &c.prediction;
        [p.tpot_ms, p.ttft_ms, -p.throughput_tok_s]
    };
    let no_worse = |a: &Candidate, b: &Candidate| {
        values(a).iter().zip(values(b)).all(|(x, y)| *x <= y + y.abs() * EQUAL)
    };
    let beaten = |c: &Candidate| found.iter().any(|other| no_worse(other, c) && !no_worse(c, other));
    let mut front: Vec<Candidate> = Vec::new();
    for c in found.iter().filter(|c| !beaten(c)) {
        if !front.iter().any(|kept| no_worse(kept, c)) {
            front.push(c.clone());
        }
    }
    front
}

/// A plan of these replicas with what is predicted of it.
fn candidate(costs: &Costs<'_>, replicas: Vec<Pipeline>) -> Option<Candidate> {
    let c = &costs.ask.constraints;
    let plan = Plan {
        model: costs.model.name.clone(),
        replicas,
        experts: Vec::new(),
        context: c.context,
        sessions: c.sessions,
    };
    let prediction = predict(costs.fleet, costs.model, &plan, &costs.ask.load, &costs.software)?;
    Some(Candidate { plan, prediction })
}
