//! The decisions of the control plane: inputs with their time in, actions out.
//!
//! The planning node is the lowest of the fleet that a node believes alive. Everybody pings it, and the nodes below it
//! that are lost, in case they come back; it pings everybody. When somebody the plan counts on is lost, it replans
//! without them and publishes the next epoch; whoever answers with an older epoch is sent the newest. There is no vote:
//! two planning nodes at once (a partition) cost time, never a wrong token, because a session's head alone emits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use planner::model::Model;
use planner::place::{Ask, place};
use planner::plan::{Epoch, NodeId, Plan};

use crate::clock::Instant;
use crate::plans::Published;
use crate::router::FleetView;
use crate::wire::Control;

/// What the core wants done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Tell a node.
    Send(NodeId, Control),
    /// Follow this plan.
    Follow(Published),
    /// Count on that node no longer.
    Lost(NodeId),
    /// Count on it again.
    Back(NodeId),
}

/// What one node knows of another.
#[derive(Debug, Clone, Copy)]
struct Peer {
    /// The last sign of life, or when this node began to listen for one.
    heard: Instant,
    incarnation: Option<u64>,
    lost: bool,
}

/// What a core is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) me: NodeId,
    pub(crate) view: Arc<FleetView>,
    pub(crate) model: Arc<Model>,
    pub(crate) ask: Ask,
    pub(crate) incarnation: u64,
    pub(crate) ping: Duration,
    pub(crate) misses: u32,
}

/// The control plane's mind.
#[derive(Debug)]
pub(crate) struct Core {
    setting: Setting,
    began: Instant,
    peers: BTreeMap<NodeId, Peer>,
    /// Nodes that could not load what a plan gave them, until they restart.
    unfit: BTreeSet<NodeId>,
    published: Option<Published>,
    /// The highest epoch heard of.
    epoch: Epoch,
    ready: bool,
    nonce: u64,
    /// Something changed that the plan does not account for yet.
    stale_plan: bool,
}

impl Core {
    pub(crate) fn new(setting: Setting, now: Instant) -> Self {
        let others = setting.view.fleet.ids().filter(|id| *id != setting.me);
        let peers = others.map(|id| (id, Peer { heard: now, incarnation: None, lost: false })).collect();
        Self {
            setting,
            began: now,
            peers,
            unfit: BTreeSet::new(),
            published: None,
            epoch: Epoch(0),
            ready: true,
            nonce: 0,
            stale_plan: false,
        }
    }

