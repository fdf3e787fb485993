//! A figure over a swept key: a line for each engine, with a band for the 95 % interval over the seeds.

use super::super::json::{EngineEstimate, Interval, SweepFacts};
use super::super::summary::engine_title;
use super::axis::{Scale, bottom_axis, left_axis, spread_apart};
use super::scene::{Anchor, Mark, Scene, text_width};
use super::{HEAD, INK, QUIET, WIDTH, engine_paint, fitted, titled};

/// What is drawn over the swept key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Tokens per second of one stream.
    Decode,
    /// Tokens per second of all streams.
    Throughput,
    /// Median time to first token.
    FirstToken,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 3] = [Metric::Decode, Metric::Throughput, Metric::FirstToken];

    /// The file's name without its ending.
    pub fn stem(self) -> &'static str {
        match self {
            Metric::Decode => "sweep-decode",
            Metric::Throughput => "sweep-throughput",
            Metric::FirstToken => "sweep-first-token",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Metric::Decode => "tokens per second, one stream",
            Metric::Throughput => "tokens per second, all streams",
            Metric::FirstToken => "median time to first token, seconds",
        }
    }

    fn of(self, estimate: &EngineEstimate) -> Interval {
        match self {
            Metric::Decode => estimate.decode_tok_s,
            Metric::Throughput => estimate.throughput_tok_s,
            Metric::FirstToken => seconds(estimate.ttft_p50_ms),
        }
    }
}

fn seconds(ms: Interval) -> Interval {
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1000.0);
    Interval {
        mean: seconds(ms.mean),
        median: seconds(ms.median),
        low: seconds(ms.low),
        high: seconds(ms.high),
    }
}

const LEFT: f64 = 80.0;
const TOP: f64 = HEAD + 16.0;
const BOTTOM: f64 = 400.0;
const HEIGHT: f64 = BOTTOM + 48.0;
const LABEL: f64 = 11.5;

/// One engine's points: place on the x axis, and mean with its interval.
struct Curve {
    engine: String,
    points: Vec<(f64, Interval)>,
}

pub(super) fn draw(question: &str, x_name: &str, sweep: &SweepFacts, metric: Metric) -> Scene {
    let curves = curves(sweep, metric);
    let mut scene = Scene::new(WIDTH, HEIGHT);
    let y = y_scale(&curves, metric);
    let right = WIDTH - 24.0 - label_width(&curves);
    let x = x_scale(sweep, right);
    left_axis(&mut scene, &y, LEFT, right, metric.axis());
    x_axis(&mut scene, x_name, sweep, &x);
    for curve in &curves {
        band(&mut scene, curve, &x, &y);
    }
    for curve in &curves {
        line(&mut scene, curve, &x, &y);
    }
    end_labels(&mut scene, &curves, &y, right);
    titled(scene, question, &caption(sweep, metric, &y))
}

fn caption(sweep: &SweepFacts, metric: Metric, y: &Scale) -> String {
    let seeds = sweep.points.first().map_or(0, |p| p.result.seeds.len());
    let better = if metric == Metric::FirstToken { "lower is better" } else { "higher is better" };
    let better = format!("{better}{}", if y.logarithmic { ", logarithmic scale" } else { "" });
    match seeds {
        0 | 1 => format!("One run at each point; {better}"),
        n => format!("Mean over {n} seeds at each point, with its 95 % confidence interval; {better}"),
    }
}

fn curves(sweep: &SweepFacts, metric: Metric) -> Vec<Curve> {
    let mut names: Vec<&String> = sweep.points.iter().flat_map(|p| p.result.engines.keys()).collect();
    names.sort();
    names.dedup();
    let curve = |engine: &String| Curve {
        engine: engine.clone(),
        points: sweep
            .points
            .iter()
            .enumerate()
            .filter_map(|(n, p)| Some((place(sweep, n), metric.of(p.result.engines.get(engine)?))))
            .filter(|(_, i)| i.mean.is_some())
            .collect(),
    };
    names.into_iter().map(curve).filter(|c| !c.points.is_empty()).collect()
}

/// Where point `n` is on the x axis: its number, or its rank where values are words.
fn place(sweep: &SweepFacts, n: usize) -> f64 {
    sweep.points[n].position.filter(|_| sweep.is_numeric()).unwrap_or(n as f64)
}

fn x_scale(sweep: &SweepFacts, right: f64) -> Scale {
    let places: Vec<f64> = (0..sweep.points.len()).map(|n| place(sweep, n)).collect();
    let low = places.iter().copied().fold(f64::INFINITY, f64::min);
    let high = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low < high { (low, high) } else { (low - 1.0, low + 1.0) };
    let whole = places.iter().all(|p| p.fract() == 0.0);
    let from_zero = sweep.is_numeric() && low > 0.0 && low < 0.35 * high;
    let scale = Scale::new((if from_zero { 0.0 } else { low }, high), (LEFT + 14.0, right - 14.0));
    Scale { whole, ..scale }
}

