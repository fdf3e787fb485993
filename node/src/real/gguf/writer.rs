//! Writes a GGUF file, version 3. Source of the format: `docs/gguf.md` of ggml.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use planner::model::ggml::GgmlType;
use planner::model::gguf::{Value, ValueType};

/// Tensors begin at multiples of this, bytes: the format's default, which files need not say.
const ALIGNMENT: u64 = 32;

const PADDING: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];

/// Files begun by this process: two at once under one name do not meet.
static PARTIALS: AtomicU64 = AtomicU64::new(0);

/// A metadata entry to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A single value; [`Value::Array`], which is a place in another file, cannot be written.
    One(Value),
    /// An array of values of one type.
    Many(ValueType, Vec<Value>),
}

impl From<Value> for Entry {
    fn from(value: Value) -> Self {
        Entry::One(value)
    }
}

impl From<u32> for Entry {
    fn from(value: u32) -> Self {
        Entry::One(Value::U32(value))
    }
}

impl From<f32> for Entry {
    fn from(value: f32) -> Self {
        Entry::One(Value::F32(value))
    }
}

impl From<bool> for Entry {
    fn from(value: bool) -> Self {
        Entry::One(Value::Bool(value))
    }
}

impl From<&str> for Entry {
    fn from(value: &str) -> Self {
        Entry::One(Value::String(value.into()))
    }
}

impl From<Vec<String>> for Entry {
    fn from(values: Vec<String>) -> Self {
        Entry::Many(ValueType::String, values.into_iter().map(Value::String).collect())
    }
}

impl From<Vec<i32>> for Entry {
    fn from(values: Vec<i32>) -> Self {
        Entry::Many(ValueType::I32, values.into_iter().map(Value::I32).collect())
    }
}

/// A file that could not be written; nothing is left of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {cause}", path.display())]
pub struct WriteError {
    /// Which file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

/// The header of a file to be: metadata and the table of tensors.
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    metadata: BTreeMap<String, Entry>,
    tensors: Vec<Declared>,
}

#[derive(Debug, Clone)]
struct Declared {
    name: String,
    kind: GgmlType,
    dims: Vec<u64>,
    bytes: u64,
}

impl GgufWriter {
    /// Sets a metadata entry.
    pub fn set(&mut self, key: impl Into<String>, entry: impl Into<Entry>) -> &mut Self {
        self.metadata.insert(key.into(), entry.into());
        self
    }

    /// Declares the next tensor. `dims` are fastest first.
    ///
    /// # Panics
    /// Where a row is no whole number of the format's blocks.
    pub fn tensor(&mut self, name: impl Into<String>, kind: GgmlType, dims: &[u64]) -> &mut Self {
        let bytes = kind.tensor_bytes(dims).expect("rows of whole blocks");
        self.tensors.push(Declared { name: name.into(), kind, dims: dims.into(), bytes });
        self
    }

    /// Begins the file: writes its header, and returns what takes the tensors' bytes in the order of their
    /// declaration. Until [`GgufSink::finish`] the file has another name, so whoever opens `path` finds it whole.
    ///
    /// # Errors
    /// [`WriteError`] where the file cannot be made.
    pub fn create(&self, path: &Path) -> Result<GgufSink, WriteError> {
        let number = PARTIALS.fetch_add(1, Ordering::Relaxed);
        let partial = path.with_extension(format!("partial-{}-{number}", std::process::id()));
        let failed = |cause| WriteError { path: path.into(), cause };
        let file = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(failed)?);
        let left = self.tensors.iter().map(|tensor| tensor.bytes).collect();
        let mut sink = GgufSink { file: Some(file), partial, path: path.into(), at: 0, left };
        sink.put(&self.header())?;
        Ok(sink)
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        put_u64(&mut bytes, self.tensors.len() as u64);
        put_u64(&mut bytes, self.metadata.len() as u64);
        for (key, entry) in &self.metadata {
            put_string(&mut bytes, key);
            put_entry(&mut bytes, entry);
        }
        let mut at = 0u64;
        for tensor in &self.tensors {
            put_string(&mut bytes, &tensor.name);
            bytes.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| put_u64(&mut bytes, *dim));
            bytes.extend(tensor.kind.id().to_le_bytes());
            put_u64(&mut bytes, at);
            at = (at + tensor.bytes).next_multiple_of(ALIGNMENT);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        bytes
    }
}

