//! From timed steps to the figures of the planner's formula.

use planner::cost::step::{Sequence, uniform_step_time};
use planner::fleet::{Device, DeviceKind, Measured};
use planner::model::Model;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

use super::samples::Sample;
use super::search::minimise;

/// A decoded token of one stream counts as so many other steps: it is what most plans are made for.
const DECODE_WEIGHT: f64 = 6.0;

/// The figures, and how near the formula comes with them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Streaming the layers' weights, bytes per second. What a layer takes however little there is to compute is in it: the
    /// layers that are timed are nearly alike, and nothing tells the two apart.
    pub weight_bytes_per_s: f64,
    /// Multiplying with them, FLOP/s.
    pub flops: f64,
    /// What head and attention reach.
    pub parts: Measured,
    /// How far the formula is off for a decoded token of one stream, at worst, per cent.
    pub decode_error_percent: f64,
    /// The same for all that was timed, in the mean.
    pub mean_error_percent: f64,
    /// And at worst.
    pub worst_error_percent: f64,
}

impl Fit {
    /// A device with these figures and a memory that gives `read_bytes_per_s`; size, disk and name are the caller's.
    pub fn device(&self, read_bytes_per_s: f64) -> Device {
        Device {
            id: String::new(),
            name: String::new(),
            kind: DeviceKind::Cpu,
            memory_bytes: u64::MAX,
            reserved_bytes: 0,
            bandwidth_bytes_per_s: read_bytes_per_s.max(self.weight_bytes_per_s),
            bandwidth_efficiency: self.weight_bytes_per_s / read_bytes_per_s.max(self.weight_bytes_per_s),
            flops: self.flops,
            flops_efficiency: 1.0,
            layer_overhead_us: 0.0,
            expert_overhead_us: 0.0,
            disk_bytes_per_s: f64::INFINITY,
            measured: Some(self.parts),
        }
    }

    /// What the formula says of such a step of `layers`, microseconds.
    pub fn step_us(&self, model: &Model, layers: LayerRange, sample: &Sample) -> f64 {
        let Sample { tokens, context, samples, sequences, .. } = *sample;
        let sequence = Sequence { new_tokens: tokens, context, logits: samples.into() };
        uniform_step_time(model, &self.device(self.weight_bytes_per_s), layers, sequence, sequences)
            .total_us()
    }

    fn of(values: &[f64]) -> Self {
        Self {
            weight_bytes_per_s: values[0],
            flops: values[1],
            parts: Measured {
                head_bytes_per_s: values[2],
                kv_bytes_per_s: values[3],
                attention_flops: values[4],
            },
            decode_error_percent: 0.0,
            mean_error_percent: 0.0,
            worst_error_percent: 0.0,
        }
    }
}

/// No part of any machine is slower, bytes or FLOP a second ...
const SLOWEST: f64 = 1e3;
/// ... or faster.
const FASTEST: f64 = 1e15;

/// Finds the figures with which the formula is least off: the logarithms of its ratios to what was timed, squared.
pub(super) fn fit(model: &Model, layers: LayerRange, samples: &[Sample]) -> Fit {
    let off = |fit: &Fit, sample: &Sample| (fit.step_us(model, layers, sample) / sample.us).ln();
    let weight = |sample: &Sample| if is_decode(sample) { DECODE_WEIGHT } else { 1.0 };
    let cost = |values: &[f64]| {
        let fit = Fit::of(values);
        samples.iter().map(|sample| weight(sample) * off(&fit, sample).powi(2)).sum::<f64>()
    };
    // A slow laptop's figures; the walk goes by factors, and so it finds those of any machine.
    let mut values = [1e10, 1e11, 1e10, 1e10, 1e11];
    minimise(&mut values, cost);
    // Of what takes no time that could be measured, the walk finds no end.
    let fit = Fit::of(&values.map(|value| value.clamp(SLOWEST, FASTEST)));
    let percent = |sample: &Sample| (off(&fit, sample).exp() - 1.0).abs() * 100.0;
    let worst = |of: &dyn Fn(&Sample) -> bool| {
        samples.iter().filter(|sample| of(sample)).map(percent).fold(0.0, f64::max)
    };
    Fit {
        decode_error_percent: worst(&is_decode),
        mean_error_percent: samples.iter().map(percent).sum::<f64>() / samples.len().max(1) as f64,
        worst_error_percent: worst(&|_| true),
        ..fit
    }
}

fn is_decode(sample: &Sample) -> bool {
    sample.sequences == 1 && sample.tokens == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use planner::model::catalog::find;

    #[test]
    fn the_figures_behind_times_are_found_again() {
        let model = find("Qwen3-8B Q4_K_M").expect("it is in the catalog");
        let layers = LayerRange::new(30, model.layer_count());
        let truth = Fit::of(&[2.1e10, 3.3e11, 1.7e10, 0.6e10, 0.8e11]);
        let sizes = [
            (1, 1, 64, true),
            (1, 1, 64, false),
            (1, 1, 2047, false),
            (1, 1, 512, true),
            (4, 1, 64, false),
            (16, 1, 64, true),
            (1, 64, 0, false),
            (1, 512, 0, false),
            (1, 512, 1536, false),
        ];
        let timed = sizes.map(|(sequences, tokens, context, samples)| {
            let sample = Sample { sequences, tokens, context, samples, us: 0.0 };
            Sample { us: truth.step_us(&model, layers, &sample), ..sample }
        });
        let found = fit(&model, layers, &timed);
        assert!(found.worst_error_percent < 1.0, "{found:?}");
        assert!((found.weight_bytes_per_s / truth.weight_bytes_per_s - 1.0).abs() < 0.02, "{found:?}");
        assert!(
            (found.parts.head_bytes_per_s / truth.parts.head_bytes_per_s - 1.0).abs() < 0.03,
            "{found:?}"
        );
        assert!((found.parts.kv_bytes_per_s / truth.parts.kv_bytes_per_s - 1.0).abs() < 0.03, "{found:?}");
    }
}