    fn is_lost(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|p| p.lost)
    }

    /// The planning node, as this node sees it.
    pub(crate) fn planning_node(&self) -> NodeId {
        self.setting.view.fleet.ids().find(|id| !self.is_lost(*id)).unwrap_or(self.setting.me)
    }

    fn plans_here(&self) -> bool {
        self.planning_node() == self.setting.me
    }

    fn patience(&self) -> Duration {
        self.setting.ping * self.setting.misses
    }

    /// A plan that was given at the start.
    pub(crate) fn begin_with(&mut self, plan: Option<(Epoch, Plan)>) -> Vec<Action> {
        let Some((epoch, plan)) = plan else {
            self.stale_plan = true;
            return Vec::new();
        };
        let by = self.setting.view.peer(NodeId(0));
        by.map_or_else(Vec::new, |by| self.follow(Published { epoch, by, plan: Arc::new(plan) }))
    }

    /// Time passes: to be called once a ping period.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.lose_the_silent(now);
        self.nonce += 1;
        let leads = self.plans_here();
        let leader = self.planning_node();
        // Somebody lost is asked now and then, in case they come back.
        let asked = |id: NodeId, lost: bool| match (leads, lost) {
            (true, false) => true,
            (false, false) => id == leader,
            (_, true) => self.nonce % u64::from(self.setting.misses.max(1)) == 0 && (leads || id < leader),
        };
        let ping = Control::Ping { nonce: self.nonce, epoch: self.followed() };
        let to = self.peers.iter().filter(|(id, p)| asked(**id, p.lost)).map(|(id, _)| *id);
        actions.extend(to.map(|id| Action::Send(id, ping.clone())));
        actions.extend(self.replan_if_needed(now));
        actions
    }

    fn followed(&self) -> Epoch {
        self.published.as_ref().map_or(Epoch(0), |p| p.epoch)
    }

    fn lose_the_silent(&mut self, now: Instant) -> Vec<Action> {
        let leads = self.plans_here();
        let leader = self.planning_node();
        let patience = self.patience();
        let silent = |(id, peer): (&NodeId, &Peer)| {
            let watched = leads || *id == leader;
            (watched && !peer.lost && now.since(peer.heard) > patience).then_some(*id)
        };
        let silent: Vec<_> = self.peers.iter().filter_map(silent).collect();
        let mut actions = Vec::new();
        for id in silent {
            actions.extend(self.lose(id));
        }
        if leader != self.planning_node() {
            // Whoever is watched from now on gets the full time to answer.
            for peer in self.peers.values_mut().filter(|p| !p.lost) {
                peer.heard = now;
            }
            self.began = now;
        }
        actions
    }

    fn lose(&mut self, id: NodeId) -> Option<Action> {
        let peer = self.peers.get_mut(&id).filter(|p| !p.lost)?;
        peer.lost = true;
        let counted_on = self.published.as_ref().is_some_and(|p| p.plan.layers_of(id).is_some());
        self.stale_plan |= counted_on;
        Some(Action::Lost(id))
    }

    fn heard_from(&mut self, id: NodeId, now: Instant) -> Option<Action> {
        let peer = self.peers.get_mut(&id)?;
        peer.heard = now;
        if !peer.lost {
            return None;
        }
        peer.lost = false;
        // Worth a new plan only where the present one is missing or broken.
        self.stale_plan |= !self.plan_is_whole();
        Some(Action::Back(id))
    }

    fn plan_is_whole(&self) -> bool {
        let usable = |id: NodeId| !self.is_lost(id) && !self.unfit.contains(&id);
        self.published.as_ref().is_some_and(|p| p.plan.stages().all(|s| usable(s.node)))
    }

    /// A peer says something.
    pub(crate) fn hear(&mut self, from: NodeId, control: Control, now: Instant) -> Vec<Action> {
        let mut actions: Vec<_> = self.heard_from(from, now).into_iter().collect();
        match control {
            Control::Ping { nonce, epoch } => {
                let lost = if self.plans_here() { self.lost_nodes() } else { Vec::new() };
                let pong = Control::Pong {
                    nonce,
                    epoch: self.followed(),
                    ready: self.ready,
                    lost,
                    incarnation: self.setting.incarnation,
                };
                actions.push(Action::Send(from, pong));
                actions.extend(self.catch_up(from, epoch));
            }
            Control::Pong { epoch, incarnation, lost, .. } => {
                self.meet(from, incarnation);
                actions.extend(self.catch_up(from, epoch));
                if from == self.planning_node() {
                    actions.extend(self.adopt_losses(&lost, now));
                }
            }
            Control::Suspect { peer } => {
                if let Some(node) = self.setting.view.node(peer) {
                    actions.extend(self.suspect(node));
                }
            }
            Control::Publish { epoch, by, plan } => {
                if self.is_sound(&plan) {
                    actions.extend(self.follow(Published { epoch, by, plan: Arc::new(plan) }));
                }
            }
            Control::Ready { epoch, ok } => {
                if !ok && epoch == self.followed() && self.unfit.insert(from) {
                    self.stale_plan = true;
                }
            }
        }
        actions.extend(self.replan_if_needed(now));
        actions
    }

    fn lost_nodes(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, p)| p.lost).map(|(id, _)| *id).collect()
    }

    /// Believes the planning node about those this node does not watch itself.
    fn adopt_losses(&mut self, lost: &[NodeId], now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let leader = self.planning_node();
        let ids: Vec<_> = self.peers.keys().copied().filter(|id| *id > leader).collect();
        for id in ids {
            actions.extend(if lost.contains(&id) { self.lose(id) } else { self.heard_from(id, now) });
        }
        actions
    }

    /// A peer with another incarnation is not the one that was known: what it could not load it may load now.
    fn meet(&mut self, from: NodeId, incarnation: u64) {
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.incarnation.replace(incarnation).is_some_and(|old| old != incarnation)
        {
            self.unfit.remove(&from);
        }
    }

    /// Sends the newest plan to whoever follows an older one.
    fn catch_up(&mut self, to: NodeId, epoch: Epoch) -> Option<Action> {
        self.epoch = self.epoch.max(epoch);
        let published = self.published.as_ref().filter(|p| p.epoch > epoch)?;
        Some(Action::Send(to, publish(published)))
    }

    /// Whether a plan that came over the network speaks of this fleet and this model.
    fn is_sound(&self, plan: &Plan) -> bool {
        let nodes = self.setting.view.fleet.nodes.len();
        plan.model == self.setting.model.name
            && plan.replicas.iter().all(|replica| {
                let mut at = 0;
                let gapless = replica.stages.iter().all(|s| {
                    let follows = s.layers.first == at && !s.layers.is_empty() && s.node.index() < nodes;
                    at = s.layers.end;
                    follows
                });
                gapless && at == self.setting.model.layer_count()
            })
    }

    fn follow(&mut self, published: Published) -> Vec<Action> {
        let newer = self.published.as_ref().is_none_or(|old| {
            published.epoch > old.epoch || (published.epoch == old.epoch && published.by < old.by)
        });
        if !newer {
            return Vec::new();
        }
        self.epoch = self.epoch.max(published.epoch);
        self.ready = false;
        self.published = Some(published.clone());
        self.stale_plan = !self.plan_is_whole();
        vec![Action::Follow(published)]
    }

    /// A head misses a token of a route with that node: ask it at once, or have the planning node do so.
    pub(crate) fn suspect(&mut self, node: NodeId) -> Vec<Action> {
        let to = if self.plans_here() { node } else { self.planning_node() };
        if node == self.setting.me || self.is_lost(node) {
            return Vec::new();
        }
        let control = match (to == node, self.setting.view.peer(node)) {
            (false, Some(peer)) => Control::Suspect { peer },
            _ => Control::Ping { nonce: self.nonce, epoch: self.followed() },
        };
        vec![Action::Send(to, control)]
    }

    /// This node's stage has loaded, or could not.
    pub(crate) fn loaded(&mut self, epoch: Epoch, ok: bool, now: Instant) -> Vec<Action> {
        if epoch != self.followed() {
            return Vec::new();
        }
        self.ready = ok;
        if self.plans_here() {
            if !ok && self.unfit.insert(self.setting.me) {
                self.stale_plan = true;
            }
            return self.replan_if_needed(now);
        }
        vec![Action::Send(self.planning_node(), Control::Ready { epoch, ok })]
    }

    /// Plans, where it is this node's turn and there is a reason to. A node that has just begun to listen waits until
    /// everybody has had the time to answer: it may be the only one that does not know the plan.
    fn replan_if_needed(&mut self, now: Instant) -> Vec<Action> {
        let listened = now.since(self.began) > self.patience() || self.published.is_some();
        if !self.stale_plan || !self.plans_here() || !listened {
            return Vec::new();
        }
        self.stale_plan = false;
        let Some(plan) = self.next_plan() else {
            // Nothing to be done with those who are left; the next return is a reason to try again.
            return Vec::new();
        };
        let epoch = Epoch(self.epoch.max(self.followed()).0 + 1);
        let Some(by) = self.setting.view.peer(self.setting.me) else { return Vec::new() };
        let published = Published { epoch, by, plan: Arc::new(plan) };
        let mut actions = self.follow(published.clone());
        let alive = self.peers.iter().filter(|(_, p)| !p.lost).map(|(id, _)| *id);
        actions.extend(alive.map(|id| Action::Send(id, publish(&published))));
        actions
    }

    fn next_plan(&self) -> Option<Plan> {
        let mut ask = self.setting.ask.clone();
        ask.constraints.excluded.extend(self.lost_nodes());
        ask.constraints.excluded.extend(self.unfit.iter().copied());
        ask.constraints.pinned.retain(|id| !ask.constraints.excluded.contains(id));
        // Where the request's own node is gone, the plan is made for whoever asks next.
        ask.load.head = ask.load.head.filter(|id| !ask.constraints.excluded.contains(id));
        place(&self.setting.view.fleet, &self.setting.model, &ask).ok().map(|p| p.recommended.plan)
    }
}

fn publish(published: &Published) -> Control {
    Control::Publish { epoch: published.epoch, by: published.by, plan: (*published.plan).clone() }
}
