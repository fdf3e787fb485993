//! Packets in.

use std::sync::Arc;
use std::time::Duration;

use super::item::{Item, Known, Topic, Trust, Version};
use super::packet::{Notice, Packet, Part, Probe, Versions, short};
use super::swim::{Id, Kind, Message, Update};
use super::table::{Entry, ME};
use super::{Doubt, Event, Membership, Outputs, Point, Task};
use crate::clock::Instant;
use crate::ids::PeerId;

/// Between two of the same request to, or warning of, the same member.
const ASK_REST: Duration = Duration::from_millis(300);

/// What is limited by [`Membership::may`].
pub(super) mod limit {
    pub(in crate::membership) const WANT: u8 = 0;
    pub(in crate::membership) const INTRODUCE: u8 = 1;
    pub(in crate::membership) const BURIED: u8 = 2;
    pub(in crate::membership) const GRAVE: u8 = 3;
    /// And the next ones, for each topic.
    pub(in crate::membership) const NOTICE: u8 = 4;
}

impl<T: Trust> Membership<T> {
    pub(super) fn packet(&mut self, now: Instant, from: PeerId, bytes: &[u8], out: &mut Outputs) {
        let Some(Packet { from: tag, to, mut parts }) = Packet::decode(bytes) else {
            out.events.push(Event::Garbled(from));
            return;
        };
        if from == self.me {
            return;
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
        for part in parts {
            self.part(now, sender, part, out);
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

    /// Somebody who is held for dead speaks: that must be a mistake, which it can mend by another life.
    fn hear_the_dead(&mut self, now: Instant, slot: u32, parts: &[Part], out: &mut Outputs) {
        for part in parts {
            if let Part::Buried(life) = part {
                self.hear_buried(now, *life, out);
            }
        }
        self.tell_buried(now, slot, out);
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
            Part::Entries(of, buckets, entries) => self.hear_entries(sender, of, &buckets, &entries, out),
            Part::Want(wanted) => self.hear_want(sender, &wanted, out),
            Part::Graves(graves) => {
                for (of, life) in graves {
                    self.hear_grave(now, sender, of, life, out);
                }
            }
            Part::Buried(life) => self.hear_buried(now, life, out),
            Part::Doubt(incarnation) => {
                self.swim.doubted(incarnation);
                self.absorb(now, out);
                self.send(sender, vec![Part::Alive(self.incarnation)], out);
            }
            Part::Alive(incarnation) => {
                if let Some(entry) = self.table.get(sender) {
                    self.swim.alive(Id { slot: sender, life: entry.life }, incarnation);
                }
            }
            Part::Have(notices) => self.hear_notices(now, sender, &notices, out),
            Part::Item(_) => {}
        }
        self.absorb(now, out);
    }

    /// Names become slots. What is claimed of the unknown, or of lives of which there is no signature here, is ignored:
    /// whoever has the signature is asked for it.
    fn hear_probe(&mut self, now: Instant, sender: u32, probe: &Probe, out: &mut Outputs) {
        let Some((from, peer)) =
            self.table.get(sender).map(|entry| (Id { slot: sender, life: entry.life }, entry.peer))
        else {
            return;
        };
        let mut wanted = Vec::new();
        let mut updates = Vec::new();
        for claim in &probe.claims {
            let slot = self.table.find(claim.of);
            let entry = slot.and_then(|slot| Some((slot, self.table.get(slot)?)));
            match entry {
                Some((slot, entry)) if entry.life.tag() == claim.tag => {
                    let id = Id { slot, life: entry.life };
                    updates.push(Update { id, incarnation: claim.incarnation, status: claim.status });
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
            Err(why) => out.events.push(Event::Refused { by, owner, why }),
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
        if copies > 0 {
            self.rumours.add((slot, topic), copies);
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

    /// There is a reason to doubt that this one lives: it is asked at once, and dead if it does not answer.
    pub(super) fn doubt(&mut self, now: Instant, slot: u32) {
        let Some(id) = self.table.get(slot).map(|entry| Id { slot, life: entry.life }) else { return };
        if let Some(incarnation) = self.swim.suspect(id) {
            let doubt = Doubt { id, incarnation, left: self.config.doubts, buries: true };
            self.schedule(now, Task::Doubt(doubt));
        }
    }

    pub(super) fn doubt_peer(&mut self, now: Instant, peer: PeerId, out: &mut Outputs) {
        if let Some(slot) = self.table.slot(peer).filter(|slot| *slot != ME) {
            self.doubt(now, slot);
            self.absorb(now, out);
        }
    }
}
