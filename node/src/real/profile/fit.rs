//! From timed steps to the figures of the planner's formula.

use planner::cost::fit::{Rates, START, Timed};
use planner::cost::step::Sequence;
use planner::fleet::{Device, Measured};
use planner::model::Model;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

use super::samples::Sample;

/// A decoded token of one stream counts as so many other steps: it is what most plans are made for.
const DECODE_WEIGHT: f64 = 6.0;

/// From steps of so many sequences the others must be foretold.
const KNOWN_SEQUENCES: [u32; 2] = [1, 8];

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
    /// How far it is off, at worst, for steps of other numbers of sequences than one and eight, when these are not among
    /// what it is fitted to.
    #[serde(default)]
    pub unseen_error_percent: f64,
}

impl Fit {
    fn rates(&self) -> Rates {
        let Self { weight_bytes_per_s, flops, parts, .. } = *self;
        Rates { weight_bytes_per_s, flops, parts }
    }

    /// A device with these figures and a memory that gives `read_bytes_per_s`; size, disk and name are the caller's.
    pub fn device(&self, read_bytes_per_s: f64) -> Device {
        self.rates().device(read_bytes_per_s)
    }

    /// What the formula says of such a step of `layers`, microseconds.
    pub fn step_us(&self, model: &Model, layers: LayerRange, sample: &Sample) -> f64 {
        self.rates().step_us(model, &timed(layers, sample))
    }
}

fn timed(layers: LayerRange, sample: &Sample) -> Timed {
    let Sample { tokens, context, samples, sequences, us } = *sample;
    let sequence = Sequence { new_tokens: tokens, context, logits: samples.into() };
    let weight = if is_decode(sample) { DECODE_WEIGHT } else { 1.0 };
    Timed { layers, batch: vec![sequence; sequences as usize], us, weight }
}

/// Finds the figures with which the formula is least off.
pub(super) fn fit(model: &Model, layers: LayerRange, samples: &[Sample]) -> Fit {
    let steps: Vec<Timed> = samples.iter().map(|sample| timed(layers, sample)).collect();
    let rates = planner::cost::fit::fit(model, &steps, START);
    let known =
        samples.iter().zip(&steps).filter(|(sample, _)| is_known(sample)).map(|(_, step)| step.clone());
    let from_known = planner::cost::fit::fit(model, &known.collect::<Vec<_>>(), START);
    let percent = |rates: &Rates, step: &Timed| (rates.off(model, step).exp() - 1.0).abs() * 100.0;
    let worst = |rates: &Rates, of: &dyn Fn(&Sample) -> bool| {
        let which = samples.iter().zip(&steps).filter(|(sample, _)| of(sample));
        which.map(|(_, step)| percent(rates, step)).fold(0.0, f64::max)
    };
    let Rates { weight_bytes_per_s, flops, parts } = rates;
    let sum: f64 = steps.iter().map(|step| percent(&rates, step)).sum();
    Fit {
        weight_bytes_per_s,
        flops,
        parts,
        decode_error_percent: worst(&rates, &is_decode),
        mean_error_percent: sum / samples.len().max(1) as f64,
        worst_error_percent: worst(&rates, &|_| true),
        unseen_error_percent: worst(&from_known, &|sample| !is_known(sample)),
    }
}

fn is_known(sample: &Sample) -> bool {
    KNOWN_SEQUENCES.contains(&sample.sequences)
}

fn is_decode(sample: &Sample) -> bool {
    sample.sequences == 1 && sample.tokens == 1
}
