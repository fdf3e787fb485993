//! What a node makes of what it hears. Whoever hears that another knows less tells it, or that another knows more asks.

use std::sync::Arc;

use planner::plan::{NodeId, Plan};

use super::{Action, Core, Followed, listed};
use crate::clock::Instant;
use crate::control::planning::is_sound;
use crate::ids::{PeerId, PlanId};
use crate::wire::{Control, Readiness, Status};

impl Core {
    /// A peer has said something.
    pub(crate) fn heard(&mut self, now: Instant, from: PeerId, control: Control) {
        let Some(node) = self.view.id(from).filter(|n| *n != self.me) else { return };
        if !matches!(control, Control::Pong { .. }) {
            self.liveness.spoke(node, now);
        }
        match control {
            Control::Ping { nonce } => self.pinged(now, node, nonce),
            Control::Pong { nonce, status } => {
                self.liveness.pong(node, nonce, now);
                self.take_news(now);
                self.compare(now, node, status);
            }
            Control::Status(status) => self.compare(now, node, status),
            Control::Suspect { peer, refuses } => self.look_into(now, peer, refuses),
            Control::Publish { id, plan, names } => self.published(now, id, &plan, &names),
            Control::Want { id } => self.tell_plan(node, id),
            Control::Serving { id, replicas } => self.serve(node, id, replicas),
        }
        self.turn(now);
    }

    fn pinged(&mut self, now: Instant, node: NodeId, nonce: u64) {
        let status = self.status();
        self.send(node, Control::Pong { nonce, status });
        if node == self.planner() {
            let next = if self.layers().is_some() { self.liveness.period() } else { self.liveness.seldom() };
            self.liveness.postpone(node, now, next * 3 / 2);
        }
    }

    /// A peer has said how it is, and so what it knows.
    fn compare(&mut self, now: Instant, node: NodeId, status: Status) {
        let Status { plan: theirs, readiness, incarnation, .. } = status;
        if self.lives.insert(node, incarnation).is_some_and(|before| before != incarnation) {
            self.actions.push(Action::Renewed(self.peer(node)));
        }
        self.hear_out(node, status);
        self.highest = self.highest.max(theirs.epoch);
        self.planning.met(node, incarnation, readiness == Readiness::Unable);
        let mine = self.id();
        if theirs > mine {
            self.behind_until.get_or_insert(now.after(self.liveness.seldom()));
            self.send(node, Control::Want { id: mine });
        } else if theirs == mine {
            self.planning.says(node, readiness == Readiness::Ready, incarnation);
            self.compare_serving(node, status.serving);
        } else if self.is_planner() {
            // What it says of an older plan may hold for this one: its layers need not have changed. A rival plan's do.
            if theirs.epoch == mine.epoch {
                self.planning.says(node, false, incarnation);
            }
            self.tell_plan(node, theirs);
        }
    }

    /// Both follow one plan. Who hears the planning node, or speaks for it, is right about what serves.
    fn compare_serving(&mut self, node: NodeId, theirs: u64) {
        if theirs == self.digest {
            return;
        }
        if self.is_authority(node) {
            let id = self.id();
            self.send(node, Control::Want { id });
        } else if self.is_planner() && !self.untold() {
            self.tell_plan(node, self.id());
        }
    }

    /// Whether this node takes that one's word for what serves.
    fn is_authority(&self, node: NodeId) -> bool {
        node == self.planner() || (self.is_planner() && self.vouchers.contains(&node))
    }

    /// Notes whether the peer hears a node that plans before this one. If that is news it shall make sure.
    fn hear_out(&mut self, node: NodeId, status: Status) {
        let is_known = self.view.id(status.planner).is_some();
        let hears_lower = is_known && self.view.is_before(status.planner, self.peer(self.me));
        if !(hears_lower && self.is_planner()) || self.liveness.is_lost(node) {
            self.vouchers.remove(&node);
        } else if self.vouchers.insert(node) {
            self.send(node, Control::Suspect { peer: status.planner, refuses: false });
        }
    }

    /// Sends the plan if the peer follows a lesser one, and what serves.
    pub(super) fn tell_plan(&mut self, node: NodeId, theirs: PlanId) {
        let Some(Followed { id, plan }) = self.followed.clone().filter(|f| f.id >= theirs) else { return };
        if id > theirs {
            self.publish(node, id, &plan);
        }
        let replicas = listed(&self.serving);
        self.send(node, Control::Serving { id, replicas });
    }

    /// Sends the plan in names: the other's numbers are its own.
    pub(super) fn publish(&mut self, node: NodeId, id: PlanId, plan: &Plan) {
        if let Some((plan, names)) = self.view.named(plan) {
            self.send(node, Control::Publish { id, plan, names });
        }
    }

    /// A plan with a node that this one has not met cannot be followed yet: it is asked for again with the next answer to
    /// a ping.
    fn published(&mut self, now: Instant, id: PlanId, plan: &Plan, names: &[PeerId]) {
        let Some(plan) = self.view.numbered(plan, names) else { return };
        if id > self.id() && is_sound(&plan, &self.view, &self.model) {
            self.follow(id, Arc::new(plan));
            // Who planned without this node might have planned better with it.
            self.improve_at = self.is_planner().then(|| now.after(self.limits.replan_rest));
        }
    }

    fn serve(&mut self, from: NodeId, id: PlanId, replicas: Vec<(u32, u64)>) {
        if id != self.id() || !self.is_authority(from) {
            return;
        }
        let count = self.followed.as_ref().map_or(0, |f| f.plan.replicas.len());
        let serving = replicas.into_iter().map(|(i, life)| (i as usize, life)).filter(|(i, _)| *i < count);
        self.set_serving(serving.collect());
        self.actions.push(Action::Serve { id, serving: self.serving.clone() });
    }
}
