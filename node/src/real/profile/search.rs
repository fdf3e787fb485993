//! The values at which a function is least, by walking along one value after the other.

/// Steps of the walk, as shares of a value: from coarse to fine.
const STEPS: [f64; 6] = [0.5, 0.2, 0.07, 0.02, 0.006, 0.002];

/// Rounds with one step at most; a walk that goes on and on has nowhere to arrive.
const ROUNDS_MOST: usize = 200;

/// Changes `values`, all above zero, until `cost` is no longer less in any direction. It finds the valley it starts in.
pub(super) fn minimise(values: &mut [f64], cost: impl Fn(&[f64]) -> f64) {
    let mut least = cost(values);
    for step in STEPS {
        for _ in 0..ROUNDS_MOST {
            if !round(values, step, &mut least, &cost) {
                break;
            }
        }
    }
}

/// One step along each value; whether any was worth it.
fn round(values: &mut [f64], step: f64, least: &mut f64, cost: &impl Fn(&[f64]) -> f64) -> bool {
    let mut is_better = false;
    for i in 0..values.len() {
        for factor in [1.0 + step, 1.0 / (1.0 + step)] {
            let before = values[i];
            values[i] *= factor;
            let now = cost(values);
            if now < *least {
                *least = now;
                is_better = true;
            } else {
                values[i] = before;
            }
        }
    }
    is_better
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_of_a_bowl_is_found_from_far_away() {
        let mut values = [1.0, 1e6, 5.0];
        let bottom: [f64; 3] = [20.0, 3e9, 0.01];
        let cost = |at: &[f64]| at.iter().zip(bottom).map(|(a, b)| (a / b).ln().powi(2)).sum::<f64>();
        minimise(&mut values, cost);
        for (value, bottom) in values.iter().zip(bottom) {
            assert!((value / bottom - 1.0).abs() < 0.005, "{value} and {bottom}");
        }
    }
}
