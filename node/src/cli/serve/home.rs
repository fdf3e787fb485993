//! Where a node keeps what it remembers.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::cli::failure::Failure;

/// The home directory, made if it is not there, for this user alone.
///
/// # Errors
/// [`Failure::Usage`] where there is none, or it cannot be written to.
pub(in crate::cli) fn home(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = home_path(asked);
    let path =
        path.ok_or_else(|| Failure::Usage("this user has no home directory: give --home DIR".into()))?;
    let refused = |why: std::io::Error| {
        let path = path.display();
        Failure::Usage(format!("cannot write to {path}: {why}; give another directory by --home DIR"))
    };
    make(&path).map_err(refused)?;
    let probe = path.join(".writable");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(refused)?;
    Ok(path)
}

/// Where it is, there or not.
pub(in crate::cli) fn home_path(asked: Option<&Path>) -> Option<PathBuf> {
    let usual = || Some(etcetera::choose_base_strategy().ok()?.config_dir().join("meshwright"));
    asked.map(Path::to_owned).or_else(usual)
}

fn make(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}
