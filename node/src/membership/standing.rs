//! What is held against others: lies that were found out here. It is this member's own opinion, told to nobody, so that
//! nobody can be slandered by it, and it fades.
//!
//! What proves a lie counts in full: whoever passes an item on has looked at its signature, so a forged one is the word of
//! who sent it. A false word that somebody is dead may be an honest mistake: it counts little, little more for the same
//! victim however often, and once in a few seconds however many are named. So neither a healed partition nor a member
//! that plays dead to one and not to others makes an honest member a liar.

use std::collections::BTreeMap;
use std::time::Duration;

use super::packet::Short;
use crate::clock::Instant;
use crate::ids::PeerId;

/// Lies are half forgotten after this time.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// More than these are not counted: who stops is believed again after two half-lives.
const LIES_COUNTED: f64 = 8.0;
/// What a mistake counts.
const MISTAKE: f64 = 0.4;
/// Mistakes within this time of one that counted are the same mistake.
const MISTAKE_REST: Duration = Duration::from_secs(5);
/// So many mistakes about the same victim count.
const COUNTED_EACH: u8 = 2;
/// After so many about the same victim ...
const HEARD_EACH: u8 = 3;
/// ... within this time, nothing more is heard of that one from there.
const DEAF: Duration = Duration::from_secs(30);
/// Mistakes about a victim are remembered this long.
const MEMORY: Duration = Duration::from_secs(600);
/// Victims that are remembered of one.
const VICTIMS_MAX: usize = 64;
/// Members of whom something is remembered.
const RECORDS_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Mistakes {
    /// Since it was last quiet.
    lately: u8,
    counted: u8,
    at: Instant,
}

#[derive(Debug, Clone, Default)]
struct Record {
    lies: f64,
    at: Instant,
    mistaken: Option<Instant>,
    victims: BTreeMap<Short, Mistakes>,
}

