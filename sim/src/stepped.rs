//! A clock that is exact between the steps of the timers under it.
//!
//! Tokio's timers count whole milliseconds, turmoil moves in steps of one. Rounding every wait up to a step makes each of
//! them late by half a step in the mean, and the errors add up along a token's way. This clock is woken at the step
//! *before* its deadline and then shows the deadline itself. So what is computed from `now` after a wait is exact, and
//! tasks of one node differ from their true time by less than a step, never by a sum of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node::clock::{Clock, Instant};

/// One step in tokio's time.
pub(crate) const STEP: Duration = Duration::from_millis(1);

/// Tokio time since the start of a run.
pub trait Elapsed: Clone + Send + Sync + 'static {
    /// That time.
    fn elapsed(&self) -> Duration;
}

/// A node's time over the steps of `E`.
#[derive(Debug, Clone)]
pub struct SteppedClock<E: Elapsed> {
    source: E,
    /// Tokio nanoseconds to one simulated nanosecond.
    scale: u32,
    /// The latest deadline waited for: the time it is, between two steps.
    reached_ns: Arc<AtomicU64>,
}

impl<E: Elapsed> SteppedClock<E> {
    /// One simulated millisecond is `scale` steps.
    pub(crate) fn new(source: E, scale: u32) -> Self {
        Self { source, scale: scale.max(1), reached_ns: Arc::default() }
    }
}

impl<E: Elapsed> Clock for SteppedClock<E> {
    fn now(&self) -> Instant {
        let step_ns = (self.source.elapsed().as_nanos() / u128::from(self.scale)) as u64;
        Instant(step_ns.max(self.reached_ns.load(Ordering::Relaxed)))
    }

    async fn sleep_until(&self, deadline: Instant) {
        let due_ns = u128::from(deadline.0) * u128::from(self.scale);
        let step = u64::try_from(due_ns / STEP.as_nanos()).unwrap_or(u64::MAX);
        let left = Duration::from_millis(step).saturating_sub(self.source.elapsed());
        if !left.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "this is the Clock the lint points to")]
            tokio::time::sleep(left).await;
        }
        self.reached_ns.fetch_max(deadline.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Started(tokio::time::Instant);

    impl Elapsed for Started {
        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_exact_and_do_not_add_up_to_more() {
        #[expect(
            clippy::disallowed_methods,
            reason = "aligns the paused clock, and starts the one under test"
        )]
        let start = {
            tokio::time::sleep(STEP).await;
            tokio::time::Instant::now()
        };
        let clock = SteppedClock::new(Started(start), 2);
        for waits in 1..=100 {
            clock.sleep(Duration::from_nanos(333_333)).await;
            assert_eq!(clock.now(), Instant(333_333 * waits));
        }
        assert_eq!(start.elapsed(), Duration::from_millis(66), "100 waits of 2/3 of a step each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_does_not_move_the_time() {
        #[expect(clippy::disallowed_methods, reason = "the clock under test begins here")]
        let clock = SteppedClock::new(Started(tokio::time::Instant::now()), 1);
        let late = clock.timeout_at(Instant(5_000_000), clock.sleep_until(Instant(60_000_000))).await;
        assert!(late.is_err());
        assert_eq!(clock.now(), Instant(5_000_000));
    }
}
