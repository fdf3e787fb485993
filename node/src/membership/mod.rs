//! Who is in the mesh, and what each of them says of itself: without input or output, so that the same code runs by the
//! thousand in a simulation and behind a real transport.
//!
//! A [`Membership`] takes [`Input`]s and the time, and gives packets to send, [`Event`]s, and when it wants to be called
//! next. The transport must say truthfully who has sent a packet; packets may be lost, doubled, late or out of order.
//!
//! * `swim`: who lives: probes, suspicion, updates that travel with them. The only place that names `foca`.
//! * `item`, `record`: what a member says of itself, signed and versioned, by topic.
//! * `table`, `digest`: everybody, and what is known of them in a few numbers.
//! * `rumours`: items that are being passed on.
//! * `doubting`: members that are suspected. `standing`: what is held against liars; `lying`: what these send.
//! * `hearing`, `speaking`, `mending`, `telling`: packets in, packets out, gaps found by digests, what is said of oneself.
//! * `coordinate`: round trips between any two.
//! * `packet`, `bytes`: what goes over the wire.
//!
//! `docs/membership.md` says why it is so, what it costs and how each part is bounded.

mod bytes;
mod config;
mod coordinate;
mod digest;
mod doubting;
mod hearing;
mod item;
pub mod lying;
mod mending;
mod packet;
mod record;
mod rumours;
mod speaking;
mod standing;
mod swim;
mod table;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

pub use self::config::Config;
pub use self::coordinate::Coordinate;
pub use self::item::{BODY_MAX, Content, Item, ItemError, Known, Life, Topic, Trust, Version};
pub use self::packet::PACKET_MAX;
pub use self::record::{
    ADDRESSES_MAX, Abilities, CLAIMS_MAX, Caps, Claim, DEVICES_MAX, Fingerprint, Held, Intent, LINKS_MAX,
    Link, Load, MODELS_MAX, NAME_MAX, Offer, Profile, SERVED_MAX, State,
};

pub(crate) use self::item::mix;
pub(crate) use self::packet::short;

use self::coordinate::Point;
use self::doubting::Look;
use self::item::TOPICS;
use self::packet::Short;
use self::rumours::Rumours;
use self::standing::Standings;
use self::swim::{Id, Message, Swim, Timer};
use self::table::{ME, Table};
use crate::clock::Instant;
use crate::demand::{Counter, DemandMap, decay};
use crate::ids::PeerId;

/// What happens to a member.
#[derive(Debug)]
pub enum Input<'a> {
    /// These may be members already: ask them in.
    Join(&'a [PeerId]),
    /// `from` has sent this, as the transport has made sure.
    Packet {
        /// Who.
        from: PeerId,
        /// What.
        bytes: &'a [u8],
    },
    /// It is the time that was wished for, or later.
    Tick,
    /// This member now is this.
    Profile(Profile),
    /// It now does this. Its coordinate is filled in.
    State(State),
    /// Somebody asked this member for a model.
    Asked(&'a str),
    /// A round trip that somebody else measured here.
    Measured(PeerId, Duration),
    /// There is a reason to doubt that it lives: a stream to it broke.
    Unreachable(PeerId),
    /// This member will end.
    Leave,
}

/// What others should know of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is there, and its profile is known.
    Up(PeerId),
    /// It has left or is dead.
    Down(PeerId),
    /// It is there in a new life: what it held before is gone.
    Restarted(PeerId),
    /// It says something new.
    Changed(PeerId, Topic),
    /// An item of `owner` that `by` passed on is not believed.
    Refused {
        /// Who passed it on, or this member itself.
        by: PeerId,
        /// Whose it claims to be.
        owner: PeerId,
        /// Why.
        why: ItemError,
    },
    /// What it sent cannot be read.
    Garbled(PeerId),
    /// Others held this member for dead; it has told them that it lives.
    Revived,
    /// It has lied so often that what it says of others is not believed here, until it is some time without lies.
    Distrusted(PeerId),
}

