//! Q5_K: the head of [`six_bit`], 32 bytes of fifth bits (bit `j` of byte `l`: weight `l` of sub-block `j`), then nibbles
//! as in Q4_K.

use super::search::Affine;
use super::{WEIGHTS, q4, six_bit};

/// Bytes of a block.
const BYTES: usize = 176;

/// Where the nibbles begin.
const NIBBLES: usize = six_bit::HEAD + 32;

/// Source of the figures: `quantize_row_q5_K_ref`.
const SEARCH: Affine =
    Affine { steps: 31, first: -0.5, tries: 15, cost: |difference| difference * difference };

pub(in crate::real::formats) fn widened(block: &[u8; BYTES], out: &mut [f32; WEIGHTS]) {
    let factors = six_bit::factors(block);
    for (i, weight) in out.iter_mut().enumerate() {
        let (sub, l) = (i / 32, i % 32);
        let nibble = block[NIBBLES + sub / 2 * 32 + l] >> (4 * (sub % 2)) & 15;
        let fifth = block[six_bit::HEAD + l] >> sub & 1;
        let (d, m) = factors[sub];
        *weight = d * f32::from(nibble | fifth << 4) - m;
    }
}

pub(in crate::real::formats) fn narrowed(weights: &[f32; WEIGHTS]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let levels = six_bit::quantised(weights, &SEARCH, &mut block);
    for (i, level) in levels.iter().enumerate() {
        block[six_bit::HEAD + i % 32] |= (level >> 4) << (i / 32);
    }
    q4::put_nibbles(&mut block[NIBBLES..], &levels);
    block
}
