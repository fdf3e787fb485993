//! Where a token's time goes: one stacked bar for each run.

use super::super::json::{EngineFigures, Report};
use super::axis::{Scale, bottom_axis, legend, tick_text};
use super::scene::{Anchor, Paint, Scene, text_width};
use super::{BLUE, GREEN, INK, ORANGE, PURPLE, QUIET, SKY, WHITE, WIDTH, fitted, heading, runs};

const ROW: f64 = 42.0;
const LEFT: f64 = 230.0;
const TOP: f64 = 96.0;

/// Colours of the parts, in their order.
const PAINTS: [Paint; 5] = [BLUE, ORANGE, SKY, PURPLE, GREEN];

pub(super) fn draw(report: &Report) -> Scene {
    let runs = runs(report);
    let bottom = TOP + ROW * runs.len() as f64;
    let mut scene = Scene::new(WIDTH, bottom + 48.0);
    heading(
        &mut scene,
        &report.question,
        "Where the milliseconds of an output token go, on average and recoveries aside; shorter is better",
    );
    let parts: Vec<(&str, Paint)> = report.breakdown_ms.parts().iter().map(|(n, _)| *n).zip(PAINTS).collect();
    legend(&mut scene, LEFT, 74.0, &parts);
    let longest = longest_shown(&runs);
    let x = Scale::new((0.0, longest), (LEFT, WIDTH - 170.0));
    bottom_axis(&mut scene, &x, TOP, bottom, "milliseconds per output token");
    for (n, (name, figures)) in runs.iter().enumerate() {
        row(&mut scene, &x, TOP + ROW * n as f64, name, figures);
    }
    scene
}

/// The axis ends at the longest bar, unless that would squeeze the others into a corner: a bar more than six times
/// the next is cut.
fn longest_shown(runs: &[(String, EngineFigures)]) -> f64 {
    let mut totals: Vec<f64> = runs.iter().map(|(_, f)| f.breakdown_ms.total()).collect();
    totals.sort_by(|a, b| b.total_cmp(a));
    let mut longest = totals.first().copied().unwrap_or(0.0);
    for next in totals.iter().skip(1) {
        if *next > 0.0 && longest > 6.0 * next {
            longest = next * 1.3;
        } else {
            break;
        }
    }
    longest
}

fn row(scene: &mut Scene, x: &Scale, top: f64, name: &str, figures: &EngineFigures) {
    let (upper, lower) = (top + 9.0, top + ROW - 9.0);
    let middle = (upper + lower) / 2.0;
    scene.text((LEFT - 12.0, middle), &fitted(name, 12.0, false, LEFT - 32.0), 12.0, Anchor::Right, INK);
    let mut start: f64 = 0.0;
    for ((_, ms), paint) in figures.breakdown_ms.parts().into_iter().zip(PAINTS) {
        let (from, to) = (x.at(start.min(x.high)), x.at((start + ms).min(x.high)));
        if to - from > 0.05 {
            scene.rect(from, upper, to, lower, paint);
        }
        part_label(scene, from, to, middle, ms, paint);
        start += ms;
    }
    let cut = start > x.high * 1.000_001;
    if cut {
        break_mark(scene, x.at_high, upper, lower);
    }
    let end = x.at(start.min(x.high)) + if cut { 14.0 } else { 8.0 };
    let text = format!("{} ms", figures_text(start));
    let rate = format!("{} tok/s", figures_text(figures.decode_tok_s));
    let width = text_width(&text, 11.5, true).max(text_width(&rate, 11.0, false));
    scene.rect(end - 2.0, upper - 2.0, end + width + 2.0, lower + 2.0, WHITE);
    scene.title((end, middle - 7.5), &text, 11.5, INK);
    scene.text((end, middle + 7.5), &rate, 11.0, Anchor::Left, QUIET);
}

/// The value inside a part that is wide enough for it, in white or black, whichever is legible.
fn part_label(scene: &mut Scene, from: f64, to: f64, middle: f64, ms: f64, paint: Paint) {
    let text = figures_text(ms);
    if to - from >= text_width(&text, 10.5, false) + 10.0 {
        let (r, g, b) = paint.rgb;
        let bright = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b) > 140.0;
        let ink = if bright { INK } else { WHITE };
        scene.text(((from + to) / 2.0, middle), &text, 10.5, Anchor::Middle, ink);
    }
}

/// Two white strokes through the end of a bar that goes on.
fn break_mark(scene: &mut Scene, end: f64, upper: f64, lower: f64) {
    for shift in [14.0, 7.0] {
        let x = end - shift;
        scene.line(&[(x + 4.0, upper - 2.0), (x - 4.0, lower + 2.0)], WHITE, 2.5);
    }
}

/// Three figures.
fn figures_text(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    if value >= 999.5 { tick_text(value.round()) } else { format!("{value:.digits$}") }
}
