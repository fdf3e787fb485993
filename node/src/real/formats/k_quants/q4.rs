//! Q4_K: the head of [`six_bit`], then four runs of 32 bytes: the low nibbles are one sub-block, the high ones the next.

use super::search::Affine;
use super::{WEIGHTS, six_bit};

/// Bytes of a block.
const BYTES: usize = 144;

/// Source of the figures: `quantize_row_q4_K_ref`.
const SEARCH: Affine =
    Affine { steps: 15, first: -1.0, tries: 20, cost: |difference| difference * difference };

pub(in crate::real::formats) fn widened(block: &[u8; BYTES], out: &mut [f32; WEIGHTS]) {
    let factors = six_bit::factors(block);
    for (i, weight) in out.iter_mut().enumerate() {
        let byte = block[six_bit::HEAD + i / 64 * 32 + i % 32];
        let level = byte >> (4 * (i / 32 % 2)) & 15;
        let (d, m) = factors[i / 32];
        *weight = d * f32::from(level) - m;
    }
}

pub(in crate::real::formats) fn narrowed(weights: &[f32; WEIGHTS]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let levels = six_bit::quantised(weights, &SEARCH, &mut block);
    put_nibbles(&mut block[six_bit::HEAD..], &levels);
    block
}

/// The low four bits of each level, as in Q4_K and Q5_K.
pub(super) fn put_nibbles(bytes: &mut [u8], levels: &[u8; WEIGHTS]) {
    for (bytes, levels) in bytes.chunks_exact_mut(32).zip(levels.chunks_exact(64)) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = levels[l] & 15 | levels[l + 32] << 4;
        }
    }
}
