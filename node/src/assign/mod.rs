//! Which machine serves which model: each decides for itself, from what all say of themselves and what is asked for, so
//! that exactly one comes forward for each need. Without input, output or clock.
//!
//! An [`Assigner`] is told what the others are and do ([`see`](Assigner::see), [`gone`](Assigner::gone)), what is asked
//! for, and what became of its actions; when it is due it [`decide`](Assigner::decide)s. What it says of itself
//! ([`served`](Assigner::served), [`claims`](Assigner::claims)) goes into this machine's own `State` record.
//!
//! * `config`: periods and bounds. `names`: models by number.
//! * `seat`: one member; how it ranks. `board`: all of them; what there is of each model, who is first.
//! * `doubt`: hosts that say they serve and do not.
//! * `alone`: coming forward for a model that fits this machine, giving way, stepping back.
//! * `group`: models that fit nobody alone.
//!
//! `docs/assignment.md` says how it decides, what bounds it, and what a liar can and cannot do.

mod alone;
mod board;
mod config;
mod doubt;
mod group;
mod names;
mod seat;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::config::Config;

use self::board::{Board, Supply};
use self::config::WANTS_MAX;
use self::doubt::Doubts;
use self::names::ModelId;
use crate::clock::Instant;
use crate::demand::DemandMap;
use crate::ids::PeerId;
use crate::membership::{CLAIMS_MAX, Claim, Intent, Load, Profile, SERVED_MAX, State, mix};

/// What this machine is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Load the model and answer for it, alone. Say [`Notice::Ready`] or [`Notice::Failed`].
    Serve(String),
    /// Be one of the [`group`](Assigner::group) that serves the model. Say [`Notice::Ready`] when the group answers.
    Enlist(String),
    /// Stop: let what runs finish, or go on elsewhere, and free the memory before anything else is loaded.
    Retire(String),
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The model can be asked for here.
    Ready(&'a str),
    /// It could not be loaded, or has broken.
    Failed(&'a str),
    /// The group has lost a part and does not answer just now.
    Waits(&'a str),
}

/// What this machine does about a model.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// It says that it will.
    Claiming { since: Instant },
    /// It loads, because so many replicas were wanted.
    Loading { since: Instant, wanted: u32 },
    /// It answers.
    Serving { since: Instant },
    /// It says that it will stop, and takes no new requests once `is_sure`.
    Leaving { since: Instant, is_sure: bool },
    /// It is of the group, or will be once `is_sure`; `unneeded`: since when the group can do without it.
    Enlisted { since: Instant, is_sure: bool, answers: bool, unneeded: Option<Instant> },
}

#[derive(Debug, Clone, PartialEq)]
struct Service {
    /// Its owner's choice.
    is_pinned: bool,
    phase: Phase,
    /// Time it takes to load, as far as is known.
    loading: Duration,
    /// Sessions and waiting requests here.
    sessions: u32,
}

/// One machine's part in the assignment.
#[derive(Debug)]
pub struct Assigner {
    me: PeerId,
    config: Config,
    board: Board,
    profile: Profile,
    services: BTreeMap<String, Service>,
    load: Load,
    /// Models that somebody waits for here, and since when not.
    wants: BTreeMap<String, Instant>,
    /// Needs and low uses, since when they are seen.
    seen: BTreeMap<(String, Sign), Instant>,
    /// When the replicas of a model changed last, and how many there were.
    spread: BTreeMap<String, (u32, Instant)>,
    started: Instant,
    due: Instant,
    draws: u64,
    known: Option<(Instant, Arc<[Supply]>)>,
    doubts: Doubts,
}

/// What is seen for some time before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    /// One more replica than needed is kept ready.
    Warm,
    /// Nobody serves it, and nobody asks.
    Cold,
    /// Somebody says that it serves it, and several say that they wait all the same.
    Doubted,
    /// Its hosts are busy.
    Hot,
    /// Nobody serves it, and somebody asks.
    Unserved,
    /// Its hosts have little to do.
    Cool,
}

impl Assigner {
    /// A machine that serves nothing yet. `seed` spreads the times at which machines look.
    pub fn new(me: PeerId, profile: Profile, config: Config, seed: u64, now: Instant) -> Self {
        let mut assigner = Self {
            me,
            config,
            board: Board::default(),
            profile,
            services: BTreeMap::new(),
            load: Load::default(),
            wants: BTreeMap::new(),
            seen: BTreeMap::new(),
            spread: BTreeMap::new(),
            started: now,
            due: now,
            draws: seed,
            known: None,
            doubts: Doubts::default(),
        };
        assigner.refresh(now);
        assigner
    }

    /// This machine's profile has changed.
    pub fn profile(&mut self, now: Instant, profile: Profile) {
        self.profile = profile;
        self.refresh(now);
        self.due = self.due.min(now.after(self.config.debounce));
    }

