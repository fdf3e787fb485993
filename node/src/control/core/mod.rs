//! The control plane's core: what is heard and when goes in, what must be done comes out. No input or output.
//!
//! The planning node is the lowest one that is alive. It asks everybody whether they are, replaces plans that lost nodes
//! stand in, says which replicas serve, and publishes both to all. Everybody else watches it alone. Two nodes may take
//! themselves for it while the network is parted: both plan, and when it heals the higher epoch holds, of equal ones
//! the lower maker's. Heads alone emit tokens, so two plans at once cost time, never a token.

mod lead;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use planner::model::Model;
use planner::place::Ask;
use planner::plan::{Epoch, LayerRange, NodeId, Plan};

use super::liveness::{Liveness, News};
use super::planning::{Planning, Search, is_sound};
use crate::clock::Instant;
use crate::ids::PeerId;
use crate::limits::Limits;
use crate::view::FleetView;
use crate::wire::Control;

/// What the driver must do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Send it.
    Send(PeerId, Control),
    /// Follow that plan, and load these layers of it.
    Follow { epoch: Epoch, by: PeerId, plan: Arc<Plan>, layers: Option<LayerRange> },
    /// These replicas of the plan serve.
    Serve { epoch: Epoch, by: PeerId, serving: BTreeMap<usize, u64> },
    /// No longer count on it.
    Lost(PeerId),
    /// Count on it again.
    Back(PeerId),
    /// The control stream to it may hang.
    Doubt(PeerId),
}

/// What a core is made of.
pub(crate) struct Setup {
    pub(crate) me: NodeId,
    pub(crate) view: Arc<FleetView>,
    pub(crate) model: Arc<Model>,
    pub(crate) ask: Ask,
    pub(crate) limits: Limits,
    pub(crate) incarnation: u64,
    pub(crate) search: Search,
}

#[derive(Debug, Clone)]
struct Followed {
    epoch: Epoch,
    by: PeerId,
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
    /// This node holds its layers of the plan it follows.
    loaded: bool,
    serving: BTreeMap<usize, u64>,
    /// What was last told to all, and when.
    told: Option<(Epoch, PeerId, BTreeMap<usize, u64>)>,
    told_at: Option<Instant>,
    watching: Option<NodeId>,
    /// Whether the watch fits the plan that is followed.
    aimed: bool,
    /// When to look for a better plan, after nodes came back.
    improve_at: Option<Instant>,
    /// When to ask the planning node what serves, while something does not.
    want_at: Instant,
    /// The highest epoch anybody follows: new plans are numbered above it.
    highest: Epoch,
    /// Somebody follows a higher epoch: planning waits for that plan to arrive, but no longer than this.
    behind_until: Option<Instant>,
    /// Suspicions passed on lately.
    passed_on: BTreeMap<NodeId, Instant>,
    actions: Vec<Action>,
}

