//! An existing model in another format.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use planner::model::ggml::GgmlType;
use planner::model::gguf::{GgufError, GgufFile, Tensor, Value};

use super::{Entry, GgufWriter, WriteError};
use crate::real::formats::{UnknownFormat, dequantise, quantise};

/// Elements widened at a time, at least one row.
const CHUNK_ELEMENTS: u64 = 1 << 20;

/// Why a model could not be requantised; no file is left.
#[derive(Debug, thiserror::Error)]
pub enum RequantiseError {
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

/// Writes `source` to `path` with every matrix in format `kind`, as `llama-quantize --pure` does without an importance
/// matrix: norms, biases and expert gates stay as they are, and a matrix whose rows are no whole number of blocks gets
/// the format of smaller blocks that llama.cpp falls back to. [`GgmlType::F32`] widens. A split model becomes one file.
///
/// # Errors
/// [`RequantiseError`]; no file is left at `path` then, or what was there before.
pub fn requantise(source: &GgufFile, kind: GgmlType, path: &Path) -> Result<(), RequantiseError> {
    let mut writer = GgufWriter::default();
    copy_metadata(source, &mut writer)?;
    writer.set("general.quantization_version", 2u32);
    if let Some(number) = file_type(kind) {
        writer.set("general.file_type", number);
    }
    let mut tensors: Vec<(&String, &Tensor)> = source.tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| (tensor.part, tensor.at));
    for (name, tensor) in &tensors {
        writer.tensor(name.as_str(), new_format(name, tensor, kind), tensor.dims());
    }
    let mut sink = writer.create(path)?;
    for (name, tensor) in tensors {
        let mut from = Rows::open(source, name, tensor)?;
        let kind = new_format(name, tensor, kind);
        while let Some(bytes) = from.next_as(kind)? {
            sink.write(&bytes)?;
        }
    }
    Ok(sink.finish()?)
}

/// All entries but those that say which part of a split model this is.
fn copy_metadata(source: &GgufFile, writer: &mut GgufWriter) -> Result<(), RequantiseError> {
    for (key, value) in &source.metadata {
        if key.starts_with("split.") || key == "general.alignment" {
            continue;
        }
        let entry = match source.array(key)? {
            None => Entry::One(value.clone()),
            Some(values) => {
                let values: Vec<Value> = values.collect::<Result<_, GgufError>>()?;
                if values.iter().any(|value| matches!(value, Value::Array(_))) {
                    return Err(RequantiseError::Nested(key.clone()));
                }
                let element = value.as_array().expect("it has elements to read").element;
                Entry::Many(element, values)
            }
        };
        writer.set(key.as_str(), entry);
    }
    Ok(())
}

/// What llama.cpp calls a file of mostly this format (`llama_ftype`).
fn file_type(kind: GgmlType) -> Option<u32> {
    Some(match kind {
        GgmlType::F32 => 0,
        GgmlType::F16 => 1,
        GgmlType::Q4_0 => 2,
        GgmlType::Q4_1 => 3,
        GgmlType::Q8_0 => 7,
        GgmlType::Q5_0 => 8,
        GgmlType::Q5_1 => 9,
        GgmlType::Q2_K => 10,
        GgmlType::Q3_K => 11,
        GgmlType::Q4_K => 14,
        GgmlType::Q5_K => 16,
        GgmlType::Q6_K => 18,
        GgmlType::IQ4_NL => 25,
        GgmlType::IQ4_XS => 30,
        GgmlType::BF16 => 32,
        _ => return None,
    })
}

/// The format a tensor gets. Source: `tensor_allows_quantization` and `tensor_type_fallback` of llama.cpp.
pub(super) fn new_format(name: &str, tensor: &Tensor, kind: GgmlType) -> GgmlType {
    let matrix = tensor.dims().iter().filter(|dim| **dim > 1).count() >= 2;
    let kept = ["_norm.weight", "ffn_gate_inp.weight"].iter().any(|part| name.contains(part));
    if !matrix || kept || !name.ends_with("weight") {
        return tensor.ggml_type;
    }
    fitting(kind, tensor.dims()[0])
}

/// `kind`, or what llama.cpp puts in its place where rows of `columns` are no whole number of its blocks.
pub(super) fn fitting(kind: GgmlType, columns: u64) -> GgmlType {
    let fits = |kind: GgmlType| columns.is_multiple_of(kind.block_elements());
    let smaller = match kind {
        _ if fits(kind) => return kind,
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ => kind,
    };
    if fits(smaller) { smaller } else { GgmlType::F16 }
}

/// A tensor of the source, a run of rows at a time.
struct Rows<'a> {
    name: &'a str,
    kind: GgmlType,
    path: &'a Path,
    file: File,
    elements_left: u64,
    elements_a_chunk: u64,
}

impl<'a> Rows<'a> {
    fn open(source: &'a GgufFile, name: &'a str, tensor: &'a Tensor) -> Result<Self, RequantiseError> {
        let path = source.parts[usize::from(tensor.part)].as_path();
        let failed = |cause| RequantiseError::Read { tensor: name.into(), path: path.into(), cause };
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
    fn next_as(&mut self, kind: GgmlType) -> Result<Option<Vec<u8>>, RequantiseError> {
        let elements = self.elements_left.min(self.elements_a_chunk);
        if elements == 0 {
            return Ok(None);
        }
        self.elements_left -= elements;
        let bytes = self.read(elements)?;
        if kind == self.kind {
            return Ok(Some(bytes));
        }
        let unknown = |cause| RequantiseError::Format { tensor: self.name.into(), cause };
        let (mut widened, mut quantised) = (vec![0.0; elements as usize], Vec::new());
        dequantise(self.kind, &bytes, &mut widened).map_err(unknown)?;
        quantise(kind, &widened, &mut quantised).map_err(unknown)?;
        Ok(Some(quantised))
    }

    fn read(&mut self, elements: u64) -> Result<Vec<u8>, RequantiseError> {
        let length = elements / self.kind.block_elements() * self.kind.block_bytes();
        let mut bytes = vec![0; length as usize];
        let read = self.file.read_exact(&mut bytes);
        let failed =
            |cause| RequantiseError::Read { tensor: self.name.into(), path: self.path.into(), cause };
        read.map_err(failed)?;
        Ok(bytes)
    }
}
