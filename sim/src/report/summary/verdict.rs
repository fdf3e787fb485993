//! What went wrong, what it is compared with, what would be better, and how far to trust it.

use planner::place::NODES_MOST;

use super::super::json::{Agreement, IncidentFacts, Predicted, Recommended, Report};
use super::page::Align::{Left, Right};
use super::page::{Page, bar, cells};
use super::plan::{ROWS_MAX, rest, stages_of};
use super::quantities::{change, figures, ms, ms_or_dash, plural, rate, times};
use super::{plan_words, run_title};

pub(super) fn failures(page: &mut Page, report: &Report) {
    if report.incidents.is_empty() {
        return;
    }
    page.heading("Failures and recoveries");
    page.paragraph(&pauses(report), 2);
    let mut rows = vec![cells(["at", "what", "tokens paused for"])];
    rows.extend(report.notable_incidents(ROWS_MAX, f64::INFINITY).into_iter().map(incident));
    page.table(&[Right, Left, Right], &rows);
    rest(page, report.incidents.len(), "incident");
}

/// `26 incidents; 2 stopped tokens, for 11.5 s in all and 7.20 s at most`.
fn pauses(report: &Report) -> String {
    let pauses: Vec<f64> = report.incidents.iter().filter_map(|i| i.pause_ms).collect();
    let all = plural(report.incidents.len(), "incident");
    if pauses.is_empty() {
        return format!("{all}; none stopped tokens");
    }
    let (sum, most) = (pauses.iter().sum::<f64>(), pauses.iter().copied().fold(0.0, f64::max));
    format!("{all}; {} stopped tokens, for {} in all and {} at most", pauses.len(), ms(sum), ms(most))
}

fn incident(incident: &IncidentFacts) -> Vec<String> {
    let seconds = |ms: f64| format!("{:.2} s", ms / 1000.0);
    vec![seconds(incident.at_ms), incident.what.clone(), incident.pause_ms.map_or_else(String::new, seconds)]
}

pub(super) fn comparison(page: &mut Page, report: &Report) {
    if report.baselines.is_empty() {
        return;
    }
    page.heading("Compared with, over the same nodes and links");
    let mut runs = report.runs();
    let (this, _) = runs[0].clone();
    runs.sort_by(|a, b| b.1.decode_tok_s.total_cmp(&a.1.decode_tok_s));
    let best = runs[0].1.decode_tok_s;
    let mut rows = vec![cells(["run", "one stream", "against this run", "first token", ""])];
    rows.extend(runs.iter().map(|(name, figures)| {
        vec![
            run_title(report, name),
            rate(figures.decode_tok_s),
            if *name == this { "this run".to_owned() } else { against(figures.decode_tok_s, report) },
            ms_or_dash(figures.ttft_ms.p50),
            bar(if best > 0.0 { figures.decode_tok_s / best } else { 0.0 }, 24),
        ]
    }));
    page.table(&[Left, Right, Right, Right, Left], &rows);
}

/// How many times as fast as the main run; unrounded, because a very slow engine still has a ratio.
fn against(tok_s: f64, report: &Report) -> String {
    if report.decode_tok_s > 0.0 { times(tok_s / report.decode_tok_s) } else { "-".to_owned() }
}

pub(super) fn advice(page: &mut Page, report: &Report) {
    if let Some(why) = &report.refusal {
        page.heading("The planner finds no plan");
        page.paragraph(why, 2);
    }
    if let Some(recommended) = &report.recommended {
        recommendation(page, recommended);
    }
    if !report.left_out.is_empty() {
        page.heading("Left out of the recommended plan, and why");
        left_out(page, report);
    }
    help(page, report);
}

/// Who is left out and why; one line for nodes that follow each other with the same reason.
fn left_out(page: &mut Page, report: &Report) {
    let alike: Vec<_> = report.left_out.chunk_by(|a, b| a.why == b.why).collect();
    let rows: Vec<_> = alike
        .iter()
        .take(ROWS_MAX)
        .map(|nodes| {
            let who = match nodes {
                [first, _, .., last] => format!("{} to {}", first.node, last.node),
                _ => nodes.iter().map(|n| n.node.as_str()).collect::<Vec<_>>().join(", "),
            };
            vec![who, nodes[0].why.clone()]
        })
        .collect();
    page.table(&[Left, Left], &rows);
    rest(page, alike.len(), "reason");
}

/// The changes that gain anything worth printing.
fn help(page: &mut Page, report: &Report) {
    page.heading("What would help most");
    let by_hand = report.plan.made_by == "scenario";
    let base = if by_hand { "this run's plan" } else { "the recommended plan" };
    let rows: Vec<_> = report
        .would_help
        .iter()
        .filter(|s| s.gain_percent >= 0.05)
        .take(ROWS_MAX)
        .map(|s| vec![change(s.gain_percent), s.change.clone()])
        .collect();
    if !rows.is_empty() {
        page.table(&[Right, Left], &rows);
        page.paragraph(&format!("over {base}, by the cost model, each change alone"), 2);
    } else if report.fleet.len() > NODES_MOST && !by_hand {
        let most =
            format!("not looked for among more than {NODES_MOST} nodes: each change is a search of its own");
        page.paragraph(&most, 2);
    } else {
        page.paragraph(&format!("none of the changes that were tried makes {base} much faster"), 2);
    }
}

