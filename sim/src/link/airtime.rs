//! The time of one resource: an uplink, a port, the air of a Wi-Fi network. Whatever passes takes a share of it, and
//! no instant is given away twice.

use std::collections::VecDeque;

/// Chance that a station with a frame to send begins in a given slot: `2 / (CWmin + 1)` with the smallest contention
/// window of 802.11 OFDM and later, 15. Source: Bianchi, "Performance analysis of the IEEE 802.11 DCF", JSAC 2000.
const SLOT_CHANCE: f64 = 2.0 / 16.0;

/// The contention among more stations than this is taken as among this many: the window doubles with every collision,
/// which keeps the chance of another below one half.
const STATIONS_MAX: usize = 6;

/// When a frame began to pass a resource and when the last of it had passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
}

/// Busy times from now on: disjoint, ascending, neighbours merged.
#[derive(Debug, Default)]
struct Calendar {
    busy: VecDeque<Slot>,
}

impl Calendar {
    fn forget_before(&mut self, now_ns: u64) {
        while self.busy.front().is_some_and(|slot| slot.end_ns <= now_ns) {
            self.busy.pop_front();
        }
    }

    /// The busy time that covers `at_ns`.
    fn covering(&self, at_ns: u64) -> Option<Slot> {
        let next = self.busy.partition_point(|slot| slot.end_ns <= at_ns);
        self.busy.get(next).copied().filter(|slot| slot.start_ns <= at_ns)
    }

    /// Takes the first `need_ns` of idle time from `from_ns` on, in as many pieces as there are. What was idle between
    /// is busy now, so the pieces and what lay between them become one entry.
    fn take(&mut self, from_ns: u64, need_ns: u64) -> Slot {
        let mut first = self.busy.partition_point(|slot| slot.end_ns <= from_ns);
        let mut next = first;
        let (mut at_ns, mut left_ns, mut start_ns) = (from_ns, need_ns, None);
        loop {
            if let Some(slot) = self.busy.get(next).filter(|slot| slot.start_ns <= at_ns) {
                at_ns = at_ns.max(slot.end_ns);
                next += 1;
                continue;
            }
            start_ns.get_or_insert(at_ns);
            let idle_until_ns = self.busy.get(next).map_or(u64::MAX, |slot| slot.start_ns);
            let used_ns = left_ns.min(idle_until_ns - at_ns);
            left_ns -= used_ns;
            at_ns = at_ns.saturating_add(used_ns);
            if left_ns == 0 || at_ns == u64::MAX {
                break;
            }
        }
        let taken = Slot { start_ns: start_ns.unwrap_or(at_ns), end_ns: at_ns };
        if need_ns > 0 {
            let mut merged = Slot { start_ns: from_ns.min(taken.start_ns), end_ns: at_ns };
            if let Some(before) = first.checked_sub(1).and_then(|i| self.busy.get(i))
                && before.end_ns == merged.start_ns
            {
                first -= 1;
            }
            if next > first {
                merged.start_ns = merged.start_ns.min(self.busy[first].start_ns);
            }
            if let Some(after) = self.busy.get(next).filter(|after| after.start_ns == at_ns) {
                merged.end_ns = after.end_ns;
                next += 1;
            }
            self.replace(first, next, merged);
        }
        taken
    }

    fn replace(&mut self, first: usize, next: usize, merged: Slot) {
        if next > first {
            self.busy[first] = merged;
            self.busy.drain(first + 1..next);
        } else {
            self.busy.insert(first, merged);
        }
    }
}

/// One resource's time, shared by two classes of frames.
///
/// Frames are cut into quanta on the wire, and small flows go before bulk ones at every quantum, as fair queueing with
/// a bonus for sparse flows does it (fq_codel, Linux's default). So a decode frame waits for decode frames before it
/// and for the rest of one quantum of a prefill in progress; the prefill's work moves into the next idle time. The
/// stamp of a prefill frame that is already on its way is not moved: the bulk frames after it pay.
#[derive(Debug, Default)]
pub(super) struct Airtime {
    /// What the small flows have taken.
    urgent: Calendar,
    /// What all have taken.
    all: Calendar,
    /// On a shared medium: who has frames waiting, and until when.
    stations: Vec<(u32, u64)>,
}

