//! `models`: the GGUF files of some directories ([`list`]), and fetching others from the Hugging Face Hub ([`get`]).

mod get;
mod list;

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Subcommand};

pub(super) use self::get::refusal::GetError;
pub(super) use self::list::runnable;
use super::failure::Failure;

/// Where models lie where nobody says.
const FOLDER: &str = "MESHWRIGHT_MODELS";

/// List the GGUF files that are there, or fetch one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Models {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: list::List,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the GGUF files that are there, and whether they run on this machine.
    List(list::List),
    /// Fetch a model from the Hugging Face Hub, go on where a broken download ended, and check what came.
    Get(get::Get),
}

pub(super) fn models(asked: &Models) -> Result<(), Failure> {
    match &asked.what {
        None => list::list(&asked.list),
        Some(What::List(list)) => list::list(list),
        Some(What::Get(get)) => get::get(get),
    }
}

/// The file that somebody means by a model's name: a path as it is, else the file of that name, with or without `.gguf`,
/// in the folder of models; of a split one its first part. What is nowhere stays as it was typed, for the error.
pub(super) fn named(model: &Path) -> PathBuf {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from).unwrap_or_default();
    within(model, &folder)
}

/// The folders to look for models in: those that were named, else the usual one.
pub(super) fn folders(named: &[PathBuf]) -> Vec<PathBuf> {
    if named.is_empty() {
        let usual = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty());
        vec![usual.map_or_else(|| PathBuf::from("."), PathBuf::from)]
    } else {
        named.to_vec()
    }
}

/// The GGUF files there that this engine runs; of split ones the first part.
///
/// # Errors
/// [`Failure::Read`] for a folder that cannot be read.
pub(super) fn present(folders: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for folder in folders {
        found.extend(list::files(folder)?.into_iter().filter(|file| list::look(file).runs));
    }
    Ok(found)
}

/// Reads a model's path or name from the command line.
pub(super) fn parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|model| named(&model))
}

fn within(model: &Path, folder: &Path) -> PathBuf {
    let is_bare = model.components().count() == 1;
    if !is_bare || model.exists() {
        return model.into();
    }
    let wanted = model.to_string_lossy().to_lowercase();
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_meant = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let whole = stem.split_once("-00001-of-").map_or(stem.as_str(), |(whole, _)| whole);
        [format!("{stem}.gguf"), stem.clone(), whole.to_owned()].contains(&wanted)
    };
    list::files(folder).unwrap_or_default().into_iter().find(is_meant).unwrap_or_else(|| model.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn a_model_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["One-Q4_0.gguf", "Two-00001-of-00002.gguf", "Two-00002-of-00002.gguf", "notes.txt"] {
            std::fs::write(at(name), "").unwrap();
        }
        let found = |name: &str| within(Path::new(name), folder.path());
        assert_eq!(found("One-Q4_0"), at("One-Q4_0.gguf"));
        assert_eq!(found("one-q4_0.gguf"), at("One-Q4_0.gguf"));
        assert_eq!(found("two"), at("Two-00001-of-00002.gguf"));
        // Paths are what they say, and what is nowhere stays.
        for other in ["./One-Q4_0", "a/One-Q4_0.gguf", "Three", "notes", ""] {
            assert_eq!(found(other), Path::new(other));
        }
    }
}
