//! Stories of a few machines that hear each other after a while; by the hundred they run in `sim`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod doubting;
mod hot;

use std::collections::BTreeMap;
use std::time::Duration;

use planner::fleet::{Device, catalog};

use super::*;
use crate::membership::{Caps, Offer};

const GB: u64 = 1 << 30;
const STEP: Duration = Duration::from_millis(20);

fn peer(i: usize) -> PeerId {
    PeerId::from_index(i as u32)
}

fn device(memory: u64) -> Device {
    let device = catalog::device("rtx-4090").unwrap();
    Device { memory_bytes: memory, reserved_bytes: 0, disk_bytes_per_s: 1e9, ..device }
}

fn offer(name: &str, gb: u64) -> Offer {
    Offer {
        name: name.into(),
        fingerprint: [1; 32],
        weight_bytes: gb * GB,
        active_bytes: gb * GB,
        kv_bytes_per_token: 100_000,
        layers: 32,
        context: 8_192,
        ..Offer::default()
    }
}

fn profile(memory_gb: u64, models: &[(&str, u64)]) -> Profile {
    Profile {
        devices: vec![device(memory_gb * GB)],
        models: models.iter().map(|(name, gb)| offer(name, *gb)).collect(),
        caps: Caps { sessions: 4, queue: 16, memory_bytes: 0, takes_models: true },
        ..Profile::default()
    }
}

/// What becomes of actions here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Claims, and never loads.
    Idle,
    /// Serves by its own word.
    Pretends,
}

struct Machine {
    assigner: Assigner,
    profile: Profile,
    manner: Manner,
    loads: BTreeMap<String, Instant>,
    told: State,
}

struct Mesh {
    now: Instant,
    machines: Vec<Option<Machine>>,
    /// When, to whom, of whom, what: nothing means that it is gone.
    news: Vec<(Instant, usize, usize, Option<State>)>,
    demand: BTreeMap<String, f64>,
    actions: Vec<(f64, usize, Action)>,
    loads: BTreeMap<usize, Load>,
    draws: u64,
    /// The most that loaded one model at once.
    most_loading: BTreeMap<String, usize>,
}

impl Mesh {
    fn new(profiles: Vec<Profile>) -> Self {
        let mut mesh = Self {
            now: Instant(1_000_000_000),
            machines: Vec::new(),
            news: Vec::new(),
            demand: BTreeMap::new(),
            actions: Vec::new(),
            loads: BTreeMap::new(),
            draws: 1,
            most_loading: BTreeMap::new(),
        };
        profiles.into_iter().for_each(|profile| mesh.join(profile));
        mesh
    }

    fn of(count: usize, memory_gb: u64, models: &[(&str, u64)]) -> Self {
        Self::new(vec![profile(memory_gb, models); count])
    }

    fn join(&mut self, profile: Profile) {
        let i = self.machines.len();
        let assigner = Assigner::new(peer(i), profile.clone(), Config::default(), i as u64, self.now);
        let told = State::default();
        let machine =
            Machine { assigner, profile, manner: Manner::Honest, loads: BTreeMap::new(), told: told.clone() };
        self.machines.push(Some(machine));
        self.tell(i, told);
        for other in 0..i {
            if let Some(state) = self.machines[other].as_ref().map(|machine| machine.told.clone()) {
                self.news.push((self.now, i, other, Some(state)));
            }
        }
    }

    fn draw(&mut self) -> f64 {
        self.draws = mix(self.draws + 1);
        (self.draws >> 11) as f64 / (1u64 << 53) as f64
    }

    fn tell(&mut self, i: usize, state: State) {
        for to in 0..self.machines.len() {
            let at = self.now.after(Duration::from_secs_f64(0.03 + 0.2 * self.draw()));
            if to != i {
                self.news.push((at, to, i, Some(state.clone())));
            }
        }
    }

