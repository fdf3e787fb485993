//! Gaps: found by digests, filled by the items that are missing. Joining is the same with everything missing, and a
//! partition heals by knocking at the dead.

use std::time::Duration;

use rand::RngExt as _;

use super::digest::{bucket, is_count};
use super::doubting::Why;
use super::hearing::limit;
use super::item::{Life, TOPICS, Topic, Trust};
use super::packet::{Part, Short, Versions, short};
use super::table::{Entry, ME};
use super::{Membership, Outputs, Task};
use crate::clock::Instant;
use crate::ids::PeerId;

/// Members that one packet of entries tells of, about.
const ENTRIES_MAX: usize = 40;
/// Members that one packet asks for.
const WANTED_MAX: usize = 40;
/// Dead members that one packet tells of.
const GRAVES_MAX: usize = 40;
/// Names to join by that are remembered: those given, and those forgotten last.
const SEEDS_MAX: usize = 64;
/// Many items at once mean that there are more where they came from: that is asked for after this time.
const BULK_REST: Duration = Duration::from_millis(150);
/// So many items are many.
const BULK_LEAST: u32 = 8;
/// The same grave is looked into, the same reply to it sent, after this time again.
const GRAVE_REST: Duration = Duration::from_secs(1);

/// Slots that are drawn to find one at random before all are looked at.
const DRAWS: usize = 8;

/// Subjects of `mine` that are newer than `theirs`.
fn newer(slot: u32, mine: &Versions, theirs: &Versions) -> impl Iterator<Item = (u32, Topic)> {
    let (mine, theirs) = (*mine, *theirs);
    Topic::ALL.into_iter().filter_map(move |topic| {
        let (ours, known) = (mine.sequences[topic.index()], theirs.sequences[topic.index()]);
        let is_newer = mine.life > theirs.life || (mine.life == theirs.life && ours > known);
        (is_newer && ours > 0).then_some((slot, topic))
    })
}

fn lacks(mine: &Versions, theirs: &Versions) -> bool {
    theirs.life > mine.life
        || (theirs.life == mine.life && (0..TOPICS).any(|i| theirs.sequences[i] > mine.sequences[i]))
}

impl<T: Trust> Membership<T> {
    pub(super) fn join(&mut self, now: Instant, seeds: &[PeerId], out: &mut Outputs) {
        for peer in seeds.iter().filter(|peer| **peer != self.me) {
            if !self.seeds.contains(peer) && self.seeds.len() < SEEDS_MAX {
                self.seeds.push(*peer);
            }
            self.hello(*peer, 0, out);
        }
        self.schedule_bulk(now);
    }

    /// Says who this is, and asks for everything that is known there.
    fn hello(&self, peer: PeerId, to: u16, out: &mut Outputs) {
        self.introduce(peer, to, out);
        let buckets = self.table.digest().buckets(self.table.alive());
        self.send_to(peer, to, vec![Part::Buckets(buckets)], out);
    }

    fn schedule_bulk(&mut self, now: Instant) {
        self.learnt = 0;
        if !self.has_bulk {
            self.has_bulk = true;
            self.schedule(now.after(BULK_REST), Task::Bulk);
        }
    }

    /// While answers bring much, the next is asked for at once, of another member.
    pub(super) fn bulk(&mut self, now: Instant, out: &mut Outputs) {
        self.has_bulk = false;
        if self.learnt < BULK_LEAST || self.left {
            return;
        }
        if let Some(slot) = self.any(|entry| entry.is_alive) {
            let buckets = self.table.digest().buckets(self.table.alive());
            self.send(slot, vec![Part::Buckets(buckets)], out);
        }
        self.schedule_bulk(now);
    }

    /// One of the others of whom that is true. Mostly it is so of many, and a few draws find one.
    pub(super) fn any(&mut self, is_one: impl Fn(&Entry) -> bool) -> Option<u32> {
        let is_other = |(slot, entry): &(u32, &Entry)| *slot != ME && is_one(entry);
        for _ in 0..DRAWS {
            let slot = self.rng.random_range(0..self.table.slots());
            if self.table.get(slot).is_some_and(|entry| is_other(&(slot, entry))) {
                return Some(slot);
            }
        }
        let all: Vec<u32> = self.table.entries().filter(is_other).map(|(slot, _)| slot).collect();
        if all.is_empty() { None } else { Some(all[self.rng.random_range(0..all.len())]) }
    }

