//! One scenario over many seeds: how much of an answer is luck.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::check::{CheckError, Progress};
use crate::outcome::{Answer, Outcome};
use crate::report::stats::{self, Estimate};
use crate::run::answer;
use crate::scenario::{Scenario, WorldKind, load};

/// A figure over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean and its 95 % confidence interval, by Student's t.
    pub mean: Estimate,
    /// The median.
    pub median: f64,
    /// Seeds that have the figure.
    pub seeds: usize,
}

impl Spread {
    /// Of one value a seed; `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mean = stats::estimate(values)?;
        let median = stats::quantile(&stats::ascending(values), 0.5)?;
        Some(Self { mean, median, seeds: values.len() })
    }
}

/// Output tokens per second of one stream while it decodes: the mean over all tokens after the first. `None` where there
/// are none.
pub fn decode_tok_s(outcome: &Outcome) -> Option<f64> {
    let gaps = outcome.requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|gap| gap[1] - gap[0]));
    let (sum_us, tokens) = gaps.fold((0.0, 0u64), |(sum_us, tokens), gap_us| (sum_us + gap_us, tokens + 1));
    (sum_us > 0.0).then(|| tokens as f64 / sum_us * 1e6)
}

/// Reads the scenario anew for each seed and answers it; what it draws from ranges differs with the seed. The answers are
/// in the order of the seeds, however many threads work. `watch` hears of each seed that is done.
///
/// # Errors
/// The first seed, in their order, that cannot be read or run.
pub fn answers(
    path: &Path,
    overrides: &[(String, String)],
    seeds: Range<u64>,
    world: Option<WorldKind>,
    threads: usize,
    watch: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<(Scenario, Answer)>, CheckError> {
    let total = seeds.end.saturating_sub(seeds.start);
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let answered = one(path, overrides, seed, world);
            let failed = answered.is_err();
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(seed, answered);
            if failed {
                next.store(seeds.end, Ordering::Relaxed);
            }
            watch(Progress { done: done.len() as u64, failed: 0, total });
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn one(
    path: &Path,
    overrides: &[(String, String)],
    seed: u64,
    world: Option<WorldKind>,
) -> Result<(Scenario, Answer), CheckError> {
    let scenario = load(path, overrides, Some(seed))?;
    let answer = answer(&scenario, seed, world.unwrap_or(scenario.world), false)?;
    Ok((scenario, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::scenario::EngineKind;

    #[test]
    fn a_spread_has_mean_median_and_interval() {
        let spread = Spread::of(&[1.0, 2.0, 9.0]).expect("there are values");
        assert_eq!((spread.mean.mean, spread.median, spread.seeds), (4.0, 2.0, 3));
        assert!(spread.mean.low < 4.0 && spread.mean.high > 4.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn the_first_token_is_no_part_of_the_decode_rate() {
        let mut outcome = sample::outcome(EngineKind::Ring, 62.0, None);
        outcome.requests.truncate(1);
        outcome.requests[0].tokens_us = vec![500e3, 600e3, 700e3];
        assert_eq!(decode_tok_s(&outcome), Some(10.0));
        outcome.requests[0].tokens_us.truncate(1);
        assert_eq!(decode_tok_s(&outcome), None);
    }
}
