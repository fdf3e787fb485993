//! What is measured: steps of many sizes over enough layers of the model that no cache holds them.

use planner::model::Model as Shape;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

use super::steps::{Range, middle};
use crate::engine::EngineError;

/// Weights of the measured layers at least, bytes: several times any cache, as those of a whole model are.
const WEIGHT_BYTES: u64 = 128 << 20;

/// The longest context that is measured, tokens; what attention costs is a straight line.
const CONTEXT_MOST: u32 = 2048;

/// Room for what is decoded behind it.
const SPARE: u32 = 64;

/// A prompt goes through the layers in chunks of so many tokens.
const CHUNK: u32 = 512;

/// Behind this context, what a batch costs is measured, tokens.
const CONTEXT_OF_BATCHES: u32 = 64;

/// Each size is run at least and at most so often, and no longer than this in all, seconds; what takes much longer is run
/// no more than it must.
const RUNS: (usize, usize) = (3, 15);
const SECONDS: f64 = 0.15;
const SECONDS_MOST: f64 = 1.0;

/// A step that was timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Sessions in it, all alike.
    pub sequences: u32,
    /// Tokens of each.
    pub tokens: u32,
    /// Tokens each has in its KV cache.
    pub context: u32,
    /// Whether each samples its next token, which takes the head.
    pub samples: bool,
    /// How long it took, the middle of several runs, microseconds.
    pub us: f64,
}

/// The model's last layers, as many as it takes to fill [`WEIGHT_BYTES`].
pub(super) fn measured_range(model: &Shape) -> LayerRange {
    let end = model.layer_count();
    let mut bytes = 0;
    let below = |layer: &u32| {
        bytes += model.layers[*layer as usize].weight_bytes();
        bytes < WEIGHT_BYTES
    };
    let whole = (0..end).rev().take_while(below).count() as u32;
    LayerRange::new(end - (whole + 1).min(end), end)
}

/// How much context is measured, and how much the engine needs room for: no more than the model was made for.
pub(super) fn contexts(model: &Shape) -> (u32, u32) {
    let room = if model.context_max == 0 { u32::MAX } else { model.context_max };
    let measured = CONTEXT_MOST.min(room.saturating_sub(room / 4)).max(1);
    (measured, measured.saturating_add(SPARE).min(room))
}

/// Times all sizes.
///
/// # Errors
/// What the engine refuses.
pub(super) fn take(range: &mut Range, context_most: u32) -> Result<Vec<Sample>, EngineError> {
    let mut taken = Vec::new();
    prompts(range, context_most, &mut taken)?;
    fill(range, context_most, &mut taken)?;
    let mut contexts =
        [context_most - 1, CHUNK, CONTEXT_OF_BATCHES].map(|context| context.min(context_most - 1)).to_vec();
    contexts.dedup();
    for context in contexts {
        repeated(range, 1, 1, context, &mut taken)?;
    }
    for sequences in [2, 4, 8, 16] {
        repeated(range, sequences, 1, CONTEXT_OF_BATCHES.min(context_most - 1), &mut taken)?;
    }
    Ok(taken)
}

/// Prompts that are short, as far as they fit.
fn prompts(range: &mut Range, context_most: u32, taken: &mut Vec<Sample>) -> Result<(), EngineError> {
    range.timed(1, 0, CHUNK.min(context_most), false)?;
    for tokens in [16, 64, 128, 256].into_iter().filter(|tokens| *tokens <= context_most) {
        repeated(range, 1, tokens, 0, taken)?;
    }
    Ok(())
}

/// A long prompt, chunk by chunk.
fn fill(range: &mut Range, context_most: u32, taken: &mut Vec<Sample>) -> Result<(), EngineError> {
    range.rewind(1, 0);
    let mut context = 0;
    while context < context_most {
        let tokens = CHUNK.min(context_most - context);
        let us = range.timed(1, context, tokens, false)? * 1e6;
        taken.push(Sample { sequences: 1, tokens, context, samples: false, us });
        context += tokens;
    }
    Ok(())
}

/// One size, with and without sampling in turn, so that either meets the caches as the other leaves them.
fn repeated(
    range: &mut Range,
    sequences: u32,
    tokens: u32,
    context: u32,
    taken: &mut Vec<Sample>,
) -> Result<(), EngineError> {
    let kinds: &[bool] = if range.is_last() { &[true, false] } else { &[false] };
    let mut seconds = vec![Vec::new(); kinds.len()];
    range.share(sequences, context);
    let is_enough = |runs: &[f64]| {
        let spent: f64 = runs.iter().sum();
        spent > SECONDS_MOST || (runs.len() >= RUNS.0 && spent > SECONDS)
    };
    while seconds[0].len() < RUNS.1 && !is_enough(&seconds[0]) {
        for (samples, runs) in kinds.iter().zip(&mut seconds) {
            runs.push(range.timed(sequences, context, tokens, *samples)?);
            range.rewind(sequences, context);
        }
    }
    range.alone(sequences);
    for (samples, runs) in kinds.iter().zip(seconds) {
        taken.push(Sample { sequences, tokens, context, samples: *samples, us: middle(runs) * 1e6 });
    }
    Ok(())
}