    /// Knocks at somebody who is dead as far as is known here, or was never met.
    pub(super) fn knock(&mut self, now: Instant, out: &mut Outputs) {
        if self.left {
            return;
        }
        self.knocks = self.knocks.wrapping_add(1);
        let is_alone = self.table.alive() == 1;
        let absent = |peer: &PeerId| {
            self.table.slot(*peer).is_none_or(|s| self.table.get(s).is_none_or(|e| !e.is_alive))
        };
        let absent: Vec<PeerId> = self.seeds.iter().copied().filter(absent).collect();
        match self.any(|entry| entry.died.is_some()) {
            Some(slot) if absent.is_empty() || self.knocks.is_multiple_of(2) => {
                self.tell_buried(now, slot, out)
            }
            _ if is_alone => absent.iter().for_each(|peer| self.hello(*peer, 0, out)),
            _ if !absent.is_empty() => {
                let chosen = self.rng.random_range(0..absent.len());
                self.hello(absent[chosen], 0, out);
            }
            _ => {}
        }
        if is_alone && !absent.is_empty() {
            self.schedule_bulk(now);
        }
        let period = if is_alone { self.config.knock / 4 } else { self.config.knock };
        let pause = self.jittered(period);
        self.schedule(now.after(pause), Task::Knock);
        self.look_after(now);
    }

    /// Somebody's digest came with a probe. Where it differs, and not only because news are under way, it is told why.
    pub(super) fn compare(&mut self, now: Instant, sender: u32, root: u32, out: &mut Outputs) {
        if root == self.table.digest().root() {
            return;
        }
        let rest = now.since(self.synced);
        let is_settled = self.rumours.is_empty() && now.since(self.changed) >= self.config.settle;
        if rest >= self.config.sync_rest && (is_settled || rest >= self.config.sync_latest) {
            self.synced = now;
            let buckets = self.table.digest().buckets(self.table.alive());
            self.send(sender, vec![Part::Buckets(buckets)], out);
            self.schedule_bulk(now);
        }
    }

    /// Answers with what is known here in buckets that differ; at once with the items where the other has nothing.
    pub(super) fn hear_buckets(&mut self, sender: u32, theirs: &[u32], out: &mut Outputs) {
        let Some(mut differing) = self.table.digest().differing(theirs) else { return };
        let Some((peer, to)) = self.address(sender) else { return };
        let of = theirs.len();
        let is_empty = |i: &u16| theirs[usize::from(*i)] == 0;
        let missing: Vec<u16> = differing.iter().copied().filter(is_empty).collect();
        let mut items = self.in_buckets(of, &missing, |entry| entry.is_alive && entry.peer != peer);
        if !items.is_empty() {
            let start = self.rng.random_range(0..items.len());
            items.rotate_left(start);
            let subjects = items.iter().flat_map(|slot| Topic::ALL.map(|topic| (*slot, topic)));
            self.send_items(peer, to, subjects, out);
        }
        differing.retain(|i| !is_empty(i));
        if differing.is_empty() {
            return;
        }
        let start = self.rng.random_range(0..differing.len());
        differing.rotate_left(start);
        let each = (self.table.len() / of).max(1);
        differing.truncate((ENTRIES_MAX / each).max(1));
        let slots = self.in_buckets(of, &differing, |entry| entry.is_alive);
        let versions = |slot: &u32| self.table.get(*slot).map(Entry::versions);
        let entries: Vec<Versions> = slots.iter().filter_map(versions).collect();
        let graves = self.graves(of, &differing);
        let mut parts = vec![Part::Entries(of as u32, differing, entries)];
        if !graves.is_empty() {
            parts.push(Part::Graves(graves));
        }
        self.send_to(peer, to, parts, out);
    }

    fn address(&self, slot: u32) -> Option<(PeerId, u16)> {
        self.table.get(slot).map(|entry| (entry.peer, entry.life.tag()))
    }

    fn in_buckets(&self, of: usize, buckets: &[u16], is_one: impl Fn(&Entry) -> bool) -> Vec<u32> {
        let mut is_in = vec![false; of];
        buckets.iter().for_each(|i| is_in[usize::from(*i)] = true);
        let chosen = |(slot, entry): (u32, &Entry)| {
            (is_in[bucket(short(entry.peer), of)] && is_one(entry)).then_some(slot)
        };
        self.table.entries().filter_map(chosen).collect()
    }

    fn graves(&self, of: usize, buckets: &[u16]) -> Vec<(Short, Life)> {
        let slots = self.in_buckets(of, buckets, |entry| entry.died.is_some());
        let grave = |slot: &u32| self.table.get(*slot).map(|entry| (short(entry.peer), entry.life));
        slots.iter().filter_map(grave).take(GRAVES_MAX).collect()
    }

