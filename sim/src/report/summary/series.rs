//! Tables of several seeds and of sweeps.

use super::super::json::{Interval, SeedsFacts, SweepFacts};
use super::engine_title;
use super::page::Align::{Left, Right};
use super::page::{Page, bar, cells};
use super::quantities::{figures, plural};

pub(super) fn seeds(page: &mut Page, seeds: &SeedsFacts) {
    page.heading(&format!("Over {}: mean and 95 % confidence interval", plural(seeds.seeds.len(), "seed")));
    let mut rows =
        vec![cells(["engine", "one stream, tok/s", "all streams, tok/s", "first token (p50), ms"])];
    rows.extend(seeds.engines.iter().map(|(name, e)| {
        vec![
            engine_title(name).to_owned(),
            interval(&e.decode_tok_s),
            interval(&e.throughput_tok_s),
            interval(&e.ttft_p50_ms),
        ]
    }));
    page.table(&[Left, Right, Right, Right], &rows);
    let r = &seeds.requests;
    page.paragraph(
        &format!(
            "{}: {} completed, {} refused, {} failed, {} resumed",
            plural(r.asked as usize, "request"),
            r.completed,
            r.refused,
            r.failed,
            r.resumed
        ),
        2,
    );
    for violation in &seeds.violations {
        page.paragraph(&format!("BUG: {violation}"), 2);
    }
}

/// `12.4 (12.1 to 12.7)`; the mean alone for a single run.
fn interval(i: &Interval) -> String {
    match (i.mean, i.low, i.high) {
        (Some(mean), Some(low), Some(high)) if high > low => {
            format!("{} ({} to {})", figures(mean), figures(low), figures(high))
        }
        (Some(mean), _, _) => figures(mean),
        _ => "-".to_owned(),
    }
}

pub(super) fn sweep(page: &mut Page, sweep: &SweepFacts) {
    page.heading(&format!("Sweep of {}: tok/s of one stream", sweep.key));
    let engines: Vec<&String> =
        sweep.points.first().map_or_else(Vec::new, |p| p.result.engines.keys().collect());
    let mean = |point: &super::super::json::SweepPoint, engine: &str| {
        point.result.engines.get(engine).and_then(|e| e.decode_tok_s.mean)
    };
    let best =
        sweep.points.iter().flat_map(|p| engines.iter().filter_map(|e| mean(p, e))).fold(0.0, f64::max);
    let mut header = vec![sweep.key.clone()];
    header.extend(engines.iter().map(|e| (*e).clone()));
    header.push(String::new());
    let mut rows = vec![header];
    for point in &sweep.points {
        let mut row = vec![point.value.clone()];
        row.extend(engines.iter().map(|e| mean(point, e).map_or_else(|| "-".to_owned(), figures)));
        let first = engines.first().and_then(|e| mean(point, e)).unwrap_or(0.0);
        row.push(if engines.len() == 1 && best > 0.0 { bar(first / best, 30) } else { String::new() });
        rows.push(row);
    }
    let mut aligns = vec![Right; engines.len() + 1];
    aligns.push(Left);
    page.table(&aligns, &rows);
}
