//! What went wrong, how it is shown, and the exit code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use planner::model::gguf::GgufError;
use thiserror::Error;

use super::models::GetError;
use crate::engine::EngineError;
use crate::real::kernels::KernelError;
use crate::real::p2p::NetError;
use crate::real::p2p::identity::KeyError;
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
    /// The configuration file says what cannot be.
    #[error("{}: {why}", file.display())]
    Config {
        /// Which file.
        file: PathBuf,
        /// Where in it, and what.
        why: String,
    },
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The mesh could not be joined.
    #[error("cannot join the mesh: {0}")]
    Join(String),
    /// The API cannot listen there.
    #[error("the API cannot listen at {address}: {}", listening(cause))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Nobody answers at an address, or not as a node does.
    #[error("{0}")]
    Asking(String),
    /// A model could not be fetched.
    #[error(transparent)]
    Get(#[from] GetError),
    /// Something must be mended.
    #[error("{0} to mend, see above")]
    Unwell(usize),
    /// The program could not start.
    #[error("{0}")]
    Start(String),
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
            other => note!("meshwright: {other}"),
        }
        match self {
            Failure::File(_)
            | Failure::Text(_)
            | Failure::Usage(_)
            | Failure::Config { .. }
            | Failure::Listen { .. }
            | Failure::Key(_)
            | Failure::Net(_)
            | Failure::Read { .. } => ExitCode::from(2),
            Failure::Get(why) if why.is_usage() => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// What the system said of an address, and what to do.
fn listening(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there, perhaps another node; end that, or give another port by --api 127.0.0.1:0".into()
        }
        std::io::ErrorKind::PermissionDenied => format!("{cause}; take a port above 1023"),
        std::io::ErrorKind::AddrNotAvailable => format!("{cause}; give an address that this machine has, by --api"),
        _ => cause.to_string(),
    }
}
