#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../../../tests/world/fixture.rs"]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use planner::cost::predict::Load;
use planner::fleet::Fleet;
use planner::model::Model;
use planner::place::{Ask, Candidate, Constraints, Objective, Placement, Refusal, Replan, ReplanCost, Shape};
use planner::plan::{Breakdown, Epoch, LayerRange, NodeId, Pipeline, Plan, Prediction, Stage};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Action, Core, Setup};
use crate::clock::Instant;
use crate::control::Search;
use crate::ids::PeerId;
use crate::limits::Limits;
use crate::view::FleetView;
use crate::wire::Control;

const TRIP: Duration = Duration::from_millis(3);
const LOADING: Duration = Duration::from_millis(80);

/// The two lowest nodes that may be used, predicted to be very fast if node 0 is one of them.
fn lowest_two(fleet: &Fleet, model: &Model, ask: &Ask) -> Result<Placement, Refusal> {
    let nodes: Vec<_> = fleet.ids().filter(|n| !ask.constraints.excluded.contains(n)).take(2).collect();
    let [a, b] = nodes[..] else { return Err(Refusal::NoNodes("fewer than two are left".into())) };
    let tpot_ms = if a == NodeId(0) { 1e-3 } else { 1e3 };
    let prediction = Prediction {
        tpot_ms,
        ttft_ms: 1.0,
        opening_ms: 0.0,
        throughput_tok_s: 1.0,
        breakdown: Breakdown::default(),
    };
    let recommended = Candidate { plan: plan_of(model, &[(a, b)]), prediction };
    Ok(Placement { recommended, pareto: Vec::new(), left_out: Vec::new(), exact: true, gap: 0.0 })
}

/// Whole replicas stay; the lowest two others make one more.
fn keep_whole(
    fleet: &Fleet,
    model: &Model,
    ask: &Ask,
    old: &Plan,
    lost: &[NodeId],
) -> Result<Replan, Refusal> {
    let mut plan = old.clone();
    plan.replicas.retain(|r| !r.stages.iter().any(|s| lost.contains(&s.node)));
    let mut ask = ask.clone();
    ask.constraints.excluded.extend(plan.stages().map(|s| s.node).chain(lost.iter().copied()));
    match lowest_two(fleet, model, &ask) {
        Ok(more) => plan.replicas.extend(more.recommended.plan.replicas),
        Err(refusal) if plan.replicas.is_empty() => return Err(refusal),
        Err(_) => {}
    }
    let prediction = Prediction {
        tpot_ms: 1.0,
        ttft_ms: 1.0,
        opening_ms: 0.0,
        throughput_tok_s: 1.0,
        breakdown: Breakdown::default(),
    };
    Ok(Replan { plan, prediction, cost: ReplanCost::default() })
}

fn plan_of(model: &Model, pairs: &[(NodeId, NodeId)]) -> Plan {
    let half = model.layer_count() / 2;
    let stages = |(a, b): &(NodeId, NodeId)| Pipeline {
        stages: vec![
            Stage { node: *a, layers: LayerRange::new(0, half) },
            Stage { node: *b, layers: LayerRange::new(half, model.layer_count()) },
        ],
    };
    Plan {
        model: model.name.clone(),
        replicas: pairs.iter().map(stages).collect(),
        experts: Vec::new(),
        context: 100,
        sessions: 1,
    }
}

/// Cores, and the messages between them.
struct Bus {
    cores: BTreeMap<u32, (u64, Core)>,
    lives: BTreeMap<u32, u64>,
    now: Instant,
    sequence: u64,
    mail: BTreeMap<(Instant, u64), (u32, u32, u64, Control)>,
    loads: BTreeMap<(Instant, u64), (u32, u64, Epoch)>,
    parted: BTreeSet<(u32, u32)>,
    cannot_load: BTreeSet<u32>,
    delivered: usize,
    view: Arc<FleetView>,
    model: Arc<Model>,
}

impl Bus {
    fn new(count: u32, initial: Option<&[(u32, u32)]>) -> Self {
        let mut bus = Self {
            cores: BTreeMap::new(),
            lives: BTreeMap::new(),
            now: Instant(0),
            sequence: 0,
            mail: BTreeMap::new(),
            loads: BTreeMap::new(),
            parted: BTreeSet::new(),
            cannot_load: BTreeSet::new(),
            delivered: 0,
            view: Arc::new(FleetView::indexed(fixture::fleet(count))),
            model: Arc::new(fixture::model()),
        };
        let pairs = |p: &[(u32, u32)]| p.iter().map(|(a, b)| (NodeId(*a), NodeId(*b))).collect::<Vec<_>>();
        let plan = initial.map(|p| plan_of(&bus.model, &pairs(p)));
        for node in 0..count {
            bus.start(node, plan.clone());
        }
        bus
    }

