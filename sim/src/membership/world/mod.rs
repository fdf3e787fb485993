//! The loop: one heap of events, by time and then by number, so that a seed is a run.
//!
//! * `striking`: faults. `hearing`: what members tell, and what is wrong with it. `outcome`: what it came to.
//! * `directing`: members that are tasks of another world. `serving`: models, requests and clients.

mod directing;
mod hearing;
mod outcome;
pub(super) mod serving;
mod striking;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, MutexGuard};

use node::PeerId;
use node::membership::{Config, Input, Known, Life, Membership, Outputs, Profile, State, Topic, Version};

pub(super) use self::directing::{Ears, Heard};

use self::directing::Hosted;
use self::serving::{Due, Serving};
use super::Sabotage;
use super::faults::{Strike, Ways, strikes};
use super::hosted::Strait;
use super::member::{Member, Process};
use super::network::{Place, Watchwork, wire_bytes};
use super::serving::ServingSabotage;
use super::spec::{FaultKind, Spec, Start};
use super::trust::{Keys, Shared, Vault};
use super::truth::{self, Truth};
use super::watch::Watch;
use crate::seed::{Draws, Seed};

const SECOND_NS: u64 = 1_000_000_000;
/// The number in the life of members that are there from the start.
const FIRST_LIFE: u64 = 1_000_000;
/// Members of a cold start join within this time.
const COLD_NS: f64 = 10.0 * SECOND_NS as f64;
/// Members begin within this time of a warm start.
const WARM_NS: f64 = 0.5 * SECOND_NS as f64;
/// What is said later than this before the end need not be known at the end.
const GRACE_NS: u64 = 8 * SECOND_NS;
/// The time at the end that is taken for rest.
const REST_NS: u64 = 10 * SECOND_NS;

#[derive(Debug)]
enum Happening {
    Start(u32),
    Packet { from: u32, to: u32, bytes: Vec<u8> },
    Wake(u32),
    Ask,
    Change,
    Strike(usize),
    End(usize),
    Lie(u32, FaultKind),
    Measure,
    Serving(Due),
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(super) spec: Spec,
    seed: Seed,
    config: Config,
    sabotage: Option<Sabotage>,
    pub(super) members: Vec<Member>,
    pub(super) vault: Shared,
    initial: Vec<Arc<Known>>,
    pub(super) now_ns: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    network: Draws,
    choices: Draws,
    strikes: Vec<Strike>,
    ways: Ways,
    pub(super) truth: Truth,
    pub(super) floods: u32,
    watches: Vec<Watch>,
    done: Vec<Watch>,
    pub(super) broken: Vec<String>,
    /// Who lives, can be heard, was not struck, and was taken for dead all the same.
    pub(super) mourned: Vec<String>,
    /// Who is honest and was found a liar.
    pub(super) wronged: Vec<String>,
    pub(super) liars: BTreeSet<u32>,
    /// Who was found a liar, and by whom.
    exposed: BTreeSet<(u32, u32)>,
    /// What each had said some seconds before the end: what all must know then.
    pub(super) said: BTreeMap<(u32, usize), Version>,
    packets: u64,
    bytes: u64,
    rest: (u64, u64),
    refused: u64,
    /// Models, requests and clients, where the spec has any.
    serving: Option<Box<Serving>>,
    /// Where members are tasks of another world, and this one only directs them.
    hosted: Option<Hosted>,
    /// Everything that members have told of, where it is wished for.
    log: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(
        spec: &Spec,
        seed: u64,
        config: Config,
        sabotage: Option<Sabotage>,
        serving_sabotage: Option<ServingSabotage>,
    ) -> Self {
        let seed = Seed::new(seed).fork("membership");
        let mut places = seed.fork("places").draws();
        let strikes = strikes(spec, seed);
        let joins: u32 =
            strikes.iter().filter(|s| s.kind == FaultKind::Join).map(|s| s.nodes.len() as u32).sum();
        let clock = |i: u32| Watchwork::draw(&spec.network, seed.fork("clocks").fork_index(u64::from(i)));
        let member = |i: u32| Member::new(Place::draw(&spec.network, &mut places), clock(i));
        let mut vault = Vault::default();
        vault.is_blind = sabotage == Some(Sabotage::BlindTrust);
        let mut world = Self {
            members: (0..spec.nodes + joins).map(member).collect(),
            vault: Shared::new(vault),
            initial: Vec::new(),
            now_ns: 0,
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            network: seed.fork("network").draws(),
            choices: seed.fork("choices").draws(),
            strikes,
            ways: Ways::default(),
            truth: Truth::default(),
            floods: 0,
            watches: Vec::new(),
            done: Vec::new(),
            broken: Vec::new(),
            mourned: Vec::new(),
            wronged: Vec::new(),
            liars: BTreeSet::new(),
            exposed: BTreeSet::new(),
            said: BTreeMap::new(),
            packets: 0,
            bytes: 0,
            rest: (0, 0),
            refused: 0,
            serving: spec.serving.as_ref().map(|serving| {
                let members = (spec.nodes + joins) as usize;
                Box::new(Serving::new(serving, members, seed.fork("serving"), serving_sabotage))
            }),
            hosted: None,
            log: None,
            spec: spec.clone(),
            seed,
            config,
            sabotage,
        };
        world.set_up();
        world
    }

