//! What can be wrong with a GGUF file. Each text names the file, the place, what is wrong and what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::shape::ShapeError;

/// Characters of a key, name or value that an error repeats.
const SHOWN_CHARS: usize = 64;

/// Why a GGUF file could not be read.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("cannot read {}: {cause}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What it said.
        #[source]
        cause: io::Error,
    },
    /// Some other kind of file.
    #[error("{} is not a GGUF file: it starts with {found}; give a .gguf file", file.display())]
    NotGguf {
        /// Which file.
        file: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// Written on and for a big-endian machine.
    #[error("{} is a big-endian GGUF file; only little-endian ones are read: convert it again", file.display())]
    BigEndian {
        /// Which file.
        file: PathBuf,
    },
    /// Too old, too new or corrupt.
    #[error(
        "{} is a GGUF file of version {version}; versions 2 and 3 are read: convert the model again with a present-day \
         llama.cpp",
        file.display()
    )]
    Version {
        /// Which file.
        file: PathBuf,
        /// What it says.
        version: u32,
    },
    /// The file ends before what it announces.
    #[error(
        "{}, byte {at}: {what} takes {needed} bytes, but the file ends after {left}: it is cut short or corrupt; fetch it \
         again",
        file.display()
    )]
    Truncated {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        at: u64,
        /// Of what.
        what: String,
        /// Bytes announced (at least).
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// More than any model needs, and so not believed.
    #[error("{}, byte {at}: {what} is {found}, above the limit of {limit}: no model file needs that; fetch it again", file.display())]
    Limit {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        at: u64,
        /// Which amount.
        what: String,
        /// What the file says.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// Contradicts the format.
    #[error("{}, byte {at}: {what} {problem}: the file is corrupt; fetch or convert it again", file.display())]
    Invalid {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        at: u64,
        /// Which part.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor type that this version does not know.
    #[error("{}: tensor `{tensor}` has type {id}, {why}", file.display())]
    TensorType {
        /// Which file.
        file: PathBuf,
        /// Which tensor.
        tensor: String,
        /// The type's number.
        id: u32,
        /// Why it is not read, and what to do.
        why: &'static str,
    },
    /// A key that a model must have.
    #[error("{}: the metadata has no `{key}`; this is not a language model, or its conversion failed", file.display())]
    MissingKey {
        /// Which file.
        file: PathBuf,
        /// Which key.
        key: String,
    },
    /// A key of another kind, or out of range.
    #[error("{}: metadata `{key}` is {found}, expected {expected}: convert the model again", file.display())]
    KeyValue {
        /// Which file.
        file: PathBuf,
        /// Which key.
        key: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A part of a split model is not there.
    #[error(
        "part {part} of {count} of the model is missing: there is no {}; fetch all parts into one folder",
        file.display()
    )]
    MissingPart {
        /// The part's file.
        file: PathBuf,
        /// Which, from 1.
        part: u64,
        /// Of how many.
        count: u64,
    },
    /// Parts that do not belong together.
    #[error("{}: {problem}; fetch all parts of one model into one folder, under the names they were published with", file.display())]
    Split {
        /// The part's file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Tensors and metadata do not make a model.
    #[error("{}: {cause}", file.display())]
    Shape {
        /// Which file.
        file: PathBuf,
        /// Why not.
        #[source]
        cause: ShapeError,
    },
}

/// `text` as an error repeats it: cut, and with control characters escaped, since a stranger may have written it.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}
