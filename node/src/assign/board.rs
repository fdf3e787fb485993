//! What all members say, this one included, and what follows from it for each model: the same for all who know the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::{Config, STRIKES_MAX};
use super::doubt::Doubts;
use super::names::{ModelId, Names};
use super::seat::{Need, Seat};
use crate::clock::Instant;
use crate::demand::DemandMap;
use crate::ids::PeerId;
use crate::membership::{Intent, Profile, State};

/// What there is of a model, and what is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Supply {
    /// Replicas that answer and mean to go on.
    pub(super) serving: u32,
    /// Replicas that step back.
    pub(super) leaving: u32,
    /// Machines that load it, or say that their owner wants it there.
    pub(super) loading: u32,
    /// Machines that will, unless others do.
    pub(super) claimed: u32,
    /// Machines that serve it together, or would.
    pub(super) enlisted: u32,
    /// Requests per second.
    pub(super) per_s: f64,
    /// Members that wait for it.
    pub(super) waiting: u32,
    /// Some machine that takes models has it and room for all of it, were it empty.
    pub(super) fits_one: bool,
    /// Some machine that takes models has it.
    pub(super) is_offered: bool,
    /// How busy it keeps each host.
    uses: Vec<f64>,
}

impl Supply {
    pub(super) fn is_asked(&self) -> bool {
        self.per_s > 0.0 || self.waiting > 0
    }

    /// How busy the hosts are of whom half are busier: a few that lie do not move it.
    pub(super) fn middle(&self) -> f64 {
        let mut uses = self.uses.clone();
        uses.sort_by(f64::total_cmp);
        uses.get(uses.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
    }

    /// Replicas at which each would be as busy as `aim`.
    pub(super) fn needed(&self, aim: f64) -> u32 {
        let most: f64 = self.uses.iter().sum::<f64>().min(self.middle() * 2.0 * self.uses.len() as f64);
        (most / aim).ceil() as u32
    }

    pub(super) fn is_hot(&self, config: &Config) -> bool {
        self.serving > 0 && self.middle() >= config.hot
    }
}

/// The first in the queue is the least.
pub(super) type Rank = (u8, f64, PeerId);

pub(super) fn is_before(a: &Rank, b: &Rank) -> bool {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)).is_lt()
}

/// Who says no longer that it loads is judged after this time: by then it is known whether another does.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// Whether it serves the model or is about to.
fn is_about(seat: &Seat, model: ModelId) -> bool {
    seat.serves(model) || seat.says(model, Intent::Loads)
}

#[derive(Debug, Clone, Copy)]
struct Strike {
    until: Instant,
    last: Duration,
}

/// Everybody.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) names: Names,
    pub(super) seats: BTreeMap<PeerId, Seat>,
    demand: Vec<(String, f64)>,
    strikes: BTreeMap<(PeerId, String), Strike>,
    /// Who said that it loads and no longer does so, since when.
    withdrawn: BTreeMap<(PeerId, String), Instant>,
}

impl Board {
    /// A member says this; whether it is something else than before, load apart.
    pub(super) fn see(&mut self, now: Instant, peer: PeerId, profile: &Profile, state: &State) -> bool {
        if let Some(seat) = self.seats.get_mut(&peer).filter(|seat| seat.is(profile, state, &self.names)) {
            seat.load = state.load;
            return false;
        }
        let mut seat = Seat::new(now, peer, profile, state, &mut self.names);
        let Some(before) = self.seats.remove(&peer) else {
            self.seats.insert(peer, seat);
            return true;
        };
        let is_new = seat.keeps_times_of(&before);
        self.notice_withdrawn(now, peer, &before, &seat);
        before.end(&mut self.names);
        self.seats.insert(peer, seat);
        is_new
    }

    pub(super) fn gone(&mut self, peer: PeerId) -> bool {
        let seat = self.seats.remove(&peer);
        if let Some(seat) = &seat {
            seat.end(&mut self.names);
        }
        seat.is_some()
    }

    pub(super) fn hear_demand(&mut self, demand: &DemandMap) {
        self.demand.clone_from(&demand.models);
    }

