//! What the planning node does: it watches everybody, plans, and tells all others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use planner::plan::{Epoch, NodeId};

use super::{Action, Core, Followed, listed};
use crate::clock::Instant;
use crate::ids::PlanId;
use crate::wire::Control;

/// A planning node that begins asks everybody as soon as this allows.
const FIRST_PINGS_APART: Duration = Duration::from_millis(1);

impl Core {
    /// Watches the planning node, or everybody when that is this node.
    pub(super) fn aim(&mut self, now: Instant) {
        let planner = self.planner();
        if std::mem::replace(&mut self.aimed, true) && self.watching == Some(planner) {
            return;
        }
        let before = self.watching.replace(planner);
        if planner != self.me {
            self.improve_at = None;
            if before != Some(planner) {
                // It may be waiting for just this before it plans.
                self.tell_status();
            }
            // Spread, as the planning node's own pings are.
            let period = self.liveness.period();
            let first = now.after(period / 2 + period * self.me.0 / (2 * self.view.len().max(1) as u32));
            return self.liveness.watch([(planner, true, first)]);
        }
        if before != Some(self.me) {
            self.planning.forget_others(self.me);
            self.vouchers.clear();
        }
        let staged: BTreeSet<NodeId> =
            self.followed.as_ref().map(|f| f.plan.stages().map(|s| s.node).collect()).unwrap_or_default();
        let all = self.view.len() as u32;
        // Spread, so that a large fleet does not answer all at once.
        let step = (self.liveness.period() / all.max(1)).min(FIRST_PINGS_APART);
        let others = (0..all).filter(|n| *n != self.me.0);
        let peers = others.map(|n| (NodeId(n), staged.contains(&NodeId(n)), now.after(step * n)));
        self.liveness.watch(peers);
    }

    pub(super) fn plan(&mut self, now: Instant) {
        let current = self.followed.as_ref().map(|f| Arc::clone(&f.plan));
        let lost = self.liveness.lost();
        let mut next = self.planning.replacement(current.as_deref(), lost);
        if next.is_some() {
            // What was mended in haste may be bettered at leisure.
            self.improve_at = Some(now.after(self.limits.replan_rest));
        } else if self.improve_at.is_some_and(|at| now >= at) {
            self.improve_at = None;
            next = current.and_then(|plan| self.planning.improvement(&plan, lost));
        }
        let Some(plan) = next else { return };
        let epoch = Epoch(self.highest.0.saturating_add(1));
        let id = PlanId { epoch, maker: self.peer(self.me), life: self.incarnation };
        self.follow(id, Arc::new(plan));
        self.aim(now);
        self.tell_all(|core| {
            let (plan, names) = core.followed.as_ref().and_then(|f| core.view.named(&f.plan))?;
            Some(Control::Publish { id, plan, names })
        });
        self.told_at = None;
    }

    pub(super) fn tell_all(&mut self, what: impl Fn(&Self) -> Option<Control>) {
        for node in (0..self.view.len() as u32).map(NodeId) {
            if node != self.me
                && !self.liveness.is_lost(node)
                && let Some(control) = what(self)
            {
                self.send(node, control);
            }
        }
    }

    /// Brings what serves up to date on this node.
    pub(super) fn refresh(&mut self) {
        let Some(Followed { id, plan }) = self.followed.clone() else { return };
        let serving = self.planning.serving(&plan, self.liveness.lost());
        if serving != self.serving {
            self.set_serving(serving.clone());
            self.actions.push(Action::Serve { id, serving });
        }
    }

    /// Tells all others what serves, at a bounded rate.
    pub(super) fn report(&mut self, now: Instant) {
        if !self.untold() || now < self.tell_due() {
            return;
        }
        let id = self.id();
        let replicas = listed(&self.serving);
        self.tell_all(|_| Some(Control::Serving { id, replicas: replicas.clone() }));
        self.told = Some((id, self.digest));
        self.told_at = Some(now);
    }

    /// Whether this node plans, and knows enough to: everybody has answered or is lost, nobody hears one that plans before it, no
    /// newer plan is on its way.
    pub(super) fn may_plan(&self) -> bool {
        self.is_planner()
            && self.liveness.all_known()
            && self.vouchers.is_empty()
            && self.behind_until.is_none()
    }

    /// Whether others know less than this planning node.
    pub(super) fn untold(&self) -> bool {
        self.may_plan() && self.followed.is_some() && self.told != Some((self.id(), self.digest))
    }

    pub(super) fn tell_due(&self) -> Instant {
        let rest: Duration = self.liveness.period() / 4;
        self.told_at.map_or(Instant(0), |at| at.after(rest))
    }
}
