//! The tasks of a node. They end with its handle.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{AbortHandle, JoinSet};

/// `None` once the node has ended: nothing is started after that.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    set: Arc<Mutex<Option<JoinSet<()>>>>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { set: Arc::new(Mutex::new(Some(JoinSet::new()))) }
    }

    /// Starts `task` on the current runtime; `None` once the node has ended.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let set = set.as_mut()?;
        while set.try_join_next().is_some() {}
        Some(set.spawn(task))
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(set);
    }
}
