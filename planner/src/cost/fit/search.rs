//! The values at which squares sum up to the least: Levenberg's and Marquardt's way, over the logarithms of the values.
//! Source: Marquardt 1963, "An Algorithm for Least-Squares Estimation of Nonlinear Parameters".

/// Rounds at most; twenty are usual.
const ROUNDS_MOST: usize = 200;
/// A round that changes no value by this share is the last one.
const DONE: f64 = 1e-9;
/// How far a value moves in one round at most, as a logarithm.
const STRIDE: f64 = 1.5;
/// By how much a value is moved to see what that changes, as a logarithm.
const PROBE: f64 = 1e-5;
/// How carefully it begins.
const DAMPING: f64 = 1e-2;
/// A walk so careful goes nowhere any more.
const DAMPING_MOST: f64 = 1e12;

/// Changes `values`, all above zero, until the squares of what `off` says are least. It finds the valley it starts in.
pub(super) fn minimise<const N: usize>(values: &mut [f64; N], off: impl Fn(&[f64; N]) -> Vec<f64>) {
    let mut at = values.map(f64::ln);
    let residuals = |at: &[f64; N]| off(&at.map(f64::exp));
    let mut now = residuals(&at);
    let mut damping = DAMPING;
    for _ in 0..ROUNDS_MOST {
        let slopes = slopes(&at, &now, &residuals);
        loop {
            let step = step(&slopes, &now, damping).map(|step| step.clamp(-STRIDE, STRIDE));
            let there = std::array::from_fn(|i| at[i] + step[i]);
            let then = residuals(&there);
            if squares(&then) < squares(&now) {
                (at, now, damping) = (there, then, damping / 3.0);
                if step.iter().all(|step| step.abs() < DONE) {
                    damping = f64::INFINITY;
                }
                break;
            }
            damping *= 4.0;
            if damping > DAMPING_MOST {
                break;
            }
        }
        if damping > DAMPING_MOST {
            break;
        }
    }
    *values = at.map(f64::exp);
}

fn squares(residuals: &[f64]) -> f64 {
    residuals.iter().map(|off| off * off).sum()
}

/// How each residual changes with each value.
fn slopes<const N: usize>(
    at: &[f64; N],
    now: &[f64],
    residuals: &impl Fn(&[f64; N]) -> Vec<f64>,
) -> [Vec<f64>; N] {
    std::array::from_fn(|i| {
        let mut beside = *at;
        beside[i] += PROBE;
        residuals(&beside).iter().zip(now).map(|(then, now)| (then - now) / PROBE).collect()
    })
}

/// Where to go from here.
fn step<const N: usize>(slopes: &[Vec<f64>; N], now: &[f64], damping: f64) -> [f64; N] {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut matrix: [[f64; N]; N] =
        std::array::from_fn(|i| std::array::from_fn(|j| dot(&slopes[i], &slopes[j])));
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] += damping * row[i] + f64::MIN_POSITIVE;
    }
    solved(matrix, std::array::from_fn(|i| -dot(&slopes[i], now)))
}

/// The solution of a system of equations, by Gauss's elimination. Unknowns that nothing says anything of are zero.
fn solved<const N: usize>(mut matrix: [[f64; N]; N], mut right: [f64; N]) -> [f64; N] {
    for column in 0..N {
        let largest = |a: &usize, b: &usize| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs());
        let pivot = (column..N).max_by(largest).unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..N {
            let share = matrix[row][column] / matrix[column][column];
            if share.is_finite() && share != 0.0 {
                let above = matrix[column];
                matrix[row].iter_mut().zip(above).for_each(|(value, above)| *value -= share * above);
                right[row] -= share * right[column];
            }
        }
    }
    let mut found = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|column| matrix[row][column] * found[column]).sum();
        let value = (right[row] - known) / matrix[row][row];
        found[row] = if value.is_finite() { value } else { 0.0 };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_of_a_bowl_is_found_from_far_away() {
        let mut values = [1.0, 1e6, 5.0];
        let bottom: [f64; 3] = [20.0, 3e9, 0.01];
        minimise(&mut values, |at| at.iter().zip(bottom).map(|(a, b)| (a / b).ln()).collect());
        for (value, bottom) in values.iter().zip(bottom) {
            assert!((value / bottom - 1.0).abs() < 1e-6, "{value} and {bottom}");
        }
    }

    #[test]
    fn the_bottom_of_a_narrow_valley_is_found_and_what_says_nothing_stays() {
        // Times of two rates that add up, nearly alike; the third value is in none.
        let mut values = [1.0, 1.0, 7.0];
        let times: [(f64, f64); 4] = [(1.0, 1.0), (1.0, 1.1), (1.0, 1.3), (1.0, 2.0)];
        let time = |(a, b): (f64, f64), rates: [f64; 2]| a / rates[0] + b / rates[1];
        let truth = [0.02, 30.0];
        minimise(&mut values, |at| {
            times.map(|work| (time(work, [at[0], at[1]]) / time(work, truth)).ln()).to_vec()
        });
        assert!(
            (values[0] / truth[0] - 1.0).abs() < 1e-4 && (values[1] / truth[1] - 1.0).abs() < 0.05,
            "{values:?}"
        );
        assert_eq!(values[2], 7.0_f64.ln().exp());
    }
}
