//! What there is, and how the model is spread over it.

use super::super::json::{NodeFacts, PlanFacts, Report, StageFacts};
use super::page::Align::{Left, Right};
use super::page::{Page, cells, gauge};
use super::quantities::{bytes, count, figures, percent, plural};

/// Rows shown of a long list.
pub(super) const ROWS_MAX: usize = 12;

pub(super) fn fleet(page: &mut Page, report: &Report) {
    page.heading("Fleet and model");
    let mut rows = vec![cells(["node", "device", "usable memory", "bandwidth", "network"])];
    rows.extend(report.fleet.iter().take(ROWS_MAX).map(machine));
    page.table(&[Left, Left, Right, Right, Left], &rows);
    rest(page, report.fleet.len(), "node");
    let model = &report.model;
    page.paragraph(
        &format!(
            "{}: {}, {} of weights, {} of them read for each token",
            model.name,
            plural(model.layers as usize, "layer"),
            bytes(model.weight_bytes),
            bytes(model.active_bytes),
        ),
        2,
    );
}

fn machine(node: &NodeFacts) -> Vec<String> {
    vec![
        if node.machine == node.node {
            node.node.clone()
        } else {
            format!("{} (in {})", node.node, node.machine)
        },
        node.device.clone(),
        format!("{} of {}", bytes(node.usable_bytes), bytes(node.memory_bytes)),
        format!("{} GB/s", figures(node.bandwidth_gb_s)),
        node.network.clone(),
    ]
}

/// A line for what a shortened list leaves out.
pub(super) fn rest(page: &mut Page, total: usize, noun: &str) {
    if total > ROWS_MAX {
        let (number, words) = (total - ROWS_MAX, plural(total - ROWS_MAX, noun));
        let noun = words.trim_start_matches(&count(number as u64));
        page.paragraph(&format!("and {} more{noun}", count(number as u64)), 0);
    }
}

pub(super) fn stages(page: &mut Page, report: &Report) {
    let made =
        if report.plan.made_by == "scenario" { "given by the scenario" } else { "made by the planner" };
    page.heading(&format!("Plan of this run: {}, {made}", super::plan_words(&report.plan)));
    stages_of(page, &report.plan);
}

/// What the memory column counts, and what else would fit.
fn memory(page: &mut Page, plan: &PlanFacts) {
    let each = if plan.replicas > 1 { " in each copy" } else { "" };
    let room = if plan.sessions_room > plan.sessions {
        format!("; there is room for {}", count(u64::from(plan.sessions_room)))
    } else {
        String::new()
    };
    page.paragraph(
        &format!(
            "memory holds weights, buffers, and KV for {} of {} tokens{each}{room}",
            plural(plan.sessions as usize, "session"),
            count(u64::from(plan.context)),
        ),
        2,
    );
}

fn stage_table(page: &mut Page, plan: &PlanFacts) {
    let copies = plan.replicas > 1;
    let first = if copies { "copy" } else { "stage" };
    let mut rows = vec![cells([first, "node", "layers", "count", "memory used of usable", ""])];
    rows.extend(plan.stages.iter().take(ROWS_MAX).enumerate().map(|(i, s)| {
        let number = if copies { s.replica as usize } else { i };
        stage(number + 1, s)
    }));
    page.table(&[Right, Left, Left, Right, Right, Left], &rows);
    rest(page, plan.stages.len(), "stage");
}

/// The stages of a plan with what their memory counts.
pub(super) fn stages_of(page: &mut Page, plan: &PlanFacts) {
    stage_table(page, plan);
    memory(page, plan);
}

fn stage(number: usize, stage: &StageFacts) -> Vec<String> {
    let [first, end] = stage.layers;
    let share =
        if stage.usable_bytes > 0 { stage.memory_bytes as f64 / stage.usable_bytes as f64 } else { 0.0 };
    vec![
        number.to_string(),
        stage.node.clone(),
        format!("{first}..{end}"),
        end.saturating_sub(first).to_string(),
        format!("{} of {}", bytes(stage.memory_bytes), bytes(stage.usable_bytes)),
        format!("{} {}", gauge(share, 20), percent(share)),
    ]
}
