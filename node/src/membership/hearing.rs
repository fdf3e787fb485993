//! Packets in.

use std::sync::Arc;
use std::time::Duration;

use super::doubting::Why;
use super::item::{Item, ItemError, Known, Topic, Trust, Version};
use super::packet::{Claim, Notice, Packet, Part, Probe, Versions, short};
use super::swim::{Id, Kind, Message, Status, Update};
use super::table::{Entry, ME};
use super::{Event, Membership, Outputs, Point};
use crate::clock::Instant;
use crate::ids::PeerId;

/// Between two of the same request to, or warning of, the same member.
const ASK_REST: Duration = Duration::from_millis(300);
/// Incarnations that a member may have passed unnoticed: who claims more of another makes it up, and would soon have
/// used up all that one life has.
const INCARNATIONS_MISSED: u16 = 16;
/// Who is told that it is dead, and speaks on for so long in the same life, is not going to begin another.
const OBSTINATE: Duration = Duration::from_secs(3);
/// What a packet that cannot be read counts against its sender: it may be of another version.
const GARBLED: f64 = 0.25;
/// What a forged item counts, or an absurd one of its sender's own.
const FORGED: f64 = 1.0;

/// What is limited by [`Membership::may`].
pub(super) mod limit {
    pub(in crate::membership) const WANT: u8 = 0;
    pub(in crate::membership) const INTRODUCE: u8 = 1;
    pub(in crate::membership) const BURIED: u8 = 2;
    pub(in crate::membership) const GRAVE: u8 = 3;
    pub(in crate::membership) const DOUBT: u8 = 4;
    /// And the next ones, for each topic.
    pub(in crate::membership) const NOTICE: u8 = 5;
}

/// What becomes of a claim.
enum Weighed {
    /// The failure detector hears of it.
    Taken,
    /// The member is looked into.
    LookedInto,
    Nothing,
}

/// Leaves of a part only what its sender says of itself; whether anything is left.
fn keeps_to_itself(part: &mut Part, from: PeerId) -> bool {
    match part {
        Part::Item(item) => item.owner == from,
        Part::Probe(probe) => {
            probe.claims.retain(|claim| claim.of == short(from));
            true
        }
        Part::Entries(..) | Part::Graves(_) | Part::Lives(_) | Part::Have(_) | Part::Buried(_) => false,
        _ => true,
    }
}

impl<T: Trust> Membership<T> {
    pub(super) fn packet(&mut self, now: Instant, from: PeerId, bytes: &[u8], out: &mut Outputs) {
        let Some(Packet { from: tag, to, mut parts }) = Packet::decode(bytes) else {
            out.events.push(Event::Garbled(from));
            self.blame(now, from, GARBLED, out);
            return;
        };
        if from == self.me {
            return;
        }
        if !self.standings.is_believed(now, from) {
            parts.retain_mut(|part| keeps_to_itself(part, from));
        }
        let is_gossip = parts.iter().any(|part| matches!(part, Part::Probe(_)));
        let is_item = |part: &mut Part| matches!(part, Part::Item(_));
        for part in parts.extract_if(.., is_item).collect::<Vec<_>>() {
            let Part::Item(item) = part else { continue };
            let copies = if is_gossip || item.owner == from { self.copies() } else { 1 };
            self.hear(now, from, item, copies, out);
        }
        let Some(sender) = self.sender(now, from, tag, out) else { return };
        if !self.table.get(sender).is_some_and(|entry| entry.is_alive) {
            self.hear_the_dead(now, sender, &parts, out);
            return;
        }
        if to != self.life().tag() {
            if self.may(now, short(from), limit::INTRODUCE, ASK_REST) {
                self.introduce(from, tag, out);
            }
            parts.retain(|part| !matches!(part, Part::Probe(_) | Part::Doubt(_)));
        }
        self.heard_of(sender);
        for part in parts {
            self.part(now, sender, part, out);
        }
        self.settle(now, sender, out);
    }

    /// Counts a lie.
    fn blame(&mut self, now: Instant, peer: PeerId, weight: f64, out: &mut Outputs) {
        if self.standings.lied(now, peer, weight) {
            out.events.push(Event::Distrusted(peer));
        }
    }

    /// How often news are passed on by each who hears them.
    pub(super) fn copies(&self) -> u8 {
        self.config.copies(self.table.alive())
    }

