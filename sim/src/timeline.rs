//! The time of a world in memory: it jumps from one deadline to the next, to the nanosecond, and only when nobody has
//! anything left to do.
//!
//! Tokio's own timers count whole milliseconds, so they carry no deadline here. What tells that nobody has anything left to
//! do is the runtime itself, when it is about to park its thread: then the earliest deadline comes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use node::clock::{Clock, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    now_ns: u64,
    asked: u64,
    /// By deadline; equal ones in the order of asking.
    waiting: BTreeMap<(u64, u64), Waker>,
}

/// One run's time. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    state: Arc<Mutex<State>>,
    stalled: Arc<Notify>,
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runtime whose tasks live in this time: it passes each time they all wait.
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub(crate) fn runtime(&self) -> std::io::Result<Runtime> {
        let timeline = self.clone();
        Builder::new_current_thread().on_thread_park(move || timeline.advance()).build()
    }

    /// Returns when nobody waits for any time: what still runs waits for something that cannot happen.
    pub(crate) async fn stalled(&self) {
        self.stalled.notified().await;
    }

    /// Moves to the earliest deadline and wakes everybody who waits for it.
    fn advance(&self) {
        let earliest = self.lock().begin_next();
        if !earliest {
            self.stalled.notify_one();
        }
        // Woken without the lock: the last waker of a task may drop it, and with it other waits.
        while let Some(waker) = self.lock().pop_due() {
            waker.wake();
        }
    }
}

impl State {
    /// Makes the earliest deadline the time it is; false where there is none.
    fn begin_next(&mut self) -> bool {
        let earliest = self.waiting.first_key_value().map(|((deadline_ns, _), _)| *deadline_ns);
        self.now_ns = earliest.unwrap_or(self.now_ns);
        earliest.is_some()
    }

    /// The first of those whose deadline has come.
    fn pop_due(&mut self) -> Option<Waker> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= self.now_ns)?;
        Some(first.remove())
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

    fn live(test: impl AsyncFnOnce(Timeline)) {
        let timeline = Timeline::default();
        timeline.runtime().unwrap().block_on(test(timeline.clone()));
    }

    #[test]
    fn deadlines_come_in_their_order_and_what_follows_comes_before_the_next() {
        live(async |timeline| {
            let log = Log::default();
            for (deadline, name) in [(900, "last"), (100, "first"), (500, "middle"), (500, "tie")] {
                let (timeline, log) = (timeline.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    timeline.sleep_until(Instant(deadline)).await;
                    note(&log, &timeline, name);
                    if name == "first" {
                        tokio::task::yield_now().await;
                        timeline.sleep(Duration::from_nanos(250)).await;
                        note(&log, &timeline, "follows");
                    }
                });
            }
            timeline.stalled().await;
            let expected = [(100, "first"), (350, "follows"), (500, "middle"), (500, "tie"), (900, "last")];
            assert_eq!(*log.lock().unwrap(), expected);
        });
    }

    #[test]
    fn a_wait_that_is_given_up_is_forgotten() {
        live(async |timeline| {
            let late = timeline.timeout_at(Instant(5), timeline.sleep_until(Instant(600))).await;
            assert!(late.is_err());
            timeline.stalled().await;
            assert_eq!(timeline.now(), Instant(5));
        });
    }
}
