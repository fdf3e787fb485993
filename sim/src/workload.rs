//! When requests come, how long they are and what they say, drawn from the seed: the same for every engine that serves
//! them, in every world.

use std::collections::BTreeSet;

use node::engine::Sampling;
use node::ids::Token;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, LogNormal};

use crate::scenario::{Arrivals, Length, Workload};
use crate::seed::Seed;

/// The standard normal's 90th percentile: how far a log-normal's p90 is from its median, in standard deviations.
const NORMAL_P90: f64 = 1.281_551_565_545;

/// One request as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When, nanoseconds.
    pub(crate) at_ns: u64,
    /// Which, counted from zero in the order of coming.
    pub(crate) number: u32,
    /// Prompt tokens.
    pub(crate) prompt: u32,
    /// Output tokens.
    pub(crate) output: u32,
}

/// What is still to come.
#[derive(Debug)]
pub(crate) struct ArrivalStream {
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
    pub(crate) fn new(workload: &Workload, seed: Seed) -> Self {
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
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.due.first().map(|(at_ns, _)| *at_ns)
    }

    /// The number that the next request will have.
    pub(crate) fn next_number(&self) -> u32 {
        self.taken
    }

    /// Takes the next request if it has come by `now_ns`.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<Arrival> {
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
    pub(crate) fn ended(&mut self, now_ns: u64) {
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

/// The prompt of the request `number`: `count` tokens of a vocabulary of `vocabulary`.
pub(crate) fn prompt(seed: Seed, number: u32, count: u32, vocabulary: u32) -> Vec<Token> {
    let mut draws = seed.fork("prompts").fork_index(u64::from(number)).draws();
    (0..count).map(|_| Token((draws.bits() % u64::from(vocabulary.max(1))) as u32)).collect()
}

/// How the request `number` samples: every second one greedily, the others with draws of their own, so that a run covers
/// both.
pub(crate) fn sampling(seed: Seed, number: u32) -> Sampling {
    let temperature = if number.is_multiple_of(2) { 0.0 } else { 0.7 };
    Sampling::drawn(temperature, seed.fork("sampling").fork_index(u64::from(number)).value())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::TraceRow;

    fn workload(arrivals: Arrivals, requests: u32) -> Workload {
        Workload {
            arrivals,
            requests,
            prompt: Length::Uniform(10, 20),
            output: Length::LogNormal { median: 50, p90: 200, max: 400 },
            entry: Vec::new(),
        }
    }

    /// Takes everything, each request ending `busy_ns` after it came.
    fn play(workload: &Workload, seed: u64, busy_ns: u64) -> Vec<Arrival> {
        let mut stream = ArrivalStream::new(workload, Seed::new(seed));
        let mut out = Vec::new();
        while let Some(at_ns) = stream.next_ns() {
            while let Some(arrival) = stream.take(at_ns) {
                out.push(arrival);
                stream.ended(at_ns + busy_ns);
            }
        }
        out
    }

    #[test]
    fn the_same_seed_brings_the_same_requests_and_another_seed_others() {
        let workload = workload(Arrivals::Poisson { per_s: 2.0 }, 50);
        assert_eq!(play(&workload, 4, 0), play(&workload, 4, 0));
        assert_ne!(play(&workload, 4, 0), play(&workload, 5, 0));
    }

    #[test]
    fn fixed_requests_come_at_their_distance_and_poisson_ones_at_their_rate() {
        let fixed = play(&workload(Arrivals::Fixed { every_us: 250.0 }, 4), 1, 0);
        assert_eq!(fixed.iter().map(|a| a.at_ns).collect::<Vec<_>>(), [0, 250_000, 500_000, 750_000]);
        let poisson = play(&workload(Arrivals::Poisson { per_s: 20.0 }, 4_000), 1, 0);
        let rate = 4_000.0 / (poisson[3_999].at_ns as f64 / 1e9);
        assert!((rate - 20.0).abs() < 1.0, "{rate} requests a second");
    }

    #[test]
    fn users_ask_again_when_their_answer_has_ended_and_they_have_thought() {
        let busy_ns = 1_000_000;
        let at_once = play(&workload(Arrivals::Closed { users: 2, think_us: 0.0 }, 6), 1, busy_ns);
        let times: Vec<u64> = at_once.iter().map(|a| a.at_ns / busy_ns).collect();
        assert_eq!(times, [0, 0, 1, 1, 2, 2]);
        let thinking = play(&workload(Arrivals::Closed { users: 1, think_us: 5_000.0 }, 2_000), 1, busy_ns);
        let mean_ms = thinking[1_999].at_ns as f64 / 1_999.0 / 1e6;
        assert!((mean_ms - 6.0).abs() < 0.5, "a request every {mean_ms} ms");
    }

    #[test]
    fn recorded_requests_come_as_recorded() {
        let rows = vec![
            TraceRow { at_us: 10.0, prompt: 7, output: 3 },
            TraceRow { at_us: 40.0, prompt: 9, output: 1 },
        ];
        let arrivals = play(&workload(Arrivals::Trace(rows), 2), 1, 0);
        assert_eq!(arrivals[0], Arrival { at_ns: 10_000, number: 0, prompt: 7, output: 3 });
        assert_eq!(arrivals[1], Arrival { at_ns: 40_000, number: 1, prompt: 9, output: 1 });
    }

    #[test]
    fn lengths_keep_their_bounds_and_quantiles() {
        let arrivals = play(&workload(Arrivals::Fixed { every_us: 1.0 }, 4_000), 1, 0);
        assert!(arrivals.iter().all(|a| (10..=20).contains(&a.prompt) && (1..=400).contains(&a.output)));
        let mut outputs: Vec<u32> = arrivals.iter().map(|a| a.output).collect();
        outputs.sort_unstable();
        assert!((45..=55).contains(&outputs[2_000]), "the median is {}", outputs[2_000]);
        assert!((180..=220).contains(&outputs[3_600]), "the 90th percentile is {}", outputs[3_600]);
    }

    #[test]
    fn prompts_are_their_requests_own() {
        let of = |number| prompt(Seed::new(1), number, 30, 500);
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
        assert!(of(3).iter().all(|token| token.0 < 500));
    }
}
