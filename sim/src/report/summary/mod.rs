//! The text a person reads first: the answer, then what it rests on.
//!
//! At most 100 columns, a unit on every figure, and only what the report holds: the same report gives the same text.

mod page;
mod plan;
mod quantities;
mod series;
mod speed;
mod verdict;

pub use page::Style;

use super::json::{PlanFacts, RECOMMENDED, Report};
use page::Page;
use quantities::{figures, ms, plural, rate};

/// The summary of one report.
pub fn text(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    page.bold(&format!("{}: {}", report.scenario, report.question));
    page.heading("Answer");
    if let Some((key, value)) = swept(report) {
        page.paragraph(&format!("At {key} = {value}, the first of the swept values:"), 0);
    }
    answer(&mut page, report);
    plan::fleet(&mut page, report);
    plan::stages(&mut page, report);
    speed::rates(&mut page, report);
    speed::breakdown(&mut page, report);
    speed::devices(&mut page, report);
    verdict::failures(&mut page, report);
    verdict::comparison(&mut page, report);
    verdict::advice(&mut page, report);
    verdict::trust(&mut page, report);
    if let Some(seeds) = &report.seeds {
        series::seeds(&mut page, seeds);
    }
    if let Some(sweep) = &report.sweep {
        series::sweep(&mut page, sweep);
    }
    page.finish()
}

/// What the report above a sweep's table is for: the swept key and its first value.
fn swept(report: &Report) -> Option<(&str, &str)> {
    let sweep = report.sweep.as_ref()?;
    Some((&sweep.key, &sweep.points.first()?.value))
}

/// The sentences that answer the question.
fn answer(page: &mut Page, report: &Report) {
    page.paragraph(&main_answer(report), 0);
    if let Some(line) = recommended_answer(report) {
        page.paragraph(&line, 0);
    }
}

fn main_answer(report: &Report) -> String {
    let who = format!("{} ({})", engine_title(&report.engine), plan_words(&report.plan));
    let Some(mean) = report.tpot_ms.mean else {
        return format!("{} on {who}: no token came.", report.model.name);
    };
    let first = report.ttft_ms.p50.map_or_else(String::new, |p50| format!(", the first after {}", ms(p50)));
    format!("{} on {who}: {}, {} a token{first}.", report.model.name, rate(report.decode_tok_s), ms(mean))
}

fn recommended_answer(report: &Report) -> Option<String> {
    let recommended = report.recommended.as_ref()?;
    if recommended.is_main {
        return Some("This is the plan the planner recommends.".to_owned());
    }
    let best = recommended.run.map_or(recommended.predicted.decode_tok_s, |run| run.decode_tok_s);
    let against = match best / report.decode_tok_s {
        _ if report.decode_tok_s <= 0.0 => String::new(),
        ratio if (0.98..1.02).contains(&ratio) => ", as fast as this run".to_owned(),
        ratio => format!(", {} times as fast", figures(ratio)),
    };
    Some(format!("The planner recommends {}: {}{against}.", plan_words(&recommended.plan), rate(best)))
}

/// A plan in a few words: `solo on max`, `pipeline over 3 nodes`.
pub(crate) fn plan_words(plan: &PlanFacts) -> String {
    match (plan.stages.as_slice(), plan.replicas) {
        ([only], _) => format!("solo on {}", only.node),
        (stages, 0 | 1) => format!("{} over {}", plan.mode, plural(stages.len(), "node")),
        (stages, copies) => {
            format!("{copies} whole copies over {}", plural(stages.len(), "node"))
        }
    }
}

/// The words for one of [`Report::runs`].
pub(crate) fn run_title(report: &Report, run: &str) -> String {
    match &report.recommended {
        Some(recommended) if run == RECOMMENDED => format!("recommended: {}", plan_words(&recommended.plan)),
        _ => engine_title(run).to_owned(),
    }
}

/// An engine's name for people.
pub(crate) fn engine_title(engine: &str) -> &str {
    match engine {
        "ring" => "Meshwright's ring",
        "llama-rpc" => "llama.cpp RPC",
        "llama-rpc-558" => "llama.cpp RPC, 558 calls",
        "llama-rpc-8" => "llama.cpp RPC, 8 calls",
        "hop-by-hop" => "pipeline, hop-by-hop reply",
        "client-relay" => "pipeline, client relays",
        "tensor-parallel" => "tensor parallel",
        other => other,
    }
}

#[cfg(test)]
mod tests;
