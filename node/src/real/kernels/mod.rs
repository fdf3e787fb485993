//! Packed matrices and their products with f32 activations, at the best SIMD level of the machine.
//!
//! [`Matrix::pack`] turns a tensor of a GGUF file into tiles, once; [`linear`] multiplies several of them with one input.
//! `docs/engine.md` explains the layout, and how to add a format.
//!
//! * [`Level`]: which instructions may be used.
//! * [`Matrix`]: weights in tiles; [`Precision`]: as in the file, or widened.
//! * `linear`: cuts products into parts for threads and into stretches for caches.
//! * `tile`: what a tile is; `codes` and `scales`: the ways to store its two halves; `gguf`: how they get there.
//! * `activations`: inputs side by side, and in 8 bits.
//! * `packed`: a row of tiles times a panel, by format, width and level.
//! * `multiply`: the kernels, once; `vector`: the operations they are written in, over arrays, and with AVX2 and AVX-512
//!   (`x86`), SSE2 and NEON (which `baseline` chooses for the plain level).
//! * `floats`: tiles of F32, F16 and BF16.
//! * `memory`: where tiles lie.
//! * [`attention`]: a few rows against a block of the KV cache; [`elementwise`]: norms, activations, softmax; `lanes`:
//!   what they are written over; `rounding`: to 16 bits.
//! * [`FileMap`]: mapped files. [`Roofline`]: how fast memory is read.
//! * `erased`: what threads share that the compiler cannot see to be sound.

mod activations;
pub mod attention;
mod baseline;
mod codes;
pub mod elementwise;
pub(in crate::real) mod erased;
mod file_map;
mod floats;
mod gguf;
mod halves;
pub(in crate::real) mod lanes;
mod level;
mod linear;
mod matrix;
mod memory;
mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod roofline;
pub(in crate::real) mod rounding;
mod scales;
#[cfg(target_arch = "x86_64")]
mod sse2;
#[cfg(test)]
mod tests;
mod tile;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use self::file_map::FileMap;
pub use self::level::Level;
pub use self::linear::linear;
pub use self::matrix::{KernelError, Matrix, Precision};
pub use self::roofline::Roofline;
