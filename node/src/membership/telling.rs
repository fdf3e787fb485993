//! What a member says of itself, when, and what it learns of its links.

use std::time::Duration;

use rand::RngExt as _;

use super::item::{Content, Item, Topic, Trust, Version};
use super::record::{Profile, State};
use super::swim::{Id, Kind};
use super::table::ME;
use super::{Event, Life, Membership, Outputs, Point, Task};
use crate::clock::Instant;
use crate::ids::PeerId;

/// What is served may change this often; load has the pauses of the configuration.
const URGENT_REST: Duration = Duration::from_millis(200);
/// A member that is taken for dead again and again begins another life this often.
const REVIVAL_REST: Duration = Duration::from_secs(1);
/// The end is told so often, to a few members each time.
const FAREWELLS: u8 = 3;
/// Between two of these.
const FAREWELL_REST: Duration = Duration::from_millis(50);
/// Measured links that are kept.
const LINKS_MAX: usize = 256;
/// A coordinate is told when it has moved by this share of the mean round trip, ...
const MOVED_SHARE: f64 = 0.3;
/// ... and by this much at least, microseconds.
const MOVED_LEAST_US: f64 = 300.0;
/// A coordinate is told this often at least, if it moves.
const COORDINATE_REST_LAST: Duration = Duration::from_secs(24 * 3_600);
/// Coordinates whose distances are wrong by more than this are not told yet.
const ERROR_TOLD: f64 = 0.3;

impl<T: Trust> Membership<T> {
    pub(super) fn tell_profile(&mut self, now: Instant, profile: Profile, out: &mut Outputs) {
        if self.profile != profile || self.published[Topic::Profile.index()].is_none() {
            self.profile = profile.clone();
            self.publish(now, Content::Profile(profile), out);
        }
    }

    pub(super) fn tell_state(&mut self, now: Instant, state: State, out: &mut Outputs) {
        let is_urgent = self.state.differs_in_kind(&state);
        if self.state != state || self.published[Topic::State.index()].is_none() {
            self.state = state;
            self.publish_soon(now, is_urgent, out);
        }
    }

    fn publish_soon(&mut self, now: Instant, is_urgent: bool, out: &mut Outputs) {
        let rest = if is_urgent { URGENT_REST } else { self.config.state_rest(self.table.alive()) };
        let due = self.published[Topic::State.index()].map_or(now, |at| at.after(rest));
        if due <= now {
            self.publish_state(now, out);
        } else if is_urgent || !self.publishes[Topic::State.index()] {
            self.publishes[Topic::State.index()] = true;
            self.schedule(due, Task::Publish(Topic::State));
        }
    }

    /// Does nothing where what is known already is the same.
    pub(super) fn publish_state(&mut self, now: Instant, out: &mut Outputs) {
        let state = State { coordinate: self.point.written(), ..self.state.clone() };
        let last = self
            .state(self.me)
            .is_some_and(|known| State { coordinate: state.coordinate, ..known.clone() } == state);
        let has_moved = self.has_moved();
        if !last || has_moved {
            if has_moved {
                self.coordinates_told += 1;
                let pause = self.coordinate_pause();
                self.coordinate_at = Some(now.after(pause));
            }
            self.publish(now, Content::State(state), out);
        }
    }

    /// Time until the coordinate may be told: all members together tell three times a second at the start, and then ever
    /// more seldom.
    fn coordinate_pause(&mut self) -> Duration {
        let first = self.config.coordinate_first(self.table.alive());
        let pause = match self.coordinates_told {
            0 => first.mul_f64(0.2 + 0.8 * self.rng.random::<f64>()),
            n => first.saturating_mul(1 << n.min(16)),
        };
        pause.min(COORDINATE_REST_LAST)
    }

    fn has_moved(&self) -> bool {
        let Some(told) = self.state(self.me).map(|state| state.coordinate) else { return false };
        let least = (self.mean_round_trip_us * MOVED_SHARE).max(MOVED_LEAST_US);
        self.point.error() < ERROR_TOLD && (self.point.moved_us(told) > least || told.error() > ERROR_TOLD)
    }

    pub(super) fn count(&mut self, now: Instant, model: &str) {
        self.counter.asked(now, model);
        if !self.has_demand {
            self.has_demand = true;
            let rest = self.config.demand_rest(self.table.alive());
            let last = self.published[Topic::Demand.index()];
            let pause = self.jittered(rest);
            let due = last.map_or(now.after(self.config.demand_rest / 5), |at| at.after(pause).max(now));
            self.schedule(due, Task::Demand);
        }
    }

    pub(super) fn tell_demand(&mut self, now: Instant, out: &mut Outputs) {
        self.has_demand = false;
        if let Some(report) = self.counter.news(now, self.config.demand_share) {
            self.publish(now, Content::Demand(report), out);
        }
        if !self.counter.is_idle() && !self.left {
            self.has_demand = true;
            let rest = self.config.demand_rest(self.table.alive());
            let pause = self.jittered(rest);
            self.schedule(now.after(pause), Task::Demand);
        }
    }

