//! Reading GGUF headers (versions 2 and 3, little-endian): the metadata and the tensor table, never a tensor, from a file
//! of any size and from models split over several files.
//!
//! Nothing in a header is believed: each length is held against what is left of the file before memory is taken, each
//! amount has a bound ([`LIMITS`]), and tensors must lie inside the file without overlap. So a file cut short, corrupt or
//! hostile gives an error that names the place, and no allocation larger than the file.
//!
//! * [`GgufFile`]: metadata, tensors, parts; for engines too, which find their tensors' bytes by it.
//! * [`read`]: the [`Model`] for the planner.
//!
//! Source of the format: `docs/gguf.md` of ggml.

mod error;
mod header;
mod keys;
mod reader;
mod split;
mod value;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

pub use error::GgufError;
pub use header::Tensor;
pub use reader::{HeaderLimits, LIMITS};
pub use value::{Array, ArrayReader, Value, ValueType};

use self::error::shown;
use self::header::Header;
use self::reader::HeaderReader;
use super::Model;

/// The headers of a model's file or files, as one.
#[derive(Debug)]
pub struct GgufFile {
    /// Version of the format.
    pub version: u32,
    /// What tensors are aligned to, bytes.
    pub alignment: u64,
    /// Metadata of the first part, by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors of all parts, by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The files, in order; one unless the model is split.
    pub parts: Vec<PathBuf>,
}

/// The shape of the model in `path`, exact to the byte. Of a split model any part may be given; all are read.
///
/// # Errors
/// [`GgufError`] names file, place, cause and cure.
pub fn read(path: &Path) -> Result<Model, GgufError> {
    GgufFile::open(path)?.model()
}

impl GgufFile {
    /// Reads the header of `path`, and of the other parts if the model is split.
    ///
    /// # Errors
    /// [`GgufError`] names file, place, cause and cure.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let given = open_header(path, 0)?;
        let parts = split::parts(path, &given)?;
        if parts.len() == 1 {
            let Header { version, alignment, metadata, tensors } = given;
            return Ok(Self { version, alignment, metadata, tensors, parts });
        }
        let mut whole: Option<Self> = None;
        for (number, part) in parts.iter().enumerate() {
            let header = open_header(part, number as u16)?;
            split::check_place(part, &header, number, parts.len())?;
            match &mut whole {
                None => {
                    let Header { version, alignment, metadata, tensors } = header;
                    whole = Some(Self { version, alignment, metadata, tensors, parts: parts.clone() });
                }
                Some(whole) => whole.add(part, header)?,
            }
        }
        let whole = whole.expect("a split model has at least two parts");
        whole.check_tensor_count()?;
        Ok(whole)
    }

    fn add(&mut self, part: &Path, header: Header) -> Result<(), GgufError> {
        for (name, tensor) in header.tensors {
            if self.tensors.contains_key(&name) {
                let problem = format!("tensor `{}` stands in another part too", shown(&name));
                return Err(GgufError::Split { file: part.into(), problem });
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    fn check_tensor_count(&self) -> Result<(), GgufError> {
        let said = self.metadata.get("split.tensors.count").and_then(Value::as_u64);
        let found = self.tensors.len() as u64;
        match said {
            Some(said) if said != found => {
                let problem = format!("the parts hold {found} tensors, `split.tensors.count` says {said}");
                Err(GgufError::Split { file: self.first_part().into(), problem })
            }
            _ => Ok(()),
        }
    }

    /// The file whose metadata count.
    pub fn first_part(&self) -> &Path {
        &self.parts[0]
    }

    /// Walks the array `key` on disk; `None` where there is no such key, or no array under it.
    ///
    /// # Errors
    /// [`GgufError::Io`] where the file cannot be opened again.
    pub fn array(&self, key: &str) -> Result<Option<ArrayReader>, GgufError> {
        let Some(array) = self.metadata.get(key).and_then(Value::as_array) else { return Ok(None) };
        let path = self.first_part();
        let (file, length) = open(path)?;
        let reader = HeaderReader::new(file, path, array.at, length)?;
        let what = format!("metadata `{}`", shown(key));
        Ok(Some(ArrayReader { reader, element: array.element, left: array.count, what }))
    }
}

fn open(path: &Path) -> Result<(File, u64), GgufError> {
    let io = |cause| GgufError::Io { file: path.into(), cause };
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    Ok((file, length))
}

fn open_header(path: &Path, part: u16) -> Result<Header, GgufError> {
    let (file, length) = open(path)?;
    header::read(file, path, length, part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a refused header is the failed test")]

    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_after_a_right_start_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let mut file = b"GGUF\x03\0\0\0".to_vec();
            file.extend(bytes);
            let length = file.len() as u64;
            let _ = header::read(Cursor::new(file), Path::new("random.gguf"), length, 0);
        }
    }

    #[test]
    fn an_empty_header_is_a_header() {
        let bytes = [b"GGUF\x02\0\0\0".as_slice(), &[0; 16]].concat();
        let header = header::read(Cursor::new(bytes), Path::new("empty.gguf"), 24, 0).unwrap();
        assert_eq!((header.version, header.alignment, header.tensors.len()), (2, 32, 0));
    }
}