    /// Who said that it loads, and now neither loads nor serves.
    fn notice_withdrawn(&mut self, now: Instant, peer: PeerId, before: &Seat, after: &Seat) {
        for claim in before.claims.iter().filter(|claim| claim.intent == Intent::Loads) {
            if !is_about(after, claim.model) && self.withdrawn.len() < STRIKES_MAX {
                let name = self.names.name(claim.model).to_owned();
                self.withdrawn.entry((peer, name)).or_insert(now);
            }
        }
    }

    /// Where somebody else has come forward, who withdrew did so for that; the word of it may be the later one.
    fn judge_withdrawn(&mut self, now: Instant, config: &Config) {
        let mut due = Vec::new();
        self.withdrawn.retain(|key, at| {
            let waits = now.since(*at) < WITHDRAWAL;
            due.extend((!waits).then(|| key.clone()));
            waits
        });
        for (peer, name) in due {
            let model = self.names.find(&name);
            let is_taken = |model| self.seats.values().any(|seat| is_about(seat, model));
            if !model.is_some_and(is_taken) {
                self.strike(now, peer, name, config);
            }
        }
    }

    /// It is left out for that model for a while.
    pub(super) fn strike(&mut self, now: Instant, peer: PeerId, model: String, config: &Config) {
        if self.strikes.len() >= STRIKES_MAX {
            self.strikes.retain(|_, strike| strike.until > now);
        }
        let key = (peer, model);
        let last = self.strikes.get(&key).map_or(config.strike / 2, |strike| strike.last);
        if self.strikes.len() < STRIKES_MAX || self.strikes.contains_key(&key) {
            let last = (last * 2).min(config.strike * 64);
            self.strikes.insert(key, Strike { until: now.after(last), last });
        }
    }

    pub(super) fn is_struck(&self, now: Instant, peer: PeerId, model: ModelId) -> bool {
        if self.strikes.is_empty() {
            return false;
        }
        let key = (peer, self.names.name(model).to_owned());
        self.strikes.get(&key).is_some_and(|strike| strike.until > now)
    }

    /// Claims of which nothing came are held against who made them.
    pub(super) fn notice_expired(&mut self, now: Instant, me: PeerId, config: &Config) {
        self.judge_withdrawn(now, config);
        let expired = |(peer, seat): (&PeerId, &Seat)| {
            let old = seat.claims.iter().filter(|c| c.intent == Intent::Loads && !c.counts(now, config));
            let old = old.map(|claim| (*peer, self.names.name(claim.model).to_owned()));
            old.filter(|_| *peer != me).collect::<Vec<_>>()
        };
        let found: Vec<_> = self.seats.iter().flat_map(expired).collect();
        for (peer, model) in found {
            let is_known = self.strikes.get(&(peer, model.clone())).is_some_and(|s| s.until > now);
            if !is_known {
                self.strike(now, peer, model, config);
            }
        }
    }

    /// What there is of each model, by its number.
    pub(super) fn supply(&self, now: Instant, config: &Config, doubts: &Doubts) -> Vec<Supply> {
        let mut all: Vec<Supply> = vec![Supply::default(); self.names.len()];
        for (name, per_s) in &self.demand {
            if let Some(id) = self.names.find(name) {
                all[id as usize].per_s = *per_s;
            }
        }
        for (peer, seat) in &self.seats {
            let is_doubted = |id: ModelId| doubts.is_doubted(now, *peer, self.names.name(id));
            count(seat, now, config, &is_doubted, &mut all);
        }
        all
    }

    /// Memory that is left on a machine beside what it serves or will, but for those of `given_up`.
    pub(super) fn free(&self, seat: &Seat, now: Instant, config: &Config, given_up: &[ModelId]) -> u64 {
        let taken = |model: ModelId| match seat.offers.iter().find(|(id, _)| *id == model) {
            _ if seat.says(model, Intent::Enlists) => seat.usable,
            Some((_, need)) => need.room(config),
            None => 0,
        };
        let models = seat.taken(now, config).filter(|model| !given_up.contains(model));
        seat.usable.saturating_sub(models.map(taken).fold(0, u64::saturating_add))
    }

