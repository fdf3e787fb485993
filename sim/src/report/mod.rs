//! What people and programs get to see of a run.
//!
//! Everything starts from one [`json::Report`], computed once from the scenario and its answer, so that the summary,
//! the JSON, the CSVs and the plots cannot disagree.
//!
//! * [`json`]: the documented object that `--json` prints, and its schema.
//! * [`summary`]: the text a person reads first.
//! * [`csv`]: tables under the output directory.
//! * [`manifest`]: what produced them: seed, revision, command, machine. The only file that knows the machine.
//! * [`plots`]: figures as SVG and PNG.
//! * [`perfetto`]: a timeline for `ui.perfetto.dev`.
//! * [`stats`]: the definitions of percentiles and intervals.

pub mod csv;
pub mod json;
pub mod manifest;
pub mod perfetto;
pub mod plots;
pub mod stats;
pub mod summary;

#[cfg(test)]
pub(crate) mod sample;

use std::path::{Path, PathBuf};

use planner::fleet::Fleet;
use planner::place::{Placement, Refusal};

use crate::outcome::Answer;
use crate::scenario::Scenario;

/// A file of the report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The disk refused.
    #[error("cannot write {}: {cause}; choose another directory with --out, or make room", path.display())]
    Write {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A figure could not be drawn; the text and the tables are not affected.
    #[error("cannot draw {}: {cause}", path.display())]
    Draw {
        /// Which file.
        path: PathBuf,
        /// What the drawing library said.
        cause: String,
    },
}

/// Writes `text` to `path`, making its directory.
///
/// # Errors
/// [`ReportError::Write`] names the path and what the system said.
pub fn write_text(path: &Path, text: &str) -> Result<(), ReportError> {
    let write = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, text)
    };
    write().map_err(|cause| ReportError::Write { path: path.to_owned(), cause })
}

/// One change to the fleet that would make the recommended plan faster.
#[derive(Debug, Clone, PartialEq)]
pub struct Help {
    /// The change, in words: `a cable instead of Wi-Fi for mini`.
    pub text: String,
    /// By what share the asked objective gets better: 0.5 is half as fast again.
    pub gain: f64,
}

/// What the planner says beside its recommended plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Advice {
    /// Nodes without layers in the recommended plan, and why.
    pub left_out: Vec<(String, String)>,
    /// What would help most, best first.
    pub help: Vec<Help>,
    /// Why there is no recommended plan, if there is none.
    pub refusal: Option<String>,
    /// At most this share better could a plan be that was not found; 0 when the search was exact.
    pub gap: f64,
}

impl Advice {
    /// The advice in a planner's answer.
    pub fn new(fleet: &Fleet, placement: &Result<Placement, Refusal>, help: Vec<Help>) -> Self {
        match placement {
            Ok(placement) => Self {
                left_out: placement
                    .left_out
                    .iter()
                    .map(|left| (json::node_name(fleet, left.node), left.why.clone()))
                    .collect(),
                help,
                refusal: None,
                gap: placement.gap,
            },
            Err(refusal) => Self { help, refusal: Some(refusal.to_string()), ..Self::default() },
        }
    }
}

/// Writes CSVs and plots of one answer into `directory`. `report` is what [`json::Report::new`] made of the same
/// scenario and answer. Returns the files written, in order.
///
/// # Errors
/// The first file that could not be written.
pub fn write_all(
    directory: &Path,
    scenario: &Scenario,
    answer: &Answer,
    report: &json::Report,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut written = csv::write(directory, answer, report)?;
    written.extend(plots::write(directory, scenario, answer, report)?);
    Ok(written)
}
