//! The searches that find plans.

mod chain;

use serde::{Deserialize, Serialize};

use crate::cost::predict::Load;
use crate::fleet::{Fleet, NodeId};
use crate::model::Model;
use crate::plan::{Plan, Prediction};

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
    let c = &ask.constraints;
    let mut nodes: Vec<_> =
        fleet.ids().filter(|n| fleet.node(*n).has_model && !c.excluded.contains(n)).collect();
    if nodes.is_empty() {
        return Err(Refusal::NoNodes("none has the weights on its disk and is not excluded".into()));
    }
    nodes.sort_by(|a, b| {
        let speed = |n: &NodeId| fleet.node(*n).device.bandwidth_bytes_per_s;
        speed(b).total_cmp(&speed(a)).then(a.cmp(b))
    });
    nodes.truncate(8);
    let table = chain::Table::new(fleet, model, ask, nodes);
    let allowed = |p: &crate::plan::Pipeline| {
        let solo = p.stages.len() == 1;
        match c.shape {
            Shape::Solo => solo,
            Shape::Pipeline => !solo,
            Shape::Auto | Shape::Replicas => true,
        }
    };
    let mut found: Vec<Candidate> = table
        .best_by_set()
        .into_iter()
        .flatten()
        .filter(|(_, p)| allowed(p) && c.pinned.iter().all(|n| p.stages.iter().any(|s| s.node == *n)))
        .filter_map(|(_, pipeline)| {
            let plan = Plan {
                model: model.name.clone(),
                replicas: vec![pipeline],
                experts: Vec::new(),
                context: c.context,
                sessions: c.sessions,
            };
            let prediction =
                crate::cost::predict::predict(fleet, model, &plan, &ask.load, &crate::cost::constants::RING)?;
            Some(Candidate { plan, prediction })
        })
        .collect();
    let value = |p: &Prediction| match ask.objective {
        Objective::Tpot => p.tpot_ms,
        Objective::Ttft => p.ttft_ms,
        Objective::Throughput => -p.throughput_tok_s,
    };
    found.sort_by(|a, b| value(&a.prediction).total_cmp(&value(&b.prediction)));
    let recommended =
        found.first().cloned().ok_or_else(|| Refusal::Constraint("no allowed plan fits".into()))?;
    Ok(Placement { recommended, pareto: found, left_out: Vec::new(), exact: false, gap: 0.0 })
}
