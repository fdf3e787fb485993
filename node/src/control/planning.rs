//! What the planning node decides: which nodes can serve, and when another plan is due. Pure; no input or output.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use planner::cost::constants::RING;
use planner::cost::predict::predict;
use planner::fleet::Fleet;
use planner::model::Model;
use planner::place::{Ask, Candidate, Objective, Placement, Refusal, Replan};
use planner::plan::{LayerRange, NodeId, Plan, Prediction};

use crate::view::FleetView;

/// Mends a plan that has lost these nodes.
type Repair = fn(&Fleet, &Model, &Ask, &Plan, &[NodeId]) -> Result<Replan, Refusal>;

/// Replicas of a model, at most.
const COPIES_MAX: usize = 32;

/// The planner's searches, or what stands for them in a test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    /// The best plan.
    pub(crate) fresh: fn(&Fleet, &Model, &Ask) -> Result<Placement, Refusal>,
    /// The plan with these cuts.
    pub(crate) chosen: fn(&Fleet, &Model, &Ask, &[u32]) -> Result<Candidate, Refusal>,
    /// The best plan that changes little of another when nodes have left it.
    pub(crate) repair: Repair,
}

/// The least room that will do where memory is short, if that is less than what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Least {
    /// Tokens of context of each session.
    pub context: u32,
    /// Sessions in each replica.
    pub sessions: u32,
}

/// What plans shall be like.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) ask: Ask,
    /// Where to cut; empty for wherever is best.
    pub(crate) cut: Vec<u32>,
    /// Where memory is short, less than what is asked will do.
    pub(crate) least: Option<Least>,
    /// Machines that the best plan leaves out serve copies of their own, as far as they can.
    pub(crate) copies: bool,
    /// A plan is left for another only if that is better by this share.
    pub(crate) gain: f64,
}

/// The readiness of nodes for one plan, and the searches done for it.
#[derive(Debug)]
pub(crate) struct Planning {
    view: Arc<FleetView>,
    model: Arc<Model>,
    wish: Wish,
    search: Search,
    /// Nodes that hold their layers of the plan, with their incarnation.
    ready: BTreeMap<NodeId, u64>,
    /// Nodes whose device could not load, until they start again.
    unable: BTreeMap<NodeId, u64>,
    /// The last search without result, by what it had to leave out: it is not repeated.
    refused: Option<BTreeSet<NodeId>>,
    /// Something changed since [`take_changed`](Self::take_changed).
    changed: bool,
}

impl Planning {
    pub(crate) fn new(view: Arc<FleetView>, model: Arc<Model>, wish: Wish, search: Search) -> Self {
        Self {
            view,
            model,
            wish,
            search,
            ready: BTreeMap::new(),
            unable: BTreeMap::new(),
            refused: None,
            changed: true,
        }
    }

    /// Machines have joined, or are known better.
    pub(crate) fn see(&mut self, view: Arc<FleetView>) {
        self.view = view;
        self.refused = None;
        self.changed = true;
    }

    /// Whether another answer may be due than the last time.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A node has spoken, whatever plan it follows. What it said in an earlier life does not count.
    pub(crate) fn met(&mut self, node: NodeId, incarnation: u64, unable: bool) {
        let earlier = |known: Option<&u64>| known.is_some_and(|then| *then != incarnation);
        if earlier(self.ready.get(&node)) {
            self.ready.remove(&node);
            self.changed = true;
        }
        if earlier(self.unable.get(&node)) {
            self.unable.remove(&node);
            self.changed = true;
        }
        if unable {
            self.changed |= self.unable.insert(node, incarnation).is_none();
        }
    }

    /// A node says whether it holds its layers of the plan.
    pub(crate) fn says(&mut self, node: NodeId, ready: bool, incarnation: u64) {
        let said = ready.then_some(incarnation);
        let before = match said {
            Some(incarnation) => self.ready.insert(node, incarnation),
            None => self.ready.remove(&node),
        };
        self.changed |= before != said;
    }

