//! Tokens that will be back at once. Where this stage is the whole model, the token of a step is its head's next request a
//! moment later. Who began the next step without them would decode in two half batches in turn, and read the weights twice
//! as often for each token.

use std::collections::BTreeSet;

use super::Arrival;
use super::queue::Waiting;
use crate::clock::Instant;
use crate::ids::SessionId;

/// The share of the last step's time that is spent on waiting: what a late token costs the others.
const PATIENCE_SHARE: u32 = 16;

/// Sessions of the last step whose next one is awaited, and until when.
#[derive(Debug, Default)]
pub(super) struct Returning {
    sessions: BTreeSet<SessionId>,
    until: Instant,
}

impl Returning {
    /// After a step of `batch`: whoever went through this stage alone and got a token.
    pub(super) fn after(
        batch: &[Waiting],
        whole: impl Fn(&Waiting) -> bool,
        began: Instant,
        ended: Instant,
    ) -> Self {
        let sessions = batch.iter().filter(|w| w.step.sample.is_some() && whole(w)).map(|w| w.step.session);
        Self { sessions: sessions.collect(), until: ended.after(ended.since(began) / PATIENCE_SHARE) }
    }

    /// Until when to wait for the rest; `None` when everybody is back or the time is over.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        (!self.sessions.is_empty() && now < self.until).then_some(self.until)
    }

    /// One of them is back, or will not come.
    pub(super) fn came(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Step { step, .. } => self.sessions.remove(&step.session),
            Arrival::Close { session, .. }
            | Arrival::Abandon { session, .. }
            | Arrival::Nack { session, .. } => self.sessions.remove(session),
            Arrival::Broken { .. } => false,
        };
    }

    pub(super) fn clear(&mut self) {
        self.sessions.clear();
    }
}
