//! The plan a node follows, where everything in the node can see it, and wait for the next one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planner::plan::{Epoch, NodeId, Pipeline, Plan};
use tokio::sync::Notify;

use crate::ids::PeerId;

/// A plan as published.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Its number.
    pub epoch: Epoch,
    /// Who made it.
    pub by: PeerId,
    /// What it says.
    pub plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct State {
    published: Option<Published>,
    lost: BTreeSet<NodeId>,
    /// Counts changes of the above.
    version: u64,
}

/// What the router knows: the plan, and who is lost.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The plan, once there is one.
    pub published: Option<Published>,
    /// Nodes not to be counted on.
    pub lost: BTreeSet<NodeId>,
    /// Which state of the board this is.
    pub version: u64,
}

impl View {
    /// Whether `pipeline` is still part of the plan and nobody in it is lost.
    pub fn holds(&self, pipeline: &Pipeline) -> bool {
        self.published.as_ref().is_some_and(|p| p.plan.replicas.contains(pipeline))
            && !pipeline.stages.iter().any(|s| self.lost.contains(&s.node))
    }
}

/// A node's board. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Plans {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The board as it is.
    pub fn view(&self) -> View {
        let state = self.state();
        View { published: state.published.clone(), lost: state.lost.clone(), version: state.version }
    }

    /// The epoch followed; zero before the first plan.
    pub fn epoch(&self) -> Epoch {
        self.state().published.as_ref().map_or(Epoch(0), |p| p.epoch)
    }

    /// Puts a plan up if it comes after the one that hangs there: a higher epoch, or the same from a lower peer.
    pub fn publish(&self, new: Published) -> bool {
        let mut state = self.state();
        let follows = state
            .published
            .as_ref()
            .is_none_or(|old| new.epoch > old.epoch || (new.epoch == old.epoch && new.by < old.by));
        if follows {
            state.published = Some(new);
            state.version += 1;
            self.changed.notify_waiters();
        }
        follows
    }

    /// Notes that a node is lost, or back.
    pub fn set_lost(&self, node: NodeId, lost: bool) {
        let mut state = self.state();
        let differs = if lost { state.lost.insert(node) } else { state.lost.remove(&node) };
        if differs {
            state.version += 1;
            self.changed.notify_waiters();
        }
    }

    /// Returns when the board is no longer at `version`.
    pub async fn changed_since(&self, version: u64) {
        loop {
            let waiting = self.changed.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            if self.state().version != version {
                return;
            }
            waiting.await;
        }
    }
}
