//! How much a figure depends on the seed: every run as a dot, mean and 95 % interval above them.

use super::super::json::{EngineEstimate, Report, SeedsFacts};
use super::super::summary::engine_title;
use super::axis::{Scale, bottom_axis};
use super::scene::{Anchor, Mark, Scene};
use super::{HEAD, INK, QUIET, WIDTH, engine_paint, fitted, titled};

const ROW: f64 = 66.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = WIDTH - 170.0;
const TOP: f64 = HEAD + 14.0;
const RADIUS: f64 = 3.2;

pub(super) fn draw(report: &Report, seeds: &SeedsFacts) -> Scene {
    let mut engines: Vec<(&String, &EngineEstimate)> = seeds.engines.iter().collect();
    engines.sort_by(|a, b| {
        b.1.decode_tok_s.mean.unwrap_or(0.0).total_cmp(&a.1.decode_tok_s.mean.unwrap_or(0.0))
    });
    let bottom = TOP + ROW * engines.len() as f64;
    let mut scene = Scene::new(WIDTH, bottom + 48.0);
    let x = Scale::new(range(&engines), (LEFT, RIGHT));
    bottom_axis(&mut scene, &x, TOP, bottom, "tokens per second, one stream");
    for (n, (engine, estimate)) in engines.iter().enumerate() {
        row(&mut scene, &x, TOP + ROW * n as f64, engine, estimate);
    }
    let below = format!(
        "Every dot is one of {} seeds; the bar is the mean's 95 % confidence interval",
        seeds.seeds.len()
    );
    titled(scene, &report.question, &below)
}

/// The axis holds every dot, and zero unless all dots are far from it.
fn range(engines: &[(&String, &EngineEstimate)]) -> (f64, f64) {
    let values = || engines.iter().flat_map(|(_, e)| e.decode_tok_s_by_seed.iter().copied());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let room = (high - low).max(high * 0.01) * 0.08;
    (if low.is_finite() && low > 0.6 * high { low - room } else { 0.0 }, high + room)
}

fn row(scene: &mut Scene, x: &Scale, top: f64, engine: &str, estimate: &EngineEstimate) {
    let paint = engine_paint(engine);
    let (roof, floor) = (top + 20.0, top + ROW - 10.0);
    let dots = stacked(&estimate.decode_tok_s_by_seed, x);
    let levels = dots.iter().map(|(_, level)| *level).max().unwrap_or(0);
    let step = (2.0 * RADIUS).min((floor - roof) / f64::from(levels.max(1)));
    let bar = floor - f64::from(levels) * step - 12.0;
    let title = fitted(engine_title(engine), 12.0, false, LEFT - 40.0);
    let middle = top + ROW / 2.0;
    scene.text((LEFT - 14.0, middle), &title, 12.0, Anchor::Right, INK);
    for (value, level) in dots {
        scene.marks.push(Mark::Dot(
            (x.at(value), floor - f64::from(level) * step),
            RADIUS,
            paint.faded(0.55),
        ));
    }
    let interval = estimate.decode_tok_s;
    let (Some(mean), Some(low), Some(high)) = (interval.mean, interval.low, interval.high) else { return };
    scene.line(&[(x.at(low.max(x.low)), bar), (x.at(high.min(x.high)), bar)], paint, 3.0);
    scene.line(&[(x.at(mean), bar - 6.0), (x.at(mean), bar + 6.0)], paint, 2.0);
    let text = format!("{mean:.2} tok/s");
    scene.title((RIGHT + 16.0, middle - 7.5), &text, 11.5, INK);
    let text = format!("{low:.2} to {high:.2}");
    scene.text((RIGHT + 16.0, middle + 7.5), &text, 11.0, Anchor::Left, QUIET);
}

/// Dots that would cover each other stand on each other: each value with its level above the floor.
fn stacked(values: &[f64], x: &Scale) -> Vec<(f64, u32)> {
    let mut columns: std::collections::BTreeMap<i64, u32> = std::collections::BTreeMap::new();
    let mut dots = Vec::with_capacity(values.len());
    for value in super::super::stats::ascending(values) {
        let level = columns.entry((x.at(value) / (2.0 * RADIUS)).floor() as i64).or_default();
        dots.push((value, *level));
        *level += 1;
    }
    dots
}