    fn kill(&mut self, i: usize) {
        self.machines[i] = None;
        for to in 0..self.machines.len() {
            let at = self.now.after(Duration::from_secs_f64(1.5 + 0.5 * self.draw()));
            self.news.push((at, to, i, None));
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now.after(Duration::from_secs_f64(seconds));
        while self.now < end {
            self.now = self.now.after(STEP);
            self.deliver();
            for i in 0..self.machines.len() {
                self.step(i);
            }
            self.count_loads();
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (mut due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.news).into_iter().partition(|(at, ..)| *at <= now);
        self.news = rest;
        due.sort_by_key(|(at, ..)| *at);
        for (_, to, of, state) in due {
            let profile = self.machines[of].as_ref().map(|machine| machine.profile.clone());
            let Some(machine) = &mut self.machines[to] else { continue };
            match (state, profile) {
                (Some(state), Some(profile)) => machine.assigner.see(now, peer(of), &profile, &state),
                _ => machine.assigner.gone(now, peer(of)),
            }
        }
    }

    fn step(&mut self, i: usize) {
        let (now, load) = (self.now, self.loads.get(&i).copied().unwrap_or_default());
        let demand = DemandMap {
            models: self.demand.iter().map(|(name, per_s)| (name.clone(), *per_s)).collect(),
            rest_per_s: 0.0,
        };
        let Some(machine) = &mut self.machines[i] else { return };
        let done: Vec<String> =
            machine.loads.iter().filter(|(_, at)| **at <= now).map(|(model, _)| model.clone()).collect();
        for model in done {
            machine.loads.remove(&model);
            machine.assigner.notice(now, Notice::Ready(&model));
        }
        if load != machine.told.load {
            machine.assigner.load(now, load, &BTreeMap::new());
        }
        if machine.assigner.next_due() > now {
            return self.tell_if_new(i, load);
        }
        machine.assigner.demand(&demand);
        for action in machine.assigner.decide(now) {
            match &action {
                Action::Serve(model) | Action::Enlist(model) if machine.manner == Manner::Honest => {
                    machine.loads.insert(model.clone(), now.after(Duration::from_secs(8)));
                }
                Action::Retire(model) => {
                    machine.loads.remove(model);
                }
                _ => {}
            }
            self.actions.push((now.0 as f64 / 1e9, i, action));
        }
        self.tell_if_new(i, load);
    }

    fn tell_if_new(&mut self, i: usize, load: Load) {
        let Some(machine) = &mut self.machines[i] else { return };
        let state = State {
            served: machine.assigner.served(),
            claims: machine.assigner.claims(),
            load,
            ..State::default()
        };
        if state != machine.told {
            machine.told = state.clone();
            self.tell(i, state);
        }
    }

    fn count_loads(&mut self) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for machine in self.machines.iter().flatten() {
            machine.loads.keys().for_each(|model| *counts.entry(model.clone()).or_default() += 1);
        }
        for (model, count) in counts {
            let most = self.most_loading.entry(model).or_default();
            *most = (*most).max(count);
        }
    }

    fn servers(&self, model: &str) -> Vec<usize> {
        let serves = |i: &usize| {
            self.machines[*i].as_ref().is_some_and(|m| m.assigner.served().iter().any(|name| name == model))
        };
        (0..self.machines.len()).filter(serves).collect()
    }

    /// Asks at one machine for a model that nobody serves.
    fn want(&mut self, i: usize, model: &str) {
        let now = self.now;
        self.machines[i].as_mut().unwrap().assigner.wanted(now, model);
    }

    fn busy(&mut self, hosts: &[usize], sessions: u32) {
        for i in hosts {
            self.loads.insert(*i, Load { sessions, ..Load::default() });
        }
    }

    fn moves(&self) -> usize {
        self.actions.len()
    }
}

#[test]
fn machines_that_start_together_share_the_models_out() {
    let mut mesh = Mesh::of(8, 24, &[("small", 4), ("large", 16)]);
    mesh.run(60.0);
    for model in ["small", "large"] {
        assert_eq!(mesh.servers(model).len(), 2, "{model}: {:?}", mesh.actions);
        assert_eq!(mesh.most_loading[model], 1, "{model} was loaded twice at once: {:?}", mesh.actions);
    }
    let before = mesh.moves();
    mesh.run(900.0);
    assert_eq!(mesh.moves(), before, "nothing happened, and machines moved: {:?}", mesh.actions);
}

#[test]
fn a_single_machine_takes_the_best_that_fits() {
    let mut mesh = Mesh::of(1, 24, &[("small", 4), ("large", 16), ("huge", 60)]);
    mesh.run(20.0);
    assert_eq!(mesh.servers("large"), [0]);
    mesh.run(20.0);
    assert_eq!(mesh.servers("small"), [0], "there is room for it as well");
    assert!(mesh.servers("huge").is_empty());
}

#[test]
fn exactly_one_comes_forward_for_a_model_that_somebody_waits_for() {
    for seed in 0..20 {
        let mut profiles = vec![profile(24, &[("a", 16)]); 3];
        profiles.extend(vec![profile(24, &[("b", 16)]); 9]);
        let mut mesh = Mesh::new(profiles);
        mesh.draws = seed;
        mesh.run(30.0);
        let servers = mesh.servers("b");
        for i in servers {
            mesh.kill(i);
        }
        let (at, before) = (mesh.now, mesh.moves());
        mesh.want(0, "b");
        mesh.run(4.0);
        let begun: Vec<_> =
            mesh.actions[before..].iter().filter(|a| matches!(a.2, Action::Serve(_))).collect();
        assert_eq!(begun.len(), 1, "seed {seed}: {begun:?}");
        assert!(begun[0].0 - at.0 as f64 / 1e9 < 3.5, "seed {seed}: {begun:?}");
        assert_eq!(mesh.most_loading["b"], 1);
    }
}

#[test]
fn what_its_owner_chose_is_never_given_up() {
    let mut profiles = vec![profile(24, &[("a", 16), ("b", 16)])];
    profiles.push(profile(24, &[("c", 4)]));
    let mut mesh = Mesh::new(profiles);
    let now = mesh.now;
    let machine = mesh.machines[0].as_mut().unwrap();
    machine.assigner.pin(now, "a");
    machine.assigner.notice(now, Notice::Ready("a"));
    mesh.demand.insert("b".into(), 100.0);
    mesh.want(1, "b");
    mesh.run(300.0);
    assert_eq!(mesh.servers("a"), [0]);
    assert!(mesh.servers("b").is_empty());
}

#[test]
fn a_model_nobody_asks_for_makes_room_for_one_that_is_asked_for() {
    let mut mesh = Mesh::of(2, 24, &[("a", 16), ("b", 17)]);
    mesh.run(40.0);
    assert_eq!((mesh.servers("a").len(), mesh.servers("b").len()), (1, 1));
    let b = mesh.servers("b")[0];
    mesh.kill(b);
    mesh.want(1 - b, "b");
    mesh.demand.insert("b".into(), 0.1);
    mesh.run(20.0);
    assert_eq!(mesh.servers("b"), [1 - b]);
    mesh.demand.insert("a".into(), 50.0);
    mesh.run(300.0);
    assert_eq!(mesh.servers("b"), [1 - b], "the last one of a model that is asked for stays");
}

#[test]
fn a_machine_that_claims_and_does_not_load_is_passed_over() {
    let mut mesh = Mesh::of(4, 24, &[("m", 16)]);
    mesh.run(30.0);
    let first = mesh.servers("m");
    let idle: Vec<usize> = (0..4).filter(|i| !first.contains(i)).collect();
    // The first of the two that are left is a liar, whichever that is.
    mesh.machines[idle[0]].as_mut().unwrap().manner = Manner::Idle;
    first.into_iter().for_each(|i| mesh.kill(i));
    mesh.demand.insert("m".into(), 1.0);
    mesh.run(60.0);
    assert_eq!(mesh.servers("m"), [idle[1]]);
}

#[test]
fn absurd_speed_wins_no_more_than_its_share() {
    let mut names = names::Names::default();
    let now = Instant(0);
    let mut fast = profile(24, &[("m", 16)]);
    fast.devices[0].bandwidth_bytes_per_s = 1e15;
    fast.devices[0].layer_overhead_us = 0.0;
    let honest = profile(24, &[("m", 16)]);
    let seats: Vec<_> = (0..10)
        .map(|i| {
            let profile = if i == 0 { &fast } else { &honest };
            seat::Seat::new(now, peer(i), profile, &State::default(), &mut names)
        })
        .collect();
    let need = *seats[0].need(0).unwrap();
    let speeds: Vec<f64> = seats.iter().map(|seat| seat.speed(&need)).collect();
    let mut wins = [0; 10];
    for model in 0..4_000 {
        let name = format!("model {model}");
        let score = |i: &usize| seats[*i].score(&name, speeds[*i]);
        let first = (0..10).min_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
        wins[first] += 1;
    }
    let share = f64::from(wins[0]) / 4_000.0;
    let fair = speeds[0] / speeds.iter().sum::<f64>();
    assert!((share - fair).abs() < 0.03 && speeds[0] <= 64.0, "{share} of {fair}, {speeds:?}");
}

#[test]
fn wants_that_are_made_up_move_nobody_who_is_needed() {
    let models = [("a", 16), ("b", 16), ("c", 16), ("d", 16)];
    let mut mesh = Mesh::of(4, 24, &models[..2]);
    mesh.join(profile(24, &models));
    mesh.demand = [("a".to_owned(), 1.0), ("b".to_owned(), 1.0)].into();
    mesh.run(60.0);
    let (a, b) = (mesh.servers("a"), mesh.servers("b"));
    assert!(!a.is_empty() && !b.is_empty());
    for (name, _) in models {
        mesh.want(0, name);
    }
    mesh.want(0, "never heard of");
    mesh.run(120.0);
    assert!(!mesh.servers("a").is_empty() && !mesh.servers("b").is_empty());
    let claims = mesh.machines[0].as_ref().unwrap().assigner.claims();
    assert!(claims.iter().all(|claim| claim.model != "never heard of"), "{claims:?}");
}

#[test]
fn a_model_too_large_for_one_is_held_by_as_many_as_it_needs_and_a_spare() {
    let mut mesh = Mesh::of(8, 24, &[("huge", 50)]);
    mesh.run(40.0);
    let group = mesh.machines[0].as_ref().unwrap().assigner.group("huge");
    assert_eq!(group.len(), 4, "{:?}", mesh.actions);
    for machine in mesh.machines.iter().flatten() {
        assert_eq!(machine.assigner.group("huge"), group, "all know the same group");
    }
    let dead = group[1].index() as usize;
    mesh.kill(dead);
    mesh.run(10.0);
    let after = mesh.machines[group[0].index() as usize].as_ref().unwrap().assigner.group("huge");
    assert_eq!(after.len(), 4);
    assert_eq!(after.iter().filter(|peer| group.contains(peer)).count(), 3, "the others stayed");
    let before = mesh.moves();
    mesh.run(300.0);
    assert_eq!(mesh.moves(), before);
}

#[test]
fn a_group_that_nobody_asks_for_makes_way() {
    let mut mesh = Mesh::of(4, 24, &[("huge", 50), ("small", 16)]);
    mesh.demand.insert("huge".into(), 1.0);
    mesh.run(60.0);
    assert!(mesh.servers("huge").len() >= 3, "{:?}", mesh.actions);
    mesh.demand = [("small".to_owned(), 1.0)].into();
    mesh.run(60.0);
    assert!(!mesh.servers("small").is_empty(), "{:?}", mesh.actions);
}

mod whatever_happens {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Machines come and go in any order: in the end what is asked for and can be served is, and nobody moves. Each
        /// has room for any of the models: groups that compete with others for memory are not calm yet.
        #[test]
        fn what_can_be_served_is_and_then_all_is_quiet(
            memories in prop::collection::vec(prop::sample::select(vec![24u64, 32, 48]), 3..9),
            deaths in prop::collection::vec((any::<prop::sample::Index>(), 0.0f64..20.0), 0..4),
            seed in any::<u64>(),
        ) {
            let models = [("a", 4), ("b", 12), ("c", 20)];
            let mut mesh = Mesh::new(memories.iter().map(|gb| profile(*gb, &models)).collect());
            mesh.draws = seed >> 1;
            mesh.demand = models.iter().map(|(name, _)| ((*name).to_owned(), 1.0)).collect();
            for (who, after) in deaths {
                mesh.run(after);
                let i = who.index(mesh.machines.len());
                if mesh.machines.iter().flatten().count() > 1 {
                    mesh.kill(i);
                }
            }
            mesh.run(90.0);
            let largest = mesh.machines.iter().flatten().map(|m| m.profile.devices[0].memory_bytes).max();
            // The largest model that fits anybody is served by somebody unless its only room is taken by smaller ones
            // that are asked for as well: so at least one of those that fit it is.
            let fitting = models.iter().filter(|(_, gb)| largest.unwrap() > (gb + 2) * GB).count();
            let served = models.iter().filter(|(name, _)| !mesh.servers(name).is_empty()).count();
            let machines = mesh.machines.iter().flatten().count();
            prop_assert!(served >= fitting.min(machines), "{served} of {fitting} by {machines}: {:?}", mesh.actions);
            let before = mesh.moves();
            mesh.run(200.0);
            prop_assert_eq!(mesh.moves(), before, "{:?}", &mesh.actions[before..]);
        }
    }
}

#[test]
fn demand_that_is_made_up_brings_no_replica_of_what_is_served() {
    let mut mesh = Mesh::of(6, 24, &[("a", 16), ("b", 16)]);
    mesh.run(60.0);
    let before = mesh.moves();
    mesh.demand.insert("a".into(), 1e6);
    mesh.run(300.0);
    assert_eq!(mesh.moves(), before, "{:?}", &mesh.actions[before..]);
}
