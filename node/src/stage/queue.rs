//! What waits for a stage's engine, and what of it makes the next step.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::Instant;
use crate::ids::{Attempt, SessionId};
use crate::transport::Lane;
use crate::wire::Step;

/// A step that may run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiting {
    pub(super) lane: Lane,
    pub(super) at: Instant,
    pub(super) step: Step,
}

/// Decode first come first served, and prefill likewise: a step takes from both, so that neither starves.
#[derive(Debug, Default)]
pub(super) struct Queue {
    decode: VecDeque<Waiting>,
    prefill: VecDeque<Waiting>,
}

impl Queue {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.of_mut(waiting.lane).push_back(waiting);
    }

    fn of_mut(&mut self, lane: Lane) -> &mut VecDeque<Waiting> {
        if lane == Lane::Prefill { &mut self.prefill } else { &mut self.decode }
    }

    /// How much waits from `lane`.
    pub(super) fn len(&self, lane: Lane) -> usize {
        if lane == Lane::Prefill { self.prefill.len() } else { self.decode.len() }
    }

    /// Forgets what waits of the session's attempts up to `attempt`.
    pub(super) fn purge(&mut self, session: SessionId, attempt: Attempt) {
        let keep = |w: &Waiting| w.step.session != session || w.step.attempt > attempt;
        self.decode.retain(keep);
        self.prefill.retain(keep);
    }

    /// The next step: up to `sessions` decode steps, and chunks of prompts up to `prefill_tokens` tokens but at least
    /// one. A session has one part in a step.
    pub(super) fn pick(&mut self, sessions: usize, prefill_tokens: u32) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut inside = BTreeSet::new();
        take(&mut self.decode, &mut batch, &mut inside, sessions, |_| true);
        let mut left = Some(prefill_tokens);
        let room = batch.len() + sessions.max(1);
        take(&mut self.prefill, &mut batch, &mut inside, room, |w| {
            let first = left == Some(prefill_tokens);
            left = left.and_then(|l| l.checked_sub(w.step.count)).or(first.then_some(0));
            left.is_some()
        });
        batch
    }
}

/// Moves what may run from the front of `queue` to `batch` until that holds `room` or `may` says no. Who waits for an
/// own earlier part stays in place.
fn take(
    queue: &mut VecDeque<Waiting>,
    batch: &mut Vec<Waiting>,
    inside: &mut BTreeSet<SessionId>,
    room: usize,
    mut may: impl FnMut(&Waiting) -> bool,
) {
    let mut i = 0;
    while i < queue.len() && batch.len() < room {
        if inside.contains(&queue[i].step.session) {
            i += 1;
            continue;
        }
        if !may(&queue[i]) {
            return;
        }
        if let Some(waiting) = queue.remove(i) {
            inside.insert(waiting.step.session);
            batch.push(waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Token;
    use crate::wire::StepInput;

    fn waiting(session: u64, lane: Lane, start: u32, count: u32) -> Waiting {
        let step = Step {
            session: SessionId(session),
            attempt: Attempt(0),
            stage: 0,
            route: None,
            start,
            count,
            input: StepInput::Tokens(vec![Token(0); count as usize]),
            sample: None,
        };
        Waiting { lane, at: Instant(0), step }
    }

    fn sessions(batch: &[Waiting]) -> Vec<u64> {
        batch.iter().map(|w| w.step.session.0).collect()
    }

    #[test]
    fn decode_is_in_every_step_beside_one_chunk_of_a_prompt() {
        let mut queue = Queue::default();
        for start in [0, 512] {
            queue.push(waiting(9, Lane::Prefill, start, 512));
        }
        queue.push(waiting(1, Lane::Decode, 5, 1));
        assert_eq!(sessions(&queue.pick(8, 512)), [1, 9]);
        queue.push(waiting(1, Lane::Decode, 6, 1));
        assert_eq!(sessions(&queue.pick(8, 512)), [1, 9]);
        assert!(queue.pick(8, 512).is_empty());
    }

    #[test]
    fn short_prompts_share_the_budget_and_a_long_chunk_goes_alone() {
        let mut queue = Queue::default();
        for session in 1..=4 {
            queue.push(waiting(session, Lane::Prefill, 0, 200));
        }
        queue.push(waiting(5, Lane::Prefill, 0, 9000));
        assert_eq!(sessions(&queue.pick(8, 512)), [1, 2]);
        assert_eq!(sessions(&queue.pick(8, 512)), [3, 4]);
        assert_eq!(sessions(&queue.pick(8, 512)), [5], "a chunk above the budget never runs");
    }

    #[test]
    fn a_step_holds_at_most_so_many_sessions_and_each_once() {
        let mut queue = Queue::default();
        for start in 0..3 {
            queue.push(waiting(7, Lane::Decode, start, 1));
        }
        for session in 1..=5 {
            queue.push(waiting(session, Lane::Decode, 0, 1));
        }
        assert_eq!(sessions(&queue.pick(3, 512)), [7, 1, 2]);
        let next = queue.pick(8, 512);
        assert_eq!(sessions(&next), [7, 3, 4, 5]);
        assert_eq!(next[0].step.start, 1, "a session's steps changed their order");
    }

    #[test]
    fn purging_forgets_old_attempts_only() {
        let mut queue = Queue::default();
        queue.push(waiting(1, Lane::Prefill, 0, 10));
        let mut newer = waiting(1, Lane::Decode, 0, 1);
        newer.step.attempt = Attempt(1);
        queue.push(newer);
        queue.purge(SessionId(1), Attempt(0));
        assert_eq!((queue.len(Lane::Prefill), queue.len(Lane::Decode)), (0, 1));
    }
}