/// What is to be done. The caller empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Packets to send, and to whom.
    pub packets: Vec<(PeerId, Vec<u8>)>,
    /// What has changed.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq)]
enum Task {
    Swim(Timer),
    Gossip,
    Knock,
    Bulk,
    Publish(Topic),
    Demand,
    Revive,
    /// Whom, and which question of it.
    Look(u32, u64),
    Farewell(u8),
}

/// The last ping that was sent.
#[derive(Debug, Clone, Copy)]
struct Ping {
    to: Id,
    number: u8,
    at: Instant,
}

/// One member of the mesh.
#[derive(Debug)]
pub struct Membership<T> {
    trust: T,
    config: Config,
    me: PeerId,
    rng: ChaCha8Rng,
    swim: Swim,
    table: Table,
    rumours: Rumours,
    tasks: BTreeMap<(Instant, u64), Task>,
    next_task: u64,
    /// Tasks of which there is at most one.
    has_gossip: bool,
    has_bulk: bool,
    has_demand: bool,
    publishes: [bool; TOPICS],
    seeds: Vec<PeerId>,
    knocks: u32,
    /// Messages of the failure detector that wait to be put into packets.
    pending: Vec<(Id, Message)>,
    /// This life's, as the failure detector has it.
    incarnation: u16,
    ping: Option<Ping>,
    /// Members that are being looked into, by slot.
    looks: BTreeMap<u32, Look>,
    standings: Standings,
    point: Point,
    mean_round_trip_us: f64,
    /// Measured round trips, microseconds, and when: the latest of a few hundred peers.
    links: BTreeMap<PeerId, (f64, Instant)>,
    counter: Counter,
    profile: Profile,
    state: State,
    published: [Option<Instant>; TOPICS],
    /// When the coordinate may be told next, and how often it was.
    coordinate_at: Option<Instant>,
    coordinates_told: u32,
    changed: Instant,
    synced: Instant,
    revived: Option<Instant>,
    learnt: u32,
    /// What was asked of or told to whom when, so that nobody is asked in every packet.
    limits: BTreeMap<(Short, u8), Instant>,
    left: bool,
    paced_for: usize,
}

impl<T: Trust> Membership<T> {
    /// A mesh of one. `life` must be later than those of earlier runs under this key; `seed` gives all its randomness.
    pub fn new(me: PeerId, life: Life, trust: T, config: Config, seed: u64, now: Instant) -> Self {
        let mut member = Self {
            swim: Swim::new(Id { slot: ME, life }, &config.pace(1), seed ^ SWIM_SEED),
            table: Table::new(me, life),
            rng: ChaCha8Rng::seed_from_u64(seed),
            trust,
            config,
            me,
            rumours: Rumours::default(),
            tasks: BTreeMap::new(),
            next_task: 0,
            has_gossip: false,
            has_bulk: false,
            has_demand: false,
            publishes: [false; TOPICS],
            seeds: Vec::new(),
            knocks: 0,
            pending: Vec::new(),
            incarnation: 0,
            ping: None,
            looks: BTreeMap::new(),
            standings: Standings::new(config.lies),
            point: Point::default(),
            mean_round_trip_us: 0.0,
            links: BTreeMap::new(),
            counter: Counter::default(),
            profile: Profile::default(),
            state: State::default(),
            published: [None; TOPICS],
            coordinate_at: None,
            coordinates_told: 0,
            changed: now,
            synced: Instant(0),
            revived: None,
            learnt: 0,
            limits: BTreeMap::new(),
            left: false,
            paced_for: 1,
        };
        let knock = member.jittered(member.config.knock);
        member.schedule(now.after(knock), Task::Knock);
        member
    }