fn recommendation(page: &mut Page, recommended: &Recommended) {
    page.heading(&format!("What the planner recommends: {}", plan_words(&recommended.plan)));
    if !recommended.is_main {
        stages_of(page, &recommended.plan);
    }
    let mut rows = vec![cells(["", "one stream", "per token", "first token", "all streams"])];
    rows.push(predicted_row(&recommended.predicted));
    if let Some(run) = &recommended.run {
        rows.push(vec![
            if recommended.is_main { "this run" } else { "run" }.to_owned(),
            rate(run.decode_tok_s),
            ms_or_dash(run.tpot_ms.mean),
            ms_or_dash(run.ttft_ms.p50),
            rate(run.throughput_tok_s),
        ]);
    }
    page.table(&[Left, Right, Right, Right, Right], &rows);
    if recommended.gap > 0.0 {
        page.paragraph(
            &format!(
                "the search was not exact: a better plan could gain at most {}",
                change(recommended.gap * 100.0)
            ),
            2,
        );
    }
}

fn predicted_row(p: &Predicted) -> Vec<String> {
    let load = &p.at_load;
    vec![
        "predicted".to_owned(),
        rate(load.decode_tok_s),
        ms(1e3 / load.decode_tok_s),
        ms(load.ttft_ms),
        load.throughput_tok_s.map_or_else(|| "-".to_owned(), rate),
    ]
}

/// How coarse the world's time is, where it has steps.
fn dilated(report: &Report) -> String {
    if report.world != "turmoil" {
        return String::new();
    }
    let error = figures(report.scale_error_percent);
    format!(", clock scale {}: its steps add at most {error} % to a token's time", report.scale)
}

/// How well the cost model and the run agree, what was published, and what an oracle found wrong.
pub(super) fn trust(page: &mut Page, report: &Report) {
    page.heading("How far to trust it");
    if let (Some(predicted), Some(agreement)) = (&report.predicted, &report.agreement) {
        agreement_table(page, report, predicted, agreement);
    }
    if let Some(published) = &report.published {
        page.paragraph(&published_line(published), 2);
    }
    page.paragraph(
        &format!(
            "seed {}, {} world{}; the same seed gives the same figures",
            report.seed,
            report.world,
            dilated(report)
        ),
        2,
    );
    for violation in &report.violations {
        page.paragraph(&format!("BUG: {violation}"), 2);
    }
}

fn agreement_table(page: &mut Page, report: &Report, predicted: &Predicted, agreement: &Agreement) {
    let error = |e: Option<f64>| e.map_or_else(|| "-".to_owned(), change);
    let expected = &predicted.at_load;
    let crowd = expected.streams.filter(|streams| *streams > 1);
    let one = crowd.map_or_else(|| "one stream".to_owned(), |streams| format!("one of {streams} streams"));
    let rows = [
        cells(["this plan", "predicted", "run", "prediction off by"]),
        vec![
            one,
            rate(expected.decode_tok_s),
            rate(report.decode_tok_s),
            error(agreement.decode_tok_s_error_percent),
        ],
        vec![
            "all streams, prompts included".to_owned(),
            expected.throughput_tok_s.map_or_else(|| "-".to_owned(), rate),
            rate(report.throughput_tok_s),
            error(agreement.throughput_tok_s_error_percent),
        ],
        vec![
            first_token(predicted).to_owned(),
            ms(expected.ttft_ms),
            ms_or_dash(report.ttft_ms.p50),
            error(agreement.ttft_ms_error_percent),
        ],
    ];
    page.table(&[Left, Right, Right, Right], &rows);
    if crowd.is_some() {
        page.paragraph(
            "the first token is predicted for a request that meets no other; in the run they meet",
            2,
        );
    }
    if !report.incidents.is_empty() {
        page.paragraph("the run holds its failures and recoveries, which no prediction knows of", 2);
    }
}

/// Which first token is predicted.
fn first_token(predicted: &Predicted) -> &'static str {
    if predicted.at_load.ttft_ms > predicted.ttft_ms {
        "first token, streams to be opened"
    } else {
        "first token"
    }
}

fn published_line(p: &super::super::json::PublishedFacts) -> String {
    let [low, high] = p.decode_tok_s;
    let range = if low == high { rate(low) } else { format!("{low} to {}", rate(high)) };
    format!(
        "published (grade {}): {range}; this run is off by {}; source: {}",
        p.grade,
        change(p.error_percent),
        p.source
    )
}
