//! Errors over groups of rows.

use std::collections::BTreeMap;

use serde::Serialize;
use sim::report::stats::{ascending, mean, quantile};

use super::prediction::{Note, Prediction};

/// How far off the predictions of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Rows in it.
    pub rows: usize,
    /// Half of the absolute errors are below this, per cent.
    pub median_percent: f64,
    /// Nine in ten are below this, per cent.
    pub p90_percent: f64,
    /// Mean signed error: above zero, predictions are too fast, per cent.
    pub bias_percent: f64,
}

/// A group of rows and its accuracy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Family, where it is of one.
    pub family: Option<String>,
    /// Grade.
    pub grade: char,
    /// How far off.
    pub accuracy: Accuracy,
    /// Rows of it that are flagged and not counted.
    pub flagged: usize,
}

/// Over all families but those apart, rows that `counts`, by grade.
pub(super) fn by_grade(predictions: &[Prediction], counts: impl Fn(&Prediction) -> bool) -> Vec<Group> {
    let rows = predictions.iter().filter(|p| counts(p) && p.note != Some(Note::Apart));
    groups(rows, |p| (None, p.grade))
}

/// By family and grade; families apart stand for themselves.
pub(super) fn by_family(predictions: &[Prediction]) -> Vec<Group> {
    groups(predictions.iter(), |p| (Some(p.family.clone()), p.grade))
}

fn groups<'a>(
    rows: impl Iterator<Item = &'a Prediction>,
    key: impl Fn(&Prediction) -> (Option<String>, char),
) -> Vec<Group> {
    let mut members: BTreeMap<(Option<String>, char), Vec<&Prediction>> = BTreeMap::new();
    for row in rows {
        members.entry(key(row)).or_default().push(row);
    }
    members.into_iter().map(|((family, grade), rows)| group(family, grade, &rows)).collect()
}

fn group(family: Option<String>, grade: char, rows: &[&Prediction]) -> Group {
    let counted: Vec<f64> =
        rows.iter().filter(|p| p.note != Some(Note::Anomaly)).map(|p| p.error_percent).collect();
    let absolute = ascending(&counted.iter().map(|e| e.abs()).collect::<Vec<_>>());
    let accuracy = Accuracy {
        rows: counted.len(),
        median_percent: quantile(&absolute, 0.5).unwrap_or_default(),
        p90_percent: quantile(&absolute, 0.9).unwrap_or_default(),
        bias_percent: mean(&counted).unwrap_or_default(),
    };
    Group { family, grade, accuracy, flagged: rows.len() - counted.len() }
}
