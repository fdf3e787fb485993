//! Q2_K: sixteen bytes with a 4-bit scale below and a 4-bit minimum above, 64 bytes of two-bit levels, `d`, `dmin`. A
//! weight of sub-block `j` (16 weights) is `d * scale[j] * level - dmin * minimum[j]`.

use super::super::{f16_at, put_f16};
use super::search::Affine;
use super::{WEIGHTS, nearest, put_two_bits, two_bits};

/// Bytes of a block.
const BYTES: usize = 84;
/// Where the levels begin.
const LEVELS: usize = 16;
/// Where `d` stands; `dmin` follows.
const D: usize = 80;

/// Source of the figures: `quantize_row_q2_K_ref`.
const SEARCH: Affine = Affine { steps: 3, first: -0.5, tries: 15, cost: f32::abs };

/// Factor and offset of each sub-block: a weight is `factor * level - offset`.
fn factors(block: &[u8; BYTES]) -> [(f32, f32); 16] {
    let (d, dmin) = (f16_at(block, D), f16_at(block, D + 2));
    std::array::from_fn(|j| (d * f32::from(block[j] & 15), dmin * f32::from(block[j] >> 4)))
}

pub(in crate::real::formats) fn widened(block: &[u8; BYTES], out: &mut [f32; WEIGHTS]) {
    let factors = factors(block);
    for (i, weight) in out.iter_mut().enumerate() {
        let (d, m) = factors[i / 16];
        *weight = d * f32::from(two_bits(&block[LEVELS..D], i)) - m;
    }
}

pub(in crate::real::formats) fn narrowed(weights: &[f32; WEIGHTS]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let mut levels = [0; WEIGHTS];
    let fits: [(f32, f32); 16] = std::array::from_fn(|j| {
        let sub = 16 * j..16 * (j + 1);
        let x = &weights[sub.clone()];
        let importance: [f32; 16] = std::array::from_fn(|l| x[l].abs());
        SEARCH.fit(x, &importance, &mut levels[sub])
    });
    let largest = |part: fn(&(f32, f32)) -> f32| fits.iter().map(part).fold(0.0, f32::max);
    let (scale, min) = (largest(|fit| fit.0), largest(|fit| fit.1));
    let four = |max: f32, value: f32| if max > 0.0 { nearest(15.0 / max * value) as u8 } else { 0 };
    for (byte, fit) in block.iter_mut().zip(fits) {
        *byte = four(scale, fit.0) | four(min, fit.1) << 4;
    }
    put_f16(&mut block, D, scale / 15.0);
    put_f16(&mut block, D + 2, min / 15.0);
    round(weights, &factors(&block), &mut levels);
    put_two_bits(&mut block[LEVELS..D], &levels);
    block
}

/// Rounds the weights anew under the scales as they were stored; sub-blocks of scale 0 keep their levels.
fn round(weights: &[f32; WEIGHTS], factors: &[(f32, f32); 16], levels: &mut [u8; WEIGHTS]) {
    for (i, (level, weight)) in levels.iter_mut().zip(weights).enumerate() {
        let (d, m) = factors[i / 16];
        if d != 0.0 {
            *level = nearest((weight + m) / d).clamp(0, 3) as u8;
        }
    }
}
