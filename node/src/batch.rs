//! What waits at a stage, and which of it makes the next engine step.

use std::collections::{BTreeSet, VecDeque};

use crate::clock::Instant;
use crate::ids::SessionId;
use crate::wire::Step;

/// A step, and when it came.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) at: Instant,
    pub(crate) step: Step,
}

/// Steps in the order of their arrival, decode and prefill apart.
#[derive(Debug)]
pub(crate) struct Queue {
    decode: VecDeque<Pending>,
    prefill: VecDeque<Pending>,
    room: usize,
}

impl Queue {
    pub(crate) fn new(room: usize) -> Self {
        Self { decode: VecDeque::new(), prefill: VecDeque::new(), room }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.decode.is_empty() && self.prefill.is_empty()
    }

    /// Queues a step; a full queue gives it back.
    pub(crate) fn push(&mut self, pending: Pending) -> Result<(), Step> {
        if self.decode.len() + self.prefill.len() >= self.room {
            return Err(pending.step);
        }
        if pending.step.count == 1 {
            self.decode.push_back(pending);
        } else {
            self.prefill.push_back(pending);
        }
        Ok(())
    }

    /// Forgets what waits for a session.
    pub(crate) fn drop_session(&mut self, session: SessionId) {
        self.decode.retain(|p| p.step.session != session);
        self.prefill.retain(|p| p.step.session != session);
    }

    /// Takes the next batch: decode first, then prefill up to `prefill_tokens` (at least one chunk); at most `sessions`
    /// sessions, each once, so that a session's own steps keep their order.
    pub(crate) fn batch(&mut self, sessions: usize, prefill_tokens: u32) -> Vec<Pending> {
        let mut batch = Vec::new();
        let mut taken = BTreeSet::new();
        move_some(&mut self.decode, &mut batch, &mut taken, sessions, |_| true);
        let mut tokens = 0;
        move_some(&mut self.prefill, &mut batch, &mut taken, sessions, |step| {
            let fits = tokens == 0 || tokens + step.count <= prefill_tokens;
            tokens += if fits { step.count } else { 0 };
            fits
        });
        batch
    }
}

/// Moves steps of sessions that are not in the batch yet, in order; a session whose step does not fit keeps its turn.
fn move_some(
    from: &mut VecDeque<Pending>,
    batch: &mut Vec<Pending>,
    taken: &mut BTreeSet<SessionId>,
    sessions: usize,
    mut fits: impl FnMut(&Step) -> bool,
) {
    let mut stay = VecDeque::new();
    while let Some(pending) = from.pop_front() {
        if batch.len() >= sessions {
            stay.push_back(pending);
            break;
        }
        if taken.insert(pending.step.session) && fits(&pending.step) {
            batch.push(pending);
        } else {
            stay.push_back(pending);
        }
    }
    stay.append(from);
    *from = stay;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Attempt, Token};
    use crate::wire::StepInput;

    fn pending(session: u64, start: u32, count: u32) -> Pending {
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
        Pending { at: Instant(0), step }
    }

    fn names(batch: &[Pending]) -> Vec<(u64, u32)> {
        batch.iter().map(|p| (p.step.session.0, p.step.start)).collect()
    }

    #[test]
    fn decode_goes_before_prefill_and_each_session_once() {
        let mut queue = Queue::new(16);
        for p in [pending(1, 0, 512), pending(1, 512, 512), pending(2, 7, 1), pending(3, 9, 1)] {
            assert!(queue.push(p).is_ok());
        }
        assert_eq!(names(&queue.batch(8, 4096)), [(2, 7), (3, 9), (1, 0)]);
        assert_eq!(names(&queue.batch(8, 4096)), [(1, 512)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn prefill_goes_in_portions_and_at_least_one_chunk() {
        let mut queue = Queue::new(16);
        for p in [pending(1, 0, 512), pending(2, 0, 400), pending(3, 0, 100)] {
            assert!(queue.push(p).is_ok());
        }
        assert_eq!(names(&queue.batch(8, 512)), [(1, 0)]);
        assert_eq!(names(&queue.batch(8, 512)), [(2, 0), (3, 0)]);
    }

    #[test]
    fn a_full_queue_gives_the_step_back() {
        let mut queue = Queue::new(1);
        assert!(queue.push(pending(1, 0, 1)).is_ok());
        assert!(queue.push(pending(2, 0, 1)).is_err());
        queue.drop_session(SessionId(1));
        assert!(queue.is_empty());
    }
}
