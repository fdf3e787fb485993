//! The fastest turning ring: many streams at once.
//!
//! A ring of `S` stages with `g` batches in flight turns once in `max(sum, g * slowest stage)`, where the sum runs over
//! steps and hops ([`crate::cost::predict`]). For a bound on `g * slowest` the least sum is one [`Ring`] search; the
//! best bound is found by halving, and the result is certain once no ring is found under a bound just below it.

use super::costs::Costs;
use super::ring::{Best, Ring};
use crate::plan::Stage;

/// Relative difference below which two figures are taken for the same: far above rounding, far below what matters.
pub(super) const EQUAL: f64 = 1e-11;

/// A ring and how long one round of all its batches takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Round {
    /// The round's time.
    pub(super) round_us: f64,
    /// The ring's stages.
    pub(super) stages: Vec<Stage>,
}

/// Batches in flight, and streams in the largest of them, when `streams` streams pass `stages` stages.
pub(super) fn batches(streams: u32, stages: usize) -> (u32, u32) {
    let groups = streams.min(stages as u32).max(1);
    (groups, streams.div_ceil(groups).max(1))
}

/// The quickest round of `streams` streams through exactly `stages` stages on nodes of `within`, over a subset that
/// `allowed` lets pass (bit masks over `within`), if it takes less than `below_us`.
pub(super) fn quickest(
    costs: &Costs<'_>,
    within: &[usize],
    stages: usize,
    streams: u32,
    below_us: f64,
    allowed: &dyn Fn(usize) -> bool,
) -> Option<Round> {
    let (groups, batch) = batches(streams, stages);
    let ring = Ring::new(costs, within, costs.decode(batch), costs.frames(1));
    let relaxed = ring.relaxed();
    let search = Search { ring: &ring, relaxed: &relaxed, stages, groups: f64::from(groups), allowed };
    let (mut low_us, mut high_us) = (0.0f64, below_us);
    let mut best = None;
    let mut bound_us = high_us * (1.0 - EQUAL);
    loop {
        let certain = bound_us >= high_us * (1.0 - EQUAL);
        match search.under(bound_us, high_us) {
            None if certain => return best,
            None => {
                low_us = bound_us;
                bound_us = high_us * (1.0 - EQUAL);
            }
            Some((sum_us, round)) => {
                high_us = round.round_us;
                best = Some(round);
                // Whatever keeps the bound takes at least that sum, and what breaks it takes longer than the bound.
                if sum_us >= high_us * (1.0 - EQUAL) && bound_us >= high_us * (1.0 - EQUAL) {
                    return best;
                }
                bound_us = (low_us.max(sum_us.min(high_us)) + high_us) / 2.0;
                if bound_us >= high_us * (1.0 - EQUAL) {
                    bound_us = (low_us + high_us) / 2.0;
                }
            }
        }
    }
}

struct Search<'a> {
    ring: &'a Ring,
    /// Quicker to search and never dearer: where it has nothing, there is nothing.
    relaxed: &'a Ring,
    stages: usize,
    groups: f64,
    allowed: &'a dyn Fn(usize) -> bool,
}

impl Search<'_> {
    /// Of the rings whose slowest stage keeps `bound_us` over all batches, the one with the least sum, if that is less
    /// than `below_us`; with its sum.
    fn under(&self, bound_us: f64, below_us: f64) -> Option<(f64, Round)> {
        let longest_us = bound_us / self.groups;
        let limit_us = below_us * (1.0 - EQUAL);
        self.least(&self.relaxed.sweep(longest_us, self.stages).best)
            .filter(|(_, b)| b.total_us < limit_us)?;
        let (mask, least) = self.least(&self.ring.best(longest_us, self.stages))?;
        if least.total_us >= limit_us {
            return None;
        }
        let stages = self.ring.stages(mask, &least, longest_us);
        let slowest_us = stages.iter().map(|s| self.ring.pace_us(s)).fold(0.0, f64::max);
        let round_us = least.total_us.max(slowest_us * self.groups);
        Some((least.total_us, Round { round_us, stages }))
    }

    /// The least of the subsets of the right size that are allowed.
    fn least(&self, best: &[Option<Best>]) -> Option<(usize, Best)> {
        let of_size = |mask: &usize| mask.count_ones() as usize == self.stages && (self.allowed)(*mask);
        let found = (1..best.len()).filter(of_size).filter_map(|mask| best[mask].map(|b| (mask, b)));
        found.min_by(|a, b| a.1.total_us.total_cmp(&b.1.total_us))
    }
}
