//! From timed steps to the rates of the step formula.

mod search;

use serde::{Deserialize, Serialize};

use super::step::{Sequence, step_time};
use crate::fleet::{Device, DeviceKind, Measured};
use crate::model::Model;
use crate::plan::LayerRange;
use search::minimise;

/// A step that was timed.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// The layers that it ran.
    pub layers: LayerRange,
    /// Each session's share.
    pub batch: Vec<Sequence>,
    /// How long it took, microseconds.
    pub us: f64,
    /// How much it counts beside others.
    pub weight: f64,
}

/// What a device reaches with a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Streaming the layers' weights, bytes per second. What a layer takes however little there is to compute is in it: the
    /// layers that are timed are nearly alike, and nothing tells the two apart.
    pub weight_bytes_per_s: f64,
    /// Multiplying with them, FLOP/s.
    pub flops: f64,
    /// What head and attention reach.
    pub parts: Measured,
}

impl Rates {
    /// Those that a device's entry comes to. Where it says nothing of head and attention, they are as the layers'.
    pub fn of(device: &Device) -> Self {
        let weight_bytes_per_s = device.bandwidth_bytes_per_s * device.bandwidth_efficiency;
        let flops = device.flops * device.flops_efficiency;
        let parts = Measured {
            head_bytes_per_s: weight_bytes_per_s,
            kv_bytes_per_s: weight_bytes_per_s,
            attention_flops: flops,
        };
        Self { weight_bytes_per_s, flops, parts: device.measured.unwrap_or(parts) }
    }

    /// A device with these rates and a memory that gives `read_bytes_per_s`; size, disk and name are the caller's.
    pub fn device(&self, read_bytes_per_s: f64) -> Device {
        let bandwidth_bytes_per_s = read_bytes_per_s.max(self.weight_bytes_per_s);
        Device {
            id: String::new(),
            name: String::new(),
            kind: DeviceKind::Cpu,
            memory_bytes: u64::MAX,
            reserved_bytes: 0,
            bandwidth_bytes_per_s,
            bandwidth_efficiency: self.weight_bytes_per_s / bandwidth_bytes_per_s,
            flops: self.flops,
            flops_efficiency: 1.0,
            layer_overhead_us: 0.0,
            expert_overhead_us: 0.0,
            disk_bytes_per_s: f64::INFINITY,
            measured: Some(self.parts),
        }
    }

    /// What the formula says of that step, microseconds.
    pub fn step_us(&self, model: &Model, step: &Timed) -> f64 {
        step_time(model, &self.device(self.weight_bytes_per_s), step.layers, &step.batch).total_us()
    }

    /// How far it is off: the logarithm of its ratio to what was timed.
    pub fn off(&self, model: &Model, step: &Timed) -> f64 {
        (self.step_us(model, step) / step.us).ln()
    }

    fn values(&self) -> [f64; 5] {
        let Measured { head_bytes_per_s, kv_bytes_per_s, attention_flops } = self.parts;
        [self.weight_bytes_per_s, self.flops, head_bytes_per_s, kv_bytes_per_s, attention_flops]
    }

    fn from_values(values: &[f64; 5]) -> Self {
        let parts =
            Measured { head_bytes_per_s: values[2], kv_bytes_per_s: values[3], attention_flops: values[4] };
        Self { weight_bytes_per_s: values[0], flops: values[1], parts }
    }
}

/// A slow laptop's; the walk goes by factors, and so it finds those of any machine.
pub const START: Rates = Rates {
    weight_bytes_per_s: 1e10,
    flops: 1e11,
    parts: Measured { head_bytes_per_s: 1e10, kv_bytes_per_s: 1e10, attention_flops: 1e11 },
};

/// No part of any machine is slower, bytes or FLOP a second ...
const SLOWEST: f64 = 1e3;
/// ... or faster.
const FASTEST: f64 = 1e15;
/// How much a rate wants to stay as it was begun with, beside what a timed step says: enough where no step says anything of
/// it, nothing where one does.
const INERTIA: f64 = 1e-6;

/// The rates with which the formula is least off: the logarithms of its ratios to what was timed, squared. A rate of which no
/// step says anything stays that of `start`.
pub fn fit(model: &Model, steps: &[Timed], start: Rates) -> Rates {
    let begun = start.values();
    let mut values = begun;
    minimise(&mut values, |values| {
        let rates = Rates::from_values(values);
        let stays = values.iter().zip(begun).map(|(now, then)| INERTIA.sqrt() * (now / then).ln());
        let off = steps.iter().map(|step| step.weight.sqrt() * rates.off(model, step));
        off.chain(stays).collect()
    });
    // Of what takes no time that could be measured, the walk finds no end.
    Rates::from_values(&values.map(|value| value.clamp(SLOWEST, FASTEST)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::find;

    #[test]
    fn the_rates_behind_times_are_found_again_and_others_stay() {
        let model = find("Qwen3-8B Q4_K_M").expect("it is in the catalog");
        let layers = LayerRange::new(30, model.layer_count());
        let truth = Rates::from_values(&[2.1e10, 3.3e11, 1.7e10, 0.6e10, 0.8e11]);
        let step = |count: usize, new_tokens, context, logits| {
            let batch = vec![Sequence { new_tokens, context, logits }; count];
            let step = Timed { layers, batch, us: 0.0, weight: 1.0 };
            Timed { us: truth.step_us(&model, &step), ..step }
        };
        let decode = [
            step(1, 1, 64, 1),
            step(1, 1, 64, 0),
            step(1, 1, 2047, 0),
            step(4, 1, 64, 0),
            step(16, 1, 64, 1),
        ];
        let prefill = [step(1, 64, 0, 0), step(1, 512, 0, 0), step(1, 512, 1536, 0)];
        let found = fit(&model, &[decode.as_slice(), &prefill].concat(), START);
        for (found, truth) in found.values().iter().zip(truth.values()) {
            assert!((found / truth - 1.0).abs() < 0.03, "{found} and {truth}");
        }
        let found = fit(&model, &decode[1..3], START);
        assert!((found.weight_bytes_per_s / START.weight_bytes_per_s - 1.0).abs() > 0.1, "{found:?}");
        let head = found.parts.head_bytes_per_s / START.parts.head_bytes_per_s;
        assert!((head - 1.0).abs() < 1e-9, "no step had a head, and it moved by {head}");
    }
}
