//! Cores, and a network between them that can be told to behave badly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use planner::cost::predict::Load;
use planner::model::Model;
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::{Epoch, NodeId, Plan};

use super::super::{Action, Core, Setup};
use super::{fixture, keep_whole, lowest_two, plan_of};
use crate::clock::Instant;
use crate::control::Search;
use crate::ids::{PeerId, PlanId};
use crate::limits::Limits;
use crate::view::FleetView;
use crate::wire::{Control, Readiness};

pub(super) const TRIP: Duration = Duration::from_millis(3);
pub(super) const LOADING: Duration = Duration::from_millis(80);

/// What the network does to messages.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Nothing gets from the first to the second.
    pub(super) parted: BTreeSet<(u32, u32)>,
    /// Messages take this much longer. They overtake each other when it changes.
    pub(super) slow: BTreeMap<(u32, u32), Duration>,
    /// Of a hundred messages so many are lost.
    pub(super) lost: u32,
    /// Of a hundred messages so many come again a while later.
    pub(super) doubled: u32,
}

/// A message under way: from, to, which life of the receiver, and what.
type Mail = (u32, u32, u64, Control);

/// Cores, and the messages between them.
pub(super) struct Bus {
    pub(super) cores: BTreeMap<u32, (u64, Core)>,
    pub(super) now: Instant,
    pub(super) weather: Weather,
    pub(super) cannot_load: BTreeSet<u32>,
    pub(super) delivered: usize,
    pub(super) model: Arc<Model>,
    /// Everything that was ever followed, by its name.
    pub(super) followed: BTreeMap<PlanId, (Plan, Vec<PeerId>)>,
    lives: BTreeMap<u32, u64>,
    sequence: u64,
    mail: BTreeMap<(Instant, u64), Mail>,
    loads: BTreeMap<(Instant, u64), (u32, u64, PlanId)>,
    /// What each node knows of the fleet.
    views: BTreeMap<u32, Arc<FleetView>>,
}

/// The machines with these numbers, in this order.
pub(super) fn view_of(nodes: &[u32]) -> Arc<FleetView> {
    let mut fleet = fixture::fleet(nodes.iter().max().map_or(0, |most| most + 1));
    fleet.nodes = nodes.iter().map(|n| fleet.nodes[*n as usize].clone()).collect();
    Arc::new(FleetView::new(fleet, nodes.iter().map(|n| PeerId::from_index(*n)).collect()))
}

impl Bus {
    pub(super) fn new(count: u32, initial: Option<&[(u32, u32)]>) -> Self {
        let view = view_of(&(0..count).collect::<Vec<_>>());
        Self::knowing((0..count).map(|node| (node, Arc::clone(&view))).collect(), initial)
    }

    /// Nodes each of which knows only itself.
    pub(super) fn strangers(count: u32) -> Self {
        Self::knowing((0..count).map(|node| (node, view_of(&[node]))).collect(), None)
    }

    fn knowing(views: BTreeMap<u32, Arc<FleetView>>, initial: Option<&[(u32, u32)]>) -> Self {
        let mut bus = Self {
            cores: BTreeMap::new(),
            now: Instant(0),
            weather: Weather::default(),
            cannot_load: BTreeSet::new(),
            delivered: 0,
            model: Arc::new(fixture::model()),
            followed: BTreeMap::new(),
            lives: BTreeMap::new(),
            sequence: 0,
            mail: BTreeMap::new(),
            loads: BTreeMap::new(),
            views,
        };
        let pairs = |p: &[(u32, u32)]| p.iter().map(|(a, b)| (NodeId(*a), NodeId(*b))).collect::<Vec<_>>();
        let plan = initial.map(|p| plan_of(&bus.model, &pairs(p)));
        for node in bus.views.keys().copied().collect::<Vec<_>>() {
            bus.start(node, plan.clone());
        }
        bus
    }

    /// The node knows these machines from now on, under numbers in this order.
    pub(super) fn meet(&mut self, node: u32, nodes: &[u32]) {
        let view = view_of(nodes);
        self.views.insert(node, Arc::clone(&view));
        self.cores.get_mut(&node).unwrap().1.see(self.now, view);
        self.carry_out(node);
    }

