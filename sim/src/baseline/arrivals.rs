//! When requests come and how long they are, drawn from the seed: the same for every engine that is played.

use std::collections::BTreeSet;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, LogNormal};

use crate::scenario::{Arrivals, Length, Workload};
use crate::seed::Seed;

/// The standard normal's 90th percentile: how far a log-normal's p90 is from its median, in standard deviations.
const NORMAL_P90: f64 = 1.281_551_565_545;

/// One request as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When, nanoseconds.
    pub(super) at_ns: u64,
    /// Which, counted from zero in the order of coming.
    pub(super) number: u32,
    /// Prompt tokens.
    pub(super) prompt: u32,
    /// Output tokens.
    pub(super) output: u32,
}

/// What is still to come.
#[derive(Debug)]
pub(super) struct ArrivalStream {
    workload: Workload,
    seed: Seed,
    gaps: ChaCha8Rng,
    /// Times known so far that were not taken, with an order for equal ones.
    due: BTreeSet<(u64, u32)>,
    /// How many times were made.
    made: u32,
    /// How many requests were taken.
    taken: u32,
}

impl ArrivalStream {
    /// The requests of `workload`.
    pub(super) fn new(workload: &Workload, seed: Seed) -> Self {
        let seed = seed.fork("workload");
        let mut stream = Self {
            workload: workload.clone(),
            gaps: seed.fork("gaps").rng(),
            seed,
            due: BTreeSet::new(),
            made: 0,
            taken: 0,
        };
        match &stream.workload.arrivals {
            Arrivals::Closed { users, .. } => {
                for _ in 0..*users {
                    stream.make(0);
                }
            }
            Arrivals::Trace(rows) => {
                let times: Vec<u64> = rows.iter().map(|row| nanoseconds(row.at_us)).collect();
                times.into_iter().for_each(|at_ns| stream.make(at_ns));
            }
            Arrivals::Fixed { .. } | Arrivals::Poisson { .. } => stream.make_next(0),
        }
        stream
    }

    /// When the next request comes, if one is known to.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.first().map(|(at_ns, _)| *at_ns)
    }

    /// Takes the next request if it has come by `now_ns`.
    pub(super) fn take(&mut self, now_ns: u64) -> Option<Arrival> {
        let (at_ns, order) = *self.due.first().filter(|(at_ns, _)| *at_ns <= now_ns)?;
        self.due.remove(&(at_ns, order));
        if matches!(self.workload.arrivals, Arrivals::Fixed { .. } | Arrivals::Poisson { .. }) {
            self.make_next(at_ns);
        }
        let number = self.taken;
        self.taken += 1;
        let (prompt, output) = self.lengths(number, order);
        Some(Arrival { at_ns, number, prompt, output })
    }

    /// Tells that a request ended: in a closed loop its client thinks, then asks again.
    pub(super) fn ended(&mut self, now_ns: u64) {
        if let Arrivals::Closed { think_us, .. } = self.workload.arrivals {
            let thought: f64 = self.gaps.sample(Exp1);
            self.make(now_ns + nanoseconds(think_us * thought));
        }
    }

    fn make_next(&mut self, after_ns: u64) {
        let first = self.made == 0;
        let gap_us = match &self.workload.arrivals {
            Arrivals::Fixed { every_us } if !first => *every_us,
            Arrivals::Poisson { per_s } => Distribution::<f64>::sample(&Exp1, &mut self.gaps) / per_s * 1e6,
            _ => 0.0,
        };
        self.make(after_ns + nanoseconds(gap_us));
    }

    fn make(&mut self, at_ns: u64) {
        if self.made < self.workload.requests {
            self.due.insert((at_ns, self.made));
            self.made += 1;
        }
    }

    fn lengths(&self, number: u32, row: u32) -> (u32, u32) {
        if let Arrivals::Trace(rows) = &self.workload.arrivals
            && let Some(row) = rows.get(row as usize)
        {
            return (row.prompt.max(1), row.output.max(1));
        }
        let mut rng = self.seed.fork("lengths").fork_index(u64::from(number)).rng();
        (draw(self.workload.prompt, &mut rng), draw(self.workload.output, &mut rng))
    }
}

/// A length, at least one token.
fn draw(length: Length, rng: &mut ChaCha8Rng) -> u32 {
    match length {
        Length::Fixed(tokens) => tokens.max(1),
        Length::Uniform(low, high) => rng.random_range(low.min(high)..=high.max(low)).max(1),
        Length::LogNormal { median, p90, max } => {
            let (median, p90) = (f64::from(median.max(1)), f64::from(p90.max(1)));
            let sigma = ((p90 / median).ln() / NORMAL_P90).max(0.0);
            let drawn = LogNormal::new(median.ln(), sigma).map_or(median, |d| d.sample(rng));
            (drawn.round() as u32).clamp(1, max.max(1))
        }
    }
}

fn nanoseconds(us: f64) -> u64 {
    (us * 1e3).round() as u64
}
