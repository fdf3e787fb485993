//! Steps of a loaded range of layers, timed. The first stage is fed tokens, others a residual stream; what they are changes
//! no time.

use crate::cli::Stopwatch;
use crate::engine::{EngineError, Input, Want, Work};
use crate::ids::{SessionId, Token};
use crate::real::cpu::Model;
use crate::sampling::Sampling;
use crate::wire::Payload;

const SESSION: SessionId = SessionId(0);

/// Some layers in memory.
pub(super) struct Range {
    model: Model,
}

impl Range {
    pub(super) fn new(model: Model) -> Self {
        Self { model }
    }

    /// Seconds to read a prompt of `tokens`, the middle of `runs` after one that warms up.
    ///
    /// # Errors
    /// What the engine refuses.
    pub(super) fn prefill(&mut self, tokens: u32, runs: u32) -> Result<f64, EngineError> {
        let mut seconds = Vec::new();
        for run in 0..=runs {
            self.model.release(SESSION);
            let taken = self.step(0, tokens)?;
            if run > 0 {
                seconds.push(taken);
            }
        }
        self.model.release(SESSION);
        Ok(middle(seconds))
    }

    /// Seconds of one token behind a context, the middle of `tokens` of each of `runs`.
    ///
    /// # Errors
    /// What the engine refuses.
    pub(super) fn decode(&mut self, context: u32, tokens: u32, runs: u32) -> Result<f64, EngineError> {
        self.model.release(SESSION);
        self.step(0, context)?;
        let mut seconds = Vec::new();
        for _ in 0..runs {
            self.model.truncate(SESSION, context);
            for token in 0..tokens {
                seconds.push(self.step(context + token, 1)?);
            }
        }
        self.model.release(SESSION);
        Ok(middle(seconds))
    }

    /// Seconds that a step takes.
    fn step(&mut self, start: u32, count: u32) -> Result<f64, EngineError> {
        let work = [Work { session: SESSION, start, count, input: self.input(count), want: self.want() }];
        let clock = Stopwatch::start();
        let result = self.model.step(&work).pop().expect("one share, one result");
        let seconds = clock.seconds();
        result.map(|_| seconds)
    }

    fn input(&self, count: u32) -> Input {
        if self.model.range().first == 0 {
            let vocabulary = self.model.vocab() as u32;
            return Input::Tokens((0..count).map(|at| Token(at.wrapping_mul(7919) % vocabulary)).collect());
        }
        let hidden = self.model.shape().hidden;
        let stream = (0..count as usize * hidden).map(|at| (at % 97) as f32 / 48.0 - 1.0);
        Input::Hidden(Payload::Real(self.model.residual().encode(&stream.collect::<Vec<f32>>(), hidden)))
    }

    fn want(&self) -> Want {
        let is_last = self.model.range().end == self.model.shape().layers;
        if is_last { Want::Sample(Sampling::GREEDY) } else { Want::Hidden }
    }
}

fn middle(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
