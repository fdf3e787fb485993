//! Where a request goes: a pure function of the fleet, the published plan and the request.

use std::collections::{BTreeMap, BTreeSet};

use planner::plan::{Pipeline, Plan};

use crate::ids::PeerId;
use crate::plans::Published;
pub use crate::view::FleetView;
use crate::wire::Route;

/// What a head asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The node it runs on.
    pub head: PeerId,
    /// Which life of it.
    pub head_life: u64,
    /// Prompt and all of the output together, tokens.
    pub tokens: u64,
    /// Peers it has reason to doubt: routes without them are preferred.
    pub doubted: BTreeSet<PeerId>,
}

/// What this node knows of the load: its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Sessions of this node's heads, by their route's first stage.
    pub outstanding: BTreeMap<PeerId, u32>,
    /// Requests routed so far: turns ties into round-robin.
    pub routed: u64,
    /// The local replica is preferred up to this many times the load of others.
    pub local_preference: u32,
}

/// A way through the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// For the first frame.
    pub route: Route,
    /// The replica it follows.
    pub pipeline: Pipeline,
    /// Sum of its stages' incarnations.
    pub life: u64,
}

/// Why there is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is planned yet.
    #[error("no plan is published yet; wait for the fleet to be planned")]
    NoPlan,
    /// Waiting will not help.
    #[error(
        "needs {need} tokens of context, the plan gives each session {have}; shorten the prompt or the output"
    )]
    Context {
        /// Prompt and output.
        need: u64,
        /// What the plan has KV room for.
        have: u32,
    },
    /// Stages are lost or still loading.
    #[error(
        "none of the plan's {replicas} replicas serves: {why}; wait for their nodes to load or to be replaced"
    )]
    NoneServes {
        /// How many there are.
        replicas: usize,
        /// Which nodes they are on.
        why: String,
    },
}

impl Refusal {
    /// Whether another plan, or more of this one, may change it.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Refusal::Context { .. })
    }
}

/// The route for `ask` under `published`.
///
/// Among the replicas that serve, those without doubted peers come first. The one whose first stage is the head's own
/// node is taken while its load is within `local_preference` times (the least other load plus one); otherwise the least
/// loaded, in turn where equal.
///
/// # Errors
/// A [`Refusal`] that names what is missing.
pub fn route(
    view: &FleetView,
    published: Option<&Published>,
    load: &Load,
    ask: &Ask,
) -> Result<Choice, Refusal> {
    let published = published.ok_or(Refusal::NoPlan)?;
    let plan = &published.plan;
    if ask.tokens > u64::from(plan.context) {
        return Err(Refusal::Context { need: ask.tokens, have: plan.context });
    }
    let mut ways: Vec<Choice> =
        published.serving.iter().filter_map(|(i, life)| way(view, published, ask, *i, *life)).collect();
    let doubtful = |c: &Choice| c.route.stages.iter().any(|(p, _)| ask.doubted.contains(p));
    if ways.iter().any(|c| !doubtful(c)) {
        ways.retain(|c| !doubtful(c));
    }
    pick(ways, load, ask.head).ok_or_else(|| none_serves(view, plan))
}

fn way(view: &FleetView, published: &Published, ask: &Ask, replica: usize, life: u64) -> Option<Choice> {
    let pipeline = published.plan.replicas.get(replica)?;
    let stages: Option<Vec<_>> =
        pipeline.stages.iter().map(|s| view.peer(s.node).map(|peer| (peer, s.layers))).collect();
    let stages = stages.filter(|s| !s.is_empty())?;
    let route = Route {
        epoch: published.id.epoch,
        model: published.plan.model.clone(),
        head: ask.head,
        head_life: ask.head_life,
        stages,
    };
    Some(Choice { route, pipeline: pipeline.clone(), life })
}

fn pick(mut ways: Vec<Choice>, load: &Load, head: PeerId) -> Option<Choice> {
    let of = |c: &Choice| load.outstanding.get(&c.route.stages[0].0).copied().unwrap_or(0);
    let is_local = |c: &Choice| c.route.stages[0].0 == head;
    let least_other = ways.iter().filter(|c| !is_local(c)).map(of).min();
    if let Some(local) = ways.iter().position(is_local) {
        let bound = least_other.map(|l| load.local_preference.saturating_mul(l.saturating_add(1)));
        if bound.is_none_or(|bound| of(&ways[local]) < bound) {
            return Some(ways.swap_remove(local));
        }
    }
    let least = ways.iter().map(of).min()?;
    ways.retain(|c| of(c) == least);
    let turn = (load.routed % ways.len() as u64) as usize;
    Some(ways.swap_remove(turn))
}

