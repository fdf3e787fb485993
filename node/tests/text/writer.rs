//! Writes GGUF files that have metadata and no tensor.

use std::path::PathBuf;

use planner::model::gguf::GgufFile;
use tempfile::TempDir;

/// Metadata in the making. A key that is written again replaces the one before.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    entries: Vec<(String, Vec<u8>)>,
}

/// A file on disk, gone with this.
#[derive(Debug)]
pub(crate) struct Written {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Written {
    pub(crate) fn open(&self) -> GgufFile {
        GgufFile::open(&self.path).unwrap()
    }
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new() }.text("general.architecture", "llama")
    }

    fn set(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.retain(|(known, _)| known != key);
        let entry = [&string(key), &kind.to_le_bytes()[..], value].concat();
        self.entries.push((key.into(), entry));
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(known, _)| known != key);
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        let bytes = string(value);
        self.set(key, 8, &bytes)
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.set(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.set(key, 7, &[u8::from(value)])
    }

    pub(crate) fn texts(self, key: &str, values: &[String]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| string(value)).collect();
        self.array(key, 8, values.len(), &elements)
    }

    pub(crate) fn floats(self, key: &str, values: &[f32]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 6, values.len(), &elements)
    }

    pub(crate) fn integers(self, key: &str, values: &[i32]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, 5, values.len(), &elements)
    }

    fn array(self, key: &str, element: u32, count: usize, elements: &[u8]) -> Self {
        let value = [&element.to_le_bytes(), &(count as u64).to_le_bytes()[..], elements].concat();
        self.set(key, 9, &value)
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        out.extend((self.entries.len() as u64).to_le_bytes());
        out.extend(self.entries.iter().flat_map(|(_, entry)| entry));
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }

    pub(crate) fn write(&self) -> Written {
        write(&self.bytes())
    }
}

/// Any bytes as a file.
pub(crate) fn write(bytes: &[u8]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Written { _folder: folder, path }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
