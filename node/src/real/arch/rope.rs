//! Rotary position embeddings: pairs of a head's elements are turned by an angle that grows with the position.

use std::f64::consts::PI;

use super::Shape;
use super::keys::Keys;
use crate::real::weights::{LoadError, Weights};

/// Base of the angles where a file has none.
const BASE: f64 = 10_000.0;

/// Which elements make a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// `2i` and `2i + 1`: Llama's files are permuted for it.
    Neighbours,
    /// `i` and `i + dims / 2`.
    Halves,
}

/// A rotation.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Angle per position, of each pair.
    pub frequencies: Vec<f32>,
    /// Rotated elements are multiplied by it (YaRN).
    pub magnitude: f32,
    /// Which elements are turned together.
    pub pairs: Pairs,
}

impl Rope {
    /// Angles `base^(-2i / dims)`.
    pub(super) fn plain(dims: usize, base: f64, pairs: Pairs) -> Self {
        let frequencies = plain(dims, base).into_iter().map(|f| f as f32).collect();
        Self { frequencies, magnitude: 1.0, pairs }
    }

    /// Elements of a head that are turned; the others stay as they are.
    pub fn dims(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// The rotation that a file describes by `rope.*` keys and, for Llama 3.x, by the divisors in `rope_freqs.weight`.
    pub(super) fn of_model(
        keys: &Keys<'_>,
        weights: &Weights<'_>,
        shape: &Shape,
        pairs: Pairs,
    ) -> Result<Self, LoadError> {
        let dims = keys.optional("rope.dimension_count")?.unwrap_or(shape.head_dim);
        if dims == 0 || dims % 2 != 0 || dims > shape.head_dim {
            let expected = "an even number up to a head's elements";
            return Err(keys.refused("rope.dimension_count", &dims.to_string(), expected));
        }
        let base = keys.positive("rope.freq_base")?.unwrap_or(BASE);
        let mut frequencies = plain(dims, base);
        let magnitude = scale(keys, base, &mut frequencies)?;
        if let Some(divisors) = weights.optional_values("rope_freqs.weight", dims / 2)? {
            for (frequency, divisor) in frequencies.iter_mut().zip(divisors) {
                *frequency /= f64::from(divisor);
            }
        }
        let frequencies = frequencies.into_iter().map(|f| f as f32).collect();
        Ok(Self { frequencies, magnitude: magnitude as f32, pairs })
    }
}

fn plain(dims: usize, base: f64) -> Vec<f64> {
    (0..dims / 2).map(|i| base.powf(-2.0 * i as f64 / dims as f64)).collect()
}

/// Stretches the angles for contexts longer than trained; gives the magnitude.
fn scale(keys: &Keys<'_>, base: f64, frequencies: &mut [f64]) -> Result<f64, LoadError> {
    let older = keys.positive("rope.scale_linear")?;
    let factor = keys.positive("rope.scaling.factor")?.or(older).unwrap_or(1.0);
    match keys.text("rope.scaling.type")? {
        Some("none") => Ok(1.0),
        None | Some("linear") => {
            frequencies.iter_mut().for_each(|f| *f /= factor);
            Ok(1.0)
        }
        Some("yarn") => yarn(keys, base, factor, frequencies),
        Some(other) => Err(keys.refused("rope.scaling.type", other, "none, linear or yarn")),
    }
}

/// YaRN (arXiv 2309.00071), as `rope_yarn` in `ggml/src/ggml-cpu/ops.cpp` and `ggml_rope_yarn_corr_dims` in
/// `ggml/src/ggml.c`: fast pairs keep their angle, slow ones are stretched, with a ramp between.
fn yarn(keys: &Keys<'_>, base: f64, factor: f64, frequencies: &mut [f64]) -> Result<f64, LoadError> {
    let trained = keys.optional("rope.scaling.original_context_length")?;
    let trained = trained.map_or_else(|| keys.count("context_length"), Ok)? as f64;
    let fast = keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0);
    let slow = keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0);
    let attention = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let dims = 2.0 * frequencies.len() as f64;
    // The pair that turns this many times over the trained context.
    let pair = |turns: f64| dims * (trained / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
    let low = pair(fast).floor().max(0.0);
    let high = pair(slow).ceil().min(dims - 1.0);
    for (i, frequency) in frequencies.iter_mut().enumerate() {
        let kept = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        *frequency = *frequency / factor * (1.0 - kept) + *frequency * kept;
    }
    Ok(attention * (1.0 + 0.1 * factor.ln()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_fall_from_one_towards_the_base() {
        let rope = Rope::plain(64, 10_000.0, Pairs::Halves);
        assert_eq!((rope.dims(), rope.frequencies[0]), (64, 1.0));
        assert!((rope.frequencies[16] - 0.01).abs() < 1e-8);
    }
}