    /// The sender's slot, if it is known in that life; else it is asked who it is.
    fn sender(&mut self, now: Instant, from: PeerId, tag: u16, out: &mut Outputs) -> Option<u32> {
        let slot = self.table.slot(from);
        let known = slot.and_then(|slot| self.table.get(slot));
        if known.is_some_and(|entry| entry.life.tag() == tag) {
            return slot;
        }
        let versions =
            known.map_or(Versions { of: short(from), ..Versions::default() }, |entry| entry.versions());
        // Its own word from another life: where that is the later one, it must begin another still.
        let profile = known.and_then(|entry| entry.item(Topic::Profile)).map(|known| known.item.clone());
        if self.may(now, short(from), limit::WANT, ASK_REST) {
            let parts = [Part::Want(vec![versions])].into_iter().chain(profile.map(Part::Item)).collect();
            self.send_to(from, tag, parts, out);
        }
        None
    }

    /// Somebody who is held for dead speaks: that must be a mistake, which it can mend by another life. Where it does not,
    /// since it does not believe this member, and speaks on, it is met anew as it is.
    fn hear_the_dead(&mut self, now: Instant, slot: u32, parts: &[Part], out: &mut Outputs) {
        for part in parts {
            let by = self.table.get(slot).map(|entry| entry.peer);
            if let (Part::Buried(life), Some(by)) = (part, by) {
                self.hear_buried(now, by, *life, out);
            }
        }
        let spoke = self.table.change(slot, |entry| *entry.spoke.get_or_insert(now));
        if spoke.is_some_and(|spoke| now.since(spoke) >= OBSTINATE) {
            self.table.exhume(slot);
        } else {
            self.tell_buried(now, slot, out);
        }
    }

    /// Tells a member that it is held for dead here, and who says so.
    pub(super) fn tell_buried(&mut self, now: Instant, slot: u32, out: &mut Outputs) {
        let Some(entry) = self.table.get(slot) else { return };
        let (of, life, peer) = (short(entry.peer), entry.life, entry.peer);
        if self.may(now, of, limit::BURIED, ASK_REST) {
            let mut parts = vec![Part::Buried(life)];
            let profile = self.table.me().item(Topic::Profile);
            parts.extend(profile.map(|known| Part::Item(known.item.clone())));
            self.send_to(peer, life.tag(), parts, out);
        }
    }

    fn part(&mut self, now: Instant, sender: u32, part: Part, out: &mut Outputs) {
        match part {
            Part::Probe(probe) => self.hear_probe(now, sender, &probe, out),
            Part::Coordinate(coordinate) => self.sample(now, sender, Point::read(coordinate), out),
            Part::Root(root) => self.compare(now, sender, root, out),
            Part::Buckets(buckets) => self.hear_buckets(sender, &buckets, out),
            Part::Entries(of, buckets, entries) => {
                self.hear_entries(now, sender, of, &buckets, &entries, out)
            }
            Part::Want(wanted) => self.hear_want(sender, &wanted, out),
            Part::Graves(graves) => {
                for (of, life) in graves {
                    self.hear_grave(now, sender, of, life, out);
                }
            }
            Part::Buried(life) => {
                if let Some(by) = self.table.get(sender).map(|entry| entry.peer) {
                    self.hear_buried(now, by, life, out);
                }
            }
            Part::Lives(lives) => self.hear_lives(now, &lives, out),
            Part::Doubt(incarnation) => self.hear_doubt(now, sender, incarnation, out),
            Part::Alive(incarnation) => self.hear_alive(sender, incarnation),
            Part::Relay(relay) => self.hear_relay(now, sender, relay, out),
            Part::Have(notices) => self.hear_notices(now, sender, &notices, out),
            Part::Item(_) => {}
        }
        self.absorb(now, out);
    }

