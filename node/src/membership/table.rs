//! Everybody this member knows, and what they say of themselves: by slot, which the failure detector works with, and by
//! name. Keeps the digest of it all up to date.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::digest::Digest;
use super::item::{Known, Life, TOPICS, Topic};
use super::packet::{Short, Versions, short};
use crate::clock::Instant;
use crate::ids::PeerId;

/// The own slot.
pub(super) const ME: u32 = 0;

/// One member.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) peer: PeerId,
    /// The latest of which there is a signature.
    pub(super) life: Life,
    /// The failure detector's opinion of that life.
    pub(super) is_alive: bool,
    /// Those who watch were told that it is there.
    pub(super) is_told: bool,
    /// When it was found dead, if it is.
    pub(super) died: Option<Instant>,
    /// When it first spoke after that.
    pub(super) spoke: Option<Instant>,
    pub(super) items: [Option<Arc<Known>>; TOPICS],
}

impl Entry {
    pub(super) fn item(&self, topic: Topic) -> Option<&Arc<Known>> {
        self.items[topic.index()].as_ref()
    }

    /// What is known of its present life.
    pub(super) fn versions(&self) -> Versions {
        let sequence = |item: &Option<Arc<Known>>| {
            let version = item.as_ref().map(|known| known.item.version);
            version.filter(|version| version.life == self.life).map_or(0, |version| version.sequence)
        };
        let [a, b, c] = &self.items;
        Versions { of: short(self.peer), life: self.life, sequences: [sequence(a), sequence(b), sequence(c)] }
    }
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Slots of nobody that the failure detector still has a dead life in.
    haunted: BTreeMap<u32, Life>,
    by_short: BTreeMap<Short, u32>,
    digest: Digest,
    alive: usize,
}

impl Table {
    pub(super) fn new(me: PeerId, life: Life) -> Self {
        let mut table = Self {
            slots: Vec::new(),
            free: Vec::new(),
            haunted: BTreeMap::new(),
            by_short: BTreeMap::new(),
            digest: Digest::default(),
            alive: 0,
        };
        table.insert(me, life);
        table.change(ME, |entry| entry.is_alive = true);
        table
    }

    /// Living members, this one included.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// Members, the dead ones that are remembered included.
    pub(super) fn len(&self) -> usize {
        self.by_short.len()
    }

    /// Slots are below this.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn find(&self, of: Short) -> Option<u32> {
        self.by_short.get(&of).copied()
    }

    pub(super) fn slot(&self, peer: PeerId) -> Option<u32> {
        self.find(short(peer)).filter(|slot| self.get(*slot).is_some_and(|entry| entry.peer == peer))
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn me(&self) -> &Entry {
        self.get(ME).expect("its own entry is never removed")
    }

    /// Everybody, in the order of their keys' beginnings.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.by_short.values().filter_map(|slot| Some((*slot, self.get(*slot)?)))
    }

    /// A new member, not alive yet. `None` where another has the same short name.
    pub(super) fn insert(&mut self, peer: PeerId, life: Life) -> Option<u32> {
        if self.by_short.contains_key(&short(peer)) {
            return None;
        }
        let entry = Entry {
            peer,
            life,
            is_alive: false,
            is_told: false,
            died: None,
            spoke: None,
            items: [const { None }; TOPICS],
        };
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot as usize] = Some(entry);
        self.by_short.insert(short(peer), slot);
        Some(slot)
    }

    /// Changes an entry, and the digest with it.
    pub(super) fn change<R>(&mut self, slot: u32, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let entry = self.slots.get_mut(slot as usize)?.as_mut()?;
        let before = entry.is_alive.then(|| entry.versions());
        let result = change(entry);
        let after = entry.is_alive.then(|| entry.versions());
        if before != after {
            for versions in before.iter().chain(&after) {
                self.digest.toggle(versions);
            }
            self.alive = self.alive + usize::from(after.is_some()) - usize::from(before.is_some());
        }
        Some(result)
    }

    /// Forgets a dead member.
    pub(super) fn remove(&mut self, slot: u32) {
        if self.take_dead(slot).is_some() {
            self.free.push(slot);
        }
    }

    /// Forgets a dead member whose tombstone the failure detector still keeps, so that it can be met anew.
    pub(super) fn exhume(&mut self, slot: u32) {
        if let Some(entry) = self.take_dead(slot) {
            self.haunted.insert(slot, entry.life);
        }
    }

    /// The failure detector has forgotten that life too.
    pub(super) fn exorcise(&mut self, slot: u32, life: Life) {
        if self.haunted.get(&slot) == Some(&life) {
            self.haunted.remove(&slot);
            self.free.push(slot);
        }
    }

    fn take_dead(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.slots.get_mut(slot as usize)?.take_if(|entry| !entry.is_alive && slot != ME)?;
        self.by_short.remove(&short(entry.peer));
        Some(entry)
    }
}