impl Core {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { me, view, model, ask, limits, incarnation, search } = setup;
        let liveness = Liveness::new(limits, view.len());
        let planning = Planning::new(Arc::clone(&view), Arc::clone(&model), ask, limits.replan_gain, search);
        Self {
            me,
            view,
            model,
            limits,
            incarnation,
            liveness,
            planning,
            followed: None,
            loaded: false,
            serving: BTreeMap::new(),
            told: None,
            told_at: None,
            watching: None,
            aimed: false,
            improve_at: None,
            want_at: Instant(0),
            highest: Epoch(0),
            behind_until: None,
            passed_on: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`tick`](Self::tick) has something to do again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let want = (!self.is_planner() && self.wants()).then_some(self.want_at);
        let tell = self.untold().then(|| self.tell_due());
        let improve = self.improve_at.filter(|_| self.may_plan());
        [self.liveness.next_due(), improve, want, tell, self.behind_until].into_iter().flatten().min()
    }

    /// The plan this node starts with, if any.
    pub(crate) fn begin(&mut self, now: Instant, initial: Option<(Epoch, Plan)>) {
        if let Some((epoch, plan)) = initial.filter(|(_, plan)| is_sound(plan, &self.view, &self.model)) {
            let by = self.peer(NodeId(0));
            self.follow(epoch, by, Arc::new(plan));
        }
        self.turn(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.liveness.tick(now);
        if !self.is_planner() && self.wants() && now >= self.want_at {
            self.want_at = now.after(self.liveness.seldom());
            self.send(self.planner(), Control::Want { epoch: self.epoch() });
        }
        self.turn(now);
    }

    /// A peer has said something.
    pub(crate) fn heard(&mut self, now: Instant, from: PeerId, control: Control) {
        let Some(node) = self.view.id(from).filter(|n| *n != self.me) else { return };
        if !matches!(control, Control::Pong { .. }) {
            self.liveness.spoke(node, now);
        }
        match control {
            Control::Ping { nonce } => self.pinged(now, node, nonce),
            Control::Pong { nonce, epoch, by, ready, incarnation } => {
                self.liveness.pong(node, nonce, now);
                self.compare(now, node, epoch, by, (ready, incarnation));
            }
            Control::Suspect { peer } => self.suspect(now, peer),
            Control::Publish { epoch, by, plan } => self.published(now, epoch, by, plan),
            Control::Ready { epoch, ok, incarnation } if epoch == self.epoch() => {
                if ok {
                    self.planning.says(node, true, incarnation);
                } else {
                    self.planning.failed(node, incarnation);
                }
            }
            Control::Ready { .. } => {}
            Control::Want { epoch } => self.tell_plan(node, epoch),
            Control::Serving { epoch, by, replicas } => self.serve(epoch, by, replicas),
        }
        self.turn(now);
    }

    /// This node's stage has loaded, or could not.
    pub(crate) fn loaded(&mut self, now: Instant, epoch: Epoch, ok: bool) {
        if epoch != self.epoch() {
            return;
        }
        self.loaded = ok;
        let incarnation = self.incarnation;
        if ok {
            self.planning.says(self.me, true, incarnation);
        } else {
            self.planning.failed(self.me, incarnation);
        }
        if !self.is_planner() {
            self.send(self.planner(), Control::Ready { epoch, ok, incarnation });
        }
        self.turn(now);
    }

    /// A head of this or another node doubts a peer, or a stream to it broke.
    pub(crate) fn suspect(&mut self, now: Instant, peer: PeerId) {
        let Some(node) = self.view.id(peer).filter(|n| *n != self.me) else { return };
        if self.liveness.is_watched(node) {
            self.liveness.suspect(node, now);
        } else if !self.is_planner() && self.passed_on.get(&node).is_none_or(|until| now >= *until) {
            self.passed_on.insert(node, now.after(self.limits.verify_period));
            self.send(self.planner(), Control::Suspect { peer });
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

    fn epoch(&self) -> Epoch {
        self.followed.as_ref().map_or(Epoch(0), |f| f.epoch)
    }

    fn maker(&self) -> PeerId {
        self.followed.as_ref().map_or_else(PeerId::default, |f| f.by)
    }

    fn layers(&self) -> Option<LayerRange> {
        self.followed.as_ref().and_then(|f| f.plan.layers_of(self.me))
    }

    /// The lowest node that is alive.
    fn planner(&self) -> NodeId {
        let lost = self.liveness.lost();
        (0..self.me.0).map(NodeId).find(|n| !lost.contains(n)).unwrap_or(self.me)
    }

    fn is_planner(&self) -> bool {
        self.planner() == self.me
    }

    /// Whether the planning node may know more than this one.
    fn wants(&self) -> bool {
        self.followed.as_ref().is_none_or(|f| self.serving.len() < f.plan.replicas.len())
    }

    fn pinged(&mut self, now: Instant, node: NodeId, nonce: u64) {
        let pong = Control::Pong {
            nonce,
            epoch: self.epoch(),
            by: self.maker(),
            ready: self.loaded,
            incarnation: self.incarnation,
        };
        self.send(node, pong);
        if node == self.planner() {
            let next = if self.layers().is_some() { self.liveness.period() } else { self.liveness.seldom() };
            self.liveness.postpone(node, now, next * 3 / 2);
        }
    }

    /// A peer has said which plan it follows.
    fn compare(&mut self, now: Instant, node: NodeId, epoch: Epoch, by: PeerId, said: (bool, u64)) {
        let (ready, incarnation) = said;
        self.highest = self.highest.max(epoch);
        if (epoch, by) == (self.epoch(), self.maker()) {
            self.planning.says(node, ready, incarnation);
        } else if epoch > self.epoch() {
            self.behind_until.get_or_insert(now.after(self.liveness.seldom()));
            let epoch = self.epoch();
            self.send(node, Control::Want { epoch });
        } else if self.is_planner() {
            // What it says of an older plan may hold for this one: its layers need not have changed.
            let is_rival = epoch == self.epoch();
            if is_rival || self.planning.incarnation(node).is_some_and(|known| known != incarnation) {
                self.planning.says(node, false, incarnation);
            }
            self.tell_plan(node, epoch);
        }
    }

    /// Sends the plan, if it is not older than what the peer has, and what serves.
    fn tell_plan(&mut self, node: NodeId, theirs: Epoch) {
        let Some(Followed { epoch, by, plan }) = self.followed.clone().filter(|f| f.epoch >= theirs) else {
            return;
        };
        self.send(node, Control::Publish { epoch, by, plan: Plan::clone(&plan) });
        let replicas = listed(&self.serving);
        self.send(node, Control::Serving { epoch, by, replicas });
    }

    fn published(&mut self, now: Instant, epoch: Epoch, by: PeerId, plan: Plan) {
        let newer = self
            .followed
            .as_ref()
            .is_none_or(|f| (epoch, std::cmp::Reverse(by)) > (f.epoch, std::cmp::Reverse(f.by)));
        if newer && is_sound(&plan, &self.view, &self.model) {
            self.follow(epoch, by, Arc::new(plan));
            // Who planned without this node might have planned better with it.
            self.improve_at = self.is_planner().then(|| now.after(self.limits.replan_rest));
        }
    }

    fn follow(&mut self, epoch: Epoch, by: PeerId, plan: Arc<Plan>) {
        let before = self.followed.take();
        let layers = plan.layers_of(self.me);
        let unchanged = before.as_ref().is_some_and(|f| f.plan.layers_of(self.me) == layers);
        self.loaded &= unchanged;
        self.planning.moved(before.as_ref().map(|f| &*f.plan), &plan);
        self.serving = before.map_or_else(BTreeMap::new, |old| {
            let keeps = |(i, life)| {
                let pipeline = &old.plan.replicas[i];
                plan.replicas.iter().position(|p| p == pipeline).map(|j| (j, life))
            };
            std::mem::take(&mut self.serving).into_iter().filter_map(keeps).collect()
        });
        self.followed = Some(Followed { epoch, by, plan: Arc::clone(&plan) });
        self.highest = self.highest.max(epoch);
        self.behind_until = None;
        self.aimed = false;
        self.actions.push(Action::Follow { epoch, by, plan, layers });
    }

    fn serve(&mut self, epoch: Epoch, by: PeerId, replicas: Vec<(u32, u64)>) {
        if (epoch, by) != (self.epoch(), self.maker()) || self.is_planner() {
            return;
        }
        let count = self.followed.as_ref().map_or(0, |f| f.plan.replicas.len());
        let serving = replicas.into_iter().map(|(i, life)| (i as usize, life)).filter(|(i, _)| *i < count);
        self.serving = serving.collect();
        self.actions.push(Action::Serve { epoch, by, serving: self.serving.clone() });
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
                    self.actions.push(Action::Lost(self.peer(node)));
                }
                News::Back(node) => {
                    self.planning.forget(node);
                    self.actions.push(Action::Back(self.peer(node)));
                    if self.is_planner() {
                        self.improve_at = Some(now.after(self.limits.replan_rest));
                        self.tell_plan(node, Epoch(0));
                    }
                }
            }
        }
    }
}

fn listed(serving: &BTreeMap<usize, u64>) -> Vec<(u32, u64)> {
    serving.iter().map(|(i, life)| (*i as u32, *life)).collect()
}
