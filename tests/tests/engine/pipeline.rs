//! A model cut into stages that run one after the other in this process.

use std::path::Path;

use bytes::Bytes;
use node::engine::{Input, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::wire::Payload;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

/// Some tokens of a session, from a position on.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) session: SessionId,
    pub(crate) start: u32,
    pub(crate) tokens: Vec<Token>,
}

/// The stages of a model, in order.
pub(crate) struct Pipeline {
    stages: Vec<Model>,
}

impl Pipeline {
    /// The whole model on one stage.
    pub(crate) fn solo(path: &Path, options: &EngineOptions) -> Self {
        Self::cut(path, &[], options)
    }

    /// The model cut before each layer of `cuts`, which ascend.
    pub(crate) fn cut(path: &Path, cuts: &[u32], options: &EngineOptions) -> Self {
        let file = GgufFile::open(path).expect("a model");
        let layers = file.model().expect("a model with layers").layers.len() as u32;
        let ends = cuts.iter().copied().chain([layers]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let load = |(first, end)| Model::load(&file, LayerRange::new(first, end), options).expect("it loads");
        Self { stages: starts.zip(ends).map(load).collect() }
    }

    /// Takes all runs through all stages, in one step each; logits of every position, one row after the other.
    pub(crate) fn logits(&mut self, runs: &[Run]) -> Vec<Vec<f32>> {
        let mut inputs: Vec<Input> = runs.iter().map(|run| Input::Tokens(run.tokens.clone())).collect();
        let last = self.stages.len() - 1;
        for (number, stage) in self.stages.iter_mut().enumerate() {
            let want = if number == last { Want::Logits } else { Want::Hidden };
            let work = |(run, input): (&Run, Input)| Work {
                session: run.session,
                start: run.start,
                count: run.tokens.len() as u32,
                input,
                want: want.clone(),
            };
            let batch: Vec<Work> = runs.iter().zip(inputs).map(work).collect();
            let outs = stage.step(&batch).into_iter().map(|out| out.expect("sound work"));
            inputs = outs.map(|out| Input::Hidden(payload(out))).collect();
        }
        inputs.into_iter().map(|input| floats(&bytes_of(input))).collect()
    }

    /// Forgets a session everywhere.
    pub(crate) fn release(&mut self, session: SessionId) {
        self.stages.iter_mut().for_each(|stage| stage.release(session));
    }

    /// Logits of `tokens` in a session of their own.
    pub(crate) fn all_logits(&mut self, tokens: &[Token]) -> Vec<f32> {
        let session = SessionId(u64::MAX);
        let run = Run { session, start: 0, tokens: tokens.to_vec() };
        let logits = self.logits(&[run]).remove(0);
        self.release(session);
        logits
    }
}

fn payload(out: WorkOut) -> Payload {
    match out {
        WorkOut::Hidden(payload) | WorkOut::Logits(payload) => payload,
        other => panic!("asked for numbers, got {other:?}"),
    }
}

fn bytes_of(input: Input) -> Bytes {
    match input {
        Input::Hidden(Payload::Real(bytes)) => bytes,
        other => panic!("a real engine gives real numbers, not {other:?}"),
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Log-probabilities of one position.
pub(crate) fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - largest) - total.ln()).collect()
}

/// The likeliest token, the first of equals.
pub(crate) fn likeliest(logits: &[f32]) -> Token {
    let best = logits.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
    Token(best.expect("a vocabulary").0 as u32)
}
