//! A small disk of its own: a file system in memory, for who may mount one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system; dropping it unmounts it.
pub(crate) struct Disk {
    at: TempDir,
}

impl Disk {
    /// One of so many bytes; `None`, said on stderr, where this user may not mount any.
    pub(crate) fn of(bytes: u64, test: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let size = format!("size={bytes},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "meshwright-test"])
            .arg(at.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at }),
            Ok(output) => {
                eprintln!(
                    "SKIPPED: {test}: needs root to mount a small disk ({})",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(why) => {
                eprintln!("SKIPPED: {test}: no `mount` here ({why})");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }

    /// Writes a file until nothing more fits.
    pub(crate) fn fill(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(self.at.path()).status();
    }
}
