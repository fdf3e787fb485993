//! The header of one GGUF file: metadata and tensor table.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use super::error::{GgufError, shown};
use super::reader::{HeaderReader, LIMITS};
use super::value::{Value, read_type, read_value};
use crate::model::ggml::GgmlType;

/// Tensors begin at multiples of this unless `general.alignment` says otherwise, bytes.
const DEFAULT_ALIGNMENT: u64 = 32;

/// What a metadata entry takes at least: the length of its key, its type, one byte.
const ENTRY_BYTES_LEAST: u64 = 8 + 4 + 1;

/// What a tensor's entry takes at least: the length of its name, one dimension, type, offset.
const TENSOR_BYTES_LEAST: u64 = 8 + 4 + 8 + 4 + 8;

/// Where a tensor is and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dims: [u64; LIMITS.dims as usize],
    dim_count: u8,
    /// Element type.
    pub ggml_type: GgmlType,
    /// Its bytes.
    pub bytes: u64,
    /// Which of the model's files holds it, from 0: an index into [`super::GgufFile::parts`].
    pub part: u16,
    /// Its first byte, from the start of that file.
    pub at: u64,
}

impl Tensor {
    /// Dimensions, fastest first, each at least 1.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.dim_count)]
    }

    /// How many elements it has.
    pub fn elements(&self) -> u64 {
        self.dims().iter().product()
    }
}

/// What one file says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

/// Reads the header of `file`, which is `length` bytes long, as part `part` of its model.
pub(super) fn read<R: Read + Seek>(
    source: R,
    file: &Path,
    length: u64,
    part: u16,
) -> Result<Header, GgufError> {
    let mut reader = HeaderReader::new(source, file, 0, length)?;
    let version = read_version(&mut reader)?;
    let tensor_count = reader.u64("the number of tensors")?;
    let entry_count = reader.u64("the number of metadata entries")?;
    reader.ensure_count("the metadata", entry_count, ENTRY_BYTES_LEAST)?;
    let metadata = read_metadata(&mut reader, entry_count)?;
    let alignment = alignment(&reader, &metadata)?;
    reader.ensure_count("the tensor table", tensor_count, TENSOR_BYTES_LEAST)?;
    let mut tensors = BTreeMap::new();
    for _ in 0..tensor_count {
        let at = reader.at();
        let (name, tensor) = read_tensor(&mut reader, alignment, part)?;
        if tensors.contains_key(&name) {
            return Err(reader.invalid(at, format!("tensor `{}`", shown(&name)), "stands there twice"));
        }
        tensors.insert(name, tensor);
    }
    place_tensors(&reader, &mut tensors, alignment)?;
    Ok(Header { version, alignment, metadata, tensors })
}

fn read_version<R: Read + Seek>(reader: &mut HeaderReader<R>) -> Result<u32, GgufError> {
    let file = reader.file().to_path_buf();
    let magic: [u8; 4] = reader.raw("the magic number")?;
    match &magic {
        b"GGUF" => {}
        b"FUGG" => return Err(GgufError::BigEndian { file }),
        other => {
            let found = match other {
                b"lmgg" | b"tjgg" | b"fmgg" => "the magic number of GGML, the format before GGUF".into(),
                _ => format!("`{}`", other.escape_ascii()),
            };
            return Err(GgufError::NotGguf { file, found });
        }
    }
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        _ if version != 0 && version & 0xffff == 0 => Err(GgufError::BigEndian { file }),
        _ => Err(GgufError::Version { file, version }),
    }
}

