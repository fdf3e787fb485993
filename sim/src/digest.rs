//! What the simulated engine computes in place of activations: one word per token and layer, cheap and unforgiving.
//!
//! Every layer mixes what comes in with its own number and with a digest of everything that ever came into it for the
//! session. So the word that leaves the last layer depends on every token before, in order, and on every layer having
//! run exactly once on each; and it does not depend on where the layers were cut, how the prompt was chunked, or with
//! whom a step was shared. A wrong KV entry, a lost or doubled chunk, a skipped layer: each gives another token.

use node::engine::Sampling;
use node::ids::Token;
use planner::plan::LayerRange;

use crate::seed::mix;

/// What enters the first layer for `token` at `position`.
pub(crate) fn embed(token: Token, position: u32) -> u64 {
    mix(u64::from(token.0) << 32 | u64::from(position))
}

/// The token that follows `last`, what left the last layer for the token at `position - 1`. Greedy choice depends on
/// that word alone; a draw also on the sampling's seed and the position.
pub(crate) fn sample(last: u64, sampling: &Sampling, position: u32, vocabulary: u32) -> Token {
    let word = if sampling.temperature > 0.0 {
        mix(last ^ mix(sampling.seed ^ mix(u64::from(position))))
    } else {
        mix(last)
    };
    // Multiply-shift spreads the word over the vocabulary without a bias towards low tokens.
    Token(((u128::from(word) * u128::from(vocabulary.max(1))) >> 64) as u32)
}

/// A session's KV in a range of layers.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    layers: LayerRange,
    /// What came into the range, by position: enough to make the rest again after a truncation.
    inputs: Vec<u64>,
    /// Of each layer, everything that came into it, in order.
    running: Vec<u64>,
}

impl Context {
    pub(crate) fn new(layers: LayerRange) -> Self {
        Self { layers, inputs: Vec::new(), running: fresh(layers) }
    }

    /// Tokens held.
    pub(crate) fn len(&self) -> u32 {
        self.inputs.len() as u32
    }

    /// Runs the range on the next position: what comes in, what goes out.
    pub(crate) fn push(&mut self, input: u64) -> u64 {
        self.inputs.push(input);
        advance(&mut self.running, self.layers, input)
    }

    /// Forgets the positions from `len` on.
    pub(crate) fn truncate(&mut self, len: u32) {
        if len >= self.len() {
            return;
        }
        self.inputs.truncate(len as usize);
        self.running = fresh(self.layers);
        for input in &self.inputs {
            advance(&mut self.running, self.layers, *input);
        }
    }
}

fn fresh(layers: LayerRange) -> Vec<u64> {
    vec![0; layers.len() as usize]
}

fn advance(running: &mut [u64], layers: LayerRange, input: u64) -> u64 {
    let mut word = input;
    for (index, kv) in running.iter_mut().enumerate() {
        *kv = mix(kv.rotate_left(1) ^ word);
        word = mix(word ^ *kv ^ u64::from(layers.first + index as u32 + 1));
    }
    word
}

/// The `count` tokens that follow `prompt`, computed on no engine at all: what any mesh must answer.
pub(crate) fn reference(
    layers: u32,
    vocabulary: u32,
    sampling: &Sampling,
    prompt: &[Token],
    count: u32,
) -> Vec<Token> {
    let mut context = Context::new(LayerRange::new(0, layers));
    let mut last = 0;
    for token in prompt {
        last = context.push(embed(*token, context.len()));
    }
    let mut out = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let token = sample(last, sampling, context.len(), vocabulary);
        last = context.push(embed(token, context.len()));
        out.push(token);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: Sampling = Sampling::GREEDY;

    fn prompt(text: &[u32]) -> Vec<Token> {
        text.iter().copied().map(Token).collect()
    }

    #[test]
    fn the_next_token_depends_on_every_token_their_order_and_every_layer() {
        let of = |layers, text: &[u32]| reference(layers, 32_000, &GREEDY, &prompt(text), 4);
        let whole = of(12, &[5, 6, 7]);
        assert_eq!(whole, of(12, &[5, 6, 7]));
        assert_ne!(whole, of(12, &[6, 5, 7]));
        assert_ne!(whole, of(12, &[4, 6, 7]));
        assert_ne!(whole, of(12, &[6, 7]));
        assert_ne!(whole, of(11, &[5, 6, 7]));
    }

    #[test]
    fn draws_depend_on_the_seed_only_above_zero_temperature() {
        let of = |temperature, seed| {
            reference(4, 32_000, &Sampling::drawn(temperature, seed), &prompt(&[1, 2]), 6)
        };
        assert_eq!(of(0.0, 1), of(0.0, 2));
        assert_ne!(of(0.8, 1), of(0.8, 2));
    }

    #[test]
    fn a_truncated_context_goes_on_as_if_nothing_had_been_there() {
        let layers = LayerRange::new(3, 9);
        let (mut straight, mut rolled_back) = (Context::new(layers), Context::new(layers));
        for input in 0..10 {
            straight.push(input);
            rolled_back.push(input);
        }
        for wrong in 100..105 {
            rolled_back.push(wrong);
        }
        rolled_back.truncate(10);
        assert_eq!(rolled_back.push(77), straight.push(77));
    }

    #[test]
    fn layers_must_run_in_their_places() {
        let cut = |ranges: &[(u32, u32)]| {
            ranges.iter().fold(9, |word, (first, end)| Context::new(LayerRange::new(*first, *end)).push(word))
        };
        assert_eq!(cut(&[(0, 6)]), cut(&[(0, 2), (2, 6)]));
        assert_ne!(cut(&[(0, 6)]), cut(&[(2, 6), (0, 2)]));
        assert_ne!(cut(&[(0, 6)]), cut(&[(0, 2), (1, 6)]));
    }
}
