//! The heads that run on this node, and their letter boxes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::engine::Sampled;
use crate::ids::{Attempt, PeerId, SessionId};
use crate::wire::Nack;

/// What reaches a head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Letter {
    /// From the last stage.
    Token { attempt: Attempt, position: u32, sampled: Sampled },
    /// From the stage on `from`, or from this node's own outbox.
    Nack { from: PeerId, attempt: Attempt, why: Nack },
}

#[derive(Debug, Default)]
struct State {
    boxes: BTreeMap<SessionId, (u64, mpsc::Sender<Letter>)>,
    lives: u64,
}

/// Shared by the tasks of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads {
    state: Arc<Mutex<State>>,
}

/// A head's letter box; dropping it takes it down.
#[derive(Debug)]
pub(crate) struct LetterBox {
    heads: Heads,
    session: SessionId,
    life: u64,
    letters: mpsc::Receiver<Letter>,
}

impl Heads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.lock().boxes.len()
    }

    /// A box for `session`. A head that had one for it loses it, and ends.
    pub(crate) fn open(&self, session: SessionId, room: usize) -> LetterBox {
        let (sender, letters) = mpsc::channel(room);
        let mut state = self.lock();
        state.lives += 1;
        let life = state.lives;
        state.boxes.insert(session, (life, sender));
        drop(state);
        LetterBox { heads: self.clone(), session, life, letters }
    }

    /// Delivers; false when nobody is there. A full box loses the letter: its head has a deadline for it.
    pub(crate) fn deliver(&self, session: SessionId, letter: Letter) -> bool {
        match self.lock().boxes.get(&session) {
            Some((_, sender)) => {
                let _ = sender.try_send(letter);
                true
            }
            None => false,
        }
    }
}

impl LetterBox {
    /// The next letter; `None` when another head has taken the session over.
    pub(crate) async fn next(&mut self) -> Option<Letter> {
        self.letters.recv().await
    }
}

impl Drop for LetterBox {
    fn drop(&mut self) {
        let mut state = self.heads.lock();
        if state.boxes.get(&self.session).is_some_and(|(life, _)| *life == self.life) {
            state.boxes.remove(&self.session);
        }
    }
}