impl Airtime {
    pub(super) fn forget_before(&mut self, now_ns: u64) {
        self.urgent.forget_before(now_ns);
        self.all.forget_before(now_ns);
        self.stations.retain(|(_, until_ns)| *until_ns > now_ns);
    }

    /// Lets a small frame pass.
    pub(super) fn pass_urgent(&mut self, from_ns: u64, service_ns: u64, quantum_ns: u64) -> Slot {
        let idle_ns = self.urgent.take(from_ns, 0).start_ns;
        let wait_ns = self.all.covering(idle_ns).map_or(0, |bulk| {
            let into_quantum_ns = (idle_ns - bulk.start_ns) % quantum_ns.max(1);
            (quantum_ns - into_quantum_ns).min(bulk.end_ns - idle_ns)
        });
        let slot = self.urgent.take(idle_ns + wait_ns, service_ns);
        self.all.take(slot.start_ns, service_ns);
        slot
    }

    /// Lets a bulk frame pass.
    pub(super) fn pass_bulk(&mut self, from_ns: u64, service_ns: u64) -> Slot {
        self.all.take(from_ns, service_ns)
    }

    /// How many times longer than alone a station needs to get hold of the air: it and the others that wait collide
    /// with the chance `1 - (1 - SLOT_CHANCE)^others`, and every collision costs one more access.
    pub(super) fn contention(&self, station: u32) -> f64 {
        let others =
            self.stations.iter().filter(|(other, _)| *other != station).count().min(STATIONS_MAX - 1);
        (1.0 - SLOT_CHANCE).powi(-(others as i32))
    }

    /// Remembers that `station` has something on the air until then.
    pub(super) fn occupy(&mut self, station: u32, until_ns: u64) {
        match self.stations.iter_mut().find(|(known, _)| *known == station) {
            Some((_, until)) => *until = until_ns.max(*until),
            None => self.stations.push((station, until_ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(start_ns: u64, end_ns: u64) -> Slot {
        Slot { start_ns, end_ns }
    }

    #[test]
    fn work_fills_the_idle_time_between_what_is_taken() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.take(100, 50), slot(100, 150));
        assert_eq!(calendar.take(0, 30), slot(0, 30));
        assert_eq!(calendar.take(10, 100), slot(30, 180), "70 before the taken time and 30 after it");
        assert_eq!(calendar.busy, [slot(0, 180)]);
    }

    #[test]
    fn a_small_frame_waits_for_one_quantum_of_a_bulk_frame_and_no_more() {
        let mut air = Airtime::default();
        assert_eq!(air.pass_bulk(0, 1_000), slot(0, 1_000));
        assert_eq!(air.pass_urgent(250, 10, 100), slot(300, 310));
        assert_eq!(air.pass_urgent(250, 10, 100), slot(310, 320), "behind the small frame before it");
        assert_eq!(air.pass_bulk(0, 100), slot(1_020, 1_120), "the bulk pays for what went before it");
    }

    proptest! {
        #[test]
        fn no_instant_is_given_away_twice(jobs in prop::collection::vec((0u64..5_000, 1u64..300), 1..60)) {
            let mut calendar = Calendar::default();
            let mut total = 0;
            for (from, need) in &jobs {
                let taken = calendar.take(*from, *need);
                total += need;
                prop_assert!(taken.start_ns >= *from && taken.end_ns >= taken.start_ns + need);
                prop_assert!(calendar.busy.iter().all(|s| s.start_ns < s.end_ns));
                prop_assert!(calendar.busy.iter().zip(calendar.busy.iter().skip(1)).all(|(a, b)| a.end_ns < b.start_ns));
            }
            prop_assert_eq!(calendar.busy.iter().map(|s| s.end_ns - s.start_ns).sum::<u64>(), total);
        }

        #[test]
        fn without_bulk_the_lanes_share_one_calendar(jobs in prop::collection::vec((0u64..5_000, 1u64..300), 1..60)) {
            let mut air = Airtime::default();
            for (from, need) in jobs {
                air.pass_urgent(from, need, 64);
                prop_assert_eq!(&air.urgent.busy, &air.all.busy);
            }
        }
    }
}
