//! The time of a world in memory: it jumps from one deadline to the next, to the nanosecond, and only when nobody has
//! anything left to do.
//!
//! Tokio's own timers count whole milliseconds, so they carry no deadline here. They tell one thing: under a paused clock a
//! sleep ends when the runtime is idle. Each time it is, the earliest deadline comes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use node::clock::{Clock, Instant};

use crate::stepped::STEP;

#[derive(Debug, Default)]
struct State {
    now_ns: u64,
    asked: u64,
    /// By deadline; equal ones in the order of asking.
    waiting: BTreeMap<(u64, u64), Waker>,
}

/// One run's time. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Timeline(Arc<Mutex<State>>);

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass for as long as somebody waits for it. When this returns, nobody ever will: what still runs waits
    /// for something that cannot happen. Needs a paused runtime.
    pub(crate) async fn run(&self) {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the paused runtime's word that it is idle")]
            tokio::time::sleep(STEP).await;
            let due = self.advance();
            if due.is_empty() {
                return;
            }
            due.into_values().for_each(Waker::wake);
        }
    }

    /// Moves to the earliest deadline: everybody who waits for it.
    fn advance(&self) -> BTreeMap<(u64, u64), Waker> {
        let mut state = self.lock();
        let Some((&(earliest_ns, _), _)) = state.waiting.first_key_value() else { return BTreeMap::new() };
        state.now_ns = earliest_ns;
        let later = state.waiting.split_off(&(earliest_ns, u64::MAX));
        std::mem::replace(&mut state.waiting, later)
    }
}

impl Clock for Timeline {
    fn now(&self) -> Instant {
        Instant(self.lock().now_ns)
    }

    async fn sleep_until(&self, deadline: Instant) {
        if deadline > self.now() {
            Wait { timeline: self, deadline_ns: deadline.0, key: None }.await;
        }
    }
}

/// A wait for a deadline; forgotten when it is dropped.
struct Wait<'a> {
    timeline: &'a Timeline,
    deadline_ns: u64,
    key: Option<(u64, u64)>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let timeline = self.timeline;
        let mut state = timeline.lock();
        if state.now_ns >= self.deadline_ns {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            state.asked += 1;
            (self.deadline_ns, state.asked)
        });
        state.waiting.insert(key, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timeline.lock().waiting.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a poisoned log is a failed test")]

    use std::time::Duration;

    use super::*;

    type Log = Arc<Mutex<Vec<(u64, &'static str)>>>;

    fn note(log: &Log, timeline: &Timeline, what: &'static str) {
        log.lock().unwrap().push((timeline.now().0, what));
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_come_in_their_order_and_what_follows_comes_before_the_next() {
        let (timeline, log) = (Timeline::default(), Log::default());
        let mut tasks = tokio::task::JoinSet::new();
        for (deadline, name) in [(900, "last"), (100, "first"), (500, "middle"), (500, "tie")] {
            let (timeline, log) = (timeline.clone(), Arc::clone(&log));
            tasks.spawn(async move {
                timeline.sleep_until(Instant(deadline)).await;
                note(&log, &timeline, name);
                if name == "first" {
                    tokio::task::yield_now().await;
                    timeline.sleep(Duration::from_nanos(250)).await;
                    note(&log, &timeline, "follows");
                }
            });
        }
        timeline.run().await;
        let expected = [(100, "first"), (350, "follows"), (500, "middle"), (500, "tie"), (900, "last")];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_is_forgotten() {
        let timeline = Timeline::default();
        let task = tokio::spawn({
            let timeline = timeline.clone();
            async move { timeline.timeout_at(Instant(5), timeline.sleep_until(Instant(600))).await }
        });
        timeline.run().await;
        assert!(task.await.unwrap().is_err());
        assert_eq!(timeline.now(), Instant(5));
    }
}
