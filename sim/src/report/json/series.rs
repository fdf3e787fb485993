//! Several runs in one report: the same scenario over seeds, or over values of one key.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::stats;
use super::{Report, round3};

/// A mean over seeds and its 95 % confidence interval (Student's t).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Interval {
    /// The mean; `null` when no run has the figure.
    pub mean: Option<f64>,
    /// The median of the runs.
    pub median: Option<f64>,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Interval {
    /// Of one figure per run, rounded.
    pub fn of(values: &[f64]) -> Self {
        let estimate = stats::estimate(values);
        Self {
            mean: estimate.map(|e| round3(e.mean)),
            median: stats::quantile(&stats::ascending(values), 0.5).map(round3),
            low: estimate.map(|e| round3(e.low)),
            high: estimate.map(|e| round3(e.high)),
        }
    }
}

/// One engine over several seeds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EngineEstimate {
    /// Tokens per second of one stream.
    pub decode_tok_s: Interval,
    /// Tokens per second of all streams.
    pub throughput_tok_s: Interval,
    /// Median time to first token.
    pub ttft_p50_ms: Interval,
    /// Each run's `decode_tok_s`, in the order of the seeds.
    pub decode_tok_s_by_seed: Vec<f64>,
}

/// A scenario over seeds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SeedsFacts {
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// By engine name.
    pub engines: BTreeMap<String, EngineEstimate>,
    /// What became of the requests of all seeds together.
    pub requests: super::RequestCounts,
    /// What the oracles found wrong, each with its seed; empty unless there is a bug.
    pub violations: Vec<String>,
}

impl SeedsFacts {
    /// The summary of one report per seed.
    pub fn of(reports: &[Report]) -> Self {
        Self {
            seeds: reports.iter().map(|r| r.seed).collect(),
            engines: engine_estimates(reports),
            requests: reports.iter().fold(super::RequestCounts::default(), |sum, r| add(sum, r.requests)),
            violations: reports
                .iter()
                .flat_map(|r| r.violations.iter().map(|v| format!("seed {}: {v}", r.seed)))
                .collect(),
        }
    }
}

fn add(a: super::RequestCounts, b: super::RequestCounts) -> super::RequestCounts {
    super::RequestCounts {
        asked: a.asked + b.asked,
        accepted: a.accepted + b.accepted,
        completed: a.completed + b.completed,
        resumed: a.resumed + b.resumed,
        refused: a.refused + b.refused,
        failed: a.failed + b.failed,
        unfinished: a.unfinished + b.unfinished,
    }
}

fn engine_estimates(reports: &[Report]) -> BTreeMap<String, EngineEstimate> {
    let mut by_engine: BTreeMap<String, Vec<super::EngineFigures>> = BTreeMap::new();
    for (engine, figures) in reports.iter().flat_map(Report::engines) {
        by_engine.entry(engine).or_default().push(figures);
    }
    by_engine.into_iter().map(|(engine, runs)| (engine, engine_estimate(&runs))).collect()
}

fn engine_estimate(runs: &[super::EngineFigures]) -> EngineEstimate {
    let of =
        |figure: fn(&super::EngineFigures) -> Option<f64>| runs.iter().filter_map(figure).collect::<Vec<_>>();
    let decode = of(|f| Some(f.decode_tok_s));
    EngineEstimate {
        decode_tok_s: Interval::of(&decode),
        throughput_tok_s: Interval::of(&of(|f| Some(f.throughput_tok_s))),
        ttft_p50_ms: Interval::of(&of(|f| f.ttft_ms.p50)),
        decode_tok_s_by_seed: decode,
    }
}

/// One value of a swept key.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SweepPoint {
    /// The value as written in the scenario.
    pub value: String,
    /// Its place on a numeric axis, in the unit it was written in; `null` where it is no quantity.
    pub position: Option<f64>,
    /// The runs at this value, over one or more seeds.
    pub result: SeedsFacts,
}

/// A scenario over values of one key.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SweepFacts {
    /// The key, as given to `--sweep`.
    pub key: String,
    /// The values, in the order asked for.
    pub points: Vec<SweepPoint>,
}

impl SweepFacts {
    /// The summary of a sweep of `key`: for each value the reports of its seeds.
    pub fn of(key: &str, points: &[(String, Vec<Report>)]) -> Self {
        let point = |(value, reports): &(String, Vec<Report>)| SweepPoint {
            value: value.clone(),
            position: leading_number(value),
            result: SeedsFacts::of(reports),
        };
        Self { key: key.to_owned(), points: points.iter().map(point).collect() }
    }

    /// The unit the values are written in, where all share one: `ms` for `10 ms`, `20 ms`.
    pub fn unit(&self) -> Option<&str> {
        let unit = trailing_unit(&self.points.first()?.value);
        (!unit.is_empty() && self.points.iter().all(|p| trailing_unit(&p.value) == unit)).then_some(unit)
    }

    /// Whether every value has a place on one numeric axis: numbers, and all in one unit or all without.
    pub fn is_numeric(&self) -> bool {
        let first = self.points.first().map(|p| trailing_unit(&p.value));
        self.points.iter().all(|p| p.position.is_some() && Some(trailing_unit(&p.value)) == first)
    }
}

/// Splits `40 ms` after the number.
fn split_quantity(value: &str) -> (&str, &str) {
    let text = value.trim().trim_matches('"');
    let end = text.find(|c: char| !(c.is_ascii_digit() || ".-+_".contains(c))).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn leading_number(value: &str) -> Option<f64> {
    split_quantity(value).0.replace('_', "").parse::<f64>().ok().filter(|n| n.is_finite())
}

fn trailing_unit(value: &str) -> &str {
    split_quantity(value).1
}
