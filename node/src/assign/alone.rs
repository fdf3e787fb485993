//! Models that fit this machine: coming forward, giving way to others, stepping back.

use std::time::Duration;

use super::board::{Rank, Supply, is_before};
use super::doubt::{self, REPLICAS_MOST};
use super::names::ModelId;
use super::{Action, Assigner, Phase, Service, Sign};
use crate::clock::Instant;
use crate::ids::PeerId;
use crate::membership::Intent;

/// What is missing: the most urgent is the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Missing {
    pub(super) sign: Sign,
    /// Replicas that there should be.
    pub(super) wanted: u32,
}

impl Missing {
    /// Whether machines may give something up for it.
    fn may_evict(self) -> bool {
        matches!(self.sign, Sign::Unserved | Sign::Hot | Sign::Doubted)
    }
}

/// A model that this machine could take.
#[derive(Debug)]
struct Chance {
    model: String,
    sign: Sign,
    weights: u64,
}

impl Assigner {
    /// What is missing of a model, if anything.
    fn missing(&self, supply: &Supply) -> Option<Missing> {
        if !supply.fits_one && supply.serving == 0 {
            return None;
        }
        let there = supply.serving + supply.loading;
        let (sign, wanted) = if there == 0 {
            (if supply.is_asked() { Sign::Unserved } else { Sign::Cold }, 1)
        } else if supply.serving > 0
            && there < REPLICAS_MOST
            && supply.waiting >= doubt::witnesses(self.board.seats.len())
        {
            (Sign::Doubted, there + 1)
        } else if supply.is_hot(&self.config) {
            let needed = supply.needed(self.config.aim);
            (Sign::Hot, needed.clamp(supply.serving + 1, supply.serving * 2))
        } else if supply.loading == 0 && there < self.config.warm && supply.enlisted == 0 {
            (Sign::Warm, there + 1)
        } else {
            return None;
        };
        (wanted > there).then_some(Missing { sign, wanted })
    }

    /// Own claims become loads, or are withdrawn; loads that others do as well end; who leaves is gone at last.
    pub(super) fn go_on(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let services: Vec<(String, Phase)> =
            self.services.iter().filter(|(_, s)| !s.is_pinned).map(|(m, s)| (m.clone(), s.phase)).collect();
        for (model, phase) in services {
            match phase {
                Phase::Claiming { since } => self.confirm(now, &model, since, actions),
                Phase::Loading { since, wanted } => self.keep_loading(now, &model, since, wanted, actions),
                Phase::Leaving { since, is_sure } => self.go(now, &model, since, is_sure, actions),
                Phase::Serving { .. } | Phase::Enlisted { .. } => {}
            }
        }
    }

    /// A claim that had time to be heard.
    fn confirm(&mut self, now: Instant, model: &str, since: Instant, actions: &mut Vec<Action>) {
        let all = self.supply(now);
        let Some(id) = self.board.names.find(model) else { return self.give_up(now, model) };
        let Some(missing) = self.missing(&all[id as usize]) else { return self.give_up(now, model) };
        let may_evict = missing.may_evict();
        let rank = self.board.rank(self.me, id, now, &all, may_evict, &self.config);
        let Some(rank) = rank else { return self.give_up(now, model) };
        let there = all[id as usize].serving + all[id as usize].loading;
        if there + self.rivals(now, id, &all, may_evict, &rank, Intent::Claims) >= missing.wanted {
            return self.give_up(now, model);
        }
        // Where more than one came forward, those behind may have heard of this machine too late, and load already: that
        // is heard by the end of a second time. Where somebody waits for an answer, nobody waits for that.
        let is_contested = missing.sign == Sign::Hot && all[id as usize].claimed > 1;
        let confirm = self.config.confirm(self.board.seats.len()) * if is_contested { 2 } else { 1 };
        let confirmed = since.after(confirm);
        if confirmed > now {
            return self.call_at(confirmed);
        }
        if rank.0 == 2 {
            self.make_room(now, id, &all, actions);
        }
        let loading = self.loading_time(model);
        let phase = Phase::Loading { since: now, wanted: missing.wanted };
        let service = Service { is_pinned: false, phase, loading, sessions: 0 };
        self.services.insert(model.to_owned(), service);
        actions.push(Action::Serve(model.to_owned()));
        self.refresh(now);
    }

    fn give_up(&mut self, now: Instant, model: &str) {
        self.services.remove(model);
        self.refresh(now);
    }

    /// Others who say the same of the model and rank before this machine.
    fn rivals(
        &self,
        now: Instant,
        model: ModelId,
        all: &[Supply],
        may_evict: bool,
        own: &Rank,
        intent: Intent,
    ) -> u32 {
        let says = |claim: &super::seat::Stated| {
            claim.model == model && claim.intent == intent && claim.counts(now, &self.config)
        };
        let before = |peer| {
            let rank = self.board.rank(peer, model, now, all, may_evict, &self.config);
            // Who has come forward is there, even where it is not known here what with.
            rank.is_none_or(|rank| is_before(&rank, own))
        };
        let rivals = self.board.seats.iter().filter(|(peer, seat)| {
            // Who says that it serves as well is counted as that, or is doubted.
            let is_another = **peer != self.me && !seat.serves(model);
            is_another && seat.claims.iter().any(says) && !self.board.is_struck(now, **peer, model)
        });
        rivals.filter(|(peer, _)| before(**peer)).count() as u32
    }

