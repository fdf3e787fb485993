//! What Q4_K and Q5_K share: `d` and `dmin` in half precision, then eight scales and eight minima of 6 bits in 12 bytes.
//! A weight of sub-block `j` is `d * scale[j] * level - dmin * minimum[j]`.

use super::super::{f16_at, put_f16};
use super::search::Affine;
use super::{WEIGHTS, nearest};

/// Weights of a sub-block.
const SUB: usize = 32;

/// Bytes before the levels: `d`, `dmin`, packed scales.
pub(in crate::real) const HEAD: usize = 16;

/// Scale and minimum of each sub-block, 0 to 63, from the 12 bytes. Source: `get_scale_min_k4`.
pub(in crate::real) fn scales_and_minima(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|j| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    })
}

/// Factor and offset of each sub-block of a block: a weight is `factor * level - offset`.
pub(in crate::real) fn factors(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    scales_and_minima(&block[4..HEAD]).map(|(scale, min)| (d * f32::from(scale), dmin * f32::from(min)))
}

/// Writes the head of `block` and returns the level of each weight.
pub(super) fn quantised(weights: &[f32; WEIGHTS], search: &Affine, block: &mut [u8]) -> [u8; WEIGHTS] {
    let mut levels = [0; WEIGHTS];
    let mut fits = [(0.0, 0.0); 8];
    for (j, fit) in fits.iter_mut().enumerate() {
        let x = &weights[SUB * j..SUB * (j + 1)];
        *fit = search.fit(x, &importance(x), &mut levels[SUB * j..SUB * (j + 1)]);
    }
    let largest = |part: fn(&(f32, f32)) -> f32| fits.iter().map(part).fold(0.0, f32::max);
    let (scale, min) = (largest(|fit| fit.0), largest(|fit| fit.1));
    let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
    let six = |inverse: f32, value: f32| (nearest(inverse * value) as u8).min(63);
    let pairs = fits.map(|fit| (six(inverse(scale), fit.0), six(inverse(min), fit.1)));
    put_f16(block, 0, scale / 63.0);
    put_f16(block, 2, min / 63.0);
    pack(pairs, &mut block[4..HEAD]);
    round(weights, &factors(block), search.steps, &mut levels);
    levels
}

/// How much each weight's error counts: its size, and the root mean square of all.
fn importance(x: &[f32]) -> [f32; SUB] {
    let mut squares = 0.0;
    for x in x {
        squares += x * x;
    }
    let rms = (squares / SUB as f32).sqrt();
    std::array::from_fn(|l| rms + x[l].abs())
}

fn pack(pairs: [(u8, u8); 8], packed: &mut [u8]) {
    for (j, (scale, min)) in pairs.into_iter().enumerate() {
        if j < 4 {
            packed[j] = scale;
            packed[j + 4] = min;
        } else {
            packed[j + 4] = scale & 15 | min << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= min >> 4 << 6;
        }
    }
}

/// Rounds the weights anew under the scales as they were stored; sub-blocks of scale 0 keep their levels.
fn round(weights: &[f32; WEIGHTS], factors: &[(f32, f32); 8], steps: u8, levels: &mut [u8; WEIGHTS]) {
    for (i, (level, weight)) in levels.iter_mut().zip(weights).enumerate() {
        let (d, m) = factors[i / SUB];
        if d != 0.0 {
            *level = nearest((weight + m) / d).clamp(0, steps.into()) as u8;
        }
    }
}