fn none_serves(view: &FleetView, plan: &Plan) -> Refusal {
    const NAMED: usize = 8;
    let mut names: Vec<&str> =
        plan.stages().filter_map(|s| view.fleet.nodes.get(s.node.index())).map(|n| n.name.as_str()).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut why = format!("lost or loading on {}", names.join(", "));
    if more > 0 {
        why.push_str(&format!(" and {more} more"));
    }
    Refusal::NoneServes { replicas: plan.replicas.len(), why }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use std::sync::Arc;

    use planner::fleet::Fleet;
    use planner::plan::{Epoch, LayerRange, NodeId, Stage};

    use super::*;
    use crate::ids::PlanId;

    fn view() -> FleetView {
        let nodes = (0..6)
            .map(|i| planner::fleet::Node {
                name: format!("n{i}"),
                device: planner::fleet::catalog::device("rtx-4090").unwrap(),
                machine: format!("n{i}"),
                network: planner::fleet::NetworkId(0),
                up_bytes_per_s: None,
                down_bytes_per_s: None,
                has_model: true,
            })
            .collect();
        FleetView::indexed(Fleet { nodes, ..Fleet::default() })
    }

    /// Replicas on nodes (0, 1), (2, 3) and (4, 5).
    fn published(serving: &[usize]) -> Published {
        let stage = |node, first| Stage { node: NodeId(node), layers: LayerRange::new(first, first + 2) };
        let replicas =
            (0..3).map(|i| Pipeline { stages: vec![stage(2 * i, 0), stage(2 * i + 1, 2)] }).collect();
        let plan = Plan { model: "m".into(), replicas, experts: Vec::new(), context: 100, sessions: 1 };
        Published {
            id: PlanId { epoch: Epoch(4), maker: PeerId::from_index(0), life: 0 },
            plan: Arc::new(plan),
            serving: serving.iter().map(|i| (*i, 10 + *i as u64)).collect(),
        }
    }

    fn ask(head: u32) -> Ask {
        Ask { head: PeerId::from_index(head), head_life: 0, tokens: 50, doubted: BTreeSet::new() }
    }

    fn load(outstanding: &[(u32, u32)], routed: u64) -> Load {
        let outstanding = outstanding.iter().map(|(n, c)| (PeerId::from_index(*n), *c)).collect();
        Load { outstanding, routed, local_preference: 2 }
    }

    /// The first stage of the way taken.
    fn first(published: &Published, load: &Load, ask: &Ask) -> u32 {
        route(&view(), Some(published), load, ask).unwrap().route.stages[0].0.index()
    }

    #[test]
    fn the_least_loaded_replica_is_taken_in_turn_where_equal() {
        let all = published(&[0, 1, 2]);
        assert_eq!(first(&all, &load(&[(0, 2), (2, 1), (4, 3)], 0), &ask(5)), 2);
        let turns: Vec<u32> = (0..4).map(|n| first(&all, &load(&[], n), &ask(5))).collect();
        assert_eq!(turns, [0, 2, 4, 0]);
    }

    #[test]
    fn the_local_replica_is_preferred_but_not_at_any_load() {
        let all = published(&[0, 1, 2]);
        assert_eq!(first(&all, &load(&[(2, 1)], 0), &ask(2)), 2);
        assert_eq!(first(&all, &load(&[(2, 2)], 0), &ask(2)), 0);
        assert_eq!(first(&published(&[1]), &load(&[(2, 99)], 0), &ask(2)), 2, "there is no other");
    }

    #[test]
    fn who_does_not_serve_is_not_routed_to_and_who_is_doubted_only_without_choice() {
        let some = published(&[1, 2]);
        let mut ask = ask(0);
        ask.doubted.insert(PeerId::from_index(3));
        assert_eq!(first(&some, &load(&[(4, 50)], 0), &ask), 4);
        assert_eq!(first(&published(&[1]), &load(&[], 0), &ask), 2);
    }

    #[test]
    fn the_route_names_every_stage_and_the_life_of_its_replica() {
        let choice = route(&view(), Some(&published(&[2])), &load(&[], 0), &ask(1)).unwrap();
        let stages = [(4, 0), (5, 2)].map(|(n, l)| (PeerId::from_index(n), LayerRange::new(l, l + 2)));
        assert_eq!(choice.route.stages, stages);
        assert_eq!(
            (choice.route.epoch, choice.route.head, choice.life),
            (Epoch(4), PeerId::from_index(1), 12)
        );
    }

    #[test]
    fn refusals_name_what_is_missing_and_whether_waiting_helps() {
        let nothing = route(&view(), None, &load(&[], 0), &ask(0)).unwrap_err();
        assert!(nothing.may_pass());
        let loading = route(&view(), Some(&published(&[])), &load(&[], 0), &ask(0)).unwrap_err();
        assert!(loading.may_pass() && loading.to_string().contains("n0, n1, n2"), "{loading}");
        let long = Ask { tokens: 101, ..ask(0) };
        let refusal = route(&view(), Some(&published(&[0])), &load(&[], 0), &long).unwrap_err();
        assert_eq!(refusal, Refusal::Context { need: 101, have: 100 });
        assert!(!refusal.may_pass());
    }
}