    /// Its owner wants it to serve `model`, whatever the mesh needs. [`Notice::Ready`] says when it does.
    pub fn pin(&mut self, now: Instant, model: &str) {
        let phase = Phase::Loading { since: now, wanted: u32::MAX };
        let loading = self.loading_time(model);
        let service = Service { is_pinned: true, phase, loading, sessions: 0 };
        self.services.insert(model.to_owned(), service);
        self.refresh(now);
    }

    /// Another member is and does this.
    pub fn see(&mut self, now: Instant, peer: PeerId, profile: &Profile, state: &State) {
        if peer == self.me {
            return;
        }
        self.known = None;
        if self.board.see(now, peer, profile, state) {
            self.due = self.due.min(now.after(self.config.debounce));
        }
    }

    /// Another member has left or is dead.
    pub fn gone(&mut self, now: Instant, peer: PeerId) {
        if peer != self.me && self.board.gone(peer) {
            self.known = None;
            self.due = self.due.min(now.after(self.config.debounce));
        }
    }

    /// How busy this machine is, and with how many requests for each model.
    pub fn load(&mut self, now: Instant, load: Load, sessions: &BTreeMap<String, u32>) {
        self.load = load;
        for (model, service) in &mut self.services {
            service.sessions = sessions.get(model).copied().unwrap_or(0);
        }
        self.refresh(now);
    }

    /// Somebody asked here for `model`, which nobody serves. Names that nobody offers are not kept.
    pub fn wanted(&mut self, now: Instant, model: &str) {
        let is_offered = self.board.names.find(model).is_some();
        let is_known = self.wants.contains_key(model);
        if is_offered && (is_known || self.wants.len() < WANTS_MAX) {
            self.wants.insert(model.to_owned(), now);
            if !is_known {
                self.refresh(now);
                self.due = self.due.min(now.after(self.config.debounce));
            }
        }
    }

    /// A request for `model` that this machine sent to `host` was not answered: it was told that the model is not served
    /// there, or nothing came. Not to be said of a host that is full. Three such within a minute and over three seconds,
    /// without an answer between them, and the host is not believed here that it serves the model, for a minute, twice as
    /// long each time.
    pub fn failed(&mut self, now: Instant, host: PeerId, model: &str) {
        if host != self.me && self.doubts.failed(now, host, model) {
            self.known = None;
            self.due = self.due.min(now.after(self.config.debounce));
        }
    }

    /// One was answered, at least in part: whatever was held against the host for that model is forgotten.
    pub fn answered(&mut self, host: PeerId, model: &str) {
        self.doubts.answered(host, model);
    }

    /// Whether that host is not believed here that it serves the model: requests should go elsewhere, and where nobody
    /// else serves it, it is [`wanted`](Self::wanted).
    pub fn is_doubted(&self, now: Instant, host: PeerId, model: &str) -> bool {
        self.doubts.is_doubted(now, host, model)
    }

    /// Requests per second, over the mesh.
    pub fn demand(&mut self, demand: &DemandMap) {
        self.known = None;
        self.board.hear_demand(demand);
    }

    /// What became of an action.
    pub fn notice(&mut self, now: Instant, notice: Notice<'_>) {
        match notice {
            Notice::Ready(model) => {
                if let Some(service) = self.services.get_mut(model) {
                    match &mut service.phase {
                        Phase::Enlisted { answers, .. } => *answers = true,
                        phase => *phase = Phase::Serving { since: now },
                    }
                }
            }
            Notice::Waits(model) => {
                if let Some(Service { phase: Phase::Enlisted { answers, .. }, .. }) =
                    self.services.get_mut(model)
                {
                    *answers = false;
                }
            }
            Notice::Failed(model) => {
                if self.services.remove(model).is_some() {
                    self.board.strike(now, self.me, model.to_owned(), &self.config);
                }
            }
        }
        self.refresh(now);
        self.due = self.due.min(now.after(self.config.debounce));
    }

    /// When it wants to decide next, at the latest.
    pub fn next_due(&self) -> Instant {
        self.due
    }

    /// What is to be done now, in this order.
    pub fn decide(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.due = now.after(self.jittered(self.config.rest));
        self.forget_wants(now);
        self.board.notice_expired(now, self.me, &self.config);
        self.watch(now);
        self.go_on(now, &mut actions);
        self.go_on_in_groups(now, &mut actions);
        self.step_back(now);
        self.come_forward(now);
        self.enlist(now);
        actions
    }

    /// Models that this machine answers for, for its `State`.
    pub fn served(&self) -> Vec<String> {
        let answers = |service: &Service| match service.phase {
            Phase::Serving { .. } | Phase::Leaving { .. } => true,
            Phase::Enlisted { answers, .. } => answers,
            Phase::Claiming { .. } | Phase::Loading { .. } => false,
        };
        let served = self.services.iter().filter(|(_, service)| answers(service));
        served.map(|(model, _)| model.clone()).take(SERVED_MAX).collect()
    }

