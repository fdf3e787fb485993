//! The K-quants: 256 weights in sub-blocks of 16 or 32, each with a scale (and in Q2_K, Q4_K and Q5_K a minimum) that is
//! itself an integer times a half-precision number of the whole block.
//!
//! * [`q2`], [`q3`], [`q4`], [`q5`], [`q6`]: the layout of each, both ways.
//! * [`six_bit`]: the packed scales and minima that Q4_K and Q5_K share.
//! * [`search`]: the searches for scales of least error.

pub(in crate::real) mod q2;
pub(in crate::real) mod q3;
pub(in crate::real) mod q4;
pub(in crate::real) mod q5;
pub(in crate::real) mod q6;
mod search;
pub(in crate::real) mod six_bit;

/// Weights of a block.
const WEIGHTS: usize = 256;

/// The nearest integer, ties to even, by adding 1.5 * 2^23 as ggml's `nearest_int` does: its range is 22 bits.
pub(super) fn nearest(value: f32) -> i32 {
    let bits = (value + 12_582_912.0).to_bits() as i32;
    (bits & 0x007f_ffff) - 0x0040_0000
}

/// Packs levels of two bits: byte `l` of a run of 32 holds weights `l`, `l + 32`, `l + 64` and `l + 96` of its 128.
fn put_two_bits(bytes: &mut [u8], levels: &[u8; WEIGHTS]) {
    for (bytes, levels) in bytes.chunks_exact_mut(32).zip(levels.chunks_exact(128)) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |byte, part| byte | (levels[l + 32 * part] & 3) << (2 * part));
        }
    }
}

/// Two bits of weight `i`, as [`put_two_bits`] lays them.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3
}
