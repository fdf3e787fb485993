//! What this node's heads have under way, and who of them waits for KV room.
//!
//! A head that was told `NoRoom` waits until a session of this node ends, or for a bounded time, since sessions of other
//! nodes end too. The oldest goes first, and who comes later queues behind: nobody starves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ids::PeerId;
use crate::router::Load;

#[derive(Debug, Default)]
struct State {
    load: Load,
    next_ticket: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// Shared by the heads of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    state: Arc<Mutex<State>>,
}

/// One session on its replica; dropping it tells the ledger that it ended.
#[derive(Debug)]
pub(crate) struct Outstanding {
    ledger: Ledger,
    first_stage: PeerId,
}

/// A place in the queue for room; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Place {
    ledger: Ledger,
    ticket: u64,
    called: Arc<Notify>,
}

impl Ledger {
    pub(crate) fn new(local_preference: u32) -> Self {
        let ledger = Self::default();
        ledger.lock().load.local_preference = local_preference;
        ledger
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the router looks at.
    pub(crate) fn load(&self) -> Load {
        self.lock().load.clone()
    }

    /// A number that tells who came first.
    pub(crate) fn ticket(&self) -> u64 {
        let mut state = self.lock();
        state.next_ticket += 1;
        state.next_ticket
    }

    /// A session begins on the replica that starts at `first_stage`.
    pub(crate) fn begin(&self, first_stage: PeerId) -> Outstanding {
        let mut state = self.lock();
        *state.load.outstanding.entry(first_stage).or_default() += 1;
        state.load.routed += 1;
        Outstanding { ledger: self.clone(), first_stage }
    }

    /// Whether somebody older waits for room.
    pub(crate) fn must_queue(&self, ticket: u64) -> bool {
        self.lock().waiting.keys().next().is_some_and(|first| *first < ticket)
    }

    /// Queues for room.
    pub(crate) fn queue(&self, ticket: u64) -> Place {
        let called = Arc::new(Notify::new());
        self.lock().waiting.insert(ticket, Arc::clone(&called));
        Place { ledger: self.clone(), ticket, called }
    }

    fn call_oldest(&self) {
        if let Some((_, called)) = self.lock().waiting.first_key_value() {
            called.notify_one();
        }
    }
}

impl Place {
    /// Returns when room may have become free.
    pub(crate) async fn called(&self) {
        self.called.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.lock().waiting.remove(&self.ticket);
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        if let Some(count) = state.load.outstanding.get_mut(&self.first_stage) {
            *count -= 1;
            if *count == 0 {
                state.load.outstanding.remove(&self.first_stage);
            }
        }
        drop(state);
        self.ledger.call_oldest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_leaves_no_load() {
        let ledger = Ledger::new(2);
        let peer = PeerId::from_index(3);
        let (a, b) = (ledger.begin(peer), ledger.begin(peer));
        assert_eq!(ledger.load().outstanding.get(&peer), Some(&2));
        drop((a, b));
        assert!(ledger.load().outstanding.is_empty());
        assert_eq!(ledger.load().routed, 2);
    }

    #[tokio::test]
    async fn the_oldest_is_called_when_a_session_ends_and_others_queue_behind() {
        let ledger = Ledger::new(2);
        let (old, young) = (ledger.ticket(), ledger.ticket());
        let running = ledger.begin(PeerId::from_index(0));
        let second = ledger.queue(young);
        let first = ledger.queue(old);
        assert!(ledger.must_queue(young) && !ledger.must_queue(old));
        drop(running);
        first.called().await;
        drop(first);
        assert!(!ledger.must_queue(young), "who has left still blocks others");
        drop(second);
    }
}
