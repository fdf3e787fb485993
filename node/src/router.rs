//! Which way a request goes: a pure function of what is published and of what is asked.

use std::collections::BTreeMap;

use planner::fleet::Fleet;
use planner::plan::{Epoch, NodeId, Pipeline};

use crate::ids::PeerId;
use crate::plans::View;

/// The fleet everybody knows, and the peers behind its nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetView {
    /// Machines and links.
    pub fleet: Fleet,
    peers: Vec<PeerId>,
    nodes: BTreeMap<PeerId, NodeId>,
}

impl FleetView {
    /// A fleet whose nodes are those peers, in the order of their ids.
    pub fn new(fleet: Fleet, peers: Vec<PeerId>) -> Self {
        let nodes = peers.iter().enumerate().map(|(i, peer)| (*peer, NodeId(i as u32))).collect();
        Self { fleet, peers, nodes }
    }

    /// The peer behind a node of the fleet.
    pub fn peer(&self, node: NodeId) -> Option<PeerId> {
        self.peers.get(node.index()).copied()
    }

    /// The node a peer is; `None` for a stranger.
    pub fn node(&self, peer: PeerId) -> Option<NodeId> {
        self.nodes.get(&peer).copied()
    }
}

/// Sessions this node has under way, by the first stage they use.
pub type Outstanding = BTreeMap<NodeId, u32>;

/// What a request needs of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Prompt and output together, tokens.
    pub context: u32,
    /// The node it entered at.
    pub entry: Option<NodeId>,
    /// A first stage that has just refused it.
    pub avoid: Option<NodeId>,
}

/// A way through the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The plan it belongs to.
    pub epoch: Epoch,
    /// The stages.
    pub pipeline: Pipeline,
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nothing is published yet; a plan may come.
    #[error("no plan yet")]
    NoPlan,
    /// A plan is there, and every replica of it has lost a stage; the next plan may mend it.
    #[error("every replica has lost a stage")]
    Broken,
    /// It will not fit, whatever comes.
    #[error("{need} tokens of prompt and output, the plan has room for {room} per session")]
    TooLong {
        /// Tokens asked for.
        need: u32,
        /// Tokens a session may have.
        room: u32,
    },
}

impl NoRoute {
    /// Whether waiting can help.
    pub fn may_pass(&self) -> bool {
        !matches!(self, NoRoute::TooLong { .. })
    }
}

/// The replica with the fewest sessions of this node under way, of those the one that begins here.
///
/// # Errors
/// [`NoRoute`], with the reason.
pub fn route(view: &View, outstanding: &Outstanding, need: &Need) -> Result<Choice, NoRoute> {
    let published = view.published.as_ref().ok_or(NoRoute::NoPlan)?;
    if need.context > published.plan.context {
        return Err(NoRoute::TooLong { need: need.context, room: published.plan.context });
    }
    let key = |pipeline: &Pipeline| {
        let first = pipeline.stages.first().map(|s| s.node);
        let load = first.and_then(|n| outstanding.get(&n)).copied().unwrap_or(0);
        (first == need.avoid && need.avoid.is_some(), load, first != need.entry)
    };
    let whole = |p: &&Pipeline| !p.stages.is_empty() && !p.stages.iter().any(|s| view.lost.contains(&s.node));
    let pipeline =
        published.plan.replicas.iter().filter(whole).min_by_key(|p| key(p)).ok_or(NoRoute::Broken)?;
    Ok(Choice { epoch: published.epoch, pipeline: pipeline.clone() })
}