/// Takes the tensors' bytes. Dropped before [`GgufSink::finish`], it removes what it wrote.
#[derive(Debug)]
pub struct GgufSink {
    file: Option<BufWriter<File>>,
    partial: PathBuf,
    path: PathBuf,
    /// Bytes written.
    at: u64,
    /// Bytes still to come, by tensor.
    left: VecDeque<u64>,
}

impl GgufSink {
    /// The next bytes of the current tensor; its last byte makes the next tensor the current one.
    ///
    /// # Errors
    /// [`WriteError`], with which the file is lost.
    ///
    /// # Panics
    /// Where the bytes go past the end of the current tensor.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let left = self.left.front_mut().expect("a tensor was declared");
        *left = left.checked_sub(bytes.len() as u64).expect("bytes of one tensor");
        let done = *left == 0;
        self.put(bytes)?;
        if done {
            self.left.pop_front();
            self.put(&PADDING[..(self.at.next_multiple_of(ALIGNMENT) - self.at) as usize])?;
        }
        Ok(())
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// [`WriteError`], with which the file is lost.
    ///
    /// # Panics
    /// Where bytes of a declared tensor are missing.
    pub fn finish(mut self) -> Result<(), WriteError> {
        assert!(self.left.is_empty(), "every declared tensor is written");
        let flushed = self.file.as_mut().expect("open until finished").flush();
        flushed.and_then(|()| fs::rename(&self.partial, &self.path)).map_err(|cause| self.failed(cause))?;
        self.file = None;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.at += bytes.len() as u64;
        let written = self.file.as_mut().expect("open until finished").write_all(bytes);
        written.map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: io::Error) -> WriteError {
        WriteError { path: self.path.clone(), cause }
    }
}

impl Drop for GgufSink {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What is left of a file that failed: nobody can be told that it could not be removed either.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_le_bytes());
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    put_u64(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

fn put_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::One(value) => {
            bytes.extend((type_of(value) as u32).to_le_bytes());
            put_value(bytes, value);
        }
        Entry::Many(element, values) => {
            bytes.extend((ValueType::Array as u32).to_le_bytes());
            bytes.extend((*element as u32).to_le_bytes());
            put_u64(bytes, values.len() as u64);
            for value in values {
                assert_eq!(type_of(value), *element, "an array holds values of one type");
                put_value(bytes, value);
            }
        }
    }
}

/// The type of a value, whose place among the types is its number in the file.
fn type_of(value: &Value) -> ValueType {
    match value {
        Value::U8(_) => ValueType::U8,
        Value::I8(_) => ValueType::I8,
        Value::U16(_) => ValueType::U16,
        Value::I16(_) => ValueType::I16,
        Value::U32(_) => ValueType::U32,
        Value::I32(_) => ValueType::I32,
        Value::F32(_) => ValueType::F32,
        Value::Bool(_) => ValueType::Bool,
        Value::String(_) => ValueType::String,
        Value::Array(_) => ValueType::Array,
        Value::U64(_) => ValueType::U64,
        Value::I64(_) => ValueType::I64,
        Value::F64(_) => ValueType::F64,
    }
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => bytes.push(*v),
        Value::I8(v) => bytes.extend(v.to_le_bytes()),
        Value::U16(v) => bytes.extend(v.to_le_bytes()),
        Value::I16(v) => bytes.extend(v.to_le_bytes()),
        Value::U32(v) => bytes.extend(v.to_le_bytes()),
        Value::I32(v) => bytes.extend(v.to_le_bytes()),
        Value::F32(v) => bytes.extend(v.to_le_bytes()),
        Value::Bool(v) => bytes.push(u8::from(*v)),
        Value::String(v) => put_string(bytes, v),
        Value::Array(_) => panic!("an array of another file is read before it is written"),
        Value::U64(v) => bytes.extend(v.to_le_bytes()),
        Value::I64(v) => bytes.extend(v.to_le_bytes()),
        Value::F64(v) => bytes.extend(v.to_le_bytes()),
    }
}