    /// Gives up what can be spared, the least wanted first, until the model has room.
    fn make_room(&mut self, now: Instant, model: ModelId, all: &[Supply], actions: &mut Vec<Action>) {
        let seat = &self.board.seats[&self.me];
        let Some(room) = seat.need(model).map(|need| need.room(&self.config)) else { return };
        let mut spare = self.board.dispensable(seat, all, &self.config);
        spare.sort_by(|a, b| all[*a as usize].per_s.total_cmp(&all[*b as usize].per_s).then(a.cmp(b)));
        let mut given_up = vec![model];
        for other in spare {
            if self.board.free(seat, now, &self.config, &given_up) >= room {
                break;
            }
            given_up.push(other);
        }
        for other in given_up.into_iter().skip(1) {
            let name = self.board.names.name(other).to_owned();
            self.services.remove(&name);
            actions.push(Action::Retire(name));
        }
    }

    /// Of several that load for one need, the first goes on.
    fn keep_loading(
        &mut self,
        now: Instant,
        model: &str,
        since: Instant,
        wanted: u32,
        actions: &mut Vec<Action>,
    ) {
        let all = self.supply(now);
        let Some(id) = self.board.names.find(model) else { return };
        let rank = self.board.rank(self.me, id, now, &all, true, &self.config);
        let rivals = match &rank {
            Some(rank) => self.rivals(now, id, &all, true, rank, Intent::Loads),
            None => 0,
        };
        let is_early = now.since(since) < self.services[model].loading / 2;
        if is_early && all[id as usize].serving + rivals >= wanted {
            actions.push(Action::Retire(model.to_owned()));
            self.give_up(now, model);
        }
    }

    /// A replica that has said it will stop.
    fn go(&mut self, now: Instant, model: &str, since: Instant, is_sure: bool, actions: &mut Vec<Action>) {
        let Some(id) = self.board.names.find(model) else { return };
        let all = self.supply(now);
        let supply = &all[id as usize];
        // Of several that leave at once, those before this one in the queue will stay if need be.
        let stay = supply.serving + if is_sure { 0 } else { self.leavers_before(id) };
        if supply.is_hot(&self.config) || stay < self.least(supply) {
            return self.set_phase(now, model, Phase::Serving { since: now });
        }
        let confirmed = since.after(self.config.confirm(self.board.seats.len()));
        if !is_sure {
            if confirmed > now {
                return self.call_at(confirmed);
            }
            self.set_phase(now, model, Phase::Leaving { since: now, is_sure: true });
        }
        if self.services[model].sessions == 0 {
            actions.push(Action::Retire(model.to_owned()));
            self.give_up(now, model);
        }
    }

    fn set_phase(&mut self, now: Instant, model: &str, phase: Phase) {
        if let Some(service) = self.services.get_mut(model) {
            service.phase = phase;
            self.refresh(now);
        }
    }

    /// The place among those that serve a model: the last steps back first.
    fn place(&self, peer: PeerId, model: ModelId) -> Rank {
        let seat = &self.board.seats[&peer];
        let speed = seat.need(model).map_or(1.0, |need| seat.speed(need));
        (0, seat.score(self.board.names.name(model), speed), peer)
    }

    fn leavers_before(&self, model: ModelId) -> u32 {
        let own = self.place(self.me, model);
        let leaves = |peer: &&PeerId| {
            let seat = &self.board.seats[*peer];
            **peer != self.me && seat.serves(model) && seat.says(model, Intent::Leaves)
        };
        let others = self.board.seats.keys().filter(leaves);
        others.filter(|peer| is_before(&self.place(**peer, model), &own)).count() as u32
    }

    /// Replicas that always stay.
    fn least(&self, supply: &Supply) -> u32 {
        supply.needed(self.config.cool).max(self.config.warm).max(1)
    }

    /// An idle replica steps back: one at a time, the last in the queue, and never below what is needed.
    pub(super) fn step_back(&mut self, now: Instant) {
        let all = self.supply(now);
        let serving: Vec<(String, Instant, Duration)> = self
            .services
            .iter()
            .filter(|(_, service)| !service.is_pinned)
            .filter_map(|(model, service)| match service.phase {
                Phase::Serving { since } => Some((model.clone(), since, service.loading)),
                _ => None,
            })
            .collect();
        for (model, since, loading) in serving {
            let Some(id) = self.board.names.find(&model) else { continue };
            let supply = &all[id as usize];
            let is_cool = supply.leaving == 0 && supply.serving > self.least(supply);
            let cool = self.sees(now, &model, Sign::Cool, is_cool);
            let has_stayed = now.since(since) >= self.config.stay.max(loading * 4);
            let is_cool = cool.is_some_and(|cool| cool >= self.config.cool_rest) && has_stayed;
            if is_cool && self.is_last(id) {
                self.seen.remove(&(model.clone(), Sign::Cool));
                self.set_phase(now, &model, Phase::Leaving { since: now, is_sure: false });
                self.call_at(now.after(self.config.confirm(self.board.seats.len())));
                return;
            }
        }
    }

