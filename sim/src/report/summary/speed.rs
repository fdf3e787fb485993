//! How fast it is, and where the time goes.

use super::super::json::{NodeUseFacts, Report, RequestCounts, Spread};
use super::page::Align::{Left, Right};
use super::page::{Page, bar, cells, gauge};
use super::plan::{ROWS_MAX, rest};
use super::quantities::{bytes, count, figures, ms, ms_or_dash, percent, plural, rate};

pub(super) fn rates(page: &mut Page, report: &Report) {
    page.heading("Speed");
    page.paragraph(
        &format!(
            "{} for one stream; {} for all together over {} simulated s",
            rate(report.decode_tok_s),
            rate(report.throughput_tok_s),
            figures(report.simulated_s),
        ),
        2,
    );
    let rows = [
        cells(["", "p50", "p90", "p99", "mean"]),
        spread("time per output token (TPOT)", &report.tpot_ms),
        spread("time to first token (TTFT)", &report.ttft_ms),
    ];
    page.table(&[Left, Right, Right, Right, Right], &rows);
    page.paragraph(&requests(&report.requests), 2);
}

fn spread(what: &str, s: &Spread) -> Vec<String> {
    std::iter::once(what.to_owned()).chain([s.p50, s.p90, s.p99, s.mean].map(ms_or_dash)).collect()
}

/// `6 requests: 6 completed, 2 of them resumed after a failure`.
fn requests(r: &RequestCounts) -> String {
    let mut parts = vec![format!("{} completed", count(u64::from(r.completed)))];
    for (number, word) in
        [(r.refused, "refused"), (r.failed, "failed"), (r.unfinished, "unfinished at the end")]
    {
        if number > 0 {
            parts.push(format!("{} {word}", count(u64::from(number))));
        }
    }
    if r.resumed > 0 {
        parts.push(format!("{} resumed after a failure", count(u64::from(r.resumed))));
    }
    format!("{}: {}", plural(r.asked as usize, "request"), parts.join(", "))
}

pub(super) fn breakdown(page: &mut Page, report: &Report) {
    let total = report.breakdown_ms.total();
    if total <= 0.0 {
        return;
    }
    let aside = if report.incidents.is_empty() { "" } else { ", recoveries aside" };
    page.heading(&format!("Where the {} of a token go{aside}", ms(total)));
    let rows: Vec<Vec<String>> = report
        .breakdown_ms
        .parts()
        .iter()
        .map(|(part, value)| {
            let share = value / total;
            vec![
                (*part).to_owned(),
                format!("{value:.2} ms"),
                percent(share),
                bar(share, 30),
                meaning(part).to_owned(),
            ]
        })
        .collect();
    page.table(&[Left, Right, Right, Left, Left], &rows);
}

fn meaning(part: &str) -> &'static str {
    match part {
        "compute" => "devices at work",
        "latency" => "links: propagation and jitter",
        "bandwidth" => "bytes over links",
        "queueing" => "waiting for a busy device or medium",
        _ => "host-side work per hop and step",
    }
}

pub(super) fn devices(page: &mut Page, report: &Report) {
    if report.nodes.is_empty() {
        return;
    }
    page.heading("How busy the devices were");
    let mut rows = vec![cells(["node", "", "busy", "steps", "sent"])];
    rows.extend(report.nodes.iter().take(ROWS_MAX).map(device));
    page.table(&[Left, Left, Right, Right, Right], &rows);
    rest(page, report.nodes.len(), "node");
}

fn device(node: &NodeUseFacts) -> Vec<String> {
    vec![
        node.node.clone(),
        gauge(node.busy, 30),
        percent(node.busy),
        count(node.steps),
        bytes(node.sent_bytes),
    ]
}