    /// Signs it, keeps it, passes it on.
    fn publish(&mut self, now: Instant, content: Content, out: &mut Outputs) {
        let topic = content.topic();
        let life = self.life();
        let last = self.table.me().item(topic).map(|known| known.item.version);
        let sequence = last.filter(|version| version.life == life).map_or(0, |version| version.sequence);
        let next = sequence.saturating_add(1).min(Version::LAST - 1);
        let sequence = if self.left { Version::LAST } else { next };
        let version = Version { life, sequence };
        self.published[topic.index()] = Some(now);
        let body = content.body().unwrap_or_default();
        let mut item = Item { owner: self.me, topic, version, body, signature: [0; 64] };
        item.signature = self.trust.sign(&item.message());
        match self.trust.open(item) {
            Ok(known) => {
                self.table.change(ME, |entry| entry.items[topic.index()] = Some(known));
                self.changed = now;
                let copies = self.copies();
                self.rumours.add((ME, topic), copies);
            }
            Err(why) => out.events.push(Event::Refused { by: self.me, owner: self.me, why }),
        }
    }

    /// Others hold this member for dead: it begins another life, and signs all it says anew.
    pub(super) fn revive(&mut self, now: Instant, out: &mut Outputs) {
        if self.left {
            return;
        }
        if let Some(last) = self.revived.filter(|last| now.since(*last) < REVIVAL_REST) {
            if !self.tasks.values().any(|task| *task == Task::Revive) {
                self.schedule(last.after(REVIVAL_REST), Task::Revive);
            }
            return;
        }
        self.begin_life(now, self.life().revived(), out);
        out.events.push(Event::Revived);
    }

    /// Something that this member said in a later life, as its clock was ahead: the present one must win.
    pub(super) fn outlive(&mut self, now: Instant, version: Version, out: &mut Outputs) {
        let own = self.life();
        if version.life >= own {
            self.begin_life(now, version.life.revived(), out);
        }
    }

    fn begin_life(&mut self, now: Instant, life: Life, out: &mut Outputs) {
        self.revived = Some(now);
        self.incarnation = 0;
        self.ping = None;
        let said = self.table.me().items.clone();
        self.table.change(ME, |entry| entry.life = life);
        self.swim.revive(Id { slot: ME, life });
        for known in said.into_iter().flatten() {
            self.publish(now, known.content.clone(), out);
        }
    }

    /// Says so, signed: others may pass it on and be believed at once.
    pub(super) fn leave(&mut self, now: Instant, out: &mut Outputs) {
        if !self.left {
            self.left = true;
            self.publish(now, Content::State(State::default()), out);
            self.swim.leave();
            self.tasks.clear();
            self.schedule(now.after(FAREWELL_REST), Task::Farewell(FAREWELLS - 1));
        }
    }

    pub(super) fn farewell(&mut self, now: Instant, times: u8) {
        self.swim.gossip();
        if times > 1 {
            self.schedule(now.after(FAREWELL_REST), Task::Farewell(times - 1));
        }
    }

    /// The answer to the last ping measures the way.
    pub(super) fn time_answer(&mut self, now: Instant, from: Id, peer: PeerId, kind: Kind) {
        let Some(ping) = self.ping.filter(|ping| kind == Kind::Ack(ping.number) && ping.to == from) else {
            return;
        };
        self.ping = None;
        self.measured(now, peer, now.since(ping.at));
    }

    pub(super) fn measured(&mut self, now: Instant, peer: PeerId, round_trip: Duration) {
        if peer == self.me || round_trip > Duration::from_secs(10) {
            return;
        }
        let us = round_trip.as_secs_f64() * 1e6;
        let smoothed = self
            .links
            .get(&peer)
            .map_or(us, |(old, _)| if us < *old { (old + us) / 2.0 } else { (old * 7.0 + us) / 8.0 });
        if self.links.len() >= LINKS_MAX && !self.links.contains_key(&peer) {
            let oldest = self.links.iter().min_by_key(|(_, (_, at))| *at).map(|(peer, _)| *peer);
            oldest.map(|peer| self.links.remove(&peer));
        }
        self.links.insert(peer, (smoothed, now));
        let mean = self.mean_round_trip_us;
        self.mean_round_trip_us = if mean == 0.0 { us } else { mean + (us - mean) / 16.0 };
    }

    /// A member that has just answered says where it is.
    pub(super) fn sample(&mut self, now: Instant, sender: u32, other: Point, out: &mut Outputs) {
        let peer = self.table.get(sender).map(|entry| entry.peer);
        let measured = peer.and_then(|peer| self.links.get(&peer).copied());
        let Some((us, _)) = measured.filter(|(_, at)| *at == now) else { return };
        let rng = &mut self.rng;
        self.point.learn(other, Duration::from_secs_f64(us / 1e6), || rng.random::<f64>());
        if self.coordinate_at.is_none() {
            let pause = self.coordinate_pause();
            self.coordinate_at = Some(now.after(pause));
        }
        let is_due = self.coordinate_at.is_some_and(|at| at <= now);
        if is_due && self.published[Topic::State.index()].is_some() && self.has_moved() {
            self.publish_state(now, out);
        }
    }
}
