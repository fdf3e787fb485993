//! The tensors of a range of layers: found in the header, checked, read once through a mapping, and let go.
//!
//! Only the tensors that a range asks for are touched. Each is handed to the device, which packs it into a form of its
//! own, and its pages are given back, so that weights are in memory once. Rows of the embedding are read from the file
//! when a token needs them, not mapped: a file that is cut short under a running engine gives an error then, not a
//! signal. While a model loads the length of the file is checked before each tensor; cutting it within the milliseconds
//! in which one tensor is packed ends the process (`SIGBUS`), as with every program that maps files.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use planner::model::ggml::GgmlType;
use planner::model::gguf::{GgufFile, Tensor};
use planner::plan::LayerRange;
use thiserror::Error;

use super::arch::{Device, Stored};
use super::formats::{self, UnknownFormat};
use super::kernels::FileMap;

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Nobody has described this architecture.
    #[error("architecture `{name}` is not one of those this engine computes: {known}")]
    UnknownArchitecture {
        /// `general.architecture`.
        name: String,
        /// Those it computes.
        known: String,
    },
    /// A key that the architecture needs.
    #[error("the metadata have no `{key}`: convert the model again")]
    MissingKey {
        /// Which.
        key: String,
    },
    /// A value that cannot be computed with.
    #[error("metadata `{key}` is {found}, expected {expected}")]
    Key {
        /// Which.
        key: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A tensor that the architecture needs.
    #[error("there is no tensor `{tensor}`: the model is incomplete, convert it again")]
    MissingTensor {
        /// Which.
        tensor: String,
    },
    /// A tensor of other dimensions than the metadata say.
    #[error("tensor `{tensor}` is {found:?}, the metadata ask for {expected:?} (fastest first)")]
    Dimensions {
        /// Which.
        tensor: String,
        /// What stands there.
        found: Vec<u64>,
        /// What should.
        expected: Vec<u64>,
    },
    /// A tensor of a type that is not computed with.
    #[error(
        "tensor `{tensor}` is stored as {kind}, which this engine cannot read: quantise the model as one of the formats it lists"
    )]
    Type {
        /// Which.
        tensor: String,
        /// Its element type.
        kind: GgmlType,
    },
    /// The file has become shorter than its header says.
    #[error("{} ends within tensor `{tensor}`: it was cut short after it was opened; fetch it again", file.display())]
    Shrunk {
        /// Which file.
        file: PathBuf,
        /// Which tensor.
        tensor: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {cause}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What it said.
        #[source]
        cause: io::Error,
    },
    /// The device took nothing in.
    #[error("device: {why}")]
    Device {
        /// What it said.
        why: String,
    },
    /// Layers that the model does not have.
    #[error("the model has layers 0 to {layers}, not {first} to {end}")]
    Range {
        /// How many it has.
        layers: u32,
        /// First asked for.
        first: u32,
        /// One past the last asked for.
        end: u32,
    },
}

/// A model's files, mapped as they are needed.
#[derive(Debug)]
pub struct Weights<'a> {
    file: &'a GgufFile,
    parts: Vec<OnceLock<FileMap>>,
}

impl<'a> Weights<'a> {
    /// Nothing is read yet.
    pub fn new(file: &'a GgufFile) -> Self {
        Self { file, parts: file.parts.iter().map(|_| OnceLock::new()).collect() }
    }

