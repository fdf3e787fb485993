//! Tables of measurements as CSV: written whole, read back, and brought up to date row by row.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Rows as CSV.
pub(crate) fn csv<R: Serialize>(rows: &[R]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).expect("a row goes to memory");
    }
    let bytes = writer.into_inner().expect("memory takes what is flushed to it");
    String::from_utf8(bytes).expect("all fields are text")
}

/// The rows in the table at `path` with `measured` in the places of those they are `the same` as, and new ones after them.
///
/// # Errors
/// What is wrong with the file there.
pub(crate) fn merged<R: Clone + DeserializeOwned>(
    path: &Path,
    measured: &[R],
    the_same: impl Fn(&R, &R) -> bool,
) -> Result<Vec<R>, csv::Error> {
    let mut all = if path.exists() { earlier(path)? } else { Vec::new() };
    for row in measured {
        match all.iter_mut().find(|known| the_same(known, row)) {
            Some(known) => *known = row.clone(),
            None => all.push(row.clone()),
        }
    }
    Ok(all)
}

fn earlier<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>, csv::Error> {
    csv::Reader::from_path(path)?.deserialize().collect()
}
