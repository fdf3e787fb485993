//! Mapped files.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

/// A file's bytes, read by the page as they are looked at.
#[derive(Debug)]
pub struct FileMap {
    file: File,
    map: Mmap,
}

impl FileMap {
    /// Maps the file.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the map is private and read only through `range`, which hands out what the file still has at that
        // moment. A file that is rewritten under us gives other weights, never other lengths; one that is cut short
        // while a range is in use ends the process with SIGBUS, as `weights` documents.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { file, map })
    }

    /// `bytes` bytes from `at`, or none where the file has been cut short of them.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn range(&self, at: u64, bytes: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = at.checked_add(bytes) else { return Ok(None) };
        if end > self.file.metadata()?.len() {
            return Ok(None);
        }
        // Reading ahead in large pieces; without, the disk is asked for each little while it could already be at the next.
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, at as usize, bytes as usize);
        Ok(self.map.get(at as usize..end as usize))
    }

    /// Has the system begin to read the range, so that who looks at it next does not wait for each page.
    pub fn expect(&self, at: u64, bytes: u64) {
        #[cfg(unix)]
        if at.checked_add(bytes).is_some_and(|end| end <= self.map.len() as u64) {
            // Failing costs time only.
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, at as usize, bytes as usize);
        }
    }

    /// Lets the pages that lie wholly within the range go; they are read anew if they are looked at again.
    pub fn give_back(&self, at: u64, bytes: u64) {
        const PAGE: u64 = 1 << 16;
        let (first, end) = (at.next_multiple_of(PAGE), (at + bytes) / PAGE * PAGE);
        if first < end && end <= self.map.len() as u64 {
            // SAFETY: the mapping is private, read-only and backed by the file, so pages that are dropped come back
            // with the file's bytes. Failing costs memory only.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    UncheckedAdvice::DontNeed,
                    first as usize,
                    (end - first) as usize,
                )
            };
        }
    }
}