    /// The headers.
    pub fn file(&self) -> &'a GgufFile {
        self.file
    }

    /// Whether the file has the tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    fn tensor(&self, name: &str) -> Result<&'a Tensor, LoadError> {
        self.file.tensors.get(name).ok_or_else(|| LoadError::MissingTensor { tensor: name.into() })
    }

    fn part(&self, index: u16) -> Result<&FileMap, LoadError> {
        let slot = &self.parts[usize::from(index)];
        if let Some(map) = slot.get() {
            return Ok(map);
        }
        let path = &self.file.parts[usize::from(index)];
        let opened = FileMap::open(path).map_err(|cause| LoadError::Io { file: path.clone(), cause })?;
        Ok(slot.get_or_init(|| opened))
    }

    /// Runs `read` over the tensor's bytes, whose pages are given back then.
    fn with_bytes<T>(
        &self,
        name: &str,
        tensor: &Tensor,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, LoadError> {
        let map = self.part(tensor.part)?;
        let file = &self.file.parts[usize::from(tensor.part)];
        let io = |cause| LoadError::Io { file: file.clone(), cause };
        let bytes = map.range(tensor.at, tensor.bytes).map_err(io)?;
        let bytes = bytes.ok_or_else(|| LoadError::Shrunk { file: file.clone(), tensor: name.into() })?;
        let out = read(bytes);
        map.give_back(tensor.at, tensor.bytes);
        Ok(out)
    }

    /// Has the system read all tensors whose names begin with `prefix` while others are packed.
    pub fn expect(&self, prefix: &str) {
        let from_there = self.file.tensors.range(prefix.to_owned()..);
        for (_, tensor) in from_there.take_while(|(name, _)| name.starts_with(prefix)) {
            // Where a part cannot be opened, who reads it says so.
            if let Ok(map) = self.part(tensor.part) {
                map.expect(tensor.at, tensor.bytes);
            }
        }
    }

    /// Loads the matrix `{name}.weight` of `rows` outputs and `cols` inputs, and its bias where the file has one.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor.
    pub fn linear<D: Device>(
        &self,
        device: &D,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<D::Linear, LoadError> {
        let bias = self.optional_values(&format!("{name}.bias"), rows)?;
        self.matrix(&format!("{name}.weight"), rows, cols, |stored| device.linear(stored, bias))
    }

    fn matrix<T>(
        &self,
        name: &str,
        rows: usize,
        cols: usize,
        take: impl FnOnce(Stored<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let tensor = self.tensor(name)?;
        expect_dims(name, tensor, &[cols, rows])?;
        let kind = tensor.ggml_type;
        self.with_bytes(name, tensor, |bytes| take(Stored { name, kind, rows, cols, bytes }))?
    }

    /// Loads the output head: `output.weight`, or the embedding's matrix where the two are tied.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor.
    pub fn head<D: Device>(&self, device: &D, hidden: usize, vocab: usize) -> Result<D::Linear, LoadError> {
        let name = if self.has("output.weight") { "output.weight" } else { "token_embd.weight" };
        self.expect(name);
        self.matrix(name, vocab, hidden, |stored| device.head(stored))
    }

    /// Loads a vector of `length` elements.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor.
    pub fn vector<D: Device>(&self, device: &D, name: &str, length: usize) -> Result<D::Vector, LoadError> {
        device.vector(self.values(name, length)?)
    }

    fn values(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name)?;
        expect_dims(name, tensor, &[length])?;
        let kind = tensor.ggml_type;
        let mut values = vec![0.0; length];
        self.with_bytes(name, tensor, |bytes| formats::dequantise(kind, bytes, &mut values))?
            .map_err(|_: UnknownFormat| LoadError::Type { tensor: name.into(), kind })?;
        Ok(values)
    }

    /// A vector that a model may lack.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor where it is there and wrong.
    pub fn optional_values(&self, name: &str, length: usize) -> Result<Option<Vec<f32>>, LoadError> {
        if self.has(name) { self.values(name, length).map(Some) } else { Ok(None) }
    }

    /// The token embedding, whose rows are `hidden` wide.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor.
    pub fn embedding(&self, hidden: usize) -> Result<Embedding, LoadError> {
        let name = "token_embd.weight";
        let tensor = self.tensor(name)?;
        let vocab = vocab(self.file)?;
        expect_dims(name, tensor, &[hidden, vocab])?;
        let path = &self.file.parts[usize::from(tensor.part)];
        let file = File::open(path).map_err(|cause| LoadError::Io { file: path.clone(), cause })?;
        // A row of whole blocks: `GgufFile` refuses others.
        let row_bytes = (tensor.bytes / vocab as u64) as usize;
        let embedding = Embedding {
            file,
            path: path.clone(),
            at: tensor.at,
            kind: tensor.ggml_type,
            row_bytes,
            hidden,
            vocab,
        };
        let mut probe = vec![0.0; hidden];
        formats::dequantise(tensor.ggml_type, &vec![0; row_bytes], &mut probe)
            .map_err(|_: UnknownFormat| LoadError::Type { tensor: name.into(), kind: tensor.ggml_type })?;
        Ok(embedding)
    }
}

/// Tokens of the vocabulary: rows of the embedding.
///
/// # Errors
/// [`LoadError`] where there is no embedding, or one that is no matrix.
pub fn vocab(file: &GgufFile) -> Result<usize, LoadError> {
    let name = "token_embd.weight";
    let tensor = file.tensors.get(name).ok_or_else(|| LoadError::MissingTensor { tensor: name.into() })?;
    let vocab = tensor.dims().get(1).and_then(|rows| u32::try_from(*rows).ok());
    vocab.map(|rows| rows as usize).ok_or_else(|| LoadError::Dimensions {
        tensor: name.into(),
        found: tensor.dims().to_vec(),
        expected: vec![0, 0],
    })
}

/// Trailing dimensions of one do not count.
fn expect_dims(name: &str, tensor: &Tensor, expected: &[usize]) -> Result<(), LoadError> {
    let dims = tensor.dims();
    let matches = expected.iter().enumerate().all(|(i, n)| dims.get(i).copied().unwrap_or(1) == *n as u64)
        && dims.iter().skip(expected.len()).all(|n| *n == 1);
    if matches {
        return Ok(());
    }
    let expected = expected.iter().map(|n| *n as u64).collect();
    Err(LoadError::Dimensions { tensor: name.into(), found: dims.to_vec(), expected })
}

/// Bytes in the file of what a stage over `range` holds: its layers, the embedding's rows stay on disk.
pub fn range_bytes(file: &GgufFile, range: LayerRange, layers: u32) -> u64 {
    let is_tied = !file.tensors.contains_key("output.weight");
    let is_held = |name: &str| match name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()) {
        Some(index) => index.parse::<u32>().is_ok_and(|index| (range.first..range.end).contains(&index)),
        None if name == "token_embd.weight" => is_tied && range.end == layers,
        None => range.end == layers,
    };
    file.tensors.iter().filter(|(name, _)| is_held(name)).map(|(_, tensor)| tensor.bytes).sum()
}

