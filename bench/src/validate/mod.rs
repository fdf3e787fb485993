//! Predicted against published.
//!
//! A case is a scenario file with a `[published]` table. Each is run without random compute errors, and the rate at which
//! its tokens came is compared with what was published. Beside every accuracy figure stands the number of constants that
//! were fitted, and on which rows.
//!
//! * `cases`: reading a folder of them.
//! * `prediction`: running one.
//! * `accuracy`: errors by grade and family.
//! * `constants`: what was fitted.
//! * `page`: the table a person reads.
//! * `files`: CSV, figures, manifest.

mod accuracy;
mod cases;
mod constants;
mod figures;
mod files;
mod page;
mod prediction;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

pub use accuracy::{Accuracy, Group};
pub use cases::Unreadable;
pub use constants::FittedConstant;
pub use files::write;
pub use page::text;
pub use prediction::{Note, Prediction};

/// Families whose rows are shown but enter no figure over several families.
///
/// Eight Raspberry Pi 4 behind one home switch: what the authors report as transfer grows eight- to twelvefold from four
/// nodes to eight for twice the bytes, which is the switch's buffer overflowing, not a cost per byte or hop.
pub const APART: [&str; 1] = ["dllama-pi4-8"];

/// Published slower than predicted by this factor: not slow hardware but paging, swapping or a broken build. Such rows
/// are flagged and enter no error figure.
pub const ANOMALY_FACTOR: f64 = 3.0;

/// Why nothing was validated.
#[derive(Debug, Error)]
pub enum ValidateError {
    /// The folder cannot be read.
    #[error("cannot read the folder {}: {cause}; give one with --cases", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It has no case in it.
    #[error("no case in {}: a case is a .toml scenario with a [published] table", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

/// Everything there is to say about a folder of cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// How many constants were fitted on published rates: on rows of these and elsewhere.
    pub constants_fitted: usize,
    /// How many of those on rates published elsewhere.
    pub constants_fitted_elsewhere: usize,
    /// Which.
    pub constants: Vec<FittedConstant>,
    /// Errors over all families but those apart, by grade, flagged rows left out.
    pub by_grade: Vec<Group>,
    /// The same without the rows that a constant was fitted on.
    pub by_grade_held_out: Vec<Group>,
    /// Errors by family and grade.
    pub by_family: Vec<Group>,
    /// Every case that could be run, by id.
    pub predictions: Vec<Prediction>,
    /// Files that could not.
    pub unreadable: Vec<Unreadable>,
}

/// Runs every case in `folder`.
///
/// # Errors
/// [`ValidateError`] when the folder cannot be read or is empty. A bad case is no error here: it is listed in
/// [`Validation::unreadable`], and the others run.
pub fn run(folder: &Path) -> Result<Validation, ValidateError> {
    let (cases, mut unreadable) = cases::read(folder)?;
    let mut predictions = Vec::with_capacity(cases.len());
    for case in &cases {
        match prediction::predict(case) {
            Ok(prediction) => predictions.push(prediction),
            Err(why) => unreadable.push(Unreadable { path: case.path.clone(), why }),
        }
    }
    Ok(assemble(predictions, unreadable))
}

fn assemble(predictions: Vec<Prediction>, unreadable: Vec<Unreadable>) -> Validation {
    let constants = constants::fitted(&predictions);
    Validation {
        constants_fitted: constants.len(),
        constants_fitted_elsewhere: constants.iter().filter(|c| c.elsewhere).count(),
        by_grade: accuracy::by_grade(&predictions, |_| true),
        by_grade_held_out: accuracy::by_grade(&predictions, |p| !p.calibrated_on),
        by_family: accuracy::by_family(&predictions),
        constants,
        predictions,
        unreadable,
    }
}

/// The whole as one JSON object.
pub fn json(validation: &Validation) -> String {
    serde_json::to_string_pretty(validation).expect("string keys and finite numbers always serialise")
}

#[cfg(test)]
mod tests;
