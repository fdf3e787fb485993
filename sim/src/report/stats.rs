//! Percentiles, means and confidence intervals, with the definitions every report uses.

/// The `q`-th quantile (`0.0..=1.0`) of `sorted` (ascending), by linear interpolation between the two nearest ranks:
/// the value at rank `q·(n − 1)`. This is definition 7 of Hyndman and Fan (1996), the default of NumPy and R.
/// `None` for an empty slice.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = q.clamp(0.0, 1.0) * last as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(last);
    let share = rank - below as f64;
    Some(sorted[below] + (sorted[above] - sorted[below]) * share)
}

/// A copy of `values` in ascending order. Values that are no number go last.
pub fn ascending(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle one of `values`, whatever their order; of an even number the later, so that it is one of them. Zero of
/// none.
pub fn middle(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The arithmetic mean; `None` for an empty slice.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample (divisor `n − 1`); `None` below two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values)?;
    let freedom = values.len().checked_sub(1).filter(|f| *f > 0)?;
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    Some((squares / freedom as f64).sqrt())
}

/// A mean and the interval that holds the true mean with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean of the sample.
    pub mean: f64,
    /// Lower end of the interval; the mean itself for a single value.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The mean of `values` with its 95 % confidence interval by Student's t, that is for independent, roughly normal
/// values such as one run's tok/s over several seeds. `None` for an empty slice.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let mean = mean(values)?;
    let half = deviation(values).map_or(0.0, |deviation| {
        student_t95(values.len() as u32 - 1) * deviation / (values.len() as f64).sqrt()
    });
    Some(Estimate { mean, low: mean - half, high: mean + half })
}

/// The value that a Student-t variable with `freedom >= 1` degrees of freedom stays under in magnitude with
/// probability 0.95. Found by bisection of the exact distribution.
fn student_t95(freedom: u32) -> f64 {
    let (mut low, mut high) = (0.0, 16.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if within(middle, freedom) < 0.95 { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Probability that a Student-t variable lies in `-t..t`: Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = if odd { (cos, 0.0) } else { (1.0, 0.0) };
    let terms = if odd { (freedom - 1) / 2 } else { freedom / 2 };
    for k in 1..=terms {
        sum += term;
        let step = f64::from(2 * k - u32::from(!odd)) / f64::from(2 * k + u32::from(odd));
        term *= step * cos * cos;
    }
    if odd { (angle + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_interpolate_as_numpy_does() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&sorted, 0.5), Some(3.0));
        assert_eq!(quantile(&sorted, 0.0), Some(1.0));
        assert_eq!(quantile(&sorted, 1.0), Some(8.0));
        assert!((quantile(&sorted, 0.9).unwrap() - 6.8).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn t_quantiles_are_those_of_the_printed_tables() {
        for (freedom, printed) in
            [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (99, 1.984)]
        {
            assert!((student_t95(freedom) - printed).abs() < 5e-4, "{freedom}: {}", student_t95(freedom));
        }
    }

    #[test]
    fn one_value_is_its_own_interval() {
        assert_eq!(estimate(&[7.0]), Some(Estimate { mean: 7.0, low: 7.0, high: 7.0 }));
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn an_interval_is_as_wide_as_worked_by_hand() {
        // Mean 3, deviation sqrt(2.5), t of 4 degrees 2.776: half = 2.776 * 1.5811 / sqrt(5) = 1.963.
        let e = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!(
            (e.mean - 3.0).abs() < 1e-12 && (e.high - 4.963).abs() < 1e-3 && (e.low - 1.037).abs() < 1e-3
        );
    }

    proptest! {
        #[test]
        fn quantiles_grow_with_q_and_stay_within_the_values(
            values in proptest::collection::vec(-1e6f64..1e6, 1..60),
            a in 0.0f64..=1.0,
            b in 0.0f64..=1.0,
        ) {
            let sorted = ascending(&values);
            let (low, high) = (a.min(b), a.max(b));
            let (at_low, at_high) = (quantile(&sorted, low).unwrap(), quantile(&sorted, high).unwrap());
            prop_assert!(at_low <= at_high + 1e-9);
            prop_assert!(sorted[0] <= at_low && at_high <= sorted[sorted.len() - 1]);
        }

        #[test]
        fn half_of_the_values_lie_on_either_side_of_the_median(
            values in proptest::collection::vec(-1e3f64..1e3, 1..60),
        ) {
            let median = quantile(&ascending(&values), 0.5).unwrap();
            let below = values.iter().filter(|v| **v < median).count();
            let above = values.iter().filter(|v| **v > median).count();
            prop_assert!(2 * below <= values.len() && 2 * above <= values.len());
        }

        #[test]
        fn shifting_all_values_shifts_mean_and_interval(
            values in proptest::collection::vec(-1e3f64..1e3, 2..30),
            by in -1e3f64..1e3,
        ) {
            let before = estimate(&values).unwrap();
            let moved: Vec<f64> = values.iter().map(|v| v + by).collect();
            let after = estimate(&moved).unwrap();
            prop_assert!((after.mean - before.mean - by).abs() < 1e-6);
            prop_assert!((after.high - before.high - by).abs() < 1e-6);
            prop_assert!(after.low <= after.mean && after.mean <= after.high);
        }
    }
}
