//! The control plane's core: what is heard and when goes in, what must be done comes out. No input or output.
//!
//! The planning node is the first in order that is alive. It asks everybody whether they are, replaces plans that lost nodes
//! stand in, says which replicas serve, and publishes both to all. Everybody else watches it alone. Two nodes may take
//! themselves for it while the network is parted: both plan, and when it heals the greater [`PlanId`] holds. Heads
//! alone emit tokens, so two plans at once cost time, never a token.
//!
//! Frames may be lost, so nothing is said only once: every answer to a ping tells how its sender is and what it knows
//! ([`Status`]), and whoever knows better than the other makes it good ([`hearing`]).

mod hearing;
mod lead;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use planner::model::Model;
use planner::place::Ask;
use planner::plan::{Epoch, LayerRange, NodeId, Plan};

use super::liveness::{Liveness, News};
use super::planning::{Least, Planning, Search, Wish, is_sound};
use crate::clock::Instant;
use crate::ids::{PeerId, PlanId};
use crate::limits::Limits;
use crate::view::FleetView;
use crate::wire::{Control, Readiness, Status};

/// What the driver must do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Send it.
    Send(PeerId, Control),
    /// Follow that plan, and load these layers of it.
    Follow { id: PlanId, plan: Arc<Plan>, layers: Option<LayerRange> },
    /// These replicas of the plan serve.
    Serve { id: PlanId, serving: BTreeMap<usize, u64> },
    /// No longer count on it.
    Lost(PeerId),
    /// Count on it again.
    Back(PeerId),
    /// The control stream to it may hang.
    Doubt(PeerId),
    /// It has begun another life: streams to the one before lead nowhere.
    Renewed(PeerId),
}

/// What a core is made of.
pub(crate) struct Setup {
    pub(crate) me: NodeId,
    pub(crate) view: Arc<FleetView>,
    pub(crate) model: Arc<Model>,
    pub(crate) ask: Ask,
    pub(crate) cut: Vec<u32>,
    pub(crate) least: Option<Least>,
    pub(crate) copies: bool,
    pub(crate) limits: Limits,
    pub(crate) incarnation: u64,
    pub(crate) search: Search,
}

#[derive(Debug, Clone)]
struct Followed {
    id: PlanId,
    plan: Arc<Plan>,
}

/// One node's part in the control plane.
pub(crate) struct Core {
    me: NodeId,
    view: Arc<FleetView>,
    model: Arc<Model>,
    limits: Limits,
    incarnation: u64,
    liveness: Liveness,
    planning: Planning,
    followed: Option<Followed>,
    /// What this node's device holds of the plan it follows.
    readiness: Readiness,
    serving: BTreeMap<usize, u64>,
    /// Of `serving`, for others to compare with theirs.
    digest: u64,
    /// What was last told to all, and when.
    told: Option<(PlanId, u64)>,
    told_at: Option<Instant>,
    watching: Option<NodeId>,
    /// Whether the watch fits the plan that is followed.
    aimed: bool,
    /// When to look for a better plan, after nodes came back.
    improve_at: Option<Instant>,
    /// The highest epoch anybody follows: new plans are numbered above it.
    highest: Epoch,
    /// Somebody follows a greater plan: planning waits for that plan to arrive, but no longer than this.
    behind_until: Option<Instant>,
    /// Peers that hear a node that plans before this one: while there are any, that node plans, though this one cannot hear
    /// it. Else two nodes that do not hear each other would replace each other's plans for ever.
    vouchers: BTreeSet<NodeId>,
    /// The last life of each peer that has said how it is.
    lives: BTreeMap<NodeId, u64>,
    /// Suspicions passed on lately, those of peers that refuse apart.
    passed_on: BTreeMap<(NodeId, bool), Instant>,
    actions: Vec<Action>,
}

