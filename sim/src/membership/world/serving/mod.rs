//! Members that serve models: each has an assigner beside its membership, loads from its disk, and takes requests.
//!
//! * `hosting`: what a machine loads and computes. `requests`: from a client to an entry node to a host, and what is done
//!   when one of them fails. `clients`: passive ones.
//! * `book`: what really happened, for the oracles. `oracle`: what must hold, one invariant a file.

mod book;
mod clients;
mod hosting;
mod oracle;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use node::PeerId;
use node::assign::{Action, Assigner, Config, Notice};
use node::membership::{Caps, Event, Input, Load, Offer, Profile, State, Topic};
use node::routing::table::Table;

pub(in crate::membership) use self::oracle::violations;

use self::book::Book;
use self::clients::Client;
use self::hosting::{Run, Speed};
use self::requests::Request;
use super::{Happening, SECOND_NS, World};
use crate::membership::serving::{Served, Serving as Spec, ServingSabotage};
use crate::membership::truth;
use crate::seed::{Draws, Seed};

/// The demand map is added up anew this often.
const DEMAND_NS: u64 = 5 * SECOND_NS;

/// What is due.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Due {
    /// An assigner wants to decide.
    Decide(u32),
    /// A model is in memory, if that is still the number of the load.
    Loaded { host: u32, model: u32, number: u64 },
    /// An entry node looks for a host.
    Route { request: u64, attempt: u32 },
    /// It is at the host.
    Arrive { request: u64, attempt: u32, host: u32 },
    /// The host has computed the first token, or all.
    First { request: u64, attempt: u32 },
    /// See `First`.
    Done { request: u64, attempt: u32 },
    /// The entry node gives up on the host.
    Broken { request: u64, attempt: u32 },
    /// The client gives up on the entry node.
    EntryLost { request: u64, attempt: u32 },
    /// A client looks whether its table is still right.
    Poll(u32),
    /// Hosts of a model die.
    Kill(usize),
    /// One of them starts again.
    Restart(u32),
    /// What really happens is written down.
    Look,
}

/// A machine, whether a process runs on it or not.
#[derive(Debug)]
struct Machine {
    profile: Profile,
    kind: usize,
    /// Its owner's choice.
    pinned: Option<u32>,
}

/// What a process has in memory.
#[derive(Debug)]
pub(super) struct Host {
    assigner: Assigner,
    /// Numbers of loads that are under way, by model.
    loading: BTreeMap<u32, u64>,
    /// Models whose layers it holds for a group.
    enlisted: BTreeMap<u32, bool>,
    running: BTreeMap<u64, Run>,
    waiting: VecDeque<u64>,
    /// Requests that it has sent as an entry node, and when.
    sent: VecDeque<(u64, u32)>,
    /// Hosts that failed it, until when they are tried last.
    doubted: BTreeMap<u32, u64>,
    wake: Option<u64>,
    demand_at: u64,
    began_ns: u64,
    /// It says that it serves all that lies on its disk.
    pretends: bool,
    /// The table it gives to clients, and when it was made.
    table: Option<(u64, Table)>,
}

/// Everything of it.
#[derive(Debug)]
pub(super) struct Serving {
    spec: Spec,
    sabotage: Option<ServingSabotage>,
    config: Config,
    offers: Vec<Offer>,
    speeds: Vec<Vec<Speed>>,
    machines: Vec<Machine>,
    hosts: Vec<Option<Host>>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    next_load: u64,
    clients: Vec<Client>,
    book: Book,
    draws: Draws,
    seed: Seed,
}

impl Serving {
    pub(super) fn new(spec: &Spec, members: usize, seed: Seed, sabotage: Option<ServingSabotage>) -> Self {
        let (models, devices) = spec.catalogued();
        let mut draws = seed.fork("machines").draws();
        let offer = |(i, model): (usize, &planner::model::Model)| {
            Offer::of(truth::name(i as u32), [i as u8; 32], model)
        };
        let offers: Vec<Offer> = models.iter().enumerate().map(offer).collect();
        let machine = |i: usize| machine(i, spec, &offers, &devices, &mut draws);
        let machines: Vec<Machine> = (0..members).map(machine).collect();
        let speed = |device| models.iter().map(|model| Speed::of(model, device, spec)).collect();
        Self {
            sabotage,
            config: config(sabotage),
            speeds: devices.iter().map(speed).collect(),
            hosts: (0..members).map(|_| None).collect(),
            requests: BTreeMap::new(),
            next_request: 0,
            next_load: 0,
            clients: clients::all(spec, members, &mut draws),
            book: Book::new(models.len()),
            draws: seed.fork("requests").draws(),
            seed: seed.fork("assigners"),
            spec: spec.clone(),
            offers,
            machines,
        }
    }

