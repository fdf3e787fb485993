//! Figures of a run, each as SVG and PNG, in colours that people with any colour vision tell apart.

mod axis;
mod breakdown;
mod curves;
mod overview;
pub mod scene;
mod seeds;
mod timeline;

use std::path::{Path, PathBuf};

use super::ReportError;
use super::json::{EngineFigures, RECOMMENDED, Report};
use super::summary::{engine_title, plan_words};
use crate::outcome::Answer;
use crate::scenario::Scenario;
use scene::{Paint, Scene};

pub use curves::Metric;

/// Width of every figure, points: about that of a README.
const WIDTH: f64 = 860.0;

// Okabe and Ito, "Color Universal Design" (2008).
const ORANGE: Paint = Paint::solid(0xE6, 0x9F, 0x00);
const SKY: Paint = Paint::solid(0x56, 0xB4, 0xE9);
const GREEN: Paint = Paint::solid(0x00, 0x9E, 0x73);
const BLUE: Paint = Paint::solid(0x00, 0x72, 0xB2);
const VERMILLION: Paint = Paint::solid(0xD5, 0x5E, 0x00);
const PURPLE: Paint = Paint::solid(0xCC, 0x79, 0xA7);
const WHITE: Paint = Paint::solid(0xFF, 0xFF, 0xFF);
const INK: Paint = Paint::solid(0x22, 0x22, 0x22);
const QUIET: Paint = Paint::solid(0x66, 0x66, 0x66);
const GRID: Paint = Paint::solid(0xE4, 0xE4, 0xE4);

/// The colour of an engine, the same in every figure.
fn engine_paint(engine: &str) -> Paint {
    match engine {
        "ring" => BLUE,
        "llama-rpc" => VERMILLION,
        "llama-rpc-558" => ORANGE,
        "llama-rpc-8" => PURPLE,
        "hop-by-hop" => GREEN,
        "client-relay" => SKY,
        _ => INK,
    }
}

/// `chart` with a title in bold and a line below it on top. The chart leaves [`HEAD`] points for them; a title of two
/// lines moves it down.
fn titled(mut chart: Scene, title: &str, below: &str) -> Scene {
    let lines = title_lines(title, WIDTH - 40.0);
    chart.move_down(LINE * (lines.len() - 1) as f64);
    let mut at = 24.0;
    for line in &lines {
        chart.title((20.0, at), line, TITLE, INK);
        at += LINE;
    }
    let below = fitted(below, 11.5, false, WIDTH - 40.0);
    chart.text((20.0, at + 1.0), &below, 11.5, scene::Anchor::Left, QUIET);
    chart
}

/// Points above a chart that hold title and caption.
const HEAD: f64 = 56.0;
const TITLE: f64 = 15.0;
const LINE: f64 = 20.0;

/// `title` in at most two lines of `width` points; what does not fit is cut with an ellipsis.
fn title_lines(title: &str, width: f64) -> Vec<String> {
    let fits = |line: &str| scene::text_width(line, TITLE, true) <= width;
    let words: Vec<&str> = title.split_whitespace().collect();
    let first = (1..=words.len()).rev().find(|n| fits(&words[..*n].join(" "))).unwrap_or(1).min(words.len());
    let (start, rest) = (words[..first].join(" "), words[first..].join(" "));
    let mut lines = vec![fitted(&start, TITLE, true, width)];
    if !rest.is_empty() {
        lines.push(fitted(&rest, TITLE, true, width));
    }
    lines
}

/// `text`, cut with an ellipsis to at most `width` points.
fn fitted(text: &str, size: f64, bold: bool, width: f64) -> String {
    if scene::text_width(text, size, bold) <= width {
        return text.to_owned();
    }
    let mut cut: String = text.to_owned();
    while !cut.is_empty() && scene::text_width(&format!("{cut}…"), size, bold) > width {
        cut.pop();
    }
    format!("{}…", cut.trim_end())
}

/// One run of a report as figures name it.
struct Run {
    /// Who ran it.
    name: String,
    /// Along which plan; empty where that is the main run's.
    note: String,
    figures: EngineFigures,
}

/// The runs of a report: this run, the recommended plan where it was run apart, the baselines from fast to slow.
fn runs(report: &Report) -> Vec<Run> {
    let mut runs: Vec<Run> =
        report.runs().into_iter().map(|(name, figures)| one_run(report, &name, figures)).collect();
    runs[0].note = plan_words(&report.plan);
    let first_baseline = 1 + usize::from(runs.get(1).is_some_and(|run| !run.note.is_empty()));
    runs[first_baseline..].sort_by(|a, b| b.figures.decode_tok_s.total_cmp(&a.figures.decode_tok_s));
    runs
}

fn one_run(report: &Report, name: &str, figures: EngineFigures) -> Run {
    match &report.recommended {
        Some(recommended) if name == RECOMMENDED => {
            Run { name: "recommended plan".to_owned(), note: plan_words(&recommended.plan), figures }
        }
        _ => Run { name: engine_title(name).to_owned(), note: String::new(), figures },
    }
}

/// Draws `timeline`, `breakdown`, and, where the report has them, `seeds` and the sweep's curves into `directory`.
/// Returns the paths written.
///
/// # Errors
/// A [`ReportError`] names the first file that could not be drawn or written.
pub fn write(
    directory: &Path,
    scenario: &Scenario,
    answer: &Answer,
    report: &Report,
) -> Result<Vec<PathBuf>, ReportError> {
    let mut figures = vec![
        ("timeline".to_owned(), timeline::draw(scenario, &answer.main, report)),
        ("breakdown".to_owned(), breakdown::draw(report)),
    ];
    if let Some(seeds) = &report.seeds {
        figures.push(("seeds".to_owned(), seeds::draw(report, seeds)));
    }
    if let Some(sweep) = &report.sweep {
        figures.extend(Metric::ALL.map(|metric| {
            (metric.stem().to_owned(), curves::draw(&report.question, &sweep.key, sweep, metric))
        }));
    }
    let mut written = Vec::new();
    for (stem, scene) in figures {
        written.extend(scene.save(directory, &stem)?);
    }
    Ok(written)
}

/// The curves of a sweep as a figure titled `question`, with `x_name` for what is swept.
pub fn sweep(question: &str, x_name: &str, sweep: &super::json::SweepFacts, metric: Metric) -> Scene {
    curves::draw(question, x_name, sweep, metric)
}

/// Several scenarios in one figure: each one's plan, its recommended plan where that was run apart, its fastest
/// baseline.
pub fn overview(title: &str, reports: &[Report]) -> Scene {
    overview::draw(title, reports)
}

#[cfg(test)]
mod tests;
