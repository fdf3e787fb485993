//! A model that is copied: its metadata, and its tensors a run of rows at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use planner::model::ggml::GgmlType;
use planner::model::gguf::{GgufError, GgufFile, Tensor, Value};

use super::{Entry, GgufWriter, WriteError};
use crate::real::formats::{UnknownFormat, dequantise, quantise};

/// Elements read at a time, at least one row.
const CHUNK_ELEMENTS: u64 = 1 << 20;

/// Why a model could not be copied; no unfinished file is left.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source's header.
    #[error(transparent)]
    Source(#[from] GgufError),
    /// A tensor of the source could not be read.
    #[error("cannot read tensor `{tensor}` of {}: {cause}", path.display())]
    Read {
        /// Which tensor.
        tensor: String,
        /// Of which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A metadata entry that this writer does not write.
    #[error("metadata `{0}` is an array of arrays, which cannot be written yet")]
    Nested(String),
    /// A tensor's format, or the one asked for.
    #[error("tensor `{tensor}`: {cause}")]
    Format {
        /// Which tensor.
        tensor: String,
        /// Which format.
        #[source]
        cause: UnknownFormat,
    },
    /// The new file.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// All entries but those that say which part of a split model this is.
pub(super) fn copy_metadata(source: &GgufFile, writer: &mut GgufWriter) -> Result<(), CopyError> {
    for (key, value) in &source.metadata {
        if key.starts_with("split.") || key == "general.alignment" {
            continue;
        }
        let entry = match source.array(key)? {
            None => Entry::One(value.clone()),
            Some(values) => {
                let values: Vec<Value> = values.collect::<Result<_, GgufError>>()?;
                if values.iter().any(|value| matches!(value, Value::Array(_))) {
                    return Err(CopyError::Nested(key.clone()));
                }
                let element = value.as_array().expect("it has elements to read").element;
                Entry::Many(element, values)
            }
        };
        writer.set(key.as_str(), entry);
    }
    Ok(())
}

/// The tensors in the order of the source's files.
pub(super) fn in_order(source: &GgufFile) -> Vec<(&str, &Tensor)> {
    let mut tensors: Vec<(&str, &Tensor)> =
        source.tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    tensors.sort_by_key(|(_, tensor)| (tensor.part, tensor.at));
    tensors
}

/// A tensor of the source, a run of rows at a time.
pub(super) struct Rows<'a> {
    name: &'a str,
    kind: GgmlType,
    path: &'a Path,
    file: File,
    elements_left: u64,
    elements_a_chunk: u64,
}

impl<'a> Rows<'a> {
    pub(super) fn open(source: &'a GgufFile, name: &'a str, tensor: &'a Tensor) -> Result<Self, CopyError> {
        let path = source.parts[usize::from(tensor.part)].as_path();
        let failed = |cause| CopyError::Read { tensor: name.into(), path: path.into(), cause };
        let mut file = File::open(path).map_err(failed)?;
        file.seek(SeekFrom::Start(tensor.at)).map_err(failed)?;
        let row = tensor.dims()[0];
        let elements_a_chunk = (CHUNK_ELEMENTS / row).max(1) * row;
        Ok(Self {
            name,
            kind: tensor.ggml_type,
            path,
            file,
            elements_left: tensor.elements(),
            elements_a_chunk,
        })
    }

    /// The next rows in format `kind`, or `None` after the last.
    pub(super) fn next_as(&mut self, kind: GgmlType) -> Result<Option<Vec<u8>>, CopyError> {
        let elements = self.elements_left.min(self.elements_a_chunk);
        if elements == 0 {
            return Ok(None);
        }
        self.elements_left -= elements;
        let bytes = self.read(elements)?;
        if kind == self.kind {
            return Ok(Some(bytes));
        }
        let unknown = |cause| CopyError::Format { tensor: self.name.into(), cause };
        let (mut widened, mut quantised) = (vec![0.0; elements as usize], Vec::new());
        dequantise(self.kind, &bytes, &mut widened).map_err(unknown)?;
        quantise(kind, &widened, &mut quantised).map_err(unknown)?;
        Ok(Some(quantised))
    }

    fn read(&mut self, elements: u64) -> Result<Vec<u8>, CopyError> {
        let length = elements / self.kind.block_elements() * self.kind.block_bytes();
        let mut bytes = vec![0; length as usize];
        let read = self.file.read_exact(&mut bytes);
        let failed = |cause| CopyError::Read { tensor: self.name.into(), path: self.path.into(), cause };
        read.map_err(failed)?;
        Ok(bytes)
    }
}