    /// Names become slots. What is claimed of the unknown, or of lives of which there is no signature here, is ignored:
    /// whoever has the signature is asked for it. Whom others suspect or hold for dead is looked into.
    fn hear_probe(&mut self, now: Instant, sender: u32, probe: &Probe, out: &mut Outputs) {
        let Some((from, peer)) =
            self.table.get(sender).map(|entry| (Id { slot: sender, life: entry.life }, entry.peer))
        else {
            return;
        };
        let mut wanted = Vec::new();
        let (mut updates, mut doubtful) = (Vec::new(), Vec::new());
        for claim in &probe.claims {
            let slot = self.table.find(claim.of);
            let entry = slot.and_then(|slot| Some((slot, self.table.get(slot)?)));
            match entry {
                Some((slot, entry)) if entry.life.tag() == claim.tag => {
                    let id = Id { slot, life: entry.life };
                    match self.weigh(now, (sender, peer), id, claim, out) {
                        Weighed::Taken => {
                            updates.push(Update { id, incarnation: claim.incarnation, status: claim.status });
                            doubtful
                                .extend((claim.status == Status::Suspect).then_some((slot, Why::Suspected)));
                        }
                        Weighed::LookedInto => doubtful.push((slot, Why::Accused(peer))),
                        Weighed::Nothing => {}
                    }
                }
                other => {
                    let versions =
                        other.map_or(Versions { of: claim.of, ..Versions::default() }, |(_, e)| e.versions());
                    if self.may(now, claim.of, limit::WANT, ASK_REST) {
                        wanted.push(versions);
                    }
                }
            }
        }
        if !wanted.is_empty() {
            self.send(sender, vec![Part::Want(wanted)], out);
        }
        self.time_answer(now, from, peer, probe.kind);
        let Some((kind, third_life)) = self.with_third(probe) else { return };
        self.swim.message(from, &Message { kind, incarnation: probe.incarnation, third_life, updates });
        self.absorb(now, out);
        for (slot, why) in doubtful {
            let id = self.table.get(slot).map(|entry| Id { slot, life: entry.life });
            let is_suspected = id.is_some_and(|id| self.swim.suspected(id).is_some());
            if is_suspected || why != Why::Suspected {
                self.look_into(now, slot, why);
            }
        }
    }

    /// What is to be done with a claim of `by` (its slot, its name) about `id`.
    fn weigh(
        &mut self,
        now: Instant,
        by: (u32, PeerId),
        id: Id,
        claim: &Claim,
        out: &mut Outputs,
    ) -> Weighed {
        let (sender, peer) = by;
        if id.slot == sender {
            return Weighed::Taken;
        }
        if id.slot == ME {
            let is_near = claim.incarnation <= self.incarnation.saturating_add(INCARNATIONS_MISSED);
            return match claim.status {
                Status::Down => {
                    self.hear_buried(now, peer, id.life, out);
                    Weighed::Nothing
                }
                _ if is_near => Weighed::Taken,
                _ => Weighed::Nothing,
            };
        }
        // Of the dead there is nothing to be said.
        let Some(incarnation) = self.swim.incarnation(id) else { return Weighed::Nothing };
        match claim.status {
            Status::Down if self.standings.is_heard_on(now, peer, claim.of) => Weighed::LookedInto,
            Status::Down => Weighed::Nothing,
            Status::Alive if self.is_asked(id.slot) => Weighed::Nothing,
            _ if claim.incarnation > incarnation.saturating_add(INCARNATIONS_MISSED) => Weighed::Nothing,
            Status::Alive | Status::Suspect => Weighed::Taken,
        }
    }

    /// What is not known here is asked for.
    fn hear_notices(&mut self, now: Instant, sender: u32, notices: &[Notice], out: &mut Outputs) {
        let mut wanted: Vec<Versions> = Vec::new();
        for notice in notices {
            let entry = self.table.find(notice.of).and_then(|slot| self.table.get(slot));
            let versions = entry.map_or(Versions { of: notice.of, ..Versions::default() }, Entry::versions);
            let is_known = entry.is_some_and(|entry| {
                let is_dead = entry.died.is_some();
                entry.life.tag() == notice.tag
                    && (is_dead || versions.sequences[usize::from(notice.topic)] >= notice.sequence)
            });
            let is_asked = wanted.iter().any(|wanted| wanted.of == notice.of);
            if !is_known && !is_asked && self.may(now, notice.of, limit::NOTICE + notice.topic, ASK_REST) {
                wanted.push(versions);
            }
        }
        if !wanted.is_empty() {
            self.send(sender, vec![Part::Want(wanted)], out);
        }
    }

    fn with_third(&self, probe: &Probe) -> Option<(Kind, super::Life)> {
        let Some(third) = probe.third else { return Some((probe.kind, super::Life::default())) };
        let slot = self.table.find(third)?;
        let (number, n, _) = probe.kind.parts();
        Some((Kind::from_parts(number, n, slot)?, self.table.get(slot)?.life))
    }

    /// An item that `by` has sent, to be passed on so often.
    pub(super) fn hear(&mut self, now: Instant, by: PeerId, item: Item, copies: u8, out: &mut Outputs) {
        if !self.is_news(item.owner, item.topic, item.version) {
            return;
        }
        let owner = item.owner;
        match self.trust.open(item) {
            Ok(known) if owner == self.me => self.outlive(now, known.item.version, out),
            Ok(known) => self.take(now, known, copies, out),
            Err(why) => {
                out.events.push(Event::Refused { by, owner, why });
                // What cannot be read, or cannot be, may be of another version, and who passed it on may be of that.
                let is_lie = why == ItemError::Signature || (owner == by && why != ItemError::Unreadable);
                self.blame(now, by, if is_lie { FORGED } else { 0.0 }, out);
            }
        }
    }

