//! The table a person reads.

use std::fmt::Write;

use super::prediction::{Note, Prediction};
use super::{ANOMALY_FACTOR, Group, Validation};

/// Rows, errors by grade and family, constants.
pub fn text(validation: &Validation) -> String {
    let mut page = String::new();
    rows(&mut page, &validation.predictions);
    let (all, elsewhere) = (validation.constants_fitted, validation.constants_fitted_elsewhere);
    let constants =
        format!("{all} constants fitted: {} on rows of these, {elsewhere} elsewhere", all - elsewhere);
    let _ = writeln!(page, "\nErrors of decode tokens per second ({constants})\n");
    header(&mut page);
    for group in &validation.by_grade {
        line(&mut page, "all but those apart", group);
    }
    for group in &validation.by_grade_held_out {
        line(&mut page, "… no constant fitted on", group);
    }
    for group in &validation.by_family {
        line(&mut page, group.family.as_deref().unwrap_or_default(), group);
    }
    flagged(&mut page, &validation.predictions);
    fitted(&mut page, validation);
    page
}

/// Each constant with what it was fitted on: rows of these first.
fn fitted(page: &mut String, validation: &Validation) {
    for (elsewhere, title) in [(false, "on published rows"), (true, "on rates published elsewhere")] {
        let of_kind: Vec<_> = validation.constants.iter().filter(|c| c.elsewhere == elsewhere).collect();
        let width = of_kind.iter().map(|c| c.row.chars().count()).max().unwrap_or(0);
        let _ = writeln!(page, "\n{} constants fitted {title}", of_kind.len());
        for constant in of_kind {
            let _ = writeln!(page, "  {:<width$}  {} = {}", constant.row, constant.name, constant.value);
        }
    }
}

fn rows(page: &mut String, predictions: &[Prediction]) {
    let _ = writeln!(
        page,
        "{:<10} {:<2} {:<14} {:<15} {:<28} {:>11} {:>10} {:>8}",
        "row", "", "family", "engine", "model", "published", "predicted", "error"
    );
    for p in predictions {
        let mark = match p.note {
            Some(Note::Anomaly) => "  anomaly",
            Some(Note::Apart) => "  apart",
            None if p.calibrated_on => "  fitted on",
            None => "",
        };
        let _ = writeln!(
            page,
            "{:<10} {:<2} {:<14} {:<15} {:<28} {:>11} {:>10} {:>+7.1}%{mark}",
            p.id,
            p.grade,
            p.family,
            p.engine,
            cut_to(&p.model, 28),
            range(p.published_tok_s),
            rate(p.predicted_tok_s),
            p.error_percent
        );
    }
}

fn header(page: &mut String) {
    let _ = writeln!(
        page,
        "{:<24} {:<5} {:>5} {:>8} {:>8} {:>8} {:>8}",
        "family", "grade", "rows", "median", "P90", "bias", "flagged"
    );
}

fn line(page: &mut String, name: &str, group: &Group) {
    let a = &group.accuracy;
    let _ = writeln!(
        page,
        "{name:<24} {:<5} {:>5} {:>7.1}% {:>7.1}% {:>+7.1}% {:>8}",
        group.grade, a.rows, a.median_percent, a.p90_percent, a.bias_percent, group.flagged
    );
}

fn flagged(page: &mut String, predictions: &[Prediction]) {
    let anomalies: Vec<&Prediction> = predictions.iter().filter(|p| p.note == Some(Note::Anomaly)).collect();
    if anomalies.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "\nFlagged: published more than {ANOMALY_FACTOR} times slower than the model allows (paging, swap, a broken build)"
    );
    for p in anomalies {
        let times = p.predicted_tok_s / p.published_tok_s.1;
        let _ = writeln!(page, "  {:<10} {:<28} {times:.1} times slower", p.id, cut_to(&p.model, 28));
    }
}

fn range((low, high): (f64, f64)) -> String {
    if low == high { rate(low) } else { format!("{}-{}", rate(low), rate(high)) }
}

fn rate(tok_s: f64) -> String {
    let digits = if tok_s >= 100.0 {
        0
    } else if tok_s >= 1.0 {
        1
    } else {
        3
    };
    format!("{tok_s:.digits$}")
}

fn cut_to(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
