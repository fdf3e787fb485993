//! What can be wrong with a file's tokeniser or template. Each text names the file, the key, the cause and the cure.

use std::path::{Path, PathBuf};

use planner::model::gguf::GgufError;
use thiserror::Error;

/// Why a file's tokeniser cannot be used.
#[derive(Debug, Error)]
pub enum TextError {
    /// The header itself cannot be read.
    #[error(transparent)]
    File(#[from] GgufError),
    /// A key that tokenising needs.
    #[error(
        "{}: the metadata has no `{key}`; this file brings no tokeniser: fetch the model's file again, or convert it with its \
         tokeniser",
        file.display()
    )]
    Missing {
        /// Which file.
        file: PathBuf,
        /// Which key.
        key: &'static str,
    },
    /// A key whose value cannot be used.
    #[error("{}: metadata `{key}` {problem}: {cure}", file.display())]
    Key {
        /// Which file.
        file: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        cure: &'static str,
    },
}

/// The cure for values that no converter writes.
const CORRUPT: &str = "the file is corrupt; fetch or convert it again";

impl TextError {
    /// A value that no converter writes.
    pub(super) fn corrupt(file: &Path, key: &'static str, problem: impl Into<String>) -> Self {
        TextError::Key { file: file.into(), key, problem: problem.into(), cure: CORRUPT }
    }
}

/// Why a conversation could not be made into a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template is no Jinja that is understood here.
    #[error(
        "the chat template cannot be read: line {line}: {problem}; convert the model again, or give another template"
    )]
    Syntax {
        /// Where in it, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The template itself refused the conversation, in its own words.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template takes more work or makes more text than any conversation needs.
    #[error(
        "the chat template does more than {limit} allows: it is broken or hostile; give another template"
    )]
    TooMuch {
        /// Which bound.
        limit: &'static str,
    },
    /// Something in the template went wrong with this conversation.
    #[error(
        "the chat template fails at line {line}: {problem}; give another template, or another conversation"
    )]
    Failed {
        /// Where in it, from 1.
        line: usize,
        /// What went wrong.
        problem: String,
    },
}
