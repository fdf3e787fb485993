//! A clock that is exact between the steps of the timers under it.
//!
//! Tokio's timers count whole milliseconds, and turmoil moves in steps of one. Rounding every wait up to a step makes each
//! of them late by half a step in the mean; the errors add up along a token's way, and frames that arrive one after the
//! other find themselves in one batch. So waits end at the step *before* their deadline, and within a step the waiting
//! tasks take turns in the order of their deadlines: each sees its deadline as the time it is, and everything that
//! follows from it at once happens before the next one's turn. What is computed from `now` is exact, whatever the step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use node::clock::{Clock, Instant};

/// One step in tokio's time.
pub(crate) const STEP: Duration = Duration::from_millis(1);

/// Yields before a turn begins. A yielding task goes on when no other is ready, but also after 61 polls of others that are
/// (tokio's event interval): one yield alone came too early for a token that had some hops to make within a node, and the
/// token was late by the distance to the next deadline. So many leave room for three intervals in full.
const YIELDS: usize = 4;

/// Tokio time since the start of a run.
pub trait Elapsed: Clone + Send + Sync + 'static {
    /// That time.
    fn elapsed(&self) -> Duration;
}

/// Time over the steps of `E`. Clones share it: all tasks that run on one runtime must use clones of one clock.
#[derive(Debug, Clone)]
pub struct SteppedClock<E: Elapsed> {
    source: E,
    /// Tokio nanoseconds to one simulated nanosecond.
    scale: u32,
    /// Simulated nanoseconds to one of tokio, where steps are coarse.
    coarse: u32,
    turns: Turns,
}

impl<E: Elapsed> SteppedClock<E> {
    /// One simulated millisecond is `scale` steps.
    pub(crate) fn new(source: E, scale: u32) -> Self {
        Self { source, scale: scale.max(1), coarse: 1, turns: Turns::default() }
    }

    /// One step is so many simulated milliseconds.
    pub(crate) fn coarse(source: E, coarse: u32) -> Self {
        Self { coarse: coarse.max(1), ..Self::new(source, 1) }
    }
}

impl<E: Elapsed> Clock for SteppedClock<E> {
    fn now(&self) -> Instant {
        let elapsed = self.source.elapsed().as_nanos() * u128::from(self.coarse);
        let step_ns = (elapsed / u128::from(self.scale)) as u64;
        Instant(step_ns.max(self.turns.lock().reached_ns))
    }

    async fn sleep_until(&self, deadline: Instant) {
        if deadline <= self.now() {
            return;
        }
        let due_ns = u128::from(deadline.0) * u128::from(self.scale) / u128::from(self.coarse);
        let step = u64::try_from(due_ns / STEP.as_nanos()).unwrap_or(u64::MAX);
        let left = Duration::from_millis(step).saturating_sub(self.source.elapsed());
        if !left.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "this is the Clock the lint points to")]
            tokio::time::sleep(left).await;
        }
        self.turns.wait(deadline.0).await;
    }
}

/// Who waits within the step, by deadline; equal ones in the order of asking.
#[derive(Debug, Default)]
struct Agenda {
    waiting: BTreeMap<(u64, u64), Option<Waker>>,
    asked: u64,
    /// The latest deadline that came: the time it is, between two steps.
    reached_ns: u64,
}

impl Agenda {
    /// Whether nobody's turn is before this.
    fn is_first(&self, key: (u64, u64)) -> bool {
        self.waiting.first_key_value().is_none_or(|(first, _)| *first >= key)
    }
}

#[derive(Debug, Clone, Default)]
struct Turns(Arc<Mutex<Agenda>>);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Agenda> {
        // Nothing below panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the deadline's turn within the step that has come.
    async fn wait(&self, deadline_ns: u64) {
        let turn = self.ask(deadline_ns);
        loop {
            std::future::poll_fn(|context| turn.poll_first(context.waker())).await;
            // When no other task has anything left to do, what followed from the turn before has happened, and whoever's
            // deadline is in this step has asked.
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            if self.lock().is_first(turn.key) {
                break;
            }
        }
        let mut agenda = self.lock();
        agenda.reached_ns = agenda.reached_ns.max(deadline_ns);
    }

