//! Items that others may not have heard of yet, each to be passed on so many times: what was passed on least goes first.

use std::collections::{BTreeMap, BTreeSet};

use super::item::Topic;
use super::packet::Notice;

/// Whose, and what of it.
pub(super) type Subject = (u32, Topic);

#[derive(Debug, Clone, Copy)]
struct Place {
    passed: u8,
    order: u64,
    copies: u8,
}

/// The first copies are the item itself, the others say that there is one.
pub(super) const WHOLE: u8 = 3;

/// What is being passed on. At most one item for each member and topic.
#[derive(Debug, Default)]
pub(super) struct Rumours {
    places: BTreeMap<Subject, Place>,
    queue: BTreeSet<(u8, u64, Subject)>,
    next: u64,
}

impl Rumours {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// There is a new item: it is to be passed on `copies` times.
    pub(super) fn add(&mut self, subject: Subject, copies: u8) {
        self.drop(subject);
        self.next += 1;
        let place = Place { passed: 0, order: self.next, copies };
        self.places.insert(subject, place);
        self.queue.insert((place.passed, place.order, subject));
    }

    pub(super) fn drop(&mut self, subject: Subject) {
        if let Some(place) = self.places.remove(&subject) {
            self.queue.remove(&(place.passed, place.order, subject));
        }
    }

    /// What to put into a packet with room for `room` bytes, given the length of each, and whether it goes whole; they
    /// count as passed on. The first may be longer than the room where `any_first`.
    pub(super) fn take(
        &mut self,
        mut room: usize,
        any_first: bool,
        length: impl Fn(Subject) -> Option<usize>,
    ) -> Vec<(Subject, bool)> {
        let (mut taken, mut gone) = (Vec::new(), Vec::new());
        for (passed, _, subject) in self.queue.iter().take(TRIED_MAX) {
            let Some(bytes) = length(*subject) else {
                gone.push(*subject);
                continue;
            };
            let is_whole = *passed < WHOLE;
            let bytes = if is_whole { bytes } else { Notice::BYTES };
            if bytes <= room || (any_first && taken.is_empty()) {
                taken.push((*subject, is_whole));
                room = room.saturating_sub(bytes);
            }
        }
        gone.into_iter().for_each(|subject| self.drop(subject));
        taken.iter().for_each(|(subject, _)| self.pass(*subject));
        taken
    }

    fn pass(&mut self, subject: Subject) {
        let Some(place) = self.places.get_mut(&subject) else { return };
        self.queue.remove(&(place.passed, place.order, subject));
        place.passed += 1;
        if place.passed < place.copies {
            self.queue.insert((place.passed, place.order, subject));
        } else {
            self.places.remove(&subject);
        }
    }
}

/// Items that are tried for one packet.
const TRIED_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_passed_on_as_often_as_it_should_be_the_least_told_first() {
        let mut rumours = Rumours::default();
        let all = [(1, Topic::Profile), (2, Topic::State), (3, Topic::Demand)];
        all.iter().for_each(|subject| rumours.add(*subject, 2));
        let mut passed = Vec::new();
        while !rumours.is_empty() {
            passed.extend(rumours.take(100, false, |_| Some(100)).into_iter().map(|(subject, _)| subject));
        }
        assert_eq!(passed, [all, all].concat());
    }

    #[test]
    fn an_item_goes_whole_a_few_times_and_is_mentioned_then() {
        let mut rumours = Rumours::default();
        rumours.add((1, Topic::State), WHOLE + 2);
        let whole: Vec<bool> =
            (0..WHOLE + 2).flat_map(|_| rumours.take(500, false, |_| Some(100))).map(|t| t.1).collect();
        assert_eq!(whole.iter().filter(|whole| **whole).count(), usize::from(WHOLE));
        assert!(rumours.is_empty() && !whole[whole.len() - 1]);
    }

    #[test]
    fn what_does_not_fit_waits_unless_it_may_go_alone() {
        let mut rumours = Rumours::default();
        rumours.add((1, Topic::Profile), 1);
        rumours.add((2, Topic::State), 1);
        let length = |(slot, _): Subject| Some(if slot == 1 { 5_000 } else { 100 });
        assert_eq!(rumours.take(1_000, false, length), vec![((2, Topic::State), true)]);
        assert_eq!(rumours.take(1_000, true, length), vec![((1, Topic::Profile), true)]);
        assert!(rumours.is_empty());
    }
}
