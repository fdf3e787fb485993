//! What a run came to.

use std::collections::BTreeMap;

use super::{REST_NS, World};
use crate::membership::Outcome;
use crate::membership::watch::Watch;

impl World {
    pub(in crate::membership) fn outcome(&self) -> Outcome {
        let living = self.living().count().max(1) as f64;
        let seconds = self.spec.seconds.min(REST_NS as f64 / 1e9).max(1e-9);
        let mut timings: Vec<_> = self.done.iter().chain(&self.watches).map(Watch::timing).collect();
        timings.sort_by(|a, b| a.at_s.total_cmp(&b.at_s).then(a.node.cmp(&b.node)));
        Outcome {
            seed: 0,
            nodes: self.spec.nodes,
            seconds: self.spec.seconds,
            packets: self.packets,
            bytes: self.bytes,
            rest_bytes_per_s: self.rest.1 as f64 / living / seconds,
            rest_packets_per_s: self.rest.0 as f64 / living / seconds,
            peak_bytes_per_s: self.members.iter().map(|m| m.peak_bytes_per_s).max().unwrap_or(0),
            faults: self.strikes.len(),
            false_downs: self.mourned.len() as u64,
            refused: self.refused,
            distrusted: self.distrusted(),
            timings,
            coordinate_error: self.coordinate_error(),
            serving: self.serving.as_ref().map(|serving| serving.outcome(self.spec.seconds)),
            violations: Vec::new(),
        }
    }

    fn distrusted(&self) -> BTreeMap<u32, u32> {
        let mut distrusted = BTreeMap::new();
        for (liar, _) in &self.exposed {
            *distrusted.entry(*liar).or_default() += 1;
        }
        distrusted
    }

    /// Over pairs that nobody needs to have measured: what a third member says of them.
    fn coordinate_error(&self) -> Option<(f64, f64)> {
        let living: Vec<_> = self.living().collect();
        let (_, judge) = living.first()?;
        let mut errors = Vec::new();
        for (k, (a, pa)) in living.iter().enumerate().skip(1) {
            let (b, pb) = &living[(k * 7 + 3) % living.len()];
            if a == b || *b == living[0].0 {
                continue;
            }
            let truth = self.members[*a as usize].place.round_trip_ms(&self.members[*b as usize].place) * 1e3;
            let truth = truth + 2.0 * self.spec.network.jitter_ms * 1e3;
            let found = judge.round_trip(pa.me(), pb.me());
            errors.extend(found.map(|found| (found.us - truth).abs() / truth));
        }
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors.get(((errors.len() as f64 - 1.0) * share) as usize).copied();
        Some((at(0.5)?, at(0.9)?))
    }
}