fn read_metadata<R: Read + Seek>(
    reader: &mut HeaderReader<R>,
    count: u64,
) -> Result<BTreeMap<String, Value>, GgufError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let at = reader.at();
        let key = reader.string("a metadata key", LIMITS.key_bytes)?;
        if key.is_empty() {
            return Err(reader.invalid(at, "a metadata key", "is empty"));
        }
        let what = format!("metadata `{}`", shown(&key));
        let kind = read_type(reader, &what)?;
        let value = read_value(reader, kind, &what)?;
        if metadata.contains_key(&key) {
            return Err(reader.invalid(at, what, "stands there twice"));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment<R: Read + Seek>(
    reader: &HeaderReader<R>,
    metadata: &BTreeMap<String, Value>,
) -> Result<u64, GgufError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value.as_u64() {
        Some(bytes) if bytes.is_power_of_two() && bytes <= LIMITS.alignment => Ok(bytes),
        _ => Err(GgufError::KeyValue {
            file: reader.file().into(),
            key: "general.alignment".into(),
            found: value.shown(),
            expected: "a power of two of at most 1 MiB",
        }),
    }
}

/// One entry of the table. Its place is still relative to where the data begins, which the end of the table decides.
fn read_tensor<R: Read + Seek>(
    reader: &mut HeaderReader<R>,
    alignment: u64,
    part: u16,
) -> Result<(String, Tensor), GgufError> {
    let start = reader.at();
    let name = reader.string("a tensor's name", LIMITS.tensor_name_bytes)?;
    let what = format!("tensor `{}`", shown(&name));
    let count = reader.u32(&what)?;
    if count == 0 || count > LIMITS.dims {
        let problem = format!("has {count} dimensions; there are 1 to {}", LIMITS.dims);
        return Err(reader.invalid(start, what, problem));
    }
    let mut dims = [0; LIMITS.dims as usize];
    for dim in &mut dims[..count as usize] {
        *dim = reader.u64(&what)?;
        if *dim == 0 {
            return Err(reader.invalid(start, what, "has a dimension of 0"));
        }
    }
    let ggml_type = read_tensor_type(reader, &name)?;
    let bytes = ggml_type.tensor_bytes(&dims[..count as usize]).ok_or_else(|| {
        let problem = format!(
            "of type {ggml_type} has dimensions {:?}; rows hold blocks of {}, and all of it less than 2^64 elements",
            &dims[..count as usize],
            ggml_type.block_elements()
        );
        reader.invalid(start, what.clone(), problem)
    })?;
    let at = reader.u64(&what)?;
    if !at.is_multiple_of(alignment) {
        return Err(reader.invalid(start, what, format!("begins at {at}, no multiple of {alignment}")));
    }
    Ok((name, Tensor { dims, dim_count: count as u8, ggml_type, bytes, part, at }))
}

fn read_tensor_type<R: Read + Seek>(reader: &mut HeaderReader<R>, name: &str) -> Result<GgmlType, GgufError> {
    let id = reader.u32("a tensor's type")?;
    GgmlType::from_id(id).ok_or_else(|| GgufError::TensorType {
        file: reader.file().into(),
        tensor: shown(name),
        id,
        why: if GgmlType::was_removed(id) {
            "which llama.cpp has removed: quantise the model again"
        } else {
            "which this version does not know: the file is corrupt, or newer than this program"
        },
    })
}

/// Turns places into places from the start of the file, and refuses tensors that leave it or overlap.
fn place_tensors<R: Read + Seek>(
    reader: &HeaderReader<R>,
    tensors: &mut BTreeMap<String, Tensor>,
    alignment: u64,
) -> Result<(), GgufError> {
    let data_at = reader.at().next_multiple_of(alignment);
    let length = reader.length();
    for (name, tensor) in tensors.iter_mut() {
        let at = data_at.saturating_add(tensor.at);
        if at.checked_add(tensor.bytes).is_none_or(|end| end > length) {
            return Err(GgufError::Truncated {
                file: reader.file().into(),
                at,
                what: format!("tensor `{}`", shown(name)),
                needed: tensor.bytes,
                left: length.saturating_sub(at),
            });
        }
        tensor.at = at;
    }
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_unstable_by_key(|(_, tensor)| tensor.at);
    for pair in order.windows(2) {
        let ((before, first), (name, second)) = (pair[0], pair[1]);
        if first.at + first.bytes > second.at {
            let problem = format!("overlaps with `{}`", shown(before));
            return Err(reader.invalid(second.at, format!("tensor `{}`", shown(name)), problem));
        }
    }
    Ok(())
}