impl Core {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { me, view, model, ask, cut, least, copies, limits, incarnation, search } = setup;
        let liveness = Liveness::new(limits, view.len());
        let wish = Wish { ask, cut, least, copies, gain: limits.replan_gain };
        let planning = Planning::new(Arc::clone(&view), Arc::clone(&model), wish, search);
        Self {
            me,
            view,
            model,
            limits,
            incarnation,
            liveness,
            planning,
            followed: None,
            readiness: Readiness::Loading,
            serving: BTreeMap::new(),
            digest: digest(&BTreeMap::new()),
            told: None,
            told_at: None,
            watching: None,
            aimed: false,
            improve_at: None,
            highest: Epoch(0),
            behind_until: None,
            vouchers: BTreeSet::new(),
            lives: BTreeMap::new(),
            passed_on: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`tick`](Self::tick) has something to do again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let tell = self.untold().then(|| self.tell_due());
        let improve = self.improve_at.filter(|_| self.may_plan());
        [self.liveness.next_due(), improve, tell, self.behind_until].into_iter().flatten().min()
    }

    /// The plan this node starts with, if any.
    pub(crate) fn begin(&mut self, now: Instant, initial: Option<(Epoch, Plan)>) {
        if let Some((epoch, plan)) = initial.filter(|(_, plan)| is_sound(plan, &self.view, &self.model)) {
            // All are given it, nobody has made it.
            let id = PlanId { epoch, maker: self.first(), life: 0 };
            self.follow(id, Arc::new(plan));
        }
        self.turn(now);
    }

    /// The fleet is now this. A view that is the one at hand changes nothing.
    pub(crate) fn see(&mut self, now: Instant, view: Arc<FleetView>) {
        if Arc::ptr_eq(&self.view, &view) {
            return;
        }
        self.liveness.resize(view.len());
        self.planning.see(Arc::clone(&view));
        self.view = view;
        self.aimed = false;
        self.improve_at.get_or_insert(now.after(self.limits.replan_rest));
        self.turn(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.liveness.tick(now);
        self.turn(now);
    }

    /// This node's stage has loaded, or could not.
    pub(crate) fn loaded(&mut self, now: Instant, id: PlanId, ok: bool) {
        if id != self.id() || self.readiness == Readiness::Unable {
            return;
        }
        self.readiness = if ok { Readiness::Ready } else { Readiness::Unable };
        self.planning.met(self.me, self.incarnation, !ok);
        self.planning.says(self.me, ok, self.incarnation);
        self.tell_status();
        self.turn(now);
    }

    /// This node will end: from now on it is like one that cannot load, and what it holds is planned elsewhere.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.readiness = Readiness::Unable;
        self.planning.met(self.me, self.incarnation, true);
        self.tell_status();
        self.turn(now);
    }

    /// A head of this or another node doubts a peer, or a stream to it broke.
    pub(crate) fn suspect(&mut self, now: Instant, peer: PeerId) {
        self.look_into(now, peer, false);
    }

    /// A peer's connections to this or another node ended, and it refuses another.
    pub(crate) fn refused(&mut self, now: Instant, peer: PeerId) {
        self.look_into(now, peer, true);
    }

    fn look_into(&mut self, now: Instant, peer: PeerId, refuses: bool) {
        let Some(node) = self.view.id(peer).filter(|n| *n != self.me) else { return };
        let passed_on = self.passed_on.get(&(node, refuses));
        if self.liveness.is_watched(node) && refuses {
            self.liveness.refused(node, now);
        } else if self.liveness.is_watched(node) {
            self.liveness.suspect(node, now);
        } else if !self.is_planner() && passed_on.is_none_or(|until| now >= *until) {
            self.passed_on.insert((node, refuses), now.after(self.limits.verify_period));
            self.send(self.planner(), Control::Suspect { peer, refuses });
        }
        self.turn(now);
    }

    fn peer(&self, node: NodeId) -> PeerId {
        self.view.peer(node).unwrap_or_default()
    }

    fn send(&mut self, to: NodeId, control: Control) {
        let peer = self.peer(to);
        self.actions.push(Action::Send(peer, control));
    }

    fn id(&self) -> PlanId {
        self.followed.as_ref().map_or_else(PlanId::default, |f| f.id)
    }

    fn layers(&self) -> Option<LayerRange> {
        self.followed.as_ref().and_then(|f| f.plan.layers_of(self.me))
    }

    fn status(&self) -> Status {
        Status {
            plan: self.id(),
            serving: self.digest,
            readiness: self.readiness,
            incarnation: self.incarnation,
            planner: self.peer(self.planner()),
        }
    }

    /// Tells the planning node how this one is, now that it has changed.
    fn tell_status(&mut self) {
        if !self.is_planner() {
            self.send(self.planner(), Control::Status(self.status()));
        }
    }

    /// The first node in order that is alive.
    fn planner(&self) -> NodeId {
        let lost = self.liveness.lost();
        self.view.in_order().find(|n| *n == self.me || !lost.contains(n)).unwrap_or(self.me)
    }

    fn first(&self) -> PeerId {
        self.view.in_order().next().map_or_else(PeerId::default, |node| self.peer(node))
    }

    fn is_planner(&self) -> bool {
        self.planner() == self.me
    }

    fn set_serving(&mut self, serving: BTreeMap<usize, u64>) {
        self.digest = digest(&serving);
        self.serving = serving;
    }

    fn follow(&mut self, id: PlanId, plan: Arc<Plan>) {
        let before = self.followed.take();
        let layers = plan.layers_of(self.me);
        let unchanged = before.as_ref().is_some_and(|f| f.plan.layers_of(self.me) == layers);
        if self.readiness == Readiness::Ready && !unchanged {
            self.readiness = Readiness::Loading;
        }
        self.planning.moved(before.as_ref().map(|f| &*f.plan), &plan);
        let serving = before.map_or_else(BTreeMap::new, |old| {
            let keeps = |(i, life): (&usize, &u64)| {
                let pipeline = &old.plan.replicas[*i];
                plan.replicas.iter().position(|p| p == pipeline).map(|j| (j, *life))
            };
            self.serving.iter().filter_map(keeps).collect()
        });
        self.set_serving(serving);
        self.followed = Some(Followed { id, plan: Arc::clone(&plan) });
        self.highest = self.highest.max(id.epoch);
        self.behind_until = None;
        self.aimed = false;
        self.actions.push(Action::Follow { id, plan, layers });
    }

    /// What follows from all that has changed.
    fn turn(&mut self, now: Instant) {
        self.take_news(now);
        self.aim(now);
        if self.behind_until.is_some_and(|until| now >= until) {
            self.behind_until = None;
        }
        if self.may_plan() {
            let is_due = self.improve_at.is_some_and(|at| now >= at);
            let mut changed = self.planning.take_changed();
            if changed || is_due {
                self.plan(now);
                changed |= self.planning.take_changed();
            }
            if changed {
                self.refresh();
            }
            self.report(now);
        }
        self.take_news(now);
    }

    fn take_news(&mut self, now: Instant) {
        for news in self.liveness.take_news() {
            match news {
                News::Ping(node, nonce) => self.send(node, Control::Ping { nonce }),
                News::Missed(node) => self.actions.push(Action::Doubt(self.peer(node))),
                News::Lost(node) => {
                    self.planning.forget(node);
                    self.vouchers.remove(&node);
                    self.actions.push(Action::Lost(self.peer(node)));
                }
                News::Back(node) => {
                    self.planning.forget(node);
                    self.actions.push(Action::Back(self.peer(node)));
                    if self.is_planner() {
                        self.improve_at = Some(now.after(self.limits.replan_rest));
                        self.tell_plan(node, PlanId::default());
                    }
                }
            }
        }
    }
}

fn listed(serving: &BTreeMap<usize, u64>) -> Vec<(u32, u64)> {
    serving.iter().map(|(i, life)| (*i as u32, *life)).collect()
}

/// FNV-1a, 64 bits wide, over indices and lives: the same on every machine, whatever compiled it.
fn digest(serving: &BTreeMap<usize, u64>) -> u64 {
    let bytes =
        serving.iter().flat_map(|(i, life)| (*i as u64).to_le_bytes().into_iter().chain(life.to_le_bytes()));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
