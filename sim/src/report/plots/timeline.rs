//! When each token came: a row for each request, prefill as a bar, tokens as ticks, pauses and incidents marked.

use super::super::json::{IncidentFacts, Report};
use super::super::stats;
use super::axis::{Scale, bottom_axis, legend};
use super::scene::{Anchor, Paint, Scene};
use super::{BLUE, HEAD, INK, ORANGE, QUIET, VERMILLION, WHITE, WIDTH, fitted, titled};
use crate::outcome::{Outcome, RequestRecord, Status};
use crate::scenario::Scenario;

/// Rows shown; a run of more requests shows its first.
const ROWS_MAX: usize = 24;
/// Incidents explained below the chart.
const NOTES_MAX: usize = 8;
const LEFT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 30.0;
const PAUSE: Paint = VERMILLION.faded(0.25);

pub(super) fn draw(scenario: &Scenario, outcome: &Outcome, report: &Report) -> Scene {
    let shown = &outcome.requests[..outcome.requests.len().min(ROWS_MAX)];
    let end_s = end_s(outcome, shown);
    let notes = report.notable_incidents(NOTES_MAX, end_s * 1e3);
    let pause_us = pause_threshold_us(shown);
    let top = HEAD + if notes.is_empty() { 36.0 } else { 56.0 };
    let row = row_height(shown.len());
    let bottom = top + row * shown.len().max(1) as f64;
    let mut scene = Scene::new(WIDTH, bottom + 48.0 + notes.len().div_ceil(2) as f64 * 17.0);
    let paused = shown.iter().any(|r| r.tokens_us.windows(2).any(|w| w[1] - w[0] >= pause_us));
    let entries = [("prefill, until the first token", ORANGE), ("a token", BLUE), ("pause", PAUSE)];
    legend(&mut scene, LEFT, HEAD + 14.0, &entries[..if paused { 3 } else { 2 }]);
    let x = Scale::new((0.0, end_s), (LEFT, RIGHT));
    bottom_axis(&mut scene, &x, top, bottom, "simulated time, seconds");
    for (n, request) in shown.iter().enumerate() {
        let upper = top + row * n as f64;
        one_request(&mut scene, &x, (upper + 4.0, upper + row - 4.0), request, pause_us);
    }
    incidents(&mut scene, &x, (top, bottom), &notes);
    titled(scene, &scenario.question, &caption(outcome, report, shown.len()))
}

/// Few requests get high rows, many get low ones.
fn row_height(requests: usize) -> f64 {
    match requests {
        0..=3 => 40.0,
        4..=12 => 26.0,
        _ => 17.0,
    }
}

fn caption(outcome: &Outcome, report: &Report, shown: usize) -> String {
    let rows = match outcome.requests.len() {
        all if all > shown => format!("the first {shown} of {all} requests"),
        all => format!("{all} request{}", if all == 1 { "" } else { "s" }),
    };
    let engine = super::super::summary::engine_title(&report.engine);
    format!("Tokens as they reach the client, {engine}, {rows}, seed {}", outcome.seed)
}

/// The last thing shown, seconds.
fn end_s(outcome: &Outcome, shown: &[RequestRecord]) -> f64 {
    let last = shown.iter().flat_map(|r| r.tokens_us.last().copied().into_iter().chain(r.ended_us));
    let last = last.fold(0.0, f64::max);
    (if last > 0.0 { last } else { outcome.ended_us }) / 1e6
}

/// A gap between two tokens is a pause when it is at least half a second and five times the usual one.
fn pause_threshold_us(requests: &[RequestRecord]) -> f64 {
    let gaps: Vec<f64> = requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|w| w[1] - w[0])).collect();
    let usual = stats::quantile(&stats::ascending(&gaps), 0.5).unwrap_or(0.0);
    (5.0 * usual).max(500_000.0)
}

fn one_request(
    scene: &mut Scene,
    x: &Scale,
    (upper, lower): (f64, f64),
    request: &RequestRecord,
    pause_us: f64,
) {
    let middle = (upper + lower) / 2.0;
    let name = format!("request {}, {}", request.session.0, request.entry);
    scene.text((LEFT - 12.0, middle), &fitted(&name, 11.0, false, LEFT - 32.0), 11.0, Anchor::Right, INK);
    let at = |us: f64| x.at(us / 1e6);
    let asked = at(request.asked_us);
    let first = request.tokens_us.first().copied().or(request.ended_us).map_or(RIGHT, at);
    scene.rect(asked, upper + 2.0, first.max(asked + 2.0), lower - 2.0, ORANGE);
    for pair in request.tokens_us.windows(2).filter(|w| w[1] - w[0] >= pause_us) {
        scene.rect(at(pair[0]), upper, at(pair[1]), lower, PAUSE);
        let text = format!("{:.1} s", (pair[1] - pair[0]) / 1e6);
        if at(pair[1]) - at(pair[0]) > super::scene::text_width(&text, 10.0, false) + 6.0 {
            scene.text(((at(pair[0]) + at(pair[1])) / 2.0, middle), &text, 10.0, Anchor::Middle, INK);
        }
    }
    for (from, to) in ticks(&request.tokens_us, &at) {
        scene.rect(from - 0.5, upper, to + 0.5, lower, BLUE);
    }
    if let Status::Refused(_) | Status::Failed(_) = request.status {
        let end = request.ended_us.map_or(first, at);
        let word = if matches!(request.status, Status::Failed(_)) { "failed" } else { "refused" };
        scene.text((end + 6.0, middle), word, 10.5, Anchor::Left, VERMILLION);
    }
}

/// Token ticks as ranges of points: ticks nearer than two points to each other run together, so that a dense stream
/// is one bar instead of thousands.
fn ticks(tokens_us: &[f64], at: &impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let mut ranges: Vec<(f64, f64)> = Vec::new();
    for point in tokens_us.iter().map(|us| at(*us)) {
        match ranges.last_mut() {
            Some((_, end)) if point - *end < 2.0 => *end = point,
            _ => ranges.push((point, point)),
        }
    }
    ranges
}

/// Numbered lines through the chart, and what the numbers mean in two columns below it.
fn incidents(scene: &mut Scene, x: &Scale, (top, bottom): (f64, f64), notes: &[&IncidentFacts]) {
    let wanted: Vec<f64> = notes.iter().map(|i| x.at(i.at_ms / 1e3)).collect();
    let places = super::axis::spread_apart(&wanted, 16.0, LEFT, RIGHT);
    for (n, (incident, place)) in notes.iter().zip(places).enumerate() {
        let at = x.at(incident.at_ms / 1e3);
        scene.dashed((at, top - 8.0), (at, bottom), VERMILLION, 1.2);
        scene.line(&[(place, top - 13.0), (at, top - 8.0)], VERMILLION, 1.2);
        scene.marks.push(super::scene::Mark::Dot((place, top - 19.0), 7.0, VERMILLION));
        scene.text((place, top - 19.0), &(n + 1).to_string(), 9.5, Anchor::Middle, WHITE);
        let (column, line) = ((n % 2) as f64, (n / 2) as f64);
        let width = (RIGHT - 40.0) / 2.0;
        let pause =
            incident.pause_ms.map_or_else(String::new, |ms| format!(", tokens paused for {:.2} s", ms / 1e3));
        let text = format!("{}  {:.2} s: {}{pause}", n + 1, incident.at_ms / 1e3, incident.what);
        let at = (40.0 + column * width, bottom + 52.0 + line * 17.0);
        scene.text(at, &fitted(&text, 11.0, false, width - 16.0), 11.0, Anchor::Left, QUIET);
    }
}
