//! Where a token's time goes: one stacked bar for each run.

use super::super::json::Report;
use super::axis::{Scale, bottom_axis, legend, tick_text};
use super::scene::{Anchor, Paint, Scene, text_width};
use super::{BLUE, GREEN, HEAD, INK, ORANGE, PURPLE, QUIET, Run, SKY, WHITE, WIDTH, fitted, runs, titled};

const ROW: f64 = 42.0;
const LEFT: f64 = 230.0;
const TOP: f64 = HEAD + 40.0;

/// Colours of the parts, in their order.
const PAINTS: [Paint; 5] = [BLUE, ORANGE, SKY, PURPLE, GREEN];

pub(super) fn draw(report: &Report) -> Scene {
    let runs = runs(report);
    let bottom = TOP + ROW * runs.len() as f64;
    let mut scene = Scene::new(WIDTH, bottom + 48.0);
    let parts: Vec<(&str, Paint)> = report.breakdown_ms.parts().iter().map(|(n, _)| *n).zip(PAINTS).collect();
    legend(&mut scene, LEFT, HEAD + 18.0, &parts);
    let x = Scale::new((0.0, longest_shown(&runs)), (LEFT, WIDTH - 170.0));
    bottom_axis(&mut scene, &x, TOP, bottom, "milliseconds per output token");
    for (n, run) in runs.iter().enumerate() {
        row(&mut scene, &x, TOP + ROW * n as f64, run);
    }
    let below =
        "Where the milliseconds of an output token go, on average and recoveries aside; shorter is better";
    titled(scene, &report.question, below)
}

/// The axis ends at the longest bar, unless that would squeeze this run and those like it into a corner: from this
/// run's bar upwards, the first that is more than four times as long as the one before, and all longer ones, are cut.
fn longest_shown(runs: &[Run]) -> f64 {
    let mut totals: Vec<f64> = runs.iter().map(|run| run.figures.breakdown_ms.total()).collect();
    let mut longest = totals.first().copied().unwrap_or(0.0);
    totals.sort_by(f64::total_cmp);
    for next in totals {
        if longest > 0.0 && next > 4.0 * longest {
            return longest * 1.3;
        }
        longest = longest.max(next);
    }
    longest
}

fn row(scene: &mut Scene, x: &Scale, top: f64, run: &Run) {
    let figures = &run.figures;
    let (upper, lower) = (top + 9.0, top + ROW - 9.0);
    let middle = (upper + lower) / 2.0;
    name(scene, middle, run);
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

/// The run's name left of its bar, with the plan it followed below.
fn name(scene: &mut Scene, middle: f64, run: &Run) {
    let apart = if run.note.is_empty() { 0.0 } else { 7.5 };
    let text = fitted(&run.name, 12.0, false, LEFT - 32.0);
    scene.text((LEFT - 12.0, middle - apart), &text, 12.0, Anchor::Right, INK);
    if apart > 0.0 {
        scene.text(
            (LEFT - 12.0, middle + apart),
            &fitted(&run.note, 10.5, false, LEFT - 32.0),
            10.5,
            Anchor::Right,
            QUIET,
        );
    }
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
