//! What is done to activations element by element, or row by row: written as plain loops over sixteen lanes, which the
//! compiler turns into each level's vectors. No fused multiply-add, so every level gives the same bits.

use super::lanes::{LANES, at_each_level};

/// `e^x`, within two units in the last place; 0 below -87.3. The method of Cephes' `expf`: `2^n` times a polynomial over
/// the rest, which is at most half of `ln 2`.
#[inline(always)]
pub(in crate::real) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest whole number in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    let scaled = f32::from_bits(mantissa.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -87.3 { 0.0 } else { scaled }
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Sum in a fixed order: sixteen running sums, then those pairwise.
#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let pieces = values.chunks_exact(LANES);
    let rest = pieces.remainder();
    for piece in pieces {
        for i in 0..LANES {
            sums[i] += of(piece[i]);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += of(*value);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

#[inline(always)]
fn norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = sum(x, |v| v * v) / width as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for i in 0..width {
            out[i] = x[i] * scale * weight[i];
        }
    }
}

#[inline(always)]
fn silu_body(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[inline(always)]
fn gelu_body(gate: &mut [f32], up: &[f32]) {
    const ROOT: f32 = 0.797_884_6;
    for (gate, up) in gate.iter_mut().zip(up) {
        let g = *gate;
        *gate = 0.5 * g * (1.0 + tanh(ROOT * (g + 0.044_715 * g * g * g))) * up;
    }
}

#[inline(always)]
fn cap_body(values: &mut [f32], cap: f32) {
    for value in values {
        *value = cap * tanh(*value / cap);
    }
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
fn softmax_body(scores: &mut [f32]) -> (f32, f32) {
    let greatest = greatest_body(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - greatest);
    }
    (greatest, sum(scores, |v| v))
}

#[inline(always)]
fn tame_body(values: &mut [f32]) {
    for value in values {
        *value = if value.is_nan() { f32::NEG_INFINITY } else { *value };
    }
}

#[inline(always)]
fn greatest_body(values: &[f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (pieces, rest) = values.as_chunks::<LANES>();
    for piece in pieces {
        for (greatest, value) in maxima.iter_mut().zip(piece) {
            *greatest = if *value > *greatest { *value } else { *greatest };
        }
    }
    rest.iter().chain(&maxima).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

at_each_level! {
    /// Makes what is not a number the least there is.
    pub fn tame(values: &mut [f32]) = tame_body
}
at_each_level! {
    /// The greatest of the values, negative infinity where there are none.
    pub fn greatest(values: &[f32]) -> f32 = greatest_body
}
at_each_level! {
    /// Normalises pieces of `weight.len()` by their root mean square: `x / sqrt(mean(x^2) + eps) * weight`.
    pub fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = norm_body
}
at_each_level! {
    /// `gate * sigmoid(gate) * up`, into `gate`.
    pub fn silu(gate: &mut [f32], up: &[f32]) = silu_body
}
at_each_level! {
    /// The tanh approximation of GELU of `gate`, times `up`, into `gate`.
    pub fn gelu(gate: &mut [f32], up: &[f32]) = gelu_body
}
at_each_level! {
    /// `cap * tanh(value / cap)`.
    pub fn soft_cap(values: &mut [f32], cap: f32) = cap_body
}
at_each_level! {
    /// `x + y`, into `x`.
    pub fn add(x: &mut [f32], y: &[f32]) = add_body
}
at_each_level! {
    /// Replaces scores by `e^(score - greatest)`; gives the greatest and the sum.
    pub fn softmax(scores: &mut [f32]) -> (f32, f32) = softmax_body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Level;
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        for step in -87_000..88_000 {
            let x = step as f32 / 1e3;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 2.4e-7, "e^{x}: {ours} for {exact}");
        }
        assert_eq!((exp(f32::NEG_INFINITY), exp(-1000.0), exp(0.0)), (0.0, 0.0, 1.0));
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_bits(values in prop::collection::vec(-30f32..30.0, 1..200)) {
            let weight: Vec<f32> = values.iter().map(|v| v * 0.5 + 1.0).collect();
            let run = |level| {
                let mut out = vec![0.0; values.len()];
                norm(level, &values, &weight, 1e-5, &mut out);
                let mut gate = values.clone();
                silu(level, &mut gate, &weight);
                gelu(level, &mut gate, &weight);
                soft_cap(level, &mut gate, 30.0);
                add(level, &mut gate, &out);
                let (greatest, sum) = softmax(level, &mut out);
                gate.extend(out);
                gate.extend([greatest, sum]);
                gate.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let portable = run(Level::Portable);
            for level in Level::ALL.map(Level::available) {
                prop_assert_eq!(&run(level), &portable, "{:?}", level);
            }
        }
    }

    #[test]
    fn the_greatest_is_found_wherever_it_is() {
        for at in 0..50 {
            let mut values = vec![f32::NAN; 50];
            values[at] = -7.5;
            for level in Level::ALL {
                let mut tamed = values.clone();
                tame(level, &mut tamed);
                assert_eq!(tamed.iter().filter(|value| **value == f32::NEG_INFINITY).count(), 49);
                assert_eq!(greatest(level, &tamed), -7.5);
            }
        }
        assert_eq!(greatest(Level::best(), &[]), f32::NEG_INFINITY);
    }

    #[test]
    fn activations_follow_their_formulas() {
        for step in -400..400 {
            let x = step as f32 / 40.0;
            let (mut silu_out, mut gelu_out) = ([x], [x]);
            silu(Level::Portable, &mut silu_out, &[2.0]);
            gelu(Level::Portable, &mut gelu_out, &[2.0]);
            let v = f64::from(x);
            let gelu_exact = v * (1.0 + (0.797_884_560_802_865_4 * (v + 0.044_715 * v * v * v)).tanh());
            assert!((f64::from(silu_out[0]) - 2.0 * v / (1.0 + (-v).exp())).abs() < 2e-6, "silu({x})");
            assert!((f64::from(gelu_out[0]) - gelu_exact).abs() < 2e-6, "gelu({x})");
        }
    }
}