fn x_axis(scene: &mut Scene, name: &str, sweep: &SweepFacts, x: &Scale) {
    let name = sweep.unit().map_or_else(|| name.to_owned(), |unit| format!("{name}, {unit}"));
    if sweep.is_numeric() {
        bottom_axis(scene, x, BOTTOM, BOTTOM, &name);
        return;
    }
    let room = (x.at_high - x.at_low) / sweep.points.len().max(1) as f64;
    for (n, point) in sweep.points.iter().enumerate() {
        let text = fitted(point.value.trim_matches('"'), 10.5, false, room);
        scene.text((x.at(n as f64), BOTTOM + 11.0), &text, 10.5, Anchor::Middle, QUIET);
    }
    scene.text(((x.at_low + x.at_high) / 2.0, BOTTOM + 29.0), &name, LABEL, Anchor::Middle, INK);
}

/// From zero, so that heights can be compared; logarithmic for times that differ thirtyfold and more, because there
/// the slow curves would press the fast ones, which matter, flat. For rates it is the other way round.
fn y_scale(curves: &[Curve], metric: Metric) -> Scale {
    let all = || curves.iter().flat_map(|c| c.points.iter());
    let highest = all().filter_map(|(_, i)| i.high.or(i.mean)).fold(0.0, f64::max);
    let lowest = all().filter_map(|(_, i)| i.mean).fold(f64::INFINITY, f64::min);
    if metric == Metric::FirstToken && lowest > 0.0 && lowest.is_finite() && highest > 30.0 * lowest {
        Scale::logarithmic((lowest, highest), (BOTTOM, TOP))
    } else {
        Scale::new((0.0, highest * 1.08), (BOTTOM, TOP))
    }
}

fn band(scene: &mut Scene, curve: &Curve, x: &Scale, y: &Scale) {
    let ends = |pick: fn(&Interval) -> Option<f64>| -> Vec<(f64, f64)> {
        curve.points.iter().filter_map(|(at, i)| Some((x.at(*at), y.at(pick(i)?.max(y.low))))).collect()
    };
    let (upper, mut lower) = (ends(|i| i.high), ends(|i| i.low));
    let flat = upper.iter().zip(&lower).all(|(u, l)| (u.1 - l.1).abs() < 0.5);
    if !flat && upper.len() > 1 {
        lower.reverse();
        let outline = upper.into_iter().chain(lower).collect();
        scene.marks.push(Mark::Area(outline, engine_paint(&curve.engine).faded(0.18)));
    }
}

fn line(scene: &mut Scene, curve: &Curve, x: &Scale, y: &Scale) {
    let paint = engine_paint(&curve.engine);
    let points: Vec<(f64, f64)> =
        curve.points.iter().filter_map(|(at, i)| Some((x.at(*at), y.at(i.mean?)))).collect();
    scene.line(&points, paint, 2.0);
    for (at, interval) in &curve.points {
        let (Some(mean), Some(low), Some(high)) = (interval.mean, interval.low, interval.high) else {
            continue;
        };
        let x = x.at(*at);
        if y.at(low) - y.at(high) > 2.0 {
            scene.line(&[(x, y.at(low.max(y.low))), (x, y.at(high))], paint, 1.2);
        }
        scene.marks.push(Mark::Dot((x, y.at(mean)), 3.2, paint));
    }
}

fn label_width(curves: &[Curve]) -> f64 {
    curves.iter().map(|c| text_width(engine_title(&c.engine), LABEL, true)).fold(0.0, f64::max)
}

/// Each curve's name at its right end, moved apart where ends are close, with a thin line to its curve.
fn end_labels(scene: &mut Scene, curves: &[Curve], y: &Scale, right: f64) {
    let ends: Vec<f64> = curves
        .iter()
        .map(|c| c.points.last().and_then(|(_, i)| i.mean).map_or(BOTTOM, |mean| y.at(mean)))
        .collect();
    let places = spread_apart(&ends, 16.0, TOP, BOTTOM);
    for ((curve, end), place) in curves.iter().zip(ends).zip(places) {
        let paint = engine_paint(&curve.engine);
        scene.line(&[(right - 10.0, end), (right + 2.0, place)], paint.faded(0.6), 0.8);
        scene.title((right + 6.0, place), engine_title(&curve.engine), LABEL, paint);
    }
}
