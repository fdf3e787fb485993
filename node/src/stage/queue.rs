//! What waits for a stage's engine, and what of it makes the next step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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

/// Decode first come first served; of prefill, sessions take turns, chunk by chunk, so that a short prompt need not wait
/// for all of a long one. A step takes from both, so that neither starves, or from one, where the engine lets decode in
/// between the layers of a prompt.
#[derive(Debug, Default)]
pub(super) struct Queue {
    decode: VecDeque<Waiting>,
    prefill: VecDeque<Waiting>,
    /// Of each session with a chunk in `prefill`: when it had its last turn, or came.
    turns: BTreeMap<SessionId, Turn>,
    /// Chunks of prompts that had their turn.
    taken: u64,
}

/// The lesser one is next. Who has come since the other's turn goes first, and after that waits for it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at: u64,
    had_one: bool,
}

impl Queue {
    pub(super) fn push(&mut self, waiting: Waiting) {
        if waiting.lane == Lane::Prefill {
            self.turns.entry(waiting.step.session).or_insert(Turn { at: self.taken, had_one: false });
        }
        self.of_mut(waiting.lane).push_back(waiting);
    }

    fn of_mut(&mut self, lane: Lane) -> &mut VecDeque<Waiting> {
        if lane == Lane::Prefill { &mut self.prefill } else { &mut self.decode }
    }

    /// How much waits from `lane`.
    pub(super) fn len(&self, lane: Lane) -> usize {
        if lane == Lane::Prefill { self.prefill.len() } else { self.decode.len() }
    }

    /// Prompt tokens that the next step may take, of `most`.
    pub(super) fn prompt_tokens(&self, most: u32) -> u32 {
        let waiting = self.prefill.iter().map(|waiting| waiting.step.count);
        waiting.fold(0, u32::saturating_add).min(most)
    }

    /// Forgets what waits of the session's attempts up to `attempt`.
    pub(super) fn purge(&mut self, session: SessionId, attempt: Attempt) {
        let keep = |w: &Waiting| w.step.session != session || w.step.attempt > attempt;
        self.decode.retain(keep);
        self.prefill.retain(keep);
        self.forget_turn(session);
    }

    /// Forgets the session's turn unless more of its prompt waits.
    fn forget_turn(&mut self, session: SessionId) {
        if !self.prefill.iter().any(|w| w.step.session == session) {
            self.turns.remove(&session);
        }
    }

    /// The next step: up to `sessions` decode steps, and chunks of prompts up to `prefill_tokens` tokens but at least
    /// one. A session has one part in a step.
    pub(super) fn pick(&mut self, sessions: usize, prefill_tokens: u32) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut inside = BTreeSet::new();
        take(&mut self.decode, &mut batch, &mut inside, sessions);
        self.take_chunks(&mut batch, &mut inside, sessions, prefill_tokens, true);
        batch
    }

    /// The next step, of chunks of prompts alone, as many as `pick` would take, or of decode steps where there are none.
    pub(super) fn pick_apart(&mut self, sessions: usize, prefill_tokens: u32) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut inside = BTreeSet::new();
        self.take_chunks(&mut batch, &mut inside, sessions, prefill_tokens, true);
        if batch.is_empty() {
            take(&mut self.decode, &mut batch, &mut inside, sessions);
        }
        batch
    }

    /// What may run beside a step that has the sessions `inside`: up to `decode` decode steps, and chunks of prompts up to
    /// `prefill_tokens` tokens, if there are such small ones.
    pub(super) fn pick_aside(
        &mut self,
        mut inside: BTreeSet<SessionId>,
        decode: usize,
        prefill_tokens: u32,
    ) -> Vec<Waiting> {
        let mut batch = Vec::new();
        take(&mut self.decode, &mut batch, &mut inside, decode);
        self.take_chunks(&mut batch, &mut inside, usize::MAX, prefill_tokens, false);
        batch
    }

    /// Moves chunks of prompts into `batch`, up to `tokens` tokens; the first one whatever its size, where `any_first`.
    fn take_chunks(
        &mut self,
        batch: &mut Vec<Waiting>,
        inside: &mut BTreeSet<SessionId>,
        sessions: usize,
        tokens: u32,
        any_first: bool,
    ) {
        let mut left = tokens;
        for nth in 0..sessions.max(1) {
            let room = if nth == 0 && any_first { u32::MAX } else { left };
            let Some(next) = self.next_chunk(inside, room) else { break };
            if let Some(waiting) = self.prefill.remove(next) {
                left = left.saturating_sub(waiting.step.count);
                inside.insert(waiting.step.session);
                self.taken += 1;
                self.turns.insert(waiting.step.session, Turn { at: self.taken, had_one: true });
                self.forget_turn(waiting.step.session);
                batch.push(waiting);
            }
        }
    }

    /// Where in `prefill` the chunk stands whose turn it is: the first one of its session, which has no part in the step
    /// yet, and of at most `room` tokens.
    fn next_chunk(&self, inside: &BTreeSet<SessionId>, room: u32) -> Option<usize> {
        let mut seen = BTreeSet::new();
        let firsts = self.prefill.iter().enumerate().filter(|(_, waiting)| {
            let step = &waiting.step;
            !inside.contains(&step.session) && seen.insert(step.session) && step.count <= room
        });
        firsts
            .min_by_key(|(place, waiting)| (self.turns.get(&waiting.step.session), *place))
            .map(|first| first.0)
    }
}

