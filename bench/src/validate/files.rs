//! What a validation leaves under `results/`.

use std::path::{Path, PathBuf};

use sim::report::manifest::Manifest;
use sim::report::{ReportError, write_text};

use super::{Prediction, Validation, figures, page};

/// Writes `predictions.csv`, the page as `summary.txt`, the figures and `manifest.json` into `out` and returns their paths.
///
/// # Errors
/// [`ReportError`] names the file that could not be written.
pub fn write(validation: &Validation, cases: &Path, out: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let table = out.join("predictions.csv");
    write_text(&table, &csv(&validation.predictions))?;
    let summary = out.join("summary.txt");
    write_text(&summary, &page::text(validation))?;
    let mut written = vec![table, summary];
    written.extend(figures::scatter(validation).save(out, "scatter")?);
    written.extend(figures::errors_by_family(validation).save(out, "errors-by-family")?);
    written.push(Manifest::of_files("validation", &case_files(cases)).write(out)?);
    Ok(written)
}

fn csv(predictions: &[Prediction]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "id",
        "grade",
        "family",
        "engine",
        "model",
        "cut",
        "published_low_tok_s",
        "published_high_tok_s",
        "predicted_tok_s",
        "error_percent",
        "compute_ms",
        "latency_ms",
        "bandwidth_ms",
        "queueing_ms",
        "software_ms",
        "pages",
        "calibrated_on",
        "note",
        "assumed",
        "source",
    ];
    let mut records = vec![header.map(str::to_owned).to_vec()];
    records.extend(predictions.iter().map(record));
    for record in records {
        writer.write_record(&record).expect("a record goes to memory");
    }
    let bytes = writer.into_inner().expect("memory takes what is flushed to it");
    String::from_utf8(bytes).expect("all fields are text")
}

fn record(p: &Prediction) -> Vec<String> {
    let note = p.note.map_or_else(String::new, |n| format!("{n:?}").to_lowercase());
    let b = &p.breakdown_ms;
    let parts = [b.compute_ms, b.latency_ms, b.bandwidth_ms, b.queueing_ms, b.software_ms];
    let mut fields = vec![
        p.id.clone(),
        p.grade.to_string(),
        p.family.clone(),
        p.engine.clone(),
        p.model.clone(),
        p.cut.clone(),
        p.published_tok_s.0.to_string(),
        p.published_tok_s.1.to_string(),
        p.predicted_tok_s.to_string(),
        p.error_percent.to_string(),
    ];
    fields.extend(parts.map(|ms| format!("{ms:.3}")));
    fields.extend([
        p.pages.to_string(),
        p.calibrated_on.to_string(),
        note,
        p.assumed.clone(),
        p.source.clone(),
    ]);
    fields
}

/// The folder's files, by name, with what they include from the folders below.
fn case_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(case_files(&path));
        } else if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    files
}
