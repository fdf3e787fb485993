//! Four-bit indices into a table of 16 values that lie closer around zero, as weights do.
//!
//! Nibbles lie as in `per_32`: byte `j` of 16 holds weight `j` below and weight `j + 16` above.

use super::k_quants::nearest;
use super::{f16_at, inverse, largest, put_f16};

/// The values of IQ4_NL and IQ4_XS. Source: `kvalues_iq4nl` in `ggml-common.h`.
pub(in crate::real) const NON_LINEAR: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of MXFP4, twice those of E2M1 of the OCP microscaling specification so that they are whole.
pub(in crate::real) const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Below this a sub-block is taken for zeros. Source: `GROUP_MAX_EPS`.
const ALL_ZERO: f32 = 1e-15;

/// How many scales either side of the first guess are tried. Source: the calls in `quantize_iq4_nl`, `quantize_iq4_xs`.
const TRIES: i32 = 7;

/// IQ4_NL: a scale, nibbles.
pub(super) fn from_iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    look_up(&block[2..], &NON_LINEAR, f16_at(block, 0), out);
}

/// IQ4_XS: a scale, the high two bits of eight 6-bit scales, their low nibbles, then eight runs of nibbles.
pub(super) fn from_iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (i, (weights, nibbles)) in out.chunks_exact_mut(32).zip(block[8..].chunks_exact(16)).enumerate() {
        let low = block[4 + i / 2] >> (4 * (i % 2)) & 15;
        let scale = i32::from(low) | i32::from(high >> (2 * i) & 3) << 4;
        look_up(nibbles, &NON_LINEAR, d * (scale - 32) as f32, weights);
    }
}

/// MXFP4: a power of two, nibbles.
pub(super) fn from_mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    look_up(&block[1..], &E2M1_DOUBLED, half_power(block[0]), out);
}

pub(super) fn to_iq4_nl(weights: &[f32; 32]) -> [u8; 18] {
    let mut block = [0; 18];
    let d = best_scale(weights);
    put_f16(&mut block, 0, d);
    put_indices(&mut block[2..], weights, inverse(d));
    block
}

pub(super) fn to_iq4_xs(weights: &[f32; 256]) -> [u8; 136] {
    let mut block = [0; 136];
    let scales: [f32; 8] = std::array::from_fn(|i| best_scale(&weights[32 * i..32 * i + 32]));
    let d = -largest(&scales) / 32.0;
    put_f16(&mut block, 0, d);
    let mut high = 0u16;
    for (i, scale) in scales.iter().enumerate() {
        let l = nearest(inverse(d) * scale).clamp(-32, 31);
        let biased = (l + 32) as u8;
        block[4 + i / 2] |= (biased & 15) << (4 * (i % 2));
        high |= u16::from(biased >> 4) << (2 * i);
        let nibbles = &mut block[8 + 16 * i..24 + 16 * i];
        put_indices(nibbles, &weights[32 * i..32 * i + 32], inverse(d * l as f32));
    }
    block[2..4].copy_from_slice(&high.to_le_bytes());
    block
}

pub(super) fn to_mxfp4(weights: &[f32; 32]) -> [u8; 17] {
    let mut block = [0; 17];
    let max = largest(weights).abs();
    // The largest value of E2M1 is 6, whose exponent is 2.
    block[0] = if max > 0.0 { (max.log2().floor() - 2.0 + 127.0) as u8 } else { 0 };
    let d = half_power(block[0]);
    let index = |x: f32| {
        let error = |i: usize| (f32::from(E2M1_DOUBLED[i]) * d - x).abs();
        (1..16).fold(0, |best, i| if error(i) < error(best) { i } else { best }) as u8
    };
    for (j, byte) in block[1..].iter_mut().enumerate() {
        *byte = index(weights[j]) | index(weights[j + 16]) << 4;
    }
    block
}

/// Half of `2^(exponent - 127)`: half, because the table is doubled.
pub(in crate::real) fn half_power(exponent: u8) -> f32 {
    let bits = match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => u32::from(exponent - 1) << 23,
    };
    f32::from_bits(bits)
}

fn look_up(nibbles: &[u8], table: &[i8; 16], scale: f32, out: &mut [f32]) {
    for (j, byte) in nibbles.iter().enumerate() {
        out[j] = scale * f32::from(table[usize::from(byte & 15)]);
        out[j + 16] = scale * f32::from(table[usize::from(byte >> 4)]);
    }
}

/// The scale of least weighted square error, each weight counting as its square, among [`TRIES`] either side of the one
/// that maps the largest weight to the table's end. Source: `quantize_row_iq4_nl_impl`.
fn best_scale(weights: &[f32]) -> f32 {
    let max = largest(weights);
    if max.abs() < ALL_ZERO {
        return 0.0;
    }
    let end = f32::from(NON_LINEAR[0]);
    let (mut sumqx, mut sumq2) = fit(weights, 1.0 / (-max / end));
    let mut d = if sumq2 > 0.0 { sumqx / sumq2 } else { 0.0 };
    let mut best = d * sumqx;
    for step in -TRIES..=TRIES {
        (sumqx, sumq2) = fit(weights, (step as f32 + end) / max);
        if sumq2 > 0.0 && sumqx * sumqx > best * sumq2 {
            d = sumqx / sumq2;
            best = d * sumqx;
        }
    }
    d
}

/// Weighted sums of value times weight and of squared values, with each weight at its nearest value under `1 / id`.
fn fit(weights: &[f32], id: f32) -> (f32, f32) {
    weights.iter().fold((0.0, 0.0), |(sumqx, sumq2), &x| {
        let q = f32::from(NON_LINEAR[nearest_index(id * x)]);
        let w = x * x;
        (sumqx + w * q * x, sumq2 + w * q * q)
    })
}

fn put_indices(nibbles: &mut [u8], weights: &[f32], id: f32) {
    for (j, byte) in nibbles.iter_mut().enumerate() {
        *byte = (nearest_index(id * weights[j]) | nearest_index(id * weights[j + 16]) << 4) as u8;
    }
}

/// Which value of [`NON_LINEAR`] is nearest, the upper one of two as near.
fn nearest_index(x: f32) -> usize {
    let above = NON_LINEAR.partition_point(|&value| f32::from(value) <= x);
    if above == 0 || above == NON_LINEAR.len() {
        return above.saturating_sub(1);
    }
    let (low, high) = (f32::from(NON_LINEAR[above - 1]), f32::from(NON_LINEAR[above]));
    if x - low < high - x { above - 1 } else { above }
}
