//! Our side.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use node::engine::{Input, Sampling, Want, Work};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::real::kernels::Level;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

use super::EngineError;
use super::rows::Test;

/// The session that is measured.
const SESSION: SessionId = SessionId(1);

/// A loaded model.
pub(super) struct Ours {
    path: PathBuf,
    model: Model,
    level: Level,
    bytes_a_token: u64,
}

impl Ours {
    /// Loads all layers of the model at `path`.
    pub(super) fn load(path: &Path, threads: usize, level: Level) -> Result<Self, EngineError> {
        let file = GgufFile::open(path)?;
        let layers = file.model()?.layers.len() as u32;
        let options = EngineOptions { threads, level, ..EngineOptions::default() };
        let model = Model::load(&file, LayerRange::new(0, layers), &options);
        let model = model.map_err(|why| EngineError::Ours { path: path.into(), why: why.to_string() })?;
        Ok(Self { path: path.into(), model, level, bytes_a_token: bytes_a_token(&file) })
    }

    /// Threads that compute.
    pub(super) fn threads(&self) -> usize {
        self.model.threads()
    }

    /// Which instructions.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Bytes of weights that a token needs.
    pub(super) fn bytes_a_token(&self) -> u64 {
        self.bytes_a_token
    }

    /// How long a test takes.
    pub(super) fn time(&mut self, test: &Test) -> Result<Duration, EngineError> {
        if test.is_decode {
            let past = self.model.len(SESSION);
            return timed(|| (past..past + test.tokens).try_for_each(|at| self.tokens(at, 1)));
        }
        self.model.release(SESSION);
        timed(|| self.tokens(0, test.tokens))
    }

    /// Computes `count` tokens from position `start` on, and chooses the one after them.
    fn tokens(&mut self, start: u32, count: u32) -> Result<(), EngineError> {
        let vocabulary = self.model.vocab() as u32;
        let tokens = (start..start + count).map(|at| Token((7919 * at + 13) % vocabulary)).collect();
        let work = Work {
            session: SESSION,
            start,
            count,
            input: Input::Tokens(tokens),
            want: Want::Sample(Sampling::GREEDY),
        };
        match self.model.step(&[work]).remove(0) {
            Ok(_) => Ok(()),
            Err(why) => Err(EngineError::Ours { path: self.path.clone(), why: why.to_string() }),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a bench measures the wall clock")]
fn timed(run: impl FnOnce() -> Result<(), EngineError>) -> Result<Duration, EngineError> {
    let started = Instant::now();
    run()?;
    Ok(started.elapsed())
}

/// All tensors but an embedding that is not the output matrix too: of it one row is read.
fn bytes_a_token(file: &GgufFile) -> u64 {
    let untied = file.tensors.contains_key("output.weight");
    let read = file.tensors.iter().filter(|(name, _)| !(untied && *name == "token_embd.weight"));
    read.map(|(_, tensor)| tensor.bytes).sum()
}