    /// The node is lost, or back: what it said does not count.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.ready.remove(&node);
        self.changed = true;
    }

    /// This node begins to plan: what it heard while it did not is old.
    pub(crate) fn forget_others(&mut self, me: NodeId) {
        self.ready.retain(|node, _| *node == me);
        self.changed = true;
    }

    /// Another plan is followed: nodes whose layers stay are ready for it as well.
    pub(crate) fn moved(&mut self, from: Option<&Plan>, to: &Plan) {
        let layers = |plan: Option<&Plan>, node| plan.and_then(|p| p.layers_of(node));
        self.ready.retain(|node, _| layers(from, *node) == layers(Some(to), *node));
        self.refused = None;
        self.changed = true;
    }

    /// The replicas whose stages are all ready and none lost, with the sum of the stages' incarnations.
    pub(crate) fn serving(&self, plan: &Plan, lost: &BTreeSet<NodeId>) -> BTreeMap<usize, u64> {
        let life = |i: usize| {
            let mut sum = 0u64;
            for stage in &plan.replicas[i].stages {
                let incarnation = self.ready.get(&stage.node).filter(|_| !lost.contains(&stage.node))?;
                sum = sum.wrapping_add(*incarnation);
            }
            Some((i, sum))
        };
        (0..plan.replicas.len()).filter_map(life).collect()
    }

    /// Who cannot take part: lost, unable to load, or without the model, which it may have given up.
    fn excluded(&self, lost: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let nodes = self.view.fleet.nodes.iter().zip(0..);
        let without = nodes.filter(|(node, _)| !node.has_model).map(|(_, i)| NodeId(i));
        lost.iter().chain(self.unable.keys()).copied().chain(without).collect()
    }

    /// A plan to follow instead of `current`, if that cannot be run with these nodes lost.
    pub(crate) fn replacement(&mut self, current: Option<&Plan>, lost: &BTreeSet<NodeId>) -> Option<Plan> {
        let out = self.excluded(lost);
        if current.is_some_and(|plan| !plan.stages().any(|s| out.contains(&s.node))) {
            self.refused = None;
            return None;
        }
        if self.refused.as_ref() == Some(&out) {
            return None;
        }
        let found = match current {
            Some(plan) => self.repaired(plan, &out).map(|plan| self.with_copies(plan, &out)),
            None if self.wish.cut.is_empty() => {
                self.fresh(&out).map(|(plan, _)| self.with_copies(plan, &out))
            }
            None => self.chosen(&out),
        };
        if found.is_none() {
            self.refused = Some(out);
        }
        found
    }

    /// `current` without the nodes in `out`: replicas that nobody left stay, and their sessions go on.
    fn repaired(&self, current: &Plan, out: &BTreeSet<NodeId>) -> Option<Plan> {
        let out: Vec<NodeId> = out.iter().copied().collect();
        let repair = self.search.repair;
        let plan = self.modestly(self.wish.ask.clone(), |ask| {
            repair(&self.view.fleet, &self.model, ask, current, &out).ok().map(|replan| replan.plan)
        })?;
        self.if_sound(plan)
    }

    /// A plan that improves the asked objective over `current` by the named share, now that nodes have come back.
    pub(crate) fn improvement(&self, current: &Plan, lost: &BTreeSet<NodeId>) -> Option<Plan> {
        if !self.wish.cut.is_empty() {
            return self.chosen(&self.excluded(lost)).filter(|plan| plan.replicas != current.replicas);
        }
        let out = self.excluded(lost);
        let more = self.with_copies(current.clone(), &out);
        if more.replicas.len() > current.replicas.len() {
            return Some(more);
        }
        let Wish { ask, gain, .. } = &self.wish;
        let now = predict(&self.view.fleet, &self.model, current, &ask.load, &RING)?;
        let (plan, better) = self.fresh(&out)?;
        let improves = match ask.objective {
            Objective::Tpot => better.tpot_ms <= now.tpot_ms * (1.0 - gain),
            Objective::Ttft => better.ttft_ms <= now.ttft_ms * (1.0 - gain),
            Objective::Throughput => better.throughput_tok_s >= now.throughput_tok_s * (1.0 + gain),
        };
        (improves && plan.replicas != current.replicas).then(|| self.with_copies(plan, &out))
    }

    /// The plan, and copies on machines that it leaves out, with as much room as it has. Its own replicas stay as they are,
    /// and so nobody is disturbed.
    fn with_copies(&self, mut plan: Plan, out: &BTreeSet<NodeId>) -> Plan {
        while self.wish.copies && self.wish.cut.is_empty() && plan.replicas.len() < COPIES_MAX {
            let used: BTreeSet<NodeId> = out.iter().copied().chain(plan.stages().map(|s| s.node)).collect();
            let mut ask = self.ask_without(&used);
            (ask.constraints.context, ask.constraints.sessions) = (plan.context, plan.sessions);
            let fresh = self.search.fresh;
            let Ok(placement) = fresh(&self.view.fleet, &self.model, &ask) else { break };
            let Some(found) = self.if_sound(placement.recommended.plan) else { break };
            plan.replicas.extend(found.replicas);
        }
        plan
    }

    /// What is asked of nodes that are not in `out`.
    fn ask_without(&self, out: &BTreeSet<NodeId>) -> Ask {
        let mut ask = self.wish.ask.clone();
        ask.constraints.excluded.extend(out);
        ask.constraints.pinned.retain(|node| !out.contains(node));
        ask.load.head = ask.load.head.filter(|node| !out.contains(node));
        ask
    }

    /// What `search` finds for `ask`, or for less room of it: first fewer sessions, then less context, as far as that will
    /// do.
    fn modestly<T>(&self, mut ask: Ask, search: impl Fn(&Ask) -> Option<T>) -> Option<T> {
        let Least { context, sessions } =
            self.wish.least.unwrap_or(Least { context: u32::MAX, sessions: u32::MAX });
        loop {
            let found = search(&ask);
            let room = &mut ask.constraints;
            if found.is_some() || (room.sessions <= sessions && room.context <= context) {
                return found;
            }
            if room.sessions > sessions {
                room.sessions = (room.sessions / 2).max(sessions);
            } else {
                room.context = (room.context / 2).max(context);
            }
        }
    }

    fn if_sound(&self, plan: Plan) -> Option<Plan> {
        is_sound(&plan, &self.view, &self.model).then_some(plan)
    }

    /// The plan with the cuts that were asked for.
    fn chosen(&self, out: &BTreeSet<NodeId>) -> Option<Plan> {
        let chosen = self.search.chosen;
        let plan = self.modestly(self.ask_without(out), |ask| {
            chosen(&self.view.fleet, &self.model, ask, &self.wish.cut).ok().map(|candidate| candidate.plan)
        })?;
        self.if_sound(plan)
    }

    fn fresh(&self, out: &BTreeSet<NodeId>) -> Option<(Plan, Prediction)> {
        let fresh = self.search.fresh;
        let placement =
            self.modestly(self.ask_without(out), |ask| fresh(&self.view.fleet, &self.model, ask).ok())?;
        let candidate = placement.recommended;
        Some((self.if_sound(candidate.plan)?, candidate.prediction))
    }
}

/// Whether every stage of every replica exists and the layers of each are gapless: plans come over the network.
pub(crate) fn is_sound(plan: &Plan, view: &FleetView, model: &Model) -> bool {
    let mut nodes = BTreeSet::new();
    let whole = |stages: &[planner::plan::Stage]| {
        let mut next = 0;
        let gapless = stages.iter().all(|s| {
            let LayerRange { first, end } = s.layers;
            first == std::mem::replace(&mut next, end) && first < end
        });
        gapless && next == model.layer_count()
    };
    plan.model == model.name
        && !plan.replicas.is_empty()
        && plan.replicas.iter().all(|r| whole(&r.stages))
        && plan.stages().all(|s| s.node.index() < view.len() && nodes.insert(s.node))
}