    /// Takes an input. What comes of it is added to `out`.
    pub fn on(&mut self, now: Instant, input: Input<'_>, out: &mut Outputs) {
        self.notice_stall(now);
        match input {
            Input::Tick => {}
            // Nobody speaks after the last word.
            _ if self.left => return,
            Input::Packet { from, bytes } => self.packet(now, from, bytes, out),
            Input::Join(seeds) => self.join(now, seeds, out),
            Input::Profile(profile) => self.tell_profile(now, profile, out),
            Input::State(state) => self.tell_state(now, state, out),
            Input::Asked(model) => self.count(now, model),
            Input::Measured(peer, round_trip) => self.measured(now, peer, round_trip),
            Input::Unreachable(peer) => self.doubt_peer(now, peer, out),
            Input::Leave => self.leave(now, out),
        }
        while let Some(entry) = self.tasks.first_entry().filter(|entry| entry.key().0 <= now) {
            let task = entry.remove();
            self.run(now, task, out);
        }
        self.absorb(now, out);
        self.flush(now, out);
        self.follow_size();
    }

    /// When it wants to be called next, at the latest.
    pub fn next_due(&self) -> Option<Instant> {
        self.tasks.first_key_value().map(|((at, _), _)| *at)
    }

    fn run(&mut self, now: Instant, task: Task, out: &mut Outputs) {
        match task {
            Task::Swim(timer) => self.swim_timer(now, timer, out),
            Task::Gossip => self.gossip(now),
            Task::Knock => self.knock(now, out),
            Task::Bulk => self.bulk(now, out),
            Task::Publish(topic) => {
                self.publishes[topic.index()] = false;
                self.publish_state(now, out);
            }
            Task::Demand => self.tell_demand(now, out),
            Task::Revive => self.revive(now, out),
            Task::Look(slot, turn) => self.look(now, slot, turn, out),
            Task::Farewell(times) => self.farewell(now, times),
        }
        self.absorb(now, out);
    }

    fn schedule(&mut self, at: Instant, task: Task) {
        self.next_task += 1;
        self.tasks.insert((at, self.next_task), task);
    }

    /// A process that stood still must not take that for the silence of others.
    fn notice_stall(&mut self, now: Instant) {
        let Some(due) = self.next_due() else { return };
        let late = now.since(due);
        if late > self.config.stall {
            let tasks = std::mem::take(&mut self.tasks);
            self.tasks = tasks.into_iter().map(|((at, n), task)| ((at.after(late), n), task)).collect();
            self.ping = None;
        }
    }

    /// Copies of updates follow the size of the mesh.
    fn follow_size(&mut self) {
        let members = self.table.alive();
        if members > self.paced_for + self.paced_for / 4 || members + members / 4 < self.paced_for {
            self.swim.set_pace(&self.config.pace(members));
            self.paced_for = members;
        }
    }

    /// Between three quarters and five quarters of it.
    fn jittered(&mut self, period: Duration) -> Duration {
        period.mul_f64(0.75 + 0.5 * self.rng.random::<f64>())
    }

    /// Whether it is time to do `what` for that member again; if so, it counts as done.
    fn may(&mut self, now: Instant, of: Short, what: u8, rest: Duration) -> bool {
        if self.limits.get(&(of, what)).is_some_and(|at| now.since(*at) < rest) {
            return false;
        }
        if self.limits.len() >= LIMITS_MAX {
            self.limits.retain(|_, at| now.since(*at) < rest);
            if self.limits.len() >= LIMITS_MAX {
                return false;
            }
        }
        self.limits.insert((of, what), now);
        true
    }

    /// This member's name.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// Its present life.
    pub fn life(&self) -> Life {
        self.table.me().life
    }

    /// Living members with a profile, this one included.
    pub fn members(&self) -> impl Iterator<Item = PeerId> {
        let is_member = |entry: &table::Entry| entry.peer == self.me || (entry.is_alive && entry.is_told);
        self.table.entries().filter(move |(_, entry)| is_member(entry)).map(|(_, entry)| entry.peer)
    }

