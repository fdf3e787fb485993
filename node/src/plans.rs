//! The plan a node follows, and which of its replicas serve: published by the control plane, read by heads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planner::plan::{Epoch, NodeId, Pipeline, Plan};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::ids::PlanId;

/// A plan with its number, and who made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Its name.
    pub id: PlanId,
    /// What it says.
    pub plan: Arc<Plan>,
    /// Replicas all of whose stages are alive and loaded, by index, with the sum of their stages' incarnations: when a
    /// stage restarts between two looks the sum has changed, and so has what its KV holds.
    pub serving: BTreeMap<usize, u64>,
}

impl Published {
    /// The replica with exactly those stages, if it serves, and its life.
    pub fn serving_replica(&self, pipeline: &Pipeline) -> Option<u64> {
        self.serving
            .iter()
            .find(|(i, _)| self.plan.replicas.get(**i) == Some(pipeline))
            .map(|(_, life)| *life)
    }
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Published>>,
}

/// The plan of this node, shared by its tasks.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Plans {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan now followed.
    pub fn current(&self) -> Option<Arc<Published>> {
        self.lock().current.clone()
    }

    /// The number of the plan now followed; zero without one.
    pub fn epoch(&self) -> Epoch {
        self.lock().current.as_ref().map_or(Epoch(0), |p| p.id.epoch)
    }

    /// Completes at the next change after this call.
    pub fn changed(&self) -> OwnedNotified {
        Arc::clone(&self.changed).notified_owned()
    }

    /// Follows `plan` from now on, unless a newer one is followed already. Replicas that are in both plans go on
    /// serving. Returns whether it was new.
    pub fn adopt(&self, id: PlanId, plan: Arc<Plan>) -> bool {
        let mut state = self.lock();
        if state.current.as_ref().is_some_and(|old| old.id >= id) {
            return false;
        }
        let serving = state.current.as_ref().map_or_else(BTreeMap::new, |old| {
            let keeps = |(i, p)| old.serving_replica(p).map(|life| (i, life));
            plan.replicas.iter().enumerate().filter_map(keeps).collect()
        });
        state.current = Some(Arc::new(Published { id, plan, serving }));
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// Nodes in stages of replicas that are about to serve, or to serve in another life: one of them has loaded its layers
    /// or started again, and streams that were opened to it before may lead nowhere.
    pub(crate) fn renewed(&self, id: PlanId, serving: &BTreeMap<usize, u64>) -> Vec<NodeId> {
        let Some(old) = self.current().filter(|p| p.id == id) else { return Vec::new() };
        let begins = |(i, life): &(&usize, &u64)| old.serving.get(i) != Some(life);
        let replicas = serving.iter().filter(begins).filter_map(|(i, _)| old.plan.replicas.get(*i));
        replicas.flat_map(|replica| replica.stages.iter().map(|stage| stage.node)).collect()
    }

    /// The replicas that serve, as the planning node sees them. Ignored for any plan but the one followed.
    pub fn serve(&self, id: PlanId, serving: BTreeMap<usize, u64>) {
        let mut state = self.lock();
        let Some(old) = state.current.as_ref().filter(|p| p.id == id) else { return };
        if old.serving == serving {
            return;
        }
        state.current = Some(Arc::new(Published { serving, ..Published::clone(old) }));
        drop(state);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use planner::plan::{LayerRange, Stage};

    use super::*;
    use crate::ids::PeerId;

    fn id(epoch: u64, maker: u32) -> PlanId {
        PlanId { epoch: Epoch(epoch), maker: PeerId::from_index(maker), life: 0 }
    }

    fn pipeline(node: u32) -> Pipeline {
        Pipeline { stages: vec![Stage { node: NodeId(node), layers: LayerRange::new(0, 4) }] }
    }

    fn plan(nodes: &[u32]) -> Arc<Plan> {
        let replicas = nodes.iter().map(|n| pipeline(*n)).collect();
        Arc::new(Plan { model: "m".into(), replicas, experts: Vec::new(), context: 64, sessions: 1 })
    }

    #[test]
    fn higher_epochs_win_of_equal_ones_the_lower_maker_and_of_one_maker_its_later_life() {
        let plans = Plans::default();
        assert!(plans.adopt(id(2, 3), plan(&[0])));
        assert!(!plans.adopt(id(1, 0), plan(&[1])), "an older epoch came back");
        assert!(!plans.adopt(id(2, 4), plan(&[1])), "a higher maker won");
        assert!(plans.adopt(id(2, 1), plan(&[1])));
        assert!(!plans.adopt(id(2, 1), plan(&[2])), "the same plan was new twice");
        assert!(plans.adopt(PlanId { life: 1, ..id(2, 1) }, plan(&[2])));
        assert!(!plans.adopt(id(2, 1), plan(&[1])), "an earlier life came back");
        assert!(plans.adopt(id(3, 9), plan(&[2])));
        assert_eq!(plans.epoch(), Epoch(3));
    }

    #[test]
    fn a_replica_of_both_plans_goes_on_serving() {
        let plans = Plans::default();
        plans.adopt(id(1, 0), plan(&[0, 1]));
        plans.serve(id(1, 0), BTreeMap::from([(0, 10), (1, 11)]));
        plans.adopt(id(2, 0), plan(&[2, 1]));
        let now = plans.current().expect("a plan was adopted");
        assert_eq!(now.serving, BTreeMap::from([(1, 11)]));
    }

    #[test]
    fn news_about_another_plan_is_ignored() {
        let plans = Plans::default();
        plans.adopt(id(2, 0), plan(&[0]));
        plans.serve(id(1, 0), BTreeMap::from([(0, 1)]));
        plans.serve(id(2, 5), BTreeMap::from([(0, 1)]));
        assert!(plans.current().expect("a plan was adopted").serving.is_empty());
    }
}