/// Moves what may run from the front of `queue` to `batch` until that holds `room`. Who waits for an own earlier part stays
/// in place.
fn take(
    queue: &mut VecDeque<Waiting>,
    batch: &mut Vec<Waiting>,
    inside: &mut BTreeSet<SessionId>,
    room: usize,
) {
    let mut i = 0;
    while i < queue.len() && batch.len() < room {
        if inside.contains(&queue[i].step.session) {
            i += 1;
            continue;
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
    fn a_short_prompt_waits_for_no_more_than_one_chunk_of_a_long_one_and_keeps_it_from_nothing() {
        let mut queue = Queue::default();
        for start in [0, 512, 1024, 1536] {
            queue.push(waiting(9, Lane::Prefill, start, 512));
        }
        assert_eq!(sessions(&queue.pick(8, 512)), [9]);
        queue.push(waiting(1, Lane::Prefill, 0, 30));
        queue.push(waiting(2, Lane::Prefill, 0, 30));
        assert_eq!(sessions(&queue.pick(8, 512)), [1, 2]);
        queue.push(waiting(3, Lane::Prefill, 0, 30));
        let next = queue.pick(8, 512);
        assert_eq!((sessions(&next), next[0].step.start), (vec![9], 512), "short prompts starve a long one");
        assert_eq!(sessions(&queue.pick(8, 512)), [3]);
        assert_eq!(queue.pick(8, 512)[0].step.start, 1024);
        queue.pick(8, 512);
        assert!(queue.turns.is_empty(), "{:?}", queue.turns);
    }

    #[test]
    fn beside_a_long_chunk_goes_what_is_small_and_not_of_its_session() {
        let mut queue = Queue::default();
        for (session, count) in [(9, 512), (9, 200), (8, 512), (1, 30), (2, 90)] {
            queue.push(waiting(session, Lane::Prefill, 0, count));
        }
        queue.push(waiting(3, Lane::Decode, 5, 1));
        assert_eq!(sessions(&queue.pick_apart(8, 512)), [9]);
        queue.push(waiting(9, Lane::Decode, 5, 1));
        let inside = BTreeSet::from([SessionId(9)]);
        assert_eq!(sessions(&queue.pick_aside(inside.clone(), 8, 256)), [3, 1, 2]);
        assert!(queue.pick_aside(inside, 8, 256).is_empty());
        assert_eq!(sessions(&queue.pick_apart(8, 512)), [8]);
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