    fn start(&mut self, node: u32, initial: Option<Plan>) {
        let life = *self.lives.entry(node).and_modify(|l| *l += 1).or_insert(0);
        let constraints = Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 1,
            context: 100,
            shape: Shape::Auto,
        };
        let load = Load { prompt: 10, context: 10, concurrency: 1, head: None };
        let mut core = Core::new(Setup {
            me: NodeId(node),
            view: self.view.clone(),
            model: self.model.clone(),
            ask: Ask { objective: Objective::Tpot, load, constraints },
            limits: Limits::default(),
            incarnation: life,
            search: Search { fresh: lowest_two, repair: keep_whole },
        });
        core.begin(self.now, initial.map(|plan| (Epoch(1), plan)));
        self.cores.insert(node, (life, core));
        self.carry_out(node);
    }

    fn kill(&mut self, node: u32) {
        self.cores.remove(&node);
    }

    fn part(&mut self, a: u32, b: u32) {
        self.parted.extend([(a, b), (b, a)]);
    }

    fn carry_out(&mut self, node: u32) {
        let Some((life, core)) = self.cores.get_mut(&node) else { return };
        let life = *life;
        for action in core.take_actions() {
            self.sequence += 1;
            match action {
                Action::Send(peer, control) => {
                    let to = peer.index();
                    let passes = !self.parted.contains(&(node, to));
                    if let Some(target) = self.lives.get(&to).filter(|_| passes) {
                        let at = (self.now.after(TRIP), self.sequence);
                        self.mail.insert(at, (node, to, *target, control));
                    }
                }
                Action::Follow { epoch, .. } => {
                    self.loads.insert((self.now.after(LOADING), self.sequence), (node, life, epoch));
                }
                _ => {}
            }
        }
    }

    /// Lets everything happen for so long.
    fn run(&mut self, d: Duration) {
        let end = self.now.after(d);
        loop {
            let due = self.cores.iter().filter_map(|(n, (_, c))| c.next_due().map(|at| (at, *n))).min();
            let mail = self.mail.keys().next().map(|k| k.0);
            let load = self.loads.keys().next().map(|k| k.0);
            let next = [due.map(|d| d.0), mail, load].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if mail == Some(next) {
                let (_, (from, to, life, control)) = self.mail.pop_first().unwrap();
                self.deliver(from, to, life, control);
            } else if load == Some(next) {
                let (_, (node, life, epoch)) = self.loads.pop_first().unwrap();
                let ok = !self.cannot_load.contains(&node);
                if let Some((_, core)) = self.cores.get_mut(&node).filter(|(l, _)| *l == life) {
                    core.loaded(self.now, epoch, ok);
                    self.carry_out(node);
                }
            } else if let Some((_, node)) = due {
                self.cores.get_mut(&node).unwrap().1.tick(self.now);
                self.carry_out(node);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, from: u32, to: u32, life: u64, control: Control) {
        self.delivered += 1;
        if let Some((_, core)) = self.cores.get_mut(&to).filter(|(l, _)| *l == life) {
            core.heard(self.now, PeerId::from_index(from), control);
            self.carry_out(to);
        }
    }

    fn core(&self, node: u32) -> &Core {
        &self.cores[&node].1
    }

    fn nodes_of_plan(&self, node: u32) -> Vec<u32> {
        self.core(node).followed.as_ref().unwrap().plan.stages().map(|s| s.node.0).collect()
    }

    /// That all follow one plan, all of which serves, and know it.
    fn assert_one_mind(&self) {
        let mind = |core: &Core| (core.epoch(), core.maker(), core.serving.clone(), core.planner());
        let first = mind(self.core(0));
        for (node, (_, core)) in &self.cores {
            assert_eq!(mind(core), first, "node {node} differs from node 0");
            let plan = &core.followed.as_ref().expect("nobody planned").plan;
            assert_eq!(
                core.serving.len(),
                plan.replicas.len(),
                "node {node} thinks some replica does not serve"
            );
        }
    }
}

#[test]
fn a_given_plan_serves_soon_after_its_layers_are_loaded() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.run(LOADING + Duration::from_millis(20));
    bus.assert_one_mind();
    assert_eq!(bus.core(2).epoch(), Epoch(1));
}

