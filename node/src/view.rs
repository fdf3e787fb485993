//! The fleet as everybody knows it: machines, links, and the names of their nodes.

use std::collections::BTreeMap;

use planner::fleet::Fleet;
use planner::plan::NodeId;

use crate::ids::PeerId;

/// Machines, links and names. Static for a node's life; who is alive is the control plane's to know.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetView {
    /// Machines and links.
    pub fleet: Fleet,
    /// The name of each node, by [`NodeId`].
    pub peers: Vec<PeerId>,
    ids: BTreeMap<PeerId, NodeId>,
}

impl FleetView {
    /// A fleet and the names of its nodes. Names beyond the fleet's nodes are ignored.
    pub fn new(fleet: Fleet, mut peers: Vec<PeerId>) -> Self {
        peers.truncate(fleet.nodes.len());
        let ids = peers.iter().enumerate().map(|(i, p)| (*p, NodeId(i as u32))).collect();
        Self { fleet, peers, ids }
    }

    /// A fleet whose peers are named by their index, as in the simulator.
    pub fn indexed(fleet: Fleet) -> Self {
        let peers = (0..fleet.nodes.len() as u32).map(PeerId::from_index).collect();
        Self::new(fleet, peers)
    }

    /// The node of that name.
    pub fn id(&self, peer: PeerId) -> Option<NodeId> {
        self.ids.get(&peer).copied()
    }

    /// The name of that node; `None` for an id that is not of this fleet.
    pub fn peer(&self, node: NodeId) -> Option<PeerId> {
        self.peers.get(node.index()).copied()
    }

    /// What people call that peer.
    pub fn name(&self, peer: PeerId) -> String {
        self.id(peer).map_or_else(|| format!("{peer:?}"), |id| self.fleet.node(id).name.clone())
    }

    /// How many nodes have names.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}