    /// Whether it is one of them.
    pub fn is_member(&self, peer: PeerId) -> bool {
        let entry = self.table.slot(peer).and_then(|slot| self.table.get(slot));
        entry.is_some_and(|entry| peer == self.me || (entry.is_alive && entry.is_told))
    }

    /// How far that member is believed: 1 where nothing is held against it. Below a half, what it says of others is not.
    pub fn trust_of(&self, now: Instant, peer: PeerId) -> f64 {
        self.standings.trust(now, peer)
    }

    /// Everything that is kept of it under that topic, as it is passed on.
    pub fn known(&self, peer: PeerId, topic: Topic) -> Option<&Arc<Known>> {
        self.table.get(self.table.slot(peer)?)?.item(topic)
    }

    /// What that member is.
    pub fn profile(&self, peer: PeerId) -> Option<&Profile> {
        match &self.known(peer, Topic::Profile)?.content {
            Content::Profile(profile) => Some(profile),
            _ => None,
        }
    }

    /// What it does.
    pub fn state(&self, peer: PeerId) -> Option<&State> {
        match &self.known(peer, Topic::State)?.content {
            Content::State(state) => Some(state),
            _ => None,
        }
    }

    /// The round trip between two members: measured where this member is one of them and has measured it, else by their
    /// coordinates. `None` where nothing is known.
    pub fn round_trip(&self, a: PeerId, b: PeerId) -> Option<RoundTrip> {
        let other = if a == self.me { b } else { a };
        let is_ours = a == self.me || b == self.me;
        if let Some((us, _)) = self.links.get(&other).filter(|_| is_ours) {
            return Some(RoundTrip { us: *us, measured: true, error: 0.0 });
        }
        let (a, b) = (self.place(a)?, self.place(b)?);
        let error = a.error().max(b.error());
        (error < 1.0).then(|| RoundTrip { us: a.round_trip_us(b), measured: false, error })
    }

    fn place(&self, peer: PeerId) -> Option<Coordinate> {
        if peer == self.me {
            Some(self.point.written())
        } else {
            self.state(peer).map(|state| state.coordinate)
        }
    }

    /// Requests per second for each model, over the mesh, as far as this member knows.
    pub fn demand(&self, now: Instant) -> DemandMap {
        let own = self.counter.report(now);
        let others = self.table.entries().filter(|(slot, _)| *slot != ME).filter_map(|(_, entry)| {
            let Content::Demand(report) = &entry.item(Topic::Demand)?.content else { return None };
            let left = entry.died.map_or(1.0, |died| decay(now.since(died)));
            Some((report, left))
        });
        DemandMap::of(others.chain([(&own, 1.0)]))
    }

    /// What it holds in memory, to be watched.
    pub fn size(&self) -> Size {
        Size {
            members: self.table.len(),
            rumours: self.rumours.len(),
            tasks: self.tasks.len(),
            links: self.links.len(),
        }
    }

    /// Members that were known to this one before it ended, with what they said: they may still be there. Much faster
    /// than asking for all of it again.
    pub fn restore(&mut self, now: Instant, known: &[Arc<Known>], out: &mut Outputs) {
        for known in known {
            self.take(now, Arc::clone(known), 0, out);
        }
        self.absorb(now, out);
        self.pending.clear();
        self.follow_size();
    }
}

/// A round trip, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundTrip {
    /// Microseconds.
    pub us: f64,
    /// Whether it was measured, or estimated from coordinates.
    pub measured: bool,
    /// How wrong the estimate may be, relative.
    pub error: f64,
}

/// How much a member keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Members, the remembered dead included.
    pub members: usize,
    /// Items that are being passed on.
    pub rumours: usize,
    /// Timers.
    pub tasks: usize,
    /// Measured links.
    pub links: usize,
}

/// Keeps the failure detector's draws apart from the rest.
const SWIM_SEED: u64 = 0x5157_494d;
/// Limits that are remembered at once.
const LIMITS_MAX: usize = 1_024;