    /// Sends what the other lacks, asks for what is lacking here, and names those who are dead.
    pub(super) fn hear_entries(
        &mut self,
        now: Instant,
        sender: u32,
        of: u32,
        buckets: &[u16],
        entries: &[Versions],
        out: &mut Outputs,
    ) {
        let of = of as usize;
        if !is_count(of) || buckets.iter().any(|i| usize::from(*i) >= of) {
            return;
        }
        let Some((peer, to)) = self.address(sender) else { return };
        let mut subjects = Vec::new();
        for slot in self.in_buckets(of, buckets, |entry| entry.is_alive) {
            let Some(mine) = self.table.get(slot).map(Entry::versions) else { continue };
            let theirs = entries.iter().find(|theirs| theirs.of == mine.of).copied().unwrap_or_default();
            subjects.extend(newer(slot, &mine, &theirs));
        }
        self.send_items(peer, to, subjects, out);
        let (mut wanted, mut graves, mut alive_there) = (Vec::new(), Vec::new(), Vec::new());
        for theirs in entries {
            let entry = self.table.find(theirs.of).and_then(|slot| self.table.get(slot));
            match entry {
                Some(entry) if entry.died.is_some() && entry.life >= theirs.life => {
                    graves.push((theirs.of, entry.life));
                    alive_there.push((theirs.of, theirs.life));
                }
                Some(entry) if lacks(&entry.versions(), theirs) => wanted.push(entry.versions()),
                Some(_) => {}
                None => wanted.push(Versions { of: theirs.of, ..Versions::default() }),
            }
        }
        self.hear_lives(now, &alive_there, out);
        wanted.truncate(WANTED_MAX);
        graves.truncate(GRAVES_MAX);
        let wanted = (!wanted.is_empty()).then_some(Part::Want(wanted));
        let graves = (!graves.is_empty()).then_some(Part::Graves(graves));
        let parts: Vec<Part> = wanted.into_iter().chain(graves).collect();
        if !parts.is_empty() {
            self.send_to(peer, to, parts, out);
        }
    }

    pub(super) fn hear_want(&mut self, sender: u32, wanted: &[Versions], out: &mut Outputs) {
        let Some((peer, to)) = self.address(sender) else { return };
        let mut subjects = Vec::new();
        for theirs in wanted {
            let Some(slot) = self.table.find(theirs.of) else { continue };
            let Some(entry) = self.table.get(slot) else { continue };
            // Of the dead only that they have left is of use to others.
            let is_last = |topic: Topic| entry.item(topic).is_some_and(|known| known.item.version.is_last());
            let mine = entry.versions();
            let all = newer(slot, &mine, theirs);
            subjects.extend(all.filter(|(_, topic)| entry.is_alive || is_last(*topic)));
        }
        self.send_items(peer, to, subjects, out);
    }

    /// Somebody holds a member for dead, maybe in a life that was not heard of here. Where it is alive here it is looked
    /// into, and the other knocks at it: it may yet say that it lives.
    pub(super) fn hear_grave(&mut self, now: Instant, sender: u32, of: Short, life: Life, out: &mut Outputs) {
        let Some(slot) = self.table.find(of) else { return };
        let Some(entry) = self.table.get(slot).filter(|entry| entry.is_alive) else { return };
        let known = entry.life;
        if slot == ME {
            if let Some(by) = self.table.get(sender).map(|entry| entry.peer) {
                self.hear_buried(now, by, life, out);
            }
        } else if known > life {
            let Some((peer, to)) = self.address(sender) else { return };
            self.send_items(peer, to, Topic::ALL.map(|topic| (slot, topic)), out);
        } else if self.may(now, of, limit::GRAVE, GRAVE_REST) {
            self.send(sender, vec![Part::Lives(vec![(of, known)])], out);
            self.look_into(now, slot, Why::Buried);
        }
    }

    /// Somebody has these for alive. Who is dead here in that life is told so, to begin another.
    pub(super) fn hear_lives(&mut self, now: Instant, lives: &[(Short, Life)], out: &mut Outputs) {
        for (of, life) in lives.iter().take(GRAVES_MAX) {
            let Some(slot) = self.table.find(*of) else { continue };
            if self.table.get(slot).is_some_and(|entry| entry.died.is_some() && entry.life == *life) {
                self.tell_buried(now, slot, out);
            }
        }
    }

    /// The tombstone of a member has expired.
    pub(super) fn forget(&mut self, slot: u32, peer: PeerId) {
        for topic in Topic::ALL {
            self.rumours.drop((slot, topic));
        }
        self.table.remove(slot);
        if !self.seeds.contains(&peer) {
            if self.seeds.len() >= SEEDS_MAX {
                self.seeds.remove(0);
            }
            self.seeds.push(peer);
        }
    }
}
