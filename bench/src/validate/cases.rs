//! Reading a folder of cases.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sim::scenario::{Published, Scenario, load};

use super::ValidateError;

/// A case that could be read.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Its file.
    pub(super) path: PathBuf,
    /// What to run.
    pub(super) scenario: Scenario,
    /// What was measured.
    pub(super) published: Published,
}

/// A file that could not be read or run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why, with place and cure where the reader knows them.
    pub why: String,
}

/// Every `*.toml` directly in `folder`, by name. Folders below are for what cases include.
pub(super) fn read(folder: &Path) -> Result<(Vec<Case>, Vec<Unreadable>), ValidateError> {
    let failed = |cause| ValidateError::Folder { path: folder.to_owned(), cause };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "toml") && path.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(ValidateError::Empty { path: folder.to_owned() });
    }
    paths.sort();
    let (mut cases, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        match read_case(&path) {
            Ok(case) => cases.push(case),
            Err(why) => unreadable.push(Unreadable { path, why }),
        }
    }
    cases.sort_by(|a, b| (&a.published.id, &a.path).cmp(&(&b.published.id, &b.path)));
    Ok((cases, unreadable))
}

fn read_case(path: &Path) -> Result<Case, String> {
    let scenario = load(path, &[], None).map_err(|error| error.to_string())?;
    let Some(published) = scenario.published.clone() else {
        return Err("it has no [published] table; add one with decode, grade, family and source".into());
    };
    Ok(Case { path: path.to_owned(), scenario, published })
}
