//! Searches for the scale of a sub-block that errs least. Orders of summation are ggml's, so results are too.

use super::super::largest;
use super::nearest;

/// Below this a sub-block is taken for zeros. Source: `GROUP_MAX_EPS`.
pub(super) const ALL_ZERO: f32 = 1e-15;

/// Levels `0..=steps` of a scale and a minimum, and how they are searched for.
pub(super) struct Affine {
    /// Highest level.
    pub(super) steps: u8,
    /// First change of the number of steps that is tried; the next is 0.1 more.
    pub(super) first: f32,
    /// Changes tried, less one.
    pub(super) tries: u8,
    /// What a difference costs.
    pub(super) cost: fn(f32) -> f32,
}

impl Affine {
    /// Scale and negated minimum (0 or more) that fit `x` best under `weights`; levels go to `levels`.
    /// Source: `make_qkx2_quants`.
    pub(super) fn fit(&self, x: &[f32], weights: &[f32], levels: &mut [u8]) -> (f32, f32) {
        let (mut min, max) = x.iter().fold((x[0], x[0]), |(min, max), &x| (min.min(x), max.max(x)));
        min = min.min(0.0);
        if max == min {
            levels.fill(0);
            return (0.0, -min);
        }
        let steps = f32::from(self.steps);
        let inverse = steps / (max - min);
        let mut best = (1.0 / inverse, min);
        self.round(x, inverse, min, levels);
        let mut least = self.error(x, weights, levels, best);
        let mut tried = [0; 32];
        let tried = &mut tried[..x.len()];
        for step in 0..=self.tries {
            let inverse = (self.first + 0.1 * f32::from(step) + steps) / (max - min);
            self.round(x, inverse, min, tried);
            // `min` stays what it is until a better one is found, as in ggml.
            let Some(fitted) = least_squares(x, weights, tried) else { continue };
            let error = self.error(x, weights, tried, fitted);
            if error < least {
                levels.copy_from_slice(tried);
                least = error;
                best = fitted;
                min = fitted.1;
            }
        }
        (best.0, -best.1)
    }

    fn round(&self, x: &[f32], inverse: f32, min: f32, levels: &mut [u8]) {
        for (level, &x) in levels.iter_mut().zip(x) {
            *level = nearest(inverse * (x - min)).clamp(0, self.steps.into()) as u8;
        }
    }

    fn error(&self, x: &[f32], weights: &[f32], levels: &[u8], (scale, min): (f32, f32)) -> f32 {
        let mut error = 0.0;
        for ((&x, &weight), &level) in x.iter().zip(weights).zip(levels) {
            error += weight * (self.cost)(scale * f32::from(level) + min - x);
        }
        error
    }
}

/// Scale and minimum (0 or less) of least weighted square error for given levels, if they are determined.
fn least_squares(x: &[f32], weights: &[f32], levels: &[u8]) -> Option<(f32, f32)> {
    let (mut sum_w, mut sum_x, mut sum_l, mut sum_l2, mut sum_xl) = (0.0f32, 0.0, 0.0, 0.0, 0.0);
    for ((&x, &w), &level) in x.iter().zip(weights).zip(levels) {
        let l = f32::from(level);
        sum_w += w;
        sum_x += w * x;
        sum_l += w * l;
        sum_l2 += w * l * l;
        sum_xl += w * l * x;
    }
    let determinant = sum_w * sum_l2 - sum_l * sum_l;
    if determinant.is_nan() || determinant <= 0.0 {
        return None;
    }
    let scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    let min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    Some(if min > 0.0 { (sum_xl / sum_l2, 0.0) } else { (scale, min) })
}

/// The scale of levels `-half..half` that fits `x` best, each weight counting as its square; levels go to `levels`,
/// raised by `half`. Source: `make_qx_quants` with `rmse_type` 1.
pub(super) fn symmetric(x: &[f32], half: i32, levels: &mut [u8]) -> f32 {
    let max = largest(x);
    if max.abs() < ALL_ZERO {
        levels.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, x: f32| nearest(inverse * x).clamp(-half, half - 1);
    let put = |levels: &mut [u8], inverse| {
        for (to, &x) in levels.iter_mut().zip(x) {
            *to = (level(inverse, x) + half) as u8;
        }
    };
    let inverse = -half as f32 / max;
    put(levels, inverse);
    let (mut sumlx, mut suml2) = moments(x, |x| level(inverse, x));
    let mut scale = if suml2 == 0.0 { 0.0 } else { sumlx / suml2 };
    let mut best = scale * sumlx;
    for step in (-9..=9).filter(|step| *step != 0) {
        let inverse = -(half as f32 + 0.1 * step as f32) / max;
        (sumlx, suml2) = moments(x, |x| level(inverse, x));
        if suml2 > 0.0 && sumlx * sumlx > best * suml2 {
            put(levels, inverse);
            scale = sumlx / suml2;
            best = scale * sumlx;
        }
    }
    scale
}

/// Sums of weight times level and of squared levels, each counting as the weight's square.
fn moments(x: &[f32], level: impl Fn(f32) -> i32) -> (f32, f32) {
    x.iter().fold((0.0, 0.0), |(sumlx, suml2), &x| {
        let (w, l) = (x * x, level(x) as f32);
        (sumlx + w * x * l, suml2 + w * l * l)
    })
}

/// Rounds of moving single levels in [`symmetric_by_moves`].
const ROUNDS: usize = 5;

/// As [`symmetric`], but starting from one scale and moving single levels as long as that helps.
/// Source: `make_q3_quants`.
pub(super) fn symmetric_by_moves(x: &[f32], half: i32, levels: &mut [u8]) -> f32 {
    let max = largest(x);
    if max.abs() < ALL_ZERO {
        levels.fill(0);
        return 0.0;
    }
    let inverse = -half as f32 / max;
    let mut moved: [i32; 16] = std::array::from_fn(|i| nearest(inverse * x[i]).clamp(-half, half - 1));
    let mut sums = moments_of(x, &moved);
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (&x, level) in x.iter().zip(&mut moved) {
            changed |= move_level(x, half, level, &mut sums);
        }
        if !changed {
            break;
        }
    }
    for (to, level) in levels.iter_mut().zip(moved) {
        *to = (level + half) as u8;
    }
    let (sumlx, suml2) = sums;
    if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }
}

fn moments_of(x: &[f32], levels: &[i32]) -> (f32, f32) {
    x.iter().zip(levels).fold((0.0, 0.0), |(sumlx, suml2), (&x, &level)| {
        let (w, l) = (x * x, level as f32);
        (sumlx + w * x * l, suml2 + w * l * l)
    })
}

/// Moves one level to where the others' scale would have it, if that lessens the error.
fn move_level(x: f32, half: i32, level: &mut i32, (sumlx, suml2): &mut (f32, f32)) -> bool {
    let (w, l) = (x * x, *level as f32);
    let mut slx = *sumlx - w * x * l;
    if slx.is_nan() || slx <= 0.0 {
        return false;
    }
    let mut sl2 = *suml2 - w * l * l;
    let better = nearest(x * sl2 / slx).clamp(-half, half - 1);
    if better == *level {
        return false;
    }
    let l = better as f32;
    slx += w * x * l;
    sl2 += w * l * l;
    if !(sl2 > 0.0 && slx * slx * *suml2 > *sumlx * *sumlx * sl2) {
        return false;
    }
    (*level, *sumlx, *suml2) = (better, slx, sl2);
    true
}
