//! What changes in the network, to look at and to wait for.

use tokio::sync::watch;

/// A value of the network's that changes.
///
/// It lends the value to a closure and never hands out a guard: a thread that held one while it asked for another would
/// wait for ever once a writer stood between the two, and the network with it.
#[derive(Debug, Clone)]
pub struct News<T>(watch::Receiver<T>);

impl<T> News<T> {
    pub(super) fn new(told: &watch::Sender<T>) -> Self {
        Self(told.subscribe())
    }

    /// Looks at what it is now. `look` must be short, and look at nothing else of the network.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow())
    }

    /// Looks at what it is now; [`changed`](Self::changed) waits for what comes after that.
    pub fn read_new<R>(&mut self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow_and_update())
    }

    /// Returns when there is something new, or with `false` when the network has ended.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Returns when this holds, or with `false` when the network has ended before.
    pub async fn until(&mut self, holds: impl FnMut(&T) -> bool) -> bool {
        self.0.wait_for(holds).await.is_ok()
    }
}