    pub(super) fn profile(&self, i: u32) -> Profile {
        self.machines[i as usize].profile.clone()
    }

    /// The model of that name.
    fn number(&self, name: &str) -> Option<u32> {
        self.offers.iter().position(|offer| offer.name == name).map(|i| i as u32)
    }

    /// Models that requests are for after the shifts up to now.
    pub(super) fn shifted(&self, now_ns: u64, model: u32) -> u32 {
        let past = self.spec.shifts.iter().filter(|shift| shift.at_s * 1e9 <= now_ns as f64);
        let by: u32 = past.map(|shift| shift.by).sum();
        (model + by) % self.offers.len() as u32
    }

    pub(super) fn outcome(&self, seconds: f64) -> Served {
        self.book.outcome(seconds, self.spec.clients)
    }
}

fn config(sabotage: Option<ServingSabotage>) -> Config {
    let never = Duration::from_secs(1_000_000);
    let mut config = Config::default();
    match sabotage {
        Some(ServingSabotage::Stampede) => {
            (config.confirm, config.confirm_each, config.patience) =
                (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        }
        Some(ServingSabotage::NobodyComes) => (config.settle, config.settle_asked) = (never, never),
        Some(ServingSabotage::Restless) => {
            (config.hot, config.aim, config.cool) = (0.11, 0.1, 0.1);
            (config.hot_rest, config.spread) = (Duration::ZERO, Duration::ZERO);
            (config.cool_rest, config.stay) = (Duration::ZERO, Duration::ZERO);
        }
        _ => {}
    }
    config
}

/// Every machine has at least one model that fits it, if any does; the first ones have all.
fn machine(
    i: usize,
    spec: &Spec,
    offers: &[Offer],
    devices: &[planner::fleet::Device],
    draws: &mut Draws,
) -> Machine {
    let kind = i % devices.len();
    let device = devices[kind].clone();
    let is_there: Vec<bool> = offers.iter().map(|_| draws.unit() < spec.on_disk || i < 2).collect();
    let one = (draws.bits() % offers.len() as u64) as usize;
    let on_disk = |(model, _): &(usize, &Offer)| is_there[*model] || *model == one;
    let models: Vec<(usize, Offer)> =
        offers.iter().enumerate().filter(on_disk).map(|(model, offer)| (model, offer.clone())).collect();
    let is_pinned = draws.unit() < spec.pinned;
    let fits = |(_, offer): &&(usize, Offer)| offer.weight_bytes + (2 << 30) < device.usable_bytes();
    let pinned = models.iter().find(fits).filter(|_| is_pinned).map(|(model, _)| *model as u32);
    let caps = Caps {
        sessions: spec.sessions,
        queue: spec.queue,
        memory_bytes: device.usable_bytes(),
        takes_models: pinned.is_none(),
    };
    let profile = Profile {
        name: format!("machine-{i}"),
        addresses: vec![format!("/ip4/10.0.{}.{}/udp/9338/quic-v1", i / 250, i % 250)],
        devices: vec![device],
        models: models.into_iter().map(|(_, offer)| offer).collect(),
        caps,
        links: Vec::new(),
    };
    Machine { profile, kind, pinned }
}

impl World {
    pub(super) fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("only a mesh that serves has anything due of it")
    }

    pub(super) fn serving_mut(&mut self) -> &mut Serving {
        self.serving.as_mut().expect("only a mesh that serves has anything due of it")
    }

    fn push_due(&mut self, at_ns: u64, due: Due) {
        self.push(at_ns.max(self.now_ns + 1), Happening::Serving(due));
    }

    /// What is to happen from the start.
    pub(super) fn set_up_serving(&mut self) {
        let Some(serving) = &self.serving else { return };
        let kills: Vec<u64> = serving.spec.kills.iter().map(|kill| (kill.at_s * 1e9) as u64).collect();
        for (number, at_ns) in kills.into_iter().enumerate() {
            self.push_due(at_ns, Due::Kill(number));
        }
        for client in 0..self.serving().clients.len() as u32 {
            let at_ns = (self.serving_mut().draws.unit() * clients::POLL_NS as f64) as u64;
            self.push_due(at_ns, Due::Poll(client));
        }
        self.push_due(0, Due::Look);
    }

    pub(super) fn serve(&mut self, due: Due) {
        match due {
            Due::Decide(i) => self.decide(i),
            Due::Loaded { host, model, number } => self.loaded(host, model, number),
            Due::Route { request, attempt } => self.route(request, attempt),
            Due::Arrive { request, attempt, host } => self.arrive(request, attempt, host),
            Due::First { request, attempt } => self.first_token(request, attempt),
            Due::Done { request, attempt } => self.answered(request, attempt),
            Due::Broken { request, attempt } => self.host_lost(request, attempt),
            Due::EntryLost { request, attempt } => self.entry_lost(request, attempt),
            Due::Poll(client) => self.poll(client),
            Due::Kill(number) => self.kill_hosts(number),
            Due::Restart(i) => self.restart(i),
            Due::Look => self.look(),
        }
    }

    /// A process begins: it has nothing in memory.
    pub(super) fn serving_begins(&mut self, i: u32) {
        let now = self.members[i as usize].clock.local(self.now_ns);
        let now_ns = self.now_ns;
        let Some(serving) = &mut self.serving else { return };
        let machine = &serving.machines[i as usize];
        let seed = serving.seed.fork_index(u64::from(i)).fork_index(now_ns).value();
        let me = PeerId::from_index(i);
        let mut assigner = Assigner::new(me, machine.profile.clone(), serving.config, seed, now);
        let mut loading = None;
        if let Some(model) = machine.pinned {
            assigner.pin(now, &serving.offers[model as usize].name);
            loading = Some(model);
        }
        serving.hosts[i as usize] = Some(Host {
            assigner,
            loading: BTreeMap::new(),
            enlisted: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            doubted: BTreeMap::new(),
            wake: None,
            demand_at: 0,
            began_ns: now_ns,
            pretends: false,
            table: None,
        });
        if let Some(model) = loading {
            self.load_model(i, model, 1.0);
        }
        self.wake_assigner(i);
    }

    /// What a process had in memory is gone with it; those who had to do with it notice.
    pub(super) fn serving_ends(&mut self, i: u32) {
        if self.serving.is_none() || self.serving_mut().hosts[i as usize].take().is_none() {
            return;
        }
        self.regroup_all();
        self.drop_requests(i, requests::RESET_NS);
        self.note_supply(Some(i));
    }

    /// A process has heard something of another.
    pub(super) fn serving_hears(&mut self, i: u32, event: &Event) {
        let Some(serving) = &mut self.serving else { return };
        let Some(host) = &mut serving.hosts[i as usize] else { return };
        let member = &self.members[i as usize];
        let now = member.clock.local(self.now_ns);
        let Some(process) = &member.process else { return };
        let process = process.look();
        match event {
            Event::Down(peer) => host.assigner.gone(now, *peer),
            Event::Up(peer)
            | Event::Restarted(peer)
            | Event::Changed(peer, Topic::Profile | Topic::State) => {
                // Of a new life only what it says itself counts.
                if let (Some(profile), Some(state)) = (process.profile(*peer), process.state(*peer)) {
                    host.assigner.see(now, *peer, profile, state);
                }
            }
            _ => return,
        }
        drop(process);
        self.clients_hear(i);
        self.wake_assigner(i);
    }

    fn wake_assigner(&mut self, i: u32) {
        let clock = self.members[i as usize].clock;
        let now_ns = self.now_ns;
        let Some(host) = self.serving_mut().hosts[i as usize].as_mut() else { return };
        let at_ns = clock.global(host.assigner.next_due()).max(now_ns + 1);
        if host.wake.is_none_or(|wake| wake > at_ns || wake <= now_ns) {
            host.wake = Some(at_ns);
            self.push_due(at_ns, Due::Decide(i));
        }
    }

    fn decide(&mut self, i: u32) {
        let member = &self.members[i as usize];
        let now = member.clock.local(self.now_ns);
        let Some(process) = member.process.as_ref() else { return };
        let process = process.look();
        let now_ns = self.now_ns;
        let Some(serving) = &mut self.serving else { return };
        let Some(host) = serving.hosts[i as usize].as_mut().filter(|host| host.wake == Some(now_ns)) else {
            return;
        };
        host.wake = None;
        if member.paused.is_some() {
            drop(process);
            host.wake = Some(now_ns + SECOND_NS);
            return self.push_due(now_ns + SECOND_NS, Due::Decide(i));
        }
        if host.demand_at <= now_ns {
            host.demand_at = now_ns + DEMAND_NS;
            host.assigner.demand(&process.demand(now));
        }
        drop(process);
        let actions = host.assigner.decide(now);
        for action in actions {
            self.act(i, action);
        }
        self.tell(i);
        self.wake_assigner(i);
    }

    fn act(&mut self, i: u32, action: Action) {
        let (Action::Serve(name) | Action::Enlist(name) | Action::Retire(name)) = &action;
        let Some(model) = self.serving().number(name) else { return };
        match action {
            Action::Serve(_) => self.load_model(i, model, 1.0),
            Action::Enlist(_) => self.enlist(i, model),
            Action::Retire(_) => self.retire(i, model),
        }
    }

    /// What a member says of itself, from what it does.
    fn tell(&mut self, i: u32) {
        let now = self.members[i as usize].clock.local(self.now_ns);
        let Some(host) = self.serving_mut().hosts[i as usize].as_mut() else { return };
        let load = host.load();
        let sessions = host.by_model();
        host.assigner.load(now, load, &sessions);
        let (mut served, claims) = (host.assigner.served(), host.assigner.claims());
        if host.pretends {
            served =
                self.serving().machines[i as usize].profile.models.iter().map(|o| o.name.clone()).collect();
        }
        self.input(i, Input::State(State { served, claims, load, ..State::default() }));
    }

    /// A member says that it serves, or ends to say so. It loads nothing more, since it seems to do so already.
    pub(in crate::membership::world) fn pretend(&mut self, i: u32, pretends: bool) {
        if self.serving.is_none() {
            return;
        }
        if let Some(host) = self.serving_mut().hosts[i as usize].as_mut() {
            host.pretends = pretends;
        }
        self.tell(i);
    }

    /// A model can be asked for at that member, or no longer.
    fn notice(&mut self, i: u32, model: u32, answers: bool) {
        let now = self.members[i as usize].clock.local(self.now_ns);
        let serving = self.serving_mut();
        let name = serving.offers[model as usize].name.clone();
        if let Some(host) = serving.hosts[i as usize].as_mut() {
            let notice = if answers { Notice::Ready(&name) } else { Notice::Waits(&name) };
            host.assigner.notice(now, notice);
        }
        self.tell(i);
        self.wake_assigner(i);
    }

    /// All hosts of a model die at once, or some of them; never the first member, by which others join.
    fn kill_hosts(&mut self, number: usize) {
        let kill = self.serving().spec.kills[number];
        let serves = |i: &u32| self.serves(*i, kill.model) && *i != 0;
        let hosts: Vec<u32> = (0..self.members.len() as u32).filter(serves).collect();
        let count = kill.hosts.map_or(hosts.len(), |hosts| hosts as usize);
        for i in hosts.into_iter().take(count) {
            self.stop(i, "crash", &[]);
            if let Some(for_s) = kill.for_s {
                self.push_due(self.now_ns + (for_s * 1e9) as u64, Due::Restart(i));
            }
        }
    }

    fn restart(&mut self, i: u32) {
        self.begin_again("restart", i);
    }

    /// Whether that member answers for the model, in truth.
    fn serves(&self, i: u32, model: u32) -> bool {
        let serving = self.serving();
        let name = &serving.offers[model as usize].name;
        let host = serving.hosts[i as usize].as_ref().filter(|_| self.members[i as usize].is_running());
        host.is_some_and(|host| !host.pretends && host.assigner.served().contains(name))
    }
}

impl Host {
    fn load(&self) -> Load {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Load { sessions: count(self.running.len()), waiting: count(self.waiting.len()) }
    }
}
