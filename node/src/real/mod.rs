//! Real machines: the CPU engine, which runs any range of layers of a GGUF model at the speed of the memory, and the network.
//!
//! * [`weights`]: the tensors of a range of layers, checked and read once.
//! * [`arch`]: the architectures, each once over a few operations.
//! * [`model`]: a range of layers and its sessions, over whatever computes; the node's engine.
//! * [`cpu`]: the operations on the processor, KV cache, attention: [`cpu::Model`], [`cpu::CpuEngine`].
//! * [`any`]: whichever engine was asked for.
//! * [`sampling`]: from logits to a token.
//! * [`formats`]: the element types of ggml, widened to f32 and made from it.
//! * [`gguf`]: GGUF files made: requantised, or with random weights.
//! * [`kernels`]: packed matrices and their products; the only place with `unsafe`.
//! * [`pool`]: the engine's own threads.
//! * [`p2p`] (feature `p2p`): libp2p, membership, invites.
//! * [`profile`]: how fast this machine runs a model, in the figures that the planner asks for.
//! * [`text`]: tokens from text and back, chat templates.
//! * [`torch`] (feature `libtorch`): the operations on libtorch, for CUDA: [`torch::Model`], [`torch::TorchEngine`].
//! * `whole`: small files, written whole or not at all.

pub mod any;
pub mod arch;
pub mod cpu;
pub mod formats;
pub mod gguf;
pub mod kernels;
pub mod model;
#[cfg(feature = "p2p")]
pub mod p2p;
pub mod pool;
pub mod profile;
pub mod sampling;
pub mod text;
#[cfg(feature = "libtorch")]
pub mod torch;
pub mod weights;
pub(crate) mod whole;
