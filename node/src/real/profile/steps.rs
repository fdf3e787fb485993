//! Steps of a loaded range of layers, timed. The first stage is fed tokens, others a residual stream; what they are changes
//! no time.

use super::stopwatch::Stopwatch;
use crate::engine::{EngineError, Input, Want, Work};
use crate::ids::{SessionId, Token};
use crate::real::any::AnyModel;
use crate::sampling::Sampling;
use crate::wire::Payload;

const SESSION: SessionId = SessionId(0);

/// Some layers in memory.
pub struct Range {
    model: AnyModel,
}

impl Range {
    /// To be timed.
    pub fn new(model: impl Into<AnyModel>) -> Self {
        Self { model: model.into() }
    }

    /// Seconds to read a prompt of `tokens`, the middle of `runs` after one that warms up.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn prefill(&mut self, tokens: u32, runs: u32) -> Result<f64, EngineError> {
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
    pub fn decode(&mut self, context: u32, tokens: u32, runs: u32) -> Result<f64, EngineError> {
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

    /// Seconds that a step of one session takes.
    fn step(&mut self, start: u32, count: u32) -> Result<f64, EngineError> {
        self.timed(1, start, count, self.is_last())
    }

    /// Seconds that a step of `sessions` alike takes: `count` tokens each behind `start`. A last stage samples each one's
    /// next token if it `samples`.
    ///
    /// # Errors
    /// What the engine refuses.
    pub(crate) fn timed(
        &mut self,
        sessions: u32,
        start: u32,
        count: u32,
        samples: bool,
    ) -> Result<f64, EngineError> {
        let input = self.input(count);
        let work = |session| Work {
            session: SessionId(session),
            start,
            count,
            input: input.clone(),
            want: self.want(samples),
        };
        let batch: Vec<Work> = (0..u64::from(sessions)).map(work).collect();
        let clock = Stopwatch::start();
        let results = self.model.step(&batch);
        let seconds = clock.seconds();
        results.into_iter().find_map(Result::err).map_or(Ok(seconds), Err)
    }

    /// Lets `sessions` have the first `context` tokens of the first one.
    pub(crate) fn share(&mut self, sessions: u32, context: u32) {
        self.model.truncate(SESSION, context);
        for session in 1..u64::from(sessions) {
            self.model.fork(SESSION, SessionId(session), context);
        }
    }

    /// Takes back what a step of `sessions` behind `context` has added.
    pub(crate) fn rewind(&mut self, sessions: u32, context: u32) {
        for session in 0..u64::from(sessions) {
            self.model.truncate(SessionId(session), context);
        }
    }

    /// Forgets all sessions but the first.
    pub(crate) fn alone(&mut self, sessions: u32) {
        for session in 1..u64::from(sessions) {
            self.model.release(SessionId(session));
        }
    }

    /// Whether the layers end the model.
    pub(crate) fn is_last(&self) -> bool {
        self.model.range().end == self.model.shape().layers
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

    fn want(&self, samples: bool) -> Want {
        match (self.is_last(), samples) {
            (false, _) => Want::Hidden,
            (true, true) => Want::Sample(Sampling::GREEDY),
            (true, false) => Want::Nothing,
        }
    }
}

/// The middle one.
pub(crate) fn middle(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