    /// The same for members that run as tasks elsewhere, behind `strait`.
    pub(super) fn directing(mut self, strait: Strait) -> Self {
        let members = self.members.len();
        self.hosted = Some(Hosted::new(strait, members));
        self.reflect();
        self
    }

    /// Writes down what members tell of.
    pub(super) fn logging(mut self) -> Self {
        self.log = Some(Vec::new());
        self
    }

    pub(super) fn take_log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    fn set_up(&mut self) {
        if self.spec.start == Start::Warm {
            for i in 0..self.spec.nodes {
                let process = self.process(i, Life::new(FIRST_LIFE));
                let own = |topic| process.known(PeerId::from_index(i), topic).cloned();
                self.initial.extend([Topic::Profile, Topic::State].into_iter().filter_map(own));
            }
        }
        let within = if self.spec.start == Start::Warm { WARM_NS } else { COLD_NS };
        for i in 0..self.spec.nodes {
            let at = if i == 0 { 0 } else { (self.choices.unit() * within) as u64 };
            self.push(at, Happening::Start(i));
        }
        for number in 0..self.strikes.len() {
            self.push(self.strikes[number].at_ns, Happening::Strike(number));
            if let Some(until) = self.strikes[number].until_ns {
                self.push(until, Happening::End(number));
            }
        }
        self.push(0, Happening::Measure);
        self.set_up_serving();
        if self.spec.demand.per_s > 0.0 && self.spec.demand.models > 0 {
            self.push(SECOND_NS, Happening::Ask);
        }
        if self.spec.changes_per_s > 0.0 {
            self.push(SECOND_NS, Happening::Change);
        }
    }

    fn push(&mut self, at_ns: u64, happening: Happening) {
        self.next += 1;
        self.heap.push(Reverse((at_ns, self.next)));
        self.happenings.insert(self.next, happening);
    }

    pub(super) fn run(&mut self) {
        let end = self.end_ns();
        self.run_until(end);
        self.now_ns = end;
    }

    pub(super) fn end_ns(&self) -> u64 {
        (self.spec.seconds * SECOND_NS as f64) as u64
    }

    /// Everything that is due up to then.
    fn run_until(&mut self, end_ns: u64) {
        while let Some(at) = self.due_ns().filter(|at| *at <= end_ns) {
            let Some(Reverse((_, number))) = self.heap.pop() else { return };
            self.now_ns = self.now_ns.max(at);
            if let Some(happening) = self.happenings.remove(&number) {
                self.happen(happening);
            }
        }
    }

