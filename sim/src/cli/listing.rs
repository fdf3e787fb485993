//! `schema` and `scenarios`.

use std::path::PathBuf;

use super::arguments::{Scenarios, Schema};
use super::failure::Failure;

/// Prints the schema of scenario files, or of what `--json` prints.
pub(crate) fn schema(asked: &Schema) -> Result<(), Failure> {
    if asked.output {
        return super::print(&sim::report::json::schema());
    }
    let text = serde_json::to_string_pretty(&sim::scenario::schema())
        .expect("a schema made of strings and numbers always serialises");
    super::print(&(text + "\n"))
}

/// Lists the scenarios of a folder with their questions.
pub(crate) fn scenarios(asked: &Scenarios) -> Result<(), Failure> {
    let unreadable = |cause: std::io::Error| {
        Failure::Usage(format!(
            "{} cannot be read: {cause}; name the folder of the scenarios",
            asked.folder.display()
        ))
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(&asked.folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let scenario = sim::scenario::load(&path, &[], None)?;
        super::print(&format!("{}\n    {}\n", path.display(), scenario.question))?;
    }
    Ok(())
}