impl Record {
    fn lies(&self, now: Instant) -> f64 {
        self.lies * (-now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

/// What is held against whom.
#[derive(Debug)]
pub(super) struct Standings {
    records: BTreeMap<PeerId, Record>,
    /// Whoever has more than these is not believed on others.
    lies_most: f64,
}

impl Standings {
    pub(super) fn new(lies_most: f64) -> Self {
        Self { records: BTreeMap::new(), lies_most }
    }

    /// From 1, where nothing is held against it, to 0. Below a half it is not believed on others.
    pub(super) fn trust(&self, now: Instant, peer: PeerId) -> f64 {
        let lies = self.records.get(&peer).map_or(0.0, |record| record.lies(now));
        (1.0 - lies / (2.0 * self.lies_most)).max(0.0)
    }

    pub(super) fn is_believed(&self, now: Instant, peer: PeerId) -> bool {
        self.trust(now, peer) >= 0.5
    }

    /// Whether its word on that one is worth looking into.
    pub(super) fn is_heard_on(&self, now: Instant, peer: PeerId, victim: Short) -> bool {
        let mistakes = self.records.get(&peer).and_then(|record| record.victims.get(&victim));
        self.is_believed(now, peer)
            && mistakes.is_none_or(|m| m.lately < HEARD_EACH || now.since(m.at) >= DEAF)
    }

    /// It has lied, which counts `weight`; gives whether it is no longer believed from now on.
    pub(super) fn lied(&mut self, now: Instant, peer: PeerId, weight: f64) -> bool {
        let was_believed = self.is_believed(now, peer);
        let record = self.record(now, peer);
        record.lies = (record.lies(now) + weight).min(LIES_COUNTED);
        record.at = now;
        let is_found = was_believed && !self.is_believed(now, peer);
        if is_found {
            // For a half-life at least, so that it is not found again and again.
            let least = 2.0 * self.lies_most;
            let record = self.record(now, peer);
            record.lies = record.lies.max(least);
        }
        is_found
    }

    /// It said that `victim` is dead, who is not; gives whether it is no longer believed from now on.
    pub(super) fn erred(&mut self, now: Instant, peer: PeerId, victim: Short) -> bool {
        let record = self.record(now, peer);
        record.victims.retain(|_, mistakes| now.since(mistakes.at) < MEMORY);
        if record.victims.len() >= VICTIMS_MAX && !record.victims.contains_key(&victim) {
            let oldest = record.victims.iter().min_by_key(|(_, m)| m.at).map(|(victim, _)| *victim);
            oldest.map(|victim| record.victims.remove(&victim));
        }
        let mistakes = record.victims.entry(victim).or_insert(Mistakes { lately: 0, counted: 0, at: now });
        let lately = if now.since(mistakes.at) >= DEAF { 0 } else { mistakes.lately };
        (mistakes.lately, mistakes.at) = (lately.saturating_add(1), now);
        let is_other = record.mistaken.is_none_or(|at| now.since(at) >= MISTAKE_REST);
        if mistakes.counted >= COUNTED_EACH || !is_other {
            return false;
        }
        mistakes.counted += 1;
        record.mistaken = Some(now);
        self.lied(now, peer, MISTAKE)
    }

    fn record(&mut self, now: Instant, peer: PeerId) -> &mut Record {
        if self.records.len() >= RECORDS_MAX && !self.records.contains_key(&peer) {
            let rank =
                |a: &(&PeerId, &Record), b: &(&PeerId, &Record)| a.1.lies(now).total_cmp(&b.1.lies(now));
            let least = self.records.iter().min_by(rank).map(|(peer, _)| *peer);
            least.map(|peer| self.records.remove(&peer));
        }
        self.records.entry(peer).or_insert(Record { at: now, ..Record::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIAR: PeerId = PeerId([7; 32]);

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn who_forges_is_not_believed_and_is_again_when_it_stops() {
        let mut standings = Standings::new(2.0);
        assert!(!standings.lied(at(1), LIAR, 1.0) && !standings.lied(at(1), LIAR, 1.0));
        assert!(standings.lied(at(1), LIAR, 1.0), "the third is one too many");
        assert!(!standings.is_believed(at(2), LIAR));
        (0..100).for_each(|_| assert!(!standings.lied(at(3), LIAR, 1.0), "it is told once"));
        assert!(!standings.is_believed(at(100), LIAR) && standings.is_believed(at(124), LIAR));
        assert!(standings.trust(at(1_000), LIAR) > 0.99);
    }

    #[test]
    fn one_victim_does_not_suffice_however_often() {
        let mut standings = Standings::new(2.0);
        for second in 0..500 {
            assert!(!standings.erred(at(second), LIAR, 1));
        }
        assert!(standings.is_believed(at(500), LIAR) && !standings.is_heard_on(at(500), LIAR, 1));
        assert!(standings.is_heard_on(at(500), LIAR, 2) && standings.is_heard_on(at(530), LIAR, 1));
    }

    #[test]
    fn many_at_once_are_one_mistake_and_many_one_after_the_other_are_lies() {
        let mut standings = Standings::new(2.0);
        (0..60).for_each(|victim| assert!(!standings.erred(at(1), LIAR, victim)));
        assert!(standings.trust(at(1), LIAR) > 0.85);
        let told = (0..30).filter(|i| standings.erred(at(10 + 5 * i), LIAR, 100 + i)).count();
        assert_eq!(told, 1);
        assert!(!standings.is_believed(at(160), LIAR));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut standings = Standings::new(2.0);
        for i in 0..5_000u32 {
            standings.erred(at(1), PeerId::from_index(i), 1);
            standings.erred(at(1), LIAR, u64::from(i));
        }
        assert!(standings.records.len() <= RECORDS_MAX);
        assert!(standings.records.values().all(|record| record.victims.len() <= VICTIMS_MAX));
    }
}
