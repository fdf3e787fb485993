//! Q3_K: 32 bytes of third bits (bit `i / 32` of byte `i % 32`), 64 of two-bit levels, sixteen 6-bit scales in 12 bytes,
//! `d`. A weight of sub-block `j` (16 weights) is `d * (scale[j] - 32) * (level - 4)`.

use super::super::{f16_at, largest, put_f16};
use super::search::symmetric_by_moves;
use super::{WEIGHTS, nearest, put_two_bits, two_bits};

/// Bytes of a block.
const BYTES: usize = 110;
/// Where the two-bit levels begin.
const LOW: usize = 32;
/// Where the scales begin.
const SCALES: usize = 96;
/// Where `d` stands.
const D: usize = 108;

/// The sixteen scales, -32 to 31: low nibbles in bytes 0 to 7, high two bits in bytes 8 to 11.
pub(in crate::real) fn scales(packed: &[u8]) -> [i8; 16] {
    std::array::from_fn(|j| {
        let low = packed[j % 8] >> (4 * (j / 8)) & 15;
        let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
        (low | high << 4) as i8 - 32
    })
}

pub(in crate::real::formats) fn widened(block: &[u8; BYTES], out: &mut [f32; WEIGHTS]) {
    let d = f16_at(block, D);
    let factors = scales(&block[SCALES..D]).map(|scale| d * f32::from(scale));
    for (i, weight) in out.iter_mut().enumerate() {
        let third = block[i % 32] >> (i / 32) & 1;
        let level = two_bits(&block[LOW..SCALES], i) | third << 2;
        *weight = factors[i / 16] * (i32::from(level) - 4) as f32;
    }
}

pub(in crate::real::formats) fn narrowed(weights: &[f32; WEIGHTS]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let mut levels = [0; WEIGHTS];
    let fits: [f32; 16] = std::array::from_fn(|j| {
        let sub = 16 * j..16 * (j + 1);
        symmetric_by_moves(&weights[sub.clone()], 4, &mut levels[sub])
    });
    let max = largest(&fits);
    if max != 0.0 {
        let inverse = -32.0 / max;
        pack(&fits.map(|fit| (nearest(inverse * fit) as i8).clamp(-32, 31)), &mut block[SCALES..D]);
        put_f16(&mut block, D, 1.0 / inverse);
    }
    round(weights, &block, &mut levels);
    for (i, level) in levels.iter().enumerate() {
        block[i % 32] |= (level >> 2) << (i / 32);
    }
    put_two_bits(&mut block[LOW..SCALES], &levels);
    block
}

fn pack(scales: &[i8; 16], packed: &mut [u8]) {
    for (j, scale) in scales.iter().enumerate() {
        let raised = (scale + 32) as u8;
        packed[j % 8] |= (raised & 15) << (4 * (j / 8));
        packed[8 + j % 4] |= (raised >> 4) << (2 * (j / 4));
    }
}

/// Rounds the weights anew under the scales as they were stored; sub-blocks of scale 0 keep their levels.
fn round(weights: &[f32; WEIGHTS], block: &[u8; BYTES], levels: &mut [u8; WEIGHTS]) {
    let d = f16_at(block, D);
    let scales = scales(&block[SCALES..D]);
    for (i, (level, weight)) in levels.iter_mut().zip(weights).enumerate() {
        let d = d * f32::from(scales[i / 16]);
        if d != 0.0 {
            *level = (nearest(weight / d).clamp(-4, 3) + 4) as u8;
        }
    }
}
