//! A contiguous range of layers on one device, and the KV cache of the sessions that pass it.

use std::future::Future;

use crate::asides::{Asides, Results};
use crate::ids::{SessionId, Token};
pub use crate::sampling::{Chances, Penalties, Rules, Sampled, Sampling};
use crate::wire::Payload;
use planner::plan::LayerRange;

/// What goes into a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// On the first stage: token ids.
    Tokens(Vec<Token>),
    /// On the others: the residual stream after the previous stage, one row per token.
    Hidden(Payload),
}

/// What is wanted out of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// The residual stream, for the next stage.
    Hidden,
    /// On the last stage: the token that follows the last position.
    Sample(Sampling),
    /// On the last stage: the token that follows each position, to hold drafted tokens against.
    Verify(Sampling),
    /// On the last stage: the logits of each position.
    Logits,
    /// On the last stage, for chunks of a prompt before its end: nothing but the KV entries.
    Nothing,
}

/// One session's share of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Whose.
    pub session: SessionId,
    /// Position of the first token; equals the KV length the engine holds for the session.
    pub start: u32,
    /// How many tokens.
    pub count: u32,
    /// Their ids or activations.
    pub input: Input,
    /// What to return.
    pub want: Want,
}

/// One session's result of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkOut {
    /// For the next stage.
    Hidden(Payload),
    /// Sampled after the last position.
    Token(Sampled),
    /// Sampled after each position.
    Tokens(Vec<Sampled>),
    /// `[positions][vocabulary]` of f32.
    Logits(Payload),
    /// Nothing was asked for.
    Done,
}

/// Why the engine did not do a session's share. Its KV for the session is as before the step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No KV room; nothing was kept.
    #[error("no room in the KV cache")]
    NoRoom,
    /// `start` is not where the session's KV ends.
    #[error("KV holds {have} tokens, the step starts at {start}")]
    Gap {
        /// Tokens held.
        have: u32,
        /// Where the step wanted to begin.
        start: u32,
    },
    /// No layers are loaded, or others than asked for.
    #[error("layers not loaded")]
    NotLoaded,
    /// The step contradicts itself or the model: nobody should have sent it.
    #[error("unsound step: {0}")]
    Unsound(String),
    /// The weights are not on this disk, or the device failed.
    #[error("device: {0}")]
    Device(String),
}

/// A contiguous range of layers on one device.
pub trait Engine: Send + 'static {
    /// Makes the engine hold exactly `layers` of `model` (`None`: nothing), reading what is missing from local disk.
    /// KV of layers that stay is kept only when the range is unchanged; otherwise every session is released.
    fn load(
        &mut self,
        model: &str,
        layers: Option<LayerRange>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Runs one step; the results are in the order of `batch`. A device runs one step at a time: `&mut self`.
    fn step(&mut self, batch: Vec<Work>) -> impl Future<Output = Results> + Send;

    /// Whether [`step_between`](Self::step_between) lets other steps in.
    fn takes_asides(&self) -> bool {
        false
    }

    /// Runs one step, and between its layers the steps that are asked for meanwhile.
    fn step_between(&mut self, batch: Vec<Work>, asides: Asides) -> impl Future<Output = Results> + Send {
        drop(asides);
        self.step(batch)
    }

    /// Forgets KV from position `len` on: speculation rolls back.
    fn truncate(&mut self, session: SessionId, len: u32);

    /// Lets `to` begin with the first `len` positions of `from`, without computing them again where the engine can.
    /// Gives how many it took over: the first step of `to` starts there.
    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        let _ = (from, to, len);
        0
    }

    /// Forgets the session.
    fn release(&mut self, session: SessionId);

    /// Sessions with KV, ascending: what must be empty when nobody is served.
    fn held(&self) -> Vec<SessionId>;
}
