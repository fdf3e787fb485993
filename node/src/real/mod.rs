//! The CPU engine: any range of layers of a GGUF model, at the speed of the memory.
//!
//! * [`formats`]: the element types of ggml, widened to f32 and made from it.
//! * [`gguf`]: GGUF files made: requantised, or with random weights.
//! * [`kernels`]: packed matrices and their products; the only place with `unsafe`.
//! * [`pool`]: the engine's own threads.
//! * [`text`]: tokens from text and back, chat templates.

pub mod formats;
pub mod gguf;
pub mod kernels;
pub mod pool;
pub mod text;