/// The token embedding. Its rows are read from the file as they are asked for, and found in the page cache mostly.
#[derive(Debug)]
pub struct Embedding {
    file: File,
    path: PathBuf,
    at: u64,
    kind: GgmlType,
    row_bytes: usize,
    hidden: usize,
    vocab: usize,
}

impl Embedding {
    /// Tokens it has rows for.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Reads the row of `token`, below [`vocab`](Self::vocab), into `out`.
    ///
    /// # Errors
    /// What the operating system says, such as that the file is not what it was.
    pub fn row(&self, token: u32, scratch: &mut Vec<u8>, out: &mut [f32]) -> Result<(), LoadError> {
        debug_assert_eq!(out.len(), self.hidden);
        scratch.resize(self.row_bytes, 0);
        let at = self.at + u64::from(token) * self.row_bytes as u64;
        read_exact_at(&self.file, scratch, at).map_err(|cause| self.failed(cause))?;
        formats::dequantise(self.kind, scratch, out).map_err(|_: UnknownFormat| LoadError::Type {
            tensor: "token_embd.weight".into(),
            kind: self.kind,
        })
    }

    fn failed(&self, cause: io::Error) -> LoadError {
        let file: &Path = &self.path;
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => {
                LoadError::Shrunk { file: file.into(), tensor: "token_embd.weight".into() }
            }
            _ => LoadError::Io { file: file.into(), cause },
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                out = &mut out[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}
