//! Small files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Files begun in this process: each has a name of its own until it is whole.
static BEGUN: AtomicU32 = AtomicU32::new(0);

/// Writes `bytes` to `path`. Whoever reads finds the old file or the new one, never half of one; on a full disk the old one
/// stays. A private file can be read by its owner alone.
///
/// # Errors
/// The system's; nothing is left behind then.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], is_private: bool) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new{}-{}", std::process::id(), BEGUN.fetch_add(1, Ordering::Relaxed)));
    let beside = path.with_file_name(name);
    let written = create(&beside, is_private).and_then(|mut file| {
        file.write_all(bytes)?;
        // Some systems say only now that the disk is full.
        file.sync_all()
    });
    let named = written.and_then(|()| fs::rename(&beside, path));
    if named.is_err() {
        let _ = fs::remove_file(&beside);
    }
    named
}

fn create(path: &Path, is_private: bool) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = is_private;
    options.open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        write_whole(&path, b"one", false).unwrap();
        write_whole(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // A folder cannot be replaced by a file.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("full")).unwrap();
        write_whole(&taken, b"three", false).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something was left behind");
    }
}