    fn is_last(&self, model: ModelId) -> bool {
        let own = self.place(self.me, model);
        let stays = |peer: &&PeerId| {
            let seat = &self.board.seats[*peer];
            seat.serves(model) && !seat.says(model, Intent::Pins) && !seat.says(model, Intent::Leaves)
        };
        self.board.seats.keys().filter(stays).all(|peer| !is_before(&own, &self.place(*peer, model)))
    }

    /// Whether this machine could serve something alone that is asked for and that nobody serves: that goes before groups.
    pub(super) fn is_needed_alone(&self, now: Instant, all: &[Supply]) -> bool {
        let could = |(id, _): &(ModelId, String)| {
            let is_unserved = |missing: Missing| missing.sign == Sign::Unserved;
            self.missing(&all[*id as usize]).is_some_and(is_unserved)
                && self.board.rank(self.me, *id, now, all, true, &self.config).is_some()
        };
        self.own_models().iter().any(could)
    }

    /// Claims the most urgent model for which it is this machine's turn.
    pub(super) fn come_forward(&mut self, now: Instant) {
        let all = self.supply(now);
        let is_free = self.profile.caps.takes_models && !self.is_busy_loading();
        let mut best: Option<Chance> = None;
        for (id, model) in self.own_models() {
            let missing = self.missing(&all[id as usize]);
            for sign in [Sign::Warm, Sign::Cold, Sign::Hot, Sign::Doubted, Sign::Unserved] {
                let is_it = missing.is_some_and(|missing| missing.sign == sign);
                self.sees(now, &model, sign, is_it);
            }
            let Some(missing) = missing.filter(|_| is_free) else { continue };
            let Some(at) = self.turn(now, id, &model, missing, &all) else { continue };
            if at > now {
                self.call_at(at);
                continue;
            }
            let weights = self.board.seats[&self.me].need(id).map_or(0, |need| need.weights);
            let is_better = best.as_ref().is_none_or(|b| (b.sign, b.weights) < (missing.sign, weights));
            if is_better {
                best = Some(Chance { model, sign: missing.sign, weights });
            }
        }
        let Some(chance) = best else { return };
        let loading = self.loading_time(&chance.model);
        let phase = Phase::Claiming { since: now };
        let service = Service { is_pinned: false, phase, loading, sessions: 0 };
        self.services.insert(chance.model, service);
        self.refresh(now);
        self.call_at(now.after(self.config.confirm(self.board.seats.len())));
    }

    /// When this machine took a model last, or started.
    fn taken_last(&self) -> Instant {
        let taken = self.services.values().filter_map(|service| match service.phase {
            Phase::Serving { since } | Phase::Loading { since, .. } => Some(since),
            Phase::Claiming { .. } | Phase::Leaving { .. } | Phase::Enlisted { .. } => None,
        });
        taken.max().unwrap_or(self.started)
    }

    /// From when on it is this machine's turn to claim the model; `None` where it is not at all.
    fn turn(
        &mut self,
        now: Instant,
        id: ModelId,
        model: &str,
        missing: Missing,
        all: &[Supply],
    ) -> Option<Instant> {
        let supply = &all[id as usize];
        let there = supply.serving + supply.loading + supply.claimed;
        let open = missing.wanted.checked_sub(there).filter(|open| *open > 0)?;
        let may_evict = missing.may_evict();
        let rank = self.board.rank(self.me, id, now, all, may_evict, &self.config)?;
        // What is kept ready is kept by those who have nothing else to do.
        if missing.sign == Sign::Warm && rank.0 > 0 {
            return None;
        }
        let before = self.board.before(&rank, id, now, all, may_evict, &self.config);
        let since = *self.seen.get(&(model.to_owned(), missing.sign))?;
        let behind = (before + 1).saturating_sub(open).min(64);
        let loading = self.loading_time(model);
        let settled = match missing.sign {
            Sign::Unserved => self.started.after(self.config.settle_asked),
            Sign::Hot if rank.0 == 2 => self.taken_last().after(self.config.keep),
            _ => self.started.after(self.config.settle),
        };
        let lasting = match missing.sign {
            Sign::Hot if rank.0 == 2 => self.config.hot_rest + loading / 2,
            Sign::Hot => self.config.hot_rest + loading / 4,
            Sign::Doubted => doubt::LASTING,
            _ => Duration::ZERO,
        };
        let spread = self.spread.get(model).map_or(now, |(_, at)| at.after(self.config.spread));
        let spread = if missing.sign == Sign::Hot { spread } else { now };
        let turn = since.after(lasting).max(settled).max(spread).after(self.config.patience * behind);
        Some(turn)
    }
}
