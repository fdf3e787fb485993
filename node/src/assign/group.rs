//! Models that fit nobody alone: as many machines as their memory needs, and a spare, stand together.
//!
//! Who is of the group is what the machines say ([`Intent::Enlists`]); the group's own control plane plans the layers
//! over exactly these. More would not help: each stage costs a hop.

use super::board::{Rank, Supply};
use super::names::ModelId;
use super::{Action, Assigner, Phase, Service};
use crate::clock::Instant;
use crate::ids::PeerId;
use crate::membership::Intent;

/// Layers cannot be cut to fill each machine to the last byte.
const SLACK: f64 = 1.1;
/// One machine counts for no more than this share of a model: who claims endless memory does not keep the others out.
const SHARE_MOST: f64 = 0.75;

impl Assigner {
    /// The machines that should stand together for a model: those that do first, then by rank, until their memory is
    /// enough, and the spares. Empty where all together are not enough.
    fn chosen(&self, now: Instant, id: ModelId, all: &[Supply]) -> Vec<PeerId> {
        let queue = self.queue(now, id, all);
        let needed = queue.iter().map(|(_, whole)| *whole).fold(0.0, f64::max);
        // Replicas of other models that may still be given up, as machine after machine does.
        let mut spare: Vec<u32> = all.iter().map(|supply| self.spare_replicas(supply)).collect();
        let mut chosen = Vec::new();
        let mut sum = 0.0;
        let mut more = self.config.spares;
        for ((_, _, peer), whole) in queue {
            let seat = &self.board.seats[&peer];
            let mut given_up = vec![id];
            if all[id as usize].is_asked() {
                let mut can_go = self.board.dispensable(seat, all, &self.config);
                can_go.retain(|other| !all[*other as usize].is_asked() || spare[*other as usize] > 0);
                can_go.iter().for_each(|other| {
                    spare[*other as usize] = spare[*other as usize].saturating_sub(1);
                });
                given_up.extend(can_go);
            }
            let free = self.board.free(seat, now, &self.config, &given_up);
            let gives = free.saturating_sub(self.config.overhead_bytes) as f64;
            if gives < whole / 64.0 {
                continue;
            }
            if sum >= needed {
                match more.checked_sub(1) {
                    Some(left) => more = left,
                    None => break,
                }
            }
            sum += gives.min(whole * SHARE_MOST);
            chosen.push(peer);
        }
        if sum >= needed && needed > 0.0 { chosen } else { Vec::new() }
    }

    /// All that could be of the group, those first that are, then those that need not give up anything, and what memory
    /// the model needs by each one's word.
    fn queue(&self, now: Instant, id: ModelId, all: &[Supply]) -> Vec<(Rank, f64)> {
        let mut queue: Vec<(Rank, f64)> = Vec::new();
        for (peer, seat) in &self.board.seats {
            let Some(need) = seat.need(id).filter(|_| seat.takes) else { continue };
            if self.board.is_struck(now, *peer, id) {
                continue;
            }
            let whole = need.room(&self.config) as f64 * SLACK;
            let weight = seat.speed(need) * (seat.usable as f64 / whole).clamp(0.05, 1.0);
            let serves = seat.serves.iter().any(|other| *other != id && all[*other as usize].is_asked());
            let tier = if seat.says(id, Intent::Enlists) { 0 } else { 1 + u8::from(serves) };
            queue.push(((tier, seat.score(self.board.names.name(id), weight), *peer), whole));
        }
        queue.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        queue
    }

    fn spare_replicas(&self, supply: &Supply) -> u32 {
        supply.serving.saturating_sub(supply.needed(self.config.hot).max(1))
    }

    /// Joins the group of a model that needs this machine.
    pub(super) fn enlist(&mut self, now: Instant) {
        if !self.profile.caps.takes_models || self.is_busy_loading() {
            return;
        }
        let all = self.supply(now);
        if self.is_needed_alone(now, &all) {
            return;
        }
        for (id, model) in self.own_models() {
            let supply = &all[id as usize];
            let is_free = self.services.is_empty() || supply.is_asked();
            if supply.fits_one || self.services.contains_key(&model) || !is_free {
                continue;
            }
            let rest = if supply.is_asked() { self.config.settle_asked } else { self.config.settle };
            if self.started.after(rest) > now {
                self.call_at(self.started.after(rest));
            } else if self.chosen(now, id, &all).contains(&self.me) {
                let phase = Phase::Enlisted { since: now, is_sure: false, answers: false, unneeded: None };
                let loading = self.loading_time(&model) / 2;
                let service = Service { is_pinned: false, phase, loading, sessions: 0 };
                self.services.insert(model, service);
                self.refresh(now);
                self.call_at(now.after(self.config.confirm(self.board.seats.len())));
                return;
            }
        }
    }

    /// Who has said that it joins does, if it is still needed; who is not needed any more leaves after a while.
    pub(super) fn go_on_in_groups(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let enlisted: Vec<(String, Phase)> = self
            .services
            .iter()
            .filter(|(_, service)| matches!(service.phase, Phase::Enlisted { .. }))
            .map(|(model, service)| (model.clone(), service.phase))
            .collect();
        for (model, phase) in enlisted {
            let Phase::Enlisted { since, is_sure, answers, unneeded } = phase else { continue };
            let Some(id) = self.board.names.find(&model) else { continue };
            let all = self.supply(now);
            let is_needed = self.chosen(now, id, &all).contains(&self.me);
            let confirmed = since.after(self.config.confirm(self.board.seats.len()));
            let next = match (is_sure, is_needed) {
                (false, true) if confirmed <= now => {
                    self.give_way(now, id, &all, actions);
                    actions.push(Action::Enlist(model.clone()));
                    Some(Phase::Enlisted { since: now, is_sure: true, answers, unneeded: None })
                }
                (false, true) => {
                    self.call_at(confirmed);
                    Some(phase)
                }
                (false, false) => None,
                (true, true) => Some(Phase::Enlisted { since, is_sure, answers, unneeded: None }),
                (true, false) => {
                    let from = unneeded.unwrap_or(now);
                    let stays =
                        now.since(from) < self.config.cool_rest || now.since(since) < self.config.stay;
                    stays.then_some(Phase::Enlisted { since, is_sure, answers, unneeded: Some(from) })
                }
            };
            match next {
                Some(next) => self.services.entry(model).and_modify(|service| service.phase = next),
                None => {
                    if is_sure {
                        actions.push(Action::Retire(model.clone()));
                    }
                    self.services.remove(&model);
                    self.refresh(now);
                    continue;
                }
            };
        }
    }

    /// All that can be spared goes: a member of a group gives all its memory.
    fn give_way(&mut self, now: Instant, model: ModelId, all: &[Supply], actions: &mut Vec<Action>) {
        let spare = self.board.dispensable(&self.board.seats[&self.me], all, &self.config);
        for other in spare.into_iter().filter(|other| *other != model) {
            let name = self.board.names.name(other).to_owned();
            if self.services.remove(&name).is_some() {
                actions.push(Action::Retire(name));
            }
        }
        self.refresh(now);
    }
}
