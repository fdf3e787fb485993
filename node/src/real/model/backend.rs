//! What [`Model`](super::Model) asks of a device beyond the operations of a layer.

use super::kv::{KvCache, KvShape, Store};
use super::{Limits, Residual};
use crate::ids::SessionId;
use crate::real::arch::Ops;
use crate::real::weights::LoadError;

/// Some tokens of one session in a step.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Whose.
    pub session: SessionId,
    /// Position of the first token.
    pub start: usize,
    /// How many.
    pub count: usize,
    /// The first one's row in the step.
    pub row: usize,
}

/// A device, with the operations of a step and the cache they work on.
///
/// Operations do not say whether they failed: a device that can fail remembers the first failure, hands out rows of any
/// content from then on, and tells by [`failure`](Self::failure) when the step is over.
pub trait Backend: Ops + Send + Sized + 'static {
    /// How the device is used.
    type Options: Clone + Send + 'static;
    /// Where it keeps keys and values.
    type Store: Store;
    /// Whose the rows of a step are that lets another one begin.
    type Paused;

    /// What the options say that is of no device.
    fn limits(options: &Self::Options) -> Limits;

    /// The device that weights go to.
    ///
    /// # Errors
    /// [`LoadError::Device`] where there is none.
    fn open(options: &Self::Options) -> Result<Self::Device, LoadError>;

    /// Makes it ready for steps, with a cache of up to `kv_bytes_max` bytes for sessions of up to `context_max` tokens.
    ///
    /// # Errors
    /// [`LoadError::Device`] where there is no memory for the cache.
    fn new(
        device: Self::Device,
        shape: KvShape,
        kv_bytes_max: u64,
        context_max: usize,
    ) -> Result<Self, LoadError>;

    /// Keys and values.
    fn cache(&self) -> &KvCache<Self::Store>;

    /// The same, to change.
    fn cache_mut(&mut self) -> &mut KvCache<Self::Store>;

    /// Whose the rows of the next operations are.
    fn begin(&mut self, segments: Vec<Segment>);

    /// Lets another step begin; this one goes on with what is given here.
    fn pause(&mut self) -> Self::Paused;

    /// Goes on with the step that was paused.
    fn resume(&mut self, paused: Self::Paused);

    /// What went wrong since the step began.
    fn failure(&mut self) -> Option<String> {
        None
    }

    /// Rows that `fill` writes, `[rows][width]`.
    fn rows_of(&mut self, rows: usize, width: usize, fill: impl FnOnce(&mut [f32])) -> Self::Rows;

    /// Rounds the residual stream after a layer.
    fn round(&mut self, residual: Residual, x: Self::Rows) -> Self::Rows;

    /// Some rows of `x`, by their numbers.
    fn pick(&mut self, x: &Self::Rows, rows: &[usize]) -> Self::Rows;

    /// `cap * tanh(x / cap)`.
    fn soft_cap(&mut self, x: Self::Rows, cap: f32) -> Self::Rows;

    /// The likeliest token of each row of logits, the lowest of equals, what is no number counted as the least; `None` where
    /// the device leaves that to who reads them.
    fn likeliest(&mut self, logits: &Self::Rows) -> Option<Vec<u32>> {
        let _ = logits;
        None
    }

    /// The numbers, where this program can read them.
    fn values(&mut self, x: Self::Rows) -> Vec<f32>;

    /// Lets others use the memory that [`values`](Self::values) gave.
    fn reuse(&mut self, values: Vec<f32>) {
        drop(values);
    }

    /// Lets others use the rows' memory.
    fn done(&mut self, x: Self::Rows) {
        drop(x);
    }

    /// Waits until the rows are there, which nobody reads: a step is over when it is done, and tells what went wrong.
    fn wait(&mut self, x: Self::Rows) {
        self.done(x);
    }

    /// Runs `work` over each item, on all threads that compute.
    fn each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync);
}