    /// When the next thing happens.
    fn due_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start(i) => self.start(i),
            Happening::Packet { from, to, bytes } => self.deliver(from, to, bytes),
            Happening::Wake(i) => {
                let member = &mut self.members[i as usize];
                if member.wake == Some(self.now_ns) {
                    member.wake = None;
                    self.input(i, Input::Tick);
                }
            }
            Happening::Ask => self.ask(),
            Happening::Change => self.change_somebody(),
            Happening::Strike(number) => self.strike(number),
            Happening::End(number) => self.end(number),
            Happening::Lie(i, kind) => self.lie(i, kind),
            Happening::Serving(due) => self.serve(due),
            Happening::Measure => {
                self.members.iter_mut().for_each(Member::measure);
                if (self.now_ns + GRACE_NS) as f64 <= self.spec.seconds * SECOND_NS as f64 {
                    self.said = self.all_said();
                }
                self.push(self.now_ns + SECOND_NS, Happening::Measure);
            }
        }
    }

    /// The latest of each that lives.
    fn all_said(&self) -> BTreeMap<(u32, usize), Version> {
        let said = self.living().flat_map(|(i, process)| {
            let version = |topic| process.known(process.me(), topic).map(|known| known.item.version);
            Topic::ALL.map(|topic| Some(((i, topic as usize), version(topic)?))).into_iter().flatten()
        });
        said.collect()
    }

    fn process(&self, i: u32, life: Life) -> Membership<Keys> {
        let (me, keys) = (PeerId::from_index(i), self.keys(i));
        let seed = self.seed.fork("members").fork_index(u64::from(i)).fork_index(life.start()).value();
        let now = self.members[i as usize].clock.local(self.now_ns);
        let mut process = Membership::new(me, life, keys, self.config, seed, now);
        let mut out = Outputs::default();
        let profile = self.serving.as_ref().map_or_else(|| profile(i), |serving| serving.profile(i));
        process.on(now, Input::Profile(profile), &mut out);
        process.on(now, Input::State(State::default()), &mut out);
        process
    }

    fn keys(&self, i: u32) -> Keys {
        let me = PeerId::from_index(i);
        Keys { me, secrets: self.seed.fork("secrets"), vault: self.vault.clone() }
    }

    /// A process begins, at the start or again.
    fn start(&mut self, i: u32) {
        let is_first = self.now_ns as f64 <= WARM_NS && self.spec.start == Start::Warm && i < self.spec.nodes;
        let life = if is_first { FIRST_LIFE } else { FIRST_LIFE + 1 + self.now_ns / 1_000_000 };
        let process = self.process(i, Life::new(life));
        let process = Process::new(process);
        self.members[i as usize].process = Some(process.clone());
        self.members[i as usize].seen.clear();
        if is_first {
            let initial = std::mem::take(&mut self.initial);
            self.with(i, |process, now, out| process.restore(now, &initial, out));
            self.initial = initial;
        }
        if let Some(hosted) = &mut self.hosted {
            hosted.launch(i, process, self.members[i as usize].clock);
        }
        self.serving_begins(i);
        if !is_first {
            let other = PeerId::from_index((self.choices.bits() % u64::from(self.spec.nodes)) as u32);
            self.input(i, Input::Join(&[PeerId::from_index(0), other]));
        }
        self.input(i, Input::Tick);
    }

    fn input(&mut self, i: u32, input: Input<'_>) {
        if self.members[i as usize].is_running()
            && let Some(hosted) = &mut self.hosted
        {
            return hosted.say(i, input);
        }
        self.with(i, |process, now, out| process.on(now, input, out));
    }

    /// Lets a process that runs do something, and does what it says.
    fn with(&mut self, i: u32, act: impl FnOnce(&mut Membership<Keys>, node::clock::Instant, &mut Outputs)) {
        let now_ns = self.now_ns;
        let member = &mut self.members[i as usize];
        if !member.is_running() {
            return;
        }
        let Some(process) = member.process.clone() else { return };
        let mut out = Outputs::default();
        let mut process = process.look();
        act(&mut process, member.clock.local(now_ns), &mut out);
        let due = process.next_due().filter(|_| self.hosted.is_none());
        drop(process);
        let due = due.map(|at| member.clock.global(at).max(now_ns + 1) + member.late_ns);
        if let Some(due) = due.filter(|due| member.wake.is_none_or(|wake| wake > *due)) {
            member.wake = Some(due);
            self.push(due, Happening::Wake(i));
        }
        for event in out.events {
            self.hear(i, &event);
        }
        for (to, bytes) in out.packets {
            self.send(i, to.index(), bytes);
        }
    }

    fn send(&mut self, from: u32, to: u32, bytes: Vec<u8>) {
        if let Some(hosted) = &mut self.hosted {
            return hosted.shout(from, to, bytes);
        }
        self.count_sent(from, bytes.len());
        let lost =
            self.network.unit() < self.spec.network.loss || self.network.unit() < self.ways.loss(from, to);
        if lost || to as usize >= self.members.len() || !self.ways.is_open(from, to) {
            return;
        }
        let round_trip_ms = self.members[from as usize].place.round_trip_ms(&self.members[to as usize].place);
        let delay_ms = round_trip_ms / 2.0 + self.network.exponential() * self.spec.network.jitter_ms;
        let late_ns = self.members[to as usize].late_ns;
        self.push(self.now_ns + (delay_ms * 1e6) as u64 + late_ns, Happening::Packet { from, to, bytes });
    }

    fn count_sent(&mut self, from: u32, length: usize) {
        let wire = wire_bytes(length);
        (self.packets, self.bytes) = (self.packets + 1, self.bytes + wire);
        if self.now_ns + REST_NS >= (self.spec.seconds * 1e9) as u64 {
            self.rest = (self.rest.0 + 1, self.rest.1 + wire);
        }
        self.members[from as usize].has_sent(self.now_ns, wire, length);
    }

    fn deliver(&mut self, from: u32, to: u32, bytes: Vec<u8>) {
        let member = &mut self.members[to as usize];
        if member.paused.is_some() {
            member.put_aside(from, bytes);
        } else {
            self.input(to, Input::Packet { from: PeerId::from_index(from), bytes: &bytes });
        }
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let now_s = self.now_ns as f64 / 1e9;
        if let Some(log) = &mut self.log {
            log.push(format!("{now_s:12.6} {}", what()));
        }
    }

    fn ask(&mut self) {
        let i = (self.choices.bits() % u64::from(self.spec.nodes)) as u32;
        // Zipf by inversion of the continuous law: half of the logarithm is half of the requests.
        let models = f64::from(self.spec.demand.models);
        let model = ((models + 1.0).powf(self.choices.unit()) - 1.0) as u32;
        if self.serving.is_some() {
            self.request(i, model);
        } else if self.members[i as usize].is_running() {
            self.truth.asked(self.now_ns, i, model);
            self.input(i, Input::Asked(&truth::name(model)));
        }
        let pause = self.choices.exponential() / self.spec.demand.per_s;
        self.push(self.now_ns + (pause * 1e9) as u64, Happening::Ask);
    }

    fn change_somebody(&mut self) {
        let i = (self.choices.bits() % u64::from(self.spec.nodes)) as u32;
        self.change(i, false);
        let pause = self.choices.exponential() / self.spec.changes_per_s;
        self.push(self.now_ns + (pause * 1e9) as u64, Happening::Change);
    }

    /// A member serves something else, or is busier.
    fn change(&mut self, i: u32, in_kind: bool) {
        if self.serving.is_some() {
            return;
        }
        let member = &mut self.members[i as usize];
        member.sessions += 1;
        let mut state = State::default();
        state.load.sessions = member.sessions;
        if in_kind {
            state.served = vec![truth::name(member.sessions)];
        }
        self.input(i, Input::State(state));
    }

    /// Members that run and have not left.
    pub(super) fn living(&self) -> impl Iterator<Item = (u32, MutexGuard<'_, Membership<Keys>>)> {
        let all = (0u32..).zip(&self.members);
        all.filter(|(_, member)| member.is_there())
            .filter_map(|(i, member)| Some((i, member.process.as_ref()?.look())))
    }

    /// Those of them who never lied: what a liar knows is its own affair, since others do not listen to it.
    pub(super) fn honest(&self) -> impl Iterator<Item = (u32, MutexGuard<'_, Membership<Keys>>)> {
        self.living().filter(|(i, _)| !self.liars.contains(i))
    }

    pub(super) fn is_split(&self) -> bool {
        self.ways.is_split()
    }
}

fn profile(i: u32) -> Profile {
    let catalog = ["llama-3.1-8b-q4_k_m", "qwen3-30b-a3b-q4_k_m", "gemma-3-12b-q4_0"];
    let models = catalog.iter().take(1 + i as usize % 3);
    let offer = |name: &&str| node::membership::Offer {
        name: (*name).into(),
        fingerprint: [i as u8; 32],
        ..Default::default()
    };
    Profile {
        name: format!("machine-{i}"),
        addresses: vec![format!("/ip4/10.0.{}.{}/udp/9338/quic-v1", i / 250, i % 250)],
        models: models.map(offer).collect(),
        ..Profile::default()
    }
}
