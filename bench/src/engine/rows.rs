//! What was measured.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cases::Case;
use super::ours::Ours;
use super::{EngineError, Times};
use crate::table;

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Test {
    /// Its name in tables.
    pub(super) name: &'static str,
    /// Tokens computed in it.
    pub(super) tokens: u32,
    /// One token at a time, after what the test before has read.
    pub(super) is_decode: bool,
}

impl Test {
    /// All tests, in the order in which they are run.
    pub(super) fn all(decode: u32) -> [Self; 3] {
        [
            Self { name: "prefill-128", tokens: 128, is_decode: false },
            Self { name: "decode", tokens: decode, is_decode: true },
            Self { name: "prefill-512", tokens: 512, is_decode: false },
        ]
    }
}

/// The middle one; of an even number the later.
pub(super) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) model: String,
    pub(super) test: String,
    pub(super) threads: usize,
    /// Instructions of our kernels.
    pub(super) level: String,
    pub(super) ours_tok_s: f64,
    pub(super) llama_cpp_tok_s: Option<f64>,
    /// Ours over llama.cpp's.
    pub(super) ratio: Option<f64>,
    /// Weights read for a token, MB.
    mb_a_token: f64,
    /// How fast the memory gives that many bytes, GB/s.
    read_gb_s: f64,
    /// Of decoding: which part of that was reached.
    pub(super) roofline_share: Option<f64>,
}

impl Row {
    pub(super) fn new(case: &Case, ours: &Ours, test: &Test, times: Times, roofline: f64) -> Self {
        let rate = |times: &[Duration]| f64::from(test.tokens) / median(times).as_secs_f64();
        let ours_tok_s = rate(&times.ours);
        let llama_cpp_tok_s = (!times.theirs.is_empty()).then(|| rate(&times.theirs));
        let bytes = ours.bytes_a_token() as f64;
        Self {
            model: case.name.clone(),
            test: test.name.into(),
            threads: ours.threads(),
            level: format!("{:?}", ours.level()).to_lowercase(),
            ours_tok_s,
            llama_cpp_tok_s,
            ratio: llama_cpp_tok_s.map(|theirs| ours_tok_s / theirs),
            mb_a_token: bytes / 1e6,
            read_gb_s: roofline / 1e9,
            roofline_share: test.is_decode.then_some(ours_tok_s * bytes / roofline),
        }
    }

    /// Whether a new measurement takes the place of an earlier one.
    fn is_of(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.model.clone(), row.test.clone(), row.threads, row.level.clone());
        key(self) == key(other)
    }
}

/// The rows in the table at `path` with `measured` in their places, and new ones after them.
pub(super) fn merged(path: &Path, measured: &[Row]) -> Result<Vec<Row>, EngineError> {
    let failed = |cause| EngineError::Earlier { path: path.into(), cause };
    table::merged(path, measured, Row::is_of).map_err(failed)
}

/// The table for people.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "model                test         threads  level     ours tok/s  llama.cpp  ratio  of roofline\n",
    );
    for row in rows {
        let shown = |value: Option<f64>, digits| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let share = row.roofline_share.map_or(String::new(), |share| format!("{:.0} %", share * 100.0));
        writeln!(
            text,
            "{:<20} {:<12} {:>7}  {:<8} {:>11.1} {:>10} {:>6} {:>12}",
            row.model,
            row.test,
            row.threads,
            row.level,
            row.ours_tok_s,
            shown(row.llama_cpp_tok_s, 1),
            shown(row.ratio, 2),
            share
        )
        .expect("memory takes text");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a table that cannot be read back is the failed test")]

    use super::*;
    use crate::table::csv;

    fn row(model: &str, ours_tok_s: f64) -> Row {
        Row {
            model: model.into(),
            test: "decode".into(),
            threads: 2,
            level: "avx2".into(),
            ours_tok_s,
            llama_cpp_tok_s: None,
            ratio: None,
            mb_a_token: 96.4,
            read_gb_s: 30.5,
            roofline_share: Some(0.5),
        }
    }

    #[test]
    fn a_new_measurement_takes_the_place_of_the_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.csv");
        std::fs::write(&path, csv(&[row("a", 1.0), row("b", 2.0)])).unwrap();
        let all = merged(&path, &[row("b", 3.0), row("c", 4.0)]).unwrap();
        assert_eq!(all, [row("a", 1.0), row("b", 3.0), row("c", 4.0)]);
    }

    #[test]
    fn a_table_of_something_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.csv");
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let said = merged(&path, &[]).unwrap_err().to_string();
        assert!(said.contains("engine.csv") && said.contains("move it away"), "{said}");
    }
}
