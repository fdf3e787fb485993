//! The fleet as this node knows it: machines, links, and the names of their nodes.
//!
//! [`NodeId`]s are this node's own: it numbers machines as it meets them, and a machine that it has met keeps its number
//! for the node's life. Between nodes, machines go by their [`PeerId`]; [`FleetView::named`] and
//! [`FleetView::numbered`] translate plans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use planner::fleet::Fleet;
use planner::plan::{NodeId, Plan};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::ids::PeerId;

/// Machines, links and names at one time; who is alive is the control plane's to know.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetView {
    /// Machines and links.
    pub fleet: Fleet,
    /// The name of each node, by [`NodeId`].
    pub peers: Vec<PeerId>,
    ids: BTreeMap<PeerId, NodeId>,
    /// Who plans, the first that is alive: see [`FleetView::is_before`].
    order: Vec<NodeId>,
}

impl FleetView {
    /// A fleet and the names of its nodes. Names beyond the fleet's nodes are ignored.
    pub fn new(fleet: Fleet, mut peers: Vec<PeerId>) -> Self {
        peers.truncate(fleet.nodes.len());
        let ids: BTreeMap<PeerId, NodeId> =
            peers.iter().enumerate().map(|(i, p)| (*p, NodeId(i as u32))).collect();
        let mut order: Vec<NodeId> = ids.values().copied().collect();
        order.sort_by_key(|node| !fleet.node(*node).has_model);
        Self { fleet, peers, ids, order }
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

    /// Whether every node of `earlier` is in this view under the same number.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.peers.starts_with(&earlier.peers)
    }

    /// The nodes in the order in which they plan.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.order.iter().copied()
    }

    /// Whether `a` plans before `b`: those that have the model, whose owners say how it is to be served, before those that do
    /// not; then by name. The same on every machine.
    pub(crate) fn is_before(&self, a: PeerId, b: PeerId) -> bool {
        let lacks = |peer: PeerId| self.id(peer).is_none_or(|node| !self.fleet.node(node).has_model);
        (lacks(a), a) < (lacks(b), b)
    }

    /// The plan for others: its nodes numbered as they first stand in it, and the names that go with the numbers. `None`
    /// when it has a node that is not of this fleet.
    pub(crate) fn named(&self, plan: &Plan) -> Option<(Plan, Vec<PeerId>)> {
        let mut names = Vec::new();
        let mut numbers = BTreeMap::new();
        let plan = renumber(plan, |node| {
            let peer = self.peer(node)?;
            Some(*numbers.entry(node).or_insert_with(|| {
                names.push(peer);
                NodeId(names.len() as u32 - 1)
            }))
        })?;
        Some((plan, names))
    }

    /// A plan from another node in this node's numbers. `None` when it names a machine that this node has not met.
    pub(crate) fn numbered(&self, plan: &Plan, names: &[PeerId]) -> Option<Plan> {
        renumber(plan, |node| self.id(*names.get(node.index())?))
    }
}

fn renumber(plan: &Plan, mut number: impl FnMut(NodeId) -> Option<NodeId>) -> Option<Plan> {
    let mut plan = plan.clone();
    for stage in plan.replicas.iter_mut().flat_map(|replica| &mut replica.stages) {
        stage.node = number(stage.node)?;
    }
    for shard in &mut plan.experts {
        shard.node = number(shard.node)?;
    }
    Some(plan)
}

/// The fleet of a node over time, shared by its tasks.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    current: Arc<Mutex<Arc<FleetView>>>,
    changed: Arc<Notify>,
}

impl Views {
    pub(crate) fn new(view: Arc<FleetView>) -> Self {
        Self { current: Arc::new(Mutex::new(view)), changed: Arc::new(Notify::new()) }
    }

    pub(crate) fn current(&self) -> Arc<FleetView> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Completes at the next change after this call.
    pub(crate) fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Takes another view unless it renumbers or drops nodes. Gives whether it was taken.
    pub(crate) fn renew(&self, view: Arc<FleetView>) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !view.continues(&current) {
            return false;
        }
        if **current == *view {
            return true;
        }
        *current = view;
        drop(current);
        self.changed.notify_waiters();
        true
    }
}
