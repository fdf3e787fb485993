//! Other engines, played over the same links, devices and requests as the main run.
//!
//! What sets an engine apart here is its protocol: who sends what to whom, how many bytes, and who waits. Each protocol is
//! a short file that takes one batch through a group of devices; all of them share one server that batches the streams in
//! progress, as each of these engines does at its host. None of them recovers: when one of the group dies, its requests
//! fail, and the group serves again once all are back and have loaded their weights.
//!
//! * `llama_rpc`: hub and spoke, one blocking round trip per server and token; two chattier variants.
//! * `pipelines`: a ring, a reply that goes back through every stage, a client between the stages.
//! * `tensor_parallel`: every layer on every node.
//! * `serving`: requests, batches, faults; what comes of it.
//! * `course`: time, and where it goes, during one step.
//! * `machine`: devices with the errors that the planner does not see.

mod course;
mod llama_rpc;
mod machine;
mod pipelines;
mod serving;
mod tensor_parallel;
#[cfg(test)]
mod tests;

use planner::cost::constants::{CLIENT_RELAY, EXO, HOP_BY_HOP, LLAMA_RPC, RING, Software, TENSOR_PARALLEL};
use planner::cost::step::Sequence;
use planner::fleet::NodeId;
use planner::place::{Refusal, place};
use planner::plan::{Pipeline, Plan, Stage};
use thiserror::Error;

use self::course::Course;
use self::serving::Serving;
use crate::outcome::Outcome;
use crate::scenario::{EngineKind, Scenario};

/// Why an engine cannot be played.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlayError {
    /// The scenario gives no split and the planner has none either.
    #[error("no plan to play: {0}")]
    NoPlan(#[from] Refusal),
    /// The split has no stages.
    #[error("the plan has no stages; give `split` at least one")]
    Empty,
    /// Two that must talk cannot.
    #[error("no link from node {} to node {}; join their networks by a distance", from.0, to.0)]
    Unreachable {
        /// Sender.
        from: NodeId,
        /// Receiver.
        to: NodeId,
    },
}

/// Who works together, and who leads.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    /// Where requests enter and tokens are needed.
    host: NodeId,
    /// Who computes what, in a token's order.
    stages: Vec<Stage>,
}

impl Group {
    /// Whether it cannot work without `node`.
    fn needs(&self, node: NodeId) -> bool {
        self.host == node || self.stages.iter().any(|s| s.node == node)
    }
}

/// Runs `scenario` with the engine `kind` instead of its own. [`EngineKind::Ring`] is played too: this project's ring as
/// arithmetic, for cuts that a real engine refuses because a stage is larger than its memory.
///
/// The plan is the scenario's split, or else the planner's recommendation (of replicas the first). The host is the
/// workload's first entry, or else the node of the first stage, in llama.cpp's RPC that of the last.
///
/// # Errors
/// [`PlayError`] when there is no plan, or when two nodes of it can never reach each other.
pub fn play(scenario: &Scenario, kind: EngineKind, seed: u64) -> Result<Outcome, PlayError> {
    let plan = plan(scenario)?;
    let stages = plan.replicas.first().map(|p| p.stages.clone()).unwrap_or_default();
    let (first, last) = stages.first().zip(stages.last()).ok_or(PlayError::Empty)?;
    let usual = if is_llama_rpc(kind) { last.node } else { first.node };
    let host = scenario.workload.entry.first().copied().unwrap_or(usual);
    let group = Group { host, stages };
    let group = if is_llama_rpc(kind) { llama_rpc::host_last(group) } else { group };
    let engine = Played { kind, group, inject_us: scenario.inject_us };
    Serving::new(scenario, engine, plan, seed).run()
}

/// The plan to follow.
fn plan(scenario: &Scenario) -> Result<Plan, PlayError> {
    let ask = &scenario.plan.ask;
    let Some(split) = &scenario.plan.split else {
        return Ok(place(&scenario.fleet, &scenario.model, ask)?.recommended.plan);
    };
    let stages = split.iter().map(|(node, layers)| Stage { node: *node, layers: *layers }).collect();
    Ok(Plan {
        model: scenario.model.name.clone(),
        replicas: vec![Pipeline { stages }],
        experts: Vec::new(),
        context: ask.constraints.context,
        sessions: ask.constraints.sessions.max(1),
    })
}

fn is_llama_rpc(kind: EngineKind) -> bool {
    matches!(kind, EngineKind::LlamaRpc | EngineKind::LlamaRpc558 | EngineKind::LlamaRpc8)
}

/// An engine over its group.
#[derive(Debug)]
struct Played {
    kind: EngineKind,
    group: Group,
    inject_us: f64,
}

impl Played {
    /// What its software costs.
    fn software(&self) -> Software {
        match self.kind {
            EngineKind::Ring => RING,
            EngineKind::LlamaRpc | EngineKind::LlamaRpc558 | EngineKind::LlamaRpc8 => LLAMA_RPC,
            EngineKind::HopByHop => HOP_BY_HOP,
            EngineKind::ClientRelay => CLIENT_RELAY,
            EngineKind::Exo => EXO,
            EngineKind::TensorParallel => TENSOR_PARALLEL,
        }
    }

    /// Takes one batch through the group, from the host back to the host.
    fn step(&self, course: &mut Course<'_>, batch: &[Sequence]) -> Result<(), PlayError> {
        let group = &self.group;
        match self.kind {
            EngineKind::Ring => pipelines::ring(group, course, batch),
            EngineKind::LlamaRpc | EngineKind::LlamaRpc558 | EngineKind::LlamaRpc8 => {
                llama_rpc::step(group, course, batch, self.kind, self.inject_us)
            }
            EngineKind::HopByHop => pipelines::hop_by_hop(group, course, batch),
            EngineKind::ClientRelay => pipelines::client_relay(group, course, batch),
            EngineKind::Exo => pipelines::exo(group, course, batch),
            EngineKind::TensorParallel => tensor_parallel::step(group, course, batch),
        }
    }
}