    pub(super) fn start(&mut self, node: u32, initial: Option<Plan>) {
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
            me: self.views[&node].id(PeerId::from_index(node)).unwrap(),
            view: self.views[&node].clone(),
            model: self.model.clone(),
            ask: Ask { objective: Objective::Tpot, load, constraints },
            cut: Vec::new(),
            least: None,
            copies: false,
            limits: Limits::default(),
            incarnation: life,
            search: Search { fresh: lowest_two, chosen: planner::place::cut, repair: keep_whole },
        });
        core.begin(self.now, initial.map(|plan| (Epoch(1), plan)));
        self.cores.insert(node, (life, core));
        self.carry_out(node);
    }

    pub(super) fn kill(&mut self, node: u32) {
        self.cores.remove(&node);
    }

    pub(super) fn leave(&mut self, node: u32) {
        self.cores.get_mut(&node).unwrap().1.leave(self.now);
        self.carry_out(node);
    }

    pub(super) fn restart(&mut self, node: u32) {
        self.kill(node);
        self.start(node, None);
    }

    pub(super) fn part(&mut self, a: u32, b: u32) {
        self.weather.parted.extend([(a, b), (b, a)]);
    }

    fn carry_out(&mut self, node: u32) {
        let Some((life, core)) = self.cores.get_mut(&node) else { return };
        let life = *life;
        let (actions, view) = (core.take_actions(), Arc::clone(&core.view));
        for action in actions {
            self.sequence += 1;
            match action {
                Action::Send(peer, control) => self.post(node, peer.index(), control),
                Action::Follow { id, plan, .. } => {
                    let named = view.named(&plan).unwrap();
                    let known = self.followed.entry(id).or_insert_with(|| named.clone());
                    assert_eq!(*known, named, "two plans are called {id:?}");
                    self.loads.insert((self.now.after(LOADING), self.sequence), (node, life, id));
                }
                _ => {}
            }
        }
    }

    /// A number below a hundred that belongs to the message under way.
    fn dice(&self, salt: u64) -> u32 {
        let mixed = (self.sequence ^ salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as u32 % 100
    }

    fn post(&mut self, from: u32, to: u32, control: Control) {
        let Some(life) = self.lives.get(&to).copied() else { return };
        if self.weather.parted.contains(&(from, to)) || self.dice(1) < self.weather.lost {
            return;
        }
        let slower = self.weather.slow.get(&(from, to)).copied().unwrap_or_default();
        let at = self.now.after(TRIP + slower);
        if self.dice(2) < self.weather.doubled {
            let again = at.after(TRIP * self.dice(3));
            self.mail.insert((again, self.sequence), (from, to, life, control.clone()));
        }
        self.sequence += 1;
        self.mail.insert((at, self.sequence), (from, to, life, control));
    }

    /// Lets everything happen for so long.
    pub(super) fn run(&mut self, d: Duration) {
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
                self.load();
            } else if let Some((_, node)) = due {
                self.cores.get_mut(&node).unwrap().1.tick(self.now);
                self.carry_out(node);
            }
        }
        self.now = end;
    }

    fn load(&mut self) {
        let (_, (node, life, id)) = self.loads.pop_first().unwrap();
        let ok = !self.cannot_load.contains(&node);
        if let Some((_, core)) = self.cores.get_mut(&node).filter(|(l, _)| *l == life) {
            core.loaded(self.now, id, ok);
            self.carry_out(node);
        }
    }

    pub(super) fn deliver(&mut self, from: u32, to: u32, life: u64, control: Control) {
        self.delivered += 1;
        if let Some((_, core)) = self.cores.get_mut(&to).filter(|(l, _)| *l == life) {
            core.heard(self.now, PeerId::from_index(from), control);
            self.carry_out(to);
        }
    }

    /// All is whole again: nothing is lost any more, and everybody runs and can load.
    pub(super) fn mend(&mut self) {
        self.weather = Weather::default();
        self.cannot_load.clear();
        for node in self.views.keys().copied().collect::<Vec<_>>() {
            let sound = self.cores.get(&node).is_some_and(|(_, c)| c.readiness != Readiness::Unable);
            if !sound {
                self.restart(node);
            }
        }
    }

    pub(super) fn core(&self, node: u32) -> &Core {
        &self.cores[&node].1
    }

    pub(super) fn epoch(&self, node: u32) -> u64 {
        self.core(node).id().epoch.0
    }

    pub(super) fn nodes_of_plan(&self, node: u32) -> Vec<u32> {
        let core = self.core(node);
        core.followed.as_ref().unwrap().plan.stages().map(|s| core.peer(s.node).index()).collect()
    }

    /// That all follow one plan, all of which serves, and know it.
    pub(super) fn assert_one_mind(&self) {
        let mind = |core: &Core| (core.id(), core.serving.clone(), core.peer(core.planner()));
        let (_, first) = self.cores.values().next().unwrap();
        for (node, (_, core)) in &self.cores {
            assert_eq!(mind(core), mind(first), "node {node} differs from the first");
            let plan = &core.followed.as_ref().expect("nobody planned").plan;
            assert_eq!(
                core.serving.len(),
                plan.replicas.len(),
                "node {node} thinks some replica does not serve"
            );
        }
    }
}
