//! What went wrong, how it is shown, and the exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use planner::model::gguf::GgufError;
use thiserror::Error;

use crate::engine::EngineError;
use crate::real::kernels::KernelError;
use crate::real::profile::ProfileError;
use crate::real::text::{TemplateError, TextError};

/// Why a command did not do what it was asked. Each text says where, why, and what to do.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The file is no model.
    #[error(transparent)]
    File(#[from] GgufError),
    /// Its tokeniser or template cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The engine cannot load it.
    #[error("{}: {why}", model.display())]
    Load {
        /// Which file.
        model: PathBuf,
        /// In the engine's words.
        why: String,
    },
    /// The conversation cannot be made into a prompt.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The engine stopped.
    #[error("the engine stopped: {0}")]
    Engine(#[from] EngineError),
    /// This machine could not be measured.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No memory to measure with.
    #[error(transparent)]
    Memory(#[from] KernelError),
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// Another file cannot be read.
    #[error("cannot read {}: {cause}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Standard input or the terminal cannot be read.
    #[error("cannot read the prompt: {0}")]
    Input(std::io::Error),
    /// stdout cannot be written to.
    #[error("cannot write the answer: {0}")]
    Output(std::io::Error),
    /// Ctrl-C; what was said until then is printed.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// Shows it on stderr and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Failure::Interrupted => return ExitCode::from(130),
            other => eprintln!("meshwright: {other}"),
        }
        match self {
            Failure::File(_) | Failure::Text(_) | Failure::Usage(_) | Failure::Read { .. } => {
                ExitCode::from(2)
            }
            _ => ExitCode::from(1),
        }
    }
}