    /// What it is about to do, for its `State`.
    pub fn claims(&self) -> Vec<Claim> {
        let claim = |model: &String, intent, ready_s| Claim { model: model.clone(), intent, ready_s };
        let mut claims = Vec::new();
        for (model, service) in &self.services {
            let ready_s = service.loading.as_secs_f64().ceil().min(f64::from(u16::MAX)) as u16;
            if service.is_pinned {
                claims.push(claim(model, Intent::Pins, ready_s));
            }
            let intent = match service.phase {
                Phase::Claiming { .. } => Intent::Claims,
                Phase::Loading { .. } if !service.is_pinned => Intent::Loads,
                Phase::Leaving { .. } => Intent::Leaves,
                Phase::Enlisted { .. } => Intent::Enlists,
                Phase::Loading { .. } | Phase::Serving { .. } => continue,
            };
            claims.push(claim(model, intent, ready_s));
        }
        let wants = self.wants.keys().map(|model| claim(model, Intent::Wants, 0));
        claims.extend(wants);
        claims.truncate(CLAIMS_MAX);
        claims
    }

    /// The members of the group for `model`, as far as this one knows: over exactly these its layers are planned.
    pub fn group(&self, model: &str) -> Vec<PeerId> {
        let Some(id) = self.board.names.find(model) else { return Vec::new() };
        let enlists = self.board.seats.iter().filter(|(_, seat)| seat.says(id, Intent::Enlists));
        enlists.map(|(peer, _)| *peer).collect()
    }

    /// Members that are known, this one included, and models that are told apart: to be watched.
    pub fn size(&self) -> (usize, usize) {
        (self.board.seats.len(), self.board.names.len())
    }

    /// Puts what this machine says onto the board, as others will see it.
    fn refresh(&mut self, now: Instant) {
        let state =
            State { served: self.served(), claims: self.claims(), load: self.load, ..State::default() };
        self.known = None;
        self.board.see(now, self.me, &self.profile, &state);
    }

    /// What there is of each model; added up once for each time and situation.
    fn supply(&mut self, now: Instant) -> Arc<[Supply]> {
        if let Some((_, all)) = self.known.as_ref().filter(|(at, _)| *at == now) {
            return Arc::clone(all);
        }
        let all: Arc<[Supply]> = self.board.supply(now, &self.config, &self.doubts).into();
        self.known = Some((now, Arc::clone(&all)));
        all
    }

    /// Models on this machine's disk that are known well enough, by number and name.
    fn own_models(&self) -> Vec<(ModelId, String)> {
        let known = self.profile.models.iter();
        let known = known.filter_map(|offer| Some((self.board.names.find(&offer.name)?, offer.name.clone())));
        known.filter(|(id, _)| self.board.seats[&self.me].need(*id).is_some()).collect()
    }

    fn loading_time(&self, model: &str) -> Duration {
        let id = self.board.names.find(model);
        let seat = self.board.seats.get(&self.me);
        let need = seat.and_then(|seat| seat.need(id?));
        need.zip(seat).map_or(Duration::ZERO, |(need, seat)| seat.loading(need.weights))
    }

    fn is_busy_loading(&self) -> bool {
        let is = |phase: &Phase| matches!(phase, Phase::Claiming { .. } | Phase::Loading { .. });
        self.services.values().any(|service| is(&service.phase))
    }

    /// A want ends when the model is served, or when nobody has asked for a while.
    fn forget_wants(&mut self, now: Instant) {
        if self.wants.is_empty() {
            return;
        }
        let (board, config, doubts) = (&self.board, &self.config, &self.doubts);
        let is_served = |model: &str| {
            let serves = |id| {
                board
                    .seats
                    .iter()
                    .any(|(peer, seat)| seat.serves(id) && !doubts.is_doubted(now, *peer, model))
            };
            board.names.find(model).is_some_and(serves)
        };
        let before = self.wants.len();
        self.wants.retain(|model, last| now.since(*last) < config.wants && !is_served(model));
        if self.wants.len() != before {
            self.refresh(now);
        }
    }

    /// Since when a sign is seen; forgotten when it is not.
    fn sees(&mut self, now: Instant, model: &str, sign: Sign, is_seen: bool) -> Option<Duration> {
        let key = (model.to_owned(), sign);
        if !is_seen {
            self.seen.remove(&key);
            return None;
        }
        Some(now.since(*self.seen.entry(key).or_insert(now)))
    }

    /// Notes when the number of replicas of a model on this disk changes.
    fn watch(&mut self, now: Instant) {
        let all = self.supply(now);
        let models = self.own_models();
        for (id, model) in &models {
            let replicas = all[*id as usize].serving;
            let known = self.spread.entry(model.clone()).or_insert((replicas, now));
            if known.0 != replicas {
                *known = (replicas, now);
            }
        }
        let is_own = |model: &String| models.iter().any(|(_, own)| own == model);
        self.spread.retain(|model, _| is_own(model));
        self.seen.retain(|(model, _), _| is_own(model));
    }

    /// Between nine and eleven tenths of it.
    fn jittered(&mut self, period: Duration) -> Duration {
        self.draws = mix(self.draws.wrapping_add(1));
        period.mul_f64(0.9 + 0.2 * (self.draws >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// It wants to be called then.
    fn call_at(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }
}