#[test]
fn a_lost_node_is_replaced_and_a_spare_is_not_missed() {
    let mut bus = Bus::new(4, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.kill(3);
    bus.run(Duration::from_secs(5));
    assert_eq!(bus.core(0).epoch(), Epoch(1), "a spare's end changed the plan");
    bus.kill(1);
    bus.run(Duration::from_secs(2));
    assert_eq!(bus.nodes_of_plan(0), [0, 2]);
    bus.assert_one_mind();
}

#[test]
fn replicas_that_nobody_left_stay_and_go_on_serving() {
    let mut bus = Bus::new(6, Some(&[(0, 1), (2, 3)]));
    bus.run(Duration::from_secs(2));
    bus.kill(3);
    // Lost and planned anew, but not loaded yet.
    bus.run(Limits::default().ping_period * 3 + LOADING / 2);
    let core = bus.core(5);
    assert_eq!(core.epoch(), Epoch(2));
    assert_eq!(bus.nodes_of_plan(5), [0, 1, 2, 4]);
    assert_eq!(core.serving.keys().copied().collect::<Vec<_>>(), [0], "the untouched replica stopped");
    bus.run(Duration::from_secs(2));
    bus.assert_one_mind();
}

#[test]
fn when_the_planning_node_dies_the_next_one_takes_over() {
    let mut bus = Bus::new(5, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.kill(0);
    bus.run(Duration::from_secs(4));
    assert_eq!(bus.nodes_of_plan(4), [1, 2]);
    assert_eq!(bus.core(4).maker(), PeerId::from_index(1));
    bus.kill(1);
    bus.run(Duration::from_secs(4));
    assert_eq!(bus.nodes_of_plan(4), [2, 3]);
}

#[test]
fn a_better_plan_is_taken_when_a_node_comes_back_and_only_then_after_a_rest() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.kill(0);
    bus.run(Duration::from_secs(30));
    assert_eq!(bus.nodes_of_plan(1), [1, 2]);
    bus.start(0, None);
    bus.run(Limits::default().replan_rest / 2);
    assert_eq!(bus.nodes_of_plan(0), [1, 2], "changed without a rest, or forgot the plan in force");
    bus.run(Limits::default().replan_rest * 2);
    assert_eq!(bus.nodes_of_plan(0), [0, 1]);
    bus.assert_one_mind();
}

#[test]
fn a_node_that_cannot_load_is_left_out_until_it_starts_again() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.cannot_load.insert(1);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(2), [0, 2]);
    bus.assert_one_mind();
    // The only other one dies: without a restart nothing can be planned.
    bus.kill(2);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(0), [0, 2]);
    assert!(bus.core(0).serving.is_empty());
    bus.cannot_load.clear();
    bus.kill(1);
    bus.start(1, None);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(0), [0, 1]);
    bus.assert_one_mind();
}

#[test]
fn a_restart_between_two_pings_changes_the_life_of_its_replica() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    let before = bus.core(2).serving.clone();
    bus.kill(1);
    bus.start(1, None);
    bus.run(Duration::from_secs(3));
    bus.assert_one_mind();
    assert_ne!(bus.core(2).serving, before, "heads cannot see that the stage forgot them");
}

#[test]
fn plans_of_strangers_and_nonsense_are_not_followed() {
    let mut bus = Bus::new(2, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(1));
    let by = PeerId::from_index(0);
    let good = plan_of(&bus.model, &[(NodeId(0), NodeId(1))]);
    let mut elsewhere = good.clone();
    elsewhere.replicas[0].stages[0].node = NodeId(7);
    let mut gap = good.clone();
    gap.replicas[0].stages[1].layers.first += 1;
    let mut twice = good.clone();
    twice.replicas.push(good.replicas[0].clone());
    let other = Plan { model: "another".into(), ..good.clone() };
    let none = Plan { replicas: Vec::new(), ..good.clone() };
    for plan in [elsewhere, gap, twice, other, none] {
        let publish = Control::Publish { epoch: Epoch(9), by, plan };
        bus.deliver(0, 1, 0, publish);
        assert_eq!(bus.core(1).epoch(), Epoch(1));
    }
    let stranger = PeerId::from_index(77);
    let publish = Control::Publish { epoch: Epoch(9), by: stranger, plan: good };
    bus.cores.get_mut(&1).unwrap().1.heard(bus.now, stranger, publish);
    assert_eq!(bus.core(1).epoch(), Epoch(1));
}

#[test]
fn traffic_grows_with_the_fleet_and_not_with_its_square() {
    let rate = |count: u32| {
        let mut bus = Bus::new(count, Some(&[(0, 1)]));
        bus.run(Duration::from_secs(20));
        let before = bus.delivered;
        bus.run(Duration::from_secs(20));
        (bus.delivered - before) as f64 / 20.0
    };
    for count in [8, 64, 256] {
        assert!(rate(count) <= f64::from(count) * 10.0, "{count} nodes: {} frames a second", rate(count));
    }
}

#[derive(Debug, Clone)]
enum Blow {
    Kill(u32),
    Start(u32),
    Part(u32, u32),
    Heal,
    Wait(u64),
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        (0..5u32).prop_map(Blow::Kill),
        (0..5u32).prop_map(Blow::Start),
        (0..5u32, 0..5u32).prop_map(|(a, b)| Blow::Part(a, b)),
        Just(Blow::Heal),
        (1..5000u64).prop_map(Blow::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_happens_all_are_of_one_mind_after_it_is_over(blows in vec(blow(), 0..25)) {
        let mut bus = Bus::new(5, Some(&[(0, 1), (2, 3)]));
        for blow in blows {
            match blow {
                Blow::Kill(node) => bus.kill(node),
                Blow::Start(node) if !bus.cores.contains_key(&node) => bus.start(node, None),
                Blow::Start(_) => {}
                Blow::Part(a, b) => bus.part(a, b),
                Blow::Heal => bus.parted.clear(),
                Blow::Wait(ms) => bus.run(Duration::from_millis(ms)),
            }
        }
        bus.parted.clear();
        for node in 0..5 {
            if !bus.cores.contains_key(&node) {
                bus.start(node, None);
            }
        }
        bus.run(Duration::from_secs(60));
        bus.assert_one_mind();
        prop_assert_eq!(bus.core(0).planner(), NodeId(0));
    }
}
