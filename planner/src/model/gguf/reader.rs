//! Reading numbers and strings from a header, never past its end and never more into memory than is there.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::{GgufError, shown};

/// Bounds on what a header may hold. Real ones stay far below: the largest vocabularies make headers of some 20 MB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLimits {
    /// All of it, bytes.
    pub header_bytes: u64,
    /// A metadata key, bytes; the format's own bound.
    pub key_bytes: u64,
    /// A string value, bytes; chat templates are the longest.
    pub string_bytes: u64,
    /// A tensor's name, bytes.
    pub tensor_name_bytes: u64,
    /// Arrays within arrays.
    pub array_depth: u32,
    /// Dimensions of a tensor.
    pub dims: u32,
    /// What tensors may be aligned to, bytes.
    pub alignment: u64,
}

/// The bounds that hold.
pub const LIMITS: HeaderLimits = HeaderLimits {
    header_bytes: 512 << 20,
    key_bytes: (1 << 16) - 1,
    string_bytes: 16 << 20,
    tensor_name_bytes: 1024,
    array_depth: 4,
    dims: 4,
    alignment: 1 << 20,
};

/// Bytes read from disk at once.
const BUFFER_BYTES: u64 = 64 << 10;

/// Bytes of a text that is no UTF-8 which its error looks at.
const SHOWN_BYTES: usize = 128;

/// A position in a header.
#[derive(Debug)]
pub(super) struct HeaderReader<R> {
    inner: BufReader<R>,
    file: PathBuf,
    at: u64,
    length: u64,
}

impl<R: Read + Seek> HeaderReader<R> {
    /// From byte `at` of a file of `length` bytes.
    pub(super) fn new(mut inner: R, file: &Path, at: u64, length: u64) -> Result<Self, GgufError> {
        inner.seek(SeekFrom::Start(at)).map_err(|cause| GgufError::Io { file: file.into(), cause })?;
        let buffer = length.saturating_sub(at).clamp(1, BUFFER_BYTES) as usize;
        Ok(Self { inner: BufReader::with_capacity(buffer, inner), file: file.into(), at, length })
    }

    /// Which file this reads.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Bytes before the position.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn left(&self) -> u64 {
        self.length.saturating_sub(self.at)
    }

    /// An error about what stands at `at`.
    pub(super) fn invalid(&self, at: u64, what: impl Into<String>, problem: impl Into<String>) -> GgufError {
        GgufError::Invalid { file: self.file.clone(), at, what: what.into(), problem: problem.into() }
    }

    /// Refuses an amount above its bound.
    pub(super) fn bounded(&self, what: &str, found: u64, limit: u64) -> Result<u64, GgufError> {
        if found > limit {
            return Err(GgufError::Limit {
                file: self.file.clone(),
                at: self.at,
                what: what.into(),
                found,
                limit,
            });
        }
        Ok(found)
    }

    /// Refuses to go on where fewer than `needed` bytes are left, or the header would outgrow its bound.
    pub(super) fn ensure(&self, what: &str, needed: u64) -> Result<(), GgufError> {
        let left = self.left();
        if needed > left {
            let (file, at) = (self.file.clone(), self.at);
            return Err(GgufError::Truncated { file, at, what: what.into(), needed, left });
        }
        self.bounded("the size of the header", self.at + needed, LIMITS.header_bytes)?;
        Ok(())
    }

    /// Refuses a count of things of at least `each` bytes that the rest of the file cannot hold.
    pub(super) fn ensure_count(&self, what: &str, count: u64, each: u64) -> Result<(), GgufError> {
        self.ensure(what, count.saturating_mul(each))
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.ensure(what, N as u64)?;
        let mut bytes = [0; N];
        self.inner
            .read_exact(&mut bytes)
            .map_err(|cause| GgufError::Io { file: self.file.clone(), cause })?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// The next bytes as they are.
    pub(super) fn raw<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.array(what)
    }

    /// The next 32-bit number.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// The next 64-bit number.
    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// The next string: its length, then that many bytes of UTF-8.
    pub(super) fn string(&mut self, what: &str, limit: u64) -> Result<String, GgufError> {
        let at = self.at;
        let length = self.u64(what)?;
        if length <= self.left() {
            self.bounded(&format!("the length of {what}"), length, limit)?;
        }
        self.ensure(what, length)?;
        let mut bytes = vec![0; length as usize];
        self.inner
            .read_exact(&mut bytes)
            .map_err(|cause| GgufError::Io { file: self.file.clone(), cause })?;
        self.at += length;
        String::from_utf8(bytes).map_err(|e| {
            // Only the start: each wrong byte becomes three, and the whole text would outgrow the file.
            let start = &e.as_bytes()[..e.as_bytes().len().min(SHOWN_BYTES)];
            let shown = shown(&String::from_utf8_lossy(start));
            self.invalid(at, what, format!("`{shown}` is not UTF-8"))
        })
    }

    /// Goes on past `bytes` bytes.
    pub(super) fn skip(&mut self, what: &str, bytes: u64) -> Result<(), GgufError> {
        self.ensure(what, bytes)?;
        self.inner
            .seek_relative(bytes as i64)
            .map_err(|cause| GgufError::Io { file: self.file.clone(), cause })?;
        self.at += bytes;
        Ok(())
    }
}