    fn ask(&self, deadline_ns: u64) -> Turn<'_> {
        let mut agenda = self.lock();
        agenda.asked += 1;
        let key = (deadline_ns, agenda.asked);
        agenda.waiting.insert(key, None);
        Turn { turns: self, key }
    }
}

/// A place on the agenda, given up when the wait ends or is dropped.
struct Turn<'a> {
    turns: &'a Turns,
    key: (u64, u64),
}

impl Turn<'_> {
    fn poll_first(&self, waker: &Waker) -> Poll<()> {
        let mut agenda = self.turns.lock();
        if agenda.is_first(self.key) {
            return Poll::Ready(());
        }
        agenda.waiting.insert(self.key, Some(waker.clone()));
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut agenda = self.turns.lock();
        agenda.waiting.remove(&self.key);
        if let Some(mut next) = agenda.waiting.first_entry()
            && let Some(waker) = next.get_mut().take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a poisoned log is a failed test")]

    use super::*;

    #[derive(Clone)]
    struct Started(tokio::time::Instant);

    impl Elapsed for Started {
        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }

    async fn clock(scale: u32) -> SteppedClock<Started> {
        #[expect(
            clippy::disallowed_methods,
            reason = "aligns the paused clock, and starts the one under test"
        )]
        let start = {
            tokio::time::sleep(STEP).await;
            tokio::time::Instant::now()
        };
        SteppedClock::new(Started(start), scale)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_exact_and_do_not_add_up_to_more() {
        let clock = clock(2).await;
        for waits in 1..=100 {
            clock.sleep(Duration::from_nanos(333_333)).await;
            assert_eq!(clock.now(), Instant(333_333 * waits));
        }
        assert_eq!(clock.source.elapsed(), Duration::from_millis(66), "100 waits of 2/3 of a step each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_does_not_move_the_time_nor_hold_up_others() {
        let clock = clock(1).await;
        let late = clock.timeout_at(Instant(5_000_000), clock.sleep_until(Instant(5_500_000))).await;
        assert!(late.is_err());
        assert_eq!(clock.now(), Instant(5_000_000));
        clock.sleep_until(Instant(5_700_000)).await;
        assert_eq!(clock.now(), Instant(5_700_000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_a_turn_through_many_tasks_happens_before_the_next_turn() {
        let clock = clock(1).await;
        let log: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        let (start, mut link) = tokio::sync::oneshot::channel();
        for _ in 0..150 {
            let (next, after) = tokio::sync::oneshot::channel();
            let before = std::mem::replace(&mut link, after);
            tasks.spawn(async move {
                before.await.unwrap();
                next.send(()).unwrap();
            });
        }
        let at = |deadline, name: &'static str| {
            let (clock, log) = (clock.clone(), Arc::clone(&log));
            async move {
                clock.sleep_until(Instant(deadline)).await;
                log.lock().unwrap().push((clock.now().0, name));
            }
        };
        let (first, next) = (at(100_000, "first"), at(200_000, "next"));
        tasks.spawn(async move {
            first.await;
            start.send(()).unwrap();
        });
        tasks.spawn(next);
        let (clock, followed) = (clock.clone(), Arc::clone(&log));
        tasks.spawn(async move {
            link.await.unwrap();
            followed.lock().unwrap().push((clock.now().0, "follows"));
        });
        tasks.join_all().await;
        assert_eq!(*log.lock().unwrap(), [(100_000, "first"), (100_000, "follows"), (200_000, "next")]);
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_step_tasks_go_on_in_the_order_of_their_deadlines_and_so_does_what_follows() {
        let clock = clock(1).await;
        let log: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for (deadline, name) in [(900_000, "last"), (100_000, "first"), (500_000, "middle"), (500_000, "tie")]
        {
            let (clock, log) = (clock.clone(), Arc::clone(&log));
            tasks.spawn(async move {
                clock.sleep_until(Instant(deadline)).await;
                log.lock().unwrap().push((clock.now().0, name));
                if name == "first" {
                    clock.sleep(Duration::from_micros(250)).await;
                    log.lock().unwrap().push((clock.now().0, "follows"));
                }
            });
        }
        tasks.join_all().await;
        let expected = [
            (100_000, "first"),
            (350_000, "follows"),
            (500_000, "middle"),
            (500_000, "tie"),
            (900_000, "last"),
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }
}
