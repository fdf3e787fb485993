//! The only source of now and of waiting.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since this node's clock started. Not comparable across nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// `self` and `d` later; saturates.
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The wait was longer than its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Elapsed;

/// A node's time.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Instant;

    /// Returns when `deadline` has come, at once when it has passed.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send;

    /// Waits for `d`. For repeated waits use [`sleep_until`](Self::sleep_until) with absolute deadlines: rounding adds up.
    fn sleep(&self, d: Duration) -> impl Future<Output = ()> + Send {
        self.sleep_until(self.now().after(d))
    }

    /// `work`, unless `deadline` comes first. Work that is ready at the deadline wins.
    fn timeout_at<F: Future + Send>(
        &self,
        deadline: Instant,
        work: F,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + Send {
        async move {
            tokio::select! {
                biased;
                out = work => Ok(out),
                () = self.sleep_until(deadline) => Err(Elapsed),
            }
        }
    }
}

/// A clock over tokio's timers, dilated: one of its seconds is `scale` seconds of tokio. 1 in a real node; larger in
/// simulated worlds, because tokio's timers count whole milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: tokio::time::Instant,
    scale: u32,
}

impl TokioClock {
    /// A clock that shows zero at `start`. `scale` is at least 1.
    pub fn new(start: tokio::time::Instant, scale: u32) -> Self {
        Self { start, scale: scale.max(1) }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "this is the Clock the lint points to")]
        let elapsed = tokio::time::Instant::now().duration_since(self.start);
        Instant((elapsed.as_nanos() / u128::from(self.scale)) as u64)
    }

    async fn sleep_until(&self, deadline: Instant) {
        let real = Duration::from_nanos(deadline.0).saturating_mul(self.scale);
        if let Some(at) = self.start.checked_add(real) {
            tokio::time::sleep_until(at).await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}
