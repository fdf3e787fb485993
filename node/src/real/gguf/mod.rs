//! Making GGUF files, and telling them apart; reading them is `planner::model::gguf`'s.
//!
//! * [`GgufWriter`], [`GgufSink`]: metadata and tensor table first, then the tensors' bytes, streamed.
//! * [`requantise`]: an existing model in another format, as `llama-quantize --pure` makes it.
//! * [`split`]: one model in several files.
//! * [`fingerprint()`]: whether two machines hold the same model.
//! * [`random`]: models of any size with random weights, for tests and benches that no hub serves.

mod fingerprint;
pub mod random;
mod requantise;
mod source;
mod split;
#[cfg(test)]
mod tests;
mod writer;

pub use fingerprint::fingerprint;
#[cfg(feature = "p2p")]
pub(crate) use fingerprint::{Part, parts};
pub use requantise::requantise;
pub use source::CopyError;
pub use split::split;
pub use writer::{Entry, GgufSink, GgufWriter, WriteError};