    /// Models that a machine could do without if another were needed more.
    pub(super) fn dispensable(&self, seat: &Seat, all: &[Supply], config: &Config) -> Vec<ModelId> {
        let can_go = |model: &ModelId| {
            let supply = &all[*model as usize];
            let others_do = supply.serving >= 2 && supply.needed(config.hot) < supply.serving;
            let is_of_group = seat.says(*model, Intent::Enlists);
            !seat.says(*model, Intent::Pins) && (!supply.is_asked() || (others_do && !is_of_group))
        };
        let joins = |model: &ModelId| seat.says(*model, Intent::Enlists) && !seat.serves(*model);
        let joined = seat.claims.iter().map(|claim| claim.model).filter(joins);
        seat.serves.iter().copied().chain(joined).filter(can_go).collect()
    }

    /// The place of a machine in the queue for serving a model alone: first those that serve nothing, then those with
    /// room, then (where `may_evict`) those that would have to give something up. `None` where it cannot.
    pub(super) fn rank(
        &self,
        peer: PeerId,
        model: ModelId,
        now: Instant,
        all: &[Supply],
        may_evict: bool,
        config: &Config,
    ) -> Option<Rank> {
        let seat = self.seats.get(&peer)?;
        let need = seat.need(model).filter(|_| seat.takes)?;
        let room = need.room(config);
        if room > seat.usable || seat.serves(model) || self.is_struck(now, peer, model) {
            return None;
        }
        let free = self.free(seat, now, config, &[model]);
        let tier = if seat.taken(now, config).all(|taken| taken == model) && free >= room {
            0
        } else if free >= room {
            1
        } else if may_evict {
            let mut given_up = self.dispensable(seat, all, config);
            given_up.push(model);
            (self.free(seat, now, config, &given_up) >= room).then_some(2)?
        } else {
            return None;
        };
        Some((tier, self.score(seat, need, model, room), peer))
    }

    /// Faster ones come first more often, and so do those that it fills well: larger ones are left for larger models.
    fn score(&self, seat: &Seat, need: &Need, model: ModelId, room: u64) -> f64 {
        let fit = (room as f64 / seat.usable.max(1) as f64).clamp(0.25, 1.0);
        seat.score(self.names.name(model), seat.speed(need) * fit)
    }

    /// How many come before `rank` and are free to begin.
    pub(super) fn before(
        &self,
        rank: &Rank,
        model: ModelId,
        now: Instant,
        all: &[Supply],
        may_evict: bool,
        config: &Config,
    ) -> u32 {
        let is_first = |(peer, seat): &(&PeerId, &Seat)| {
            let busy = seat.is_promoting(now, config) || seat.says(model, Intent::Leaves);
            !busy
                && self
                    .rank(**peer, model, now, all, may_evict, config)
                    .is_some_and(|other| is_before(&other, rank))
        };
        self.seats.iter().filter(is_first).count() as u32
    }
}

fn count(
    seat: &Seat,
    now: Instant,
    config: &Config,
    is_doubted: &dyn Fn(ModelId) -> bool,
    all: &mut [Supply],
) {
    let asked: f64 = seat.serves.iter().map(|id| all[*id as usize].per_s).sum();
    for id in &seat.serves {
        let supply = &mut all[*id as usize];
        if is_doubted(*id) {
            continue;
        }
        if seat.says(*id, Intent::Leaves) {
            supply.leaving += 1;
            continue;
        }
        supply.serving += 1;
        // A host does not say for which model it works: by what is asked of each.
        let share = if seat.serves.len() == 1 {
            1.0
        } else if asked > 0.0 {
            supply.per_s / asked
        } else {
            0.0
        };
        supply.uses.push(seat.busy() * share);
    }
    for claim in seat.claims.iter().filter(|claim| claim.counts(now, config)) {
        let serves = seat.serves(claim.model);
        let supply = &mut all[claim.model as usize];
        match claim.intent {
            Intent::Claims => supply.claimed += 1,
            Intent::Loads | Intent::Pins if !serves => supply.loading += 1,
            Intent::Enlists => supply.enlisted += 1,
            Intent::Wants => supply.waiting += 1,
            Intent::Loads | Intent::Pins | Intent::Leaves => {}
        }
    }
    for (id, need) in seat.offers.iter().filter(|(_, need)| seat.takes && need.is_known()) {
        all[*id as usize].is_offered = true;
        all[*id as usize].fits_one |= need.room(config) <= seat.usable;
    }
}
