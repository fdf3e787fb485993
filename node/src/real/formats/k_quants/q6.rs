//! Q6_K: 128 bytes of low nibbles, 64 of high bits (laid as two-bit levels), 16 signed scales, `d`. A weight of sub-block
//! `j` (16 weights) is `d * scale[j] * (level - 32)`.

use super::super::{f16_at, put_f16};
use super::search::{ALL_ZERO, symmetric};
use super::{WEIGHTS, nearest, put_two_bits, two_bits};

/// Bytes of a block.
const BYTES: usize = 210;
/// Where the high bits begin.
const HIGH: usize = 128;
/// Where the scales begin.
const SCALES: usize = 192;
/// Where `d` stands.
const D: usize = 208;

pub(in crate::real::formats) fn widened(block: &[u8; BYTES], out: &mut [f32; WEIGHTS]) {
    let d = f16_at(block, D);
    for (i, weight) in out.iter_mut().enumerate() {
        let scale = f32::from(block[SCALES + i / 16] as i8);
        let level = nibble(block, i) | two_bits(&block[HIGH..SCALES], i) << 4;
        *weight = d * scale * (i32::from(level) - 32) as f32;
    }
}

/// Of each 128 weights, the first 64 are low nibbles of 64 bytes and the others high ones.
fn nibble(block: &[u8], i: usize) -> u8 {
    block[i / 128 * 64 + i % 64] >> (4 * (i % 128 / 64)) & 15
}

pub(in crate::real::formats) fn narrowed(weights: &[f32; WEIGHTS]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let mut levels = [0; WEIGHTS];
    let scales: [f32; 16] = std::array::from_fn(|j| {
        let sub = 16 * j..16 * (j + 1);
        symmetric(&weights[sub.clone()], 32, &mut levels[sub])
    });
    let largest = super::super::largest(&scales);
    if largest.abs() < ALL_ZERO {
        return block;
    }
    let inverse = -128.0 / largest;
    let d = put_f16(&mut block, D, 1.0 / inverse);
    for (to, scale) in block[SCALES..D].iter_mut().zip(scales) {
        *to = nearest(inverse * scale).min(127) as u8;
    }
    round(weights, d, &block[SCALES..D], &mut levels);
    put_levels(&mut block, &levels);
    block
}

/// Rounds the weights anew under the scales as they were stored; sub-blocks of scale 0 keep their levels.
fn round(weights: &[f32; WEIGHTS], d: f32, scales: &[u8], levels: &mut [u8; WEIGHTS]) {
    for (i, (level, weight)) in levels.iter_mut().zip(weights).enumerate() {
        let d = d * f32::from(scales[i / 16] as i8);
        if d != 0.0 {
            *level = (nearest(weight / d).clamp(-32, 31) + 32) as u8;
        }
    }
}

fn put_levels(block: &mut [u8; BYTES], levels: &[u8; WEIGHTS]) {
    for (i, level) in levels.iter().enumerate() {
        block[i / 128 * 64 + i % 64] |= (level & 15) << (4 * (i % 128 / 64));
    }
    put_two_bits(&mut block[HIGH..SCALES], &levels.map(|level| level >> 4));
}