    /// Whether this is later than what is known, and not of somebody who is dead in that life.
    fn is_news(&self, owner: PeerId, topic: Topic, version: Version) -> bool {
        let Some(entry) = self.table.slot(owner).and_then(|slot| self.table.get(slot)) else { return true };
        let is_dead = entry.died.is_some() && version.life <= entry.life;
        let known = entry.item(topic).map(|known| known.item.version);
        !is_dead && version.life >= entry.life && known.is_none_or(|known| known < version)
    }

    /// Takes an item that is believed.
    pub(super) fn take(&mut self, now: Instant, known: Arc<Known>, copies: u8, out: &mut Outputs) {
        let (owner, topic, version) = (known.item.owner, known.item.topic, known.item.version);
        if owner == self.me || !self.is_news(owner, topic, version) {
            return;
        }
        let Some(slot) = self.table.slot(owner).or_else(|| self.admit(owner, version)) else { return };
        let Some(before) = self.table.get(slot).map(|entry| entry.life) else { return };
        self.table.change(slot, |entry| {
            if version.life.start() > before.start() {
                entry.items = [const { None }; super::TOPICS];
            }
            entry.life = version.life;
            entry.items[topic.index()] = Some(known);
        });
        self.learnt = self.learnt.saturating_add(1);
        self.changed = now;
        if version.is_last() {
            self.take_leave(now, Id { slot, life: version.life }, out);
        }
        if copies > 0 {
            self.rumours.add((slot, topic), copies);
        }
        if version.is_last() {
            return;
        }
        // A signature of a new life is as good as a word from it.
        let is_alive = self.table.get(slot).is_some_and(|entry| entry.is_alive);
        if version.life > before || !is_alive {
            self.swim.alive(Id { slot, life: version.life }, 0);
            self.absorb(now, out);
        }
        let Some(is_told) = self.table.get(slot).map(|entry| entry.is_told) else { return };
        if is_told && version.life.start() > before.start() {
            out.events.push(Event::Restarted(owner));
        }
        if is_told {
            out.events.push(Event::Changed(owner, topic));
        }
        self.tell_up(slot, out);
    }

    /// A member's own last word: it has left.
    fn take_leave(&mut self, now: Instant, id: Id, out: &mut Outputs) {
        self.looks.remove(&id.slot);
        self.swim.left(id);
        self.absorb(now, out);
        self.table.change(id.slot, |entry| {
            (entry.is_alive, entry.died) = (false, entry.died.or(Some(now)));
        });
    }

    fn admit(&mut self, owner: PeerId, version: Version) -> Option<u32> {
        if self.table.len() >= self.config.members {
            return None;
        }
        self.table.insert(owner, version.life)
    }

    /// The failure detector has found a member.
    pub(super) fn found(&mut self, id: Id, out: &mut Outputs) {
        self.table.change(id.slot, |entry| (entry.is_alive, entry.died) = (true, None));
        self.tell_up(id.slot, out);
    }

    fn tell_up(&mut self, slot: u32, out: &mut Outputs) {
        let is_up = |entry: &super::table::Entry| entry.is_alive && entry.item(Topic::Profile).is_some();
        let entry = self.table.get(slot).filter(|entry| !entry.is_told && is_up(entry));
        if let Some(peer) = entry.map(|entry| entry.peer).filter(|_| slot != ME) {
            self.table.change(slot, |entry| entry.is_told = true);
            out.events.push(Event::Up(peer));
        }
    }

    /// The failure detector has lost one.
    pub(super) fn lost(&mut self, now: Instant, id: Id, out: &mut Outputs) {
        let Some(entry) = self.table.get(id.slot).filter(|entry| entry.life == id.life && id.slot != ME)
        else {
            return;
        };
        let (peer, was_told) = (entry.peer, entry.is_told);
        self.table.change(id.slot, |entry| {
            (entry.is_alive, entry.is_told, entry.died) = (false, false, Some(now));
            entry.spoke = None;
        });
        self.changed = now;
        for topic in Topic::ALL {
            self.rumours.drop((id.slot, topic));
        }
        self.links.remove(&peer);
        if was_told {
            out.events.push(Event::Down(peer));
        }
    }
}
