//! Short steps between the layers of a long one.
//!
//! A chunk of a prompt may keep a device busy for a second. Tokens that others wait for need not wait for all of it:
//! whoever has begun a long step asks for other steps through an [`Asker`], and the engine runs each of them when it has
//! come to the end of a layer. One at a time is asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::engine::{EngineError, Work, WorkOut};
use crate::ids::SessionId;

/// What an engine makes of a step.
pub type Results = Vec<Result<WorkOut, EngineError>>;

/// A step to run between two layers of another one. No session has a part in both.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aside {
    /// Sessions to forget before.
    pub forget: Vec<SessionId>,
    /// The step; may be empty.
    pub batch: Vec<Work>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Asked(Aside),
    Runs,
    Answered(Results),
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    asked: Notify,
    answered: Notify,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a step that was asked for, once the long one is over.
#[derive(Debug, PartialEq)]
pub enum Left {
    /// It was never begun.
    Waiting(Aside),
    /// It was run.
    Done(Results),
    /// It was begun, and the engine failed in it.
    Lost,
}

/// Who asks.
#[derive(Debug)]
pub struct Asker(Arc<Slot>);

/// Who is asked: the engine.
#[derive(Debug)]
pub struct Asides(Arc<Slot>);

/// The two ends for one long step.
pub fn asides() -> (Asker, Asides) {
    let slot = Arc::default();
    (Asker(Arc::clone(&slot)), Asides(slot))
}

impl Asker {
    /// Asks for a step, when the one before is answered.
    pub fn ask(&self, aside: Aside) {
        *self.0.lock() = State::Asked(aside);
        self.0.asked.notify_one();
    }

    /// Waits until what was asked for is done. Nothing is lost when the wait is given up.
    pub async fn answered(&self) -> Results {
        loop {
            if let Some(results) = self.answer() {
                return results;
            }
            self.0.answered.notified().await;
        }
    }

    fn answer(&self) -> Option<Results> {
        let mut state = self.0.lock();
        let State::Answered(results) = &mut *state else { return None };
        let results = std::mem::take(results);
        *state = State::Nothing;
        Some(results)
    }

    /// What became of what was asked for last and not answered yet; `None` when there is nothing of the kind. For the
    /// time after the long step.
    pub fn take_back(&self) -> Option<Left> {
        match std::mem::take(&mut *self.0.lock()) {
            State::Nothing => None,
            State::Asked(aside) => Some(Left::Waiting(aside)),
            State::Runs => Some(Left::Lost),
            State::Answered(results) => Some(Left::Done(results)),
        }
    }
}

impl Asides {
    /// Waits until a step is asked for.
    pub async fn asked(&self) {
        while !matches!(*self.0.lock(), State::Asked(_)) {
            self.0.asked.notified().await;
        }
    }

    /// The step that is asked for, if one is. It must be [answered](Self::answer).
    pub fn next(&self) -> Option<Aside> {
        let mut state = self.0.lock();
        let State::Asked(aside) = &mut *state else { return None };
        let aside = std::mem::take(aside);
        *state = State::Runs;
        Some(aside)
    }

    /// Says what the step gave.
    pub fn answer(&self, results: Results) {
        *self.0.lock() = State::Answered(results);
        self.0.answered.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(session: u64) -> Aside {
        Aside { forget: vec![SessionId(session)], batch: Vec::new() }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_run_once_and_answered_once() {
        let (asker, asides) = asides();
        assert_eq!(asides.next(), None);
        asker.ask(aside(1));
        asides.asked().await;
        assert_eq!(asides.next(), Some(aside(1)));
        assert_eq!(asides.next(), None);
        asides.answer(vec![Ok(WorkOut::Done)]);
        assert_eq!(asker.answered().await, vec![Ok(WorkOut::Done)]);
        assert_eq!(asker.take_back(), None);
    }

    #[test]
    fn nothing_that_was_asked_for_is_lost_at_the_end() {
        let (asker, asides) = asides();
        asker.ask(aside(1));
        assert_eq!(asker.take_back(), Some(Left::Waiting(aside(1))));
        asker.ask(aside(2));
        asides.next();
        asides.answer(Vec::new());
        assert_eq!(asker.take_back(), Some(Left::Done(Vec::new())));
        asker.ask(aside(3));
        asides.next();
        assert_eq!(asker.take_back(), Some(Left::Lost));
    }
}
