//! The model and what it has read: a prompt that begins as the one before is read from where they differ.

use crate::engine::{EngineError, Input, Want, Work, WorkOut};
use crate::ids::{SessionId, Token};
use crate::real::any::AnyModel;

/// The one session there is.
const SESSION: SessionId = SessionId(0);

/// A model with one session.
pub(super) struct Memory {
    model: AnyModel,
    /// The tokens whose keys and values the model holds.
    held: Vec<Token>,
}

impl Memory {
    pub(super) fn new(model: AnyModel) -> Self {
        Self { model, held: Vec::new() }
    }

    /// Tokens held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The model itself.
    pub(super) fn model(&self) -> &AnyModel {
        &self.model
    }

    /// Keeps what `prompt` has in common with what is held; at least the last token is read again, for its successor.
    /// Gives how many tokens are kept.
    pub(super) fn rewind(&mut self, prompt: &[Token]) -> usize {
        let common = self.held.iter().zip(prompt).take_while(|(held, wanted)| held == wanted).count();
        let kept = common.min(prompt.len().saturating_sub(1));
        self.held.truncate(kept);
        self.model.truncate(SESSION, kept as u32);
        kept
    }

    /// Reads tokens, and gives the one that follows where `want` asks for it.
    ///
    /// # Errors
    /// [`EngineError`]; nothing was read then.
    pub(super) fn step(&mut self, tokens: &[Token], want: Want) -> Result<Option<Token>, EngineError> {
        let work = Work {
            session: SESSION,
            start: self.held.len() as u32,
            count: tokens.len() as u32,
            input: Input::Tokens(tokens.to_vec()),
            want,
        };
        let out = self.model.step(&[work]).pop().expect("one share, one result")?;
        self.held.extend(tokens);
        match out {
            WorkOut::Token(sampled) => Ok(Some(sampled.token)),
            _ => Ok(None),
        }
    }
}
