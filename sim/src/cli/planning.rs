//! `plan`: the planner's answer alone, without a run.

use std::fmt::Write as _;

use planner::cost::memory::stage_bytes;
use planner::fleet::Fleet;
use planner::place::{Candidate, Placement, Refusal, place};
use planner::units::{fmt_bytes, fmt_ms};
use serde_json::{Value, json};
use sim::report::json::node_name;
use sim::scenario::Scenario;

use super::arguments::Plan;
use super::failure::Failure;
use super::session;

/// Plans beside the recommended one that a person reads.
const OTHERS_SHOWN: usize = 3;

/// Prints the plan of every scenario; fails when there is none for one.
pub(crate) fn plan(asked: &Plan) -> Result<(), Failure> {
    let mut objects = Vec::new();
    let mut refused = false;
    for (i, path) in asked.scenarios.iter().enumerate() {
        let scenario = session::load(path, &asked.changes, None, asked.seed)?.scenario;
        let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
        refused |= placement.is_err();
        if asked.json {
            objects.push(object(&scenario, &placement));
        } else {
            let gap = if i == 0 { "" } else { "\n" };
            super::print(&format!("{gap}{}", text(&scenario, &placement)))?;
        }
    }
    if asked.json {
        let all = if objects.len() == 1 { objects.remove(0) } else { json!({ "scenarios": objects }) };
        let text =
            serde_json::to_string_pretty(&all).expect("string keys and finite numbers always serialise");
        super::print(&(text + "\n"))?;
    }
    if refused { Err(Failure::Found) } else { Ok(()) }
}

fn text(scenario: &Scenario, placement: &Result<Placement, Refusal>) -> String {
    let mut text = format!("{}: {}\n", scenario.name, scenario.question);
    let constraints = &scenario.plan.ask.constraints;
    let line = format!(
        "{}, {} of weights, for {} session(s) of {} tokens\n",
        scenario.model.name,
        fmt_bytes(scenario.model.weight_bytes()),
        constraints.sessions,
        constraints.context
    );
    text.push_str(&line);
    match placement {
        Err(refusal) => text.push_str(&format!("\nNo plan: {refusal}\n")),
        Ok(placement) => describe(&mut text, scenario, placement),
    }
    text
}

fn describe(text: &mut String, scenario: &Scenario, placement: &Placement) {
    text.push_str("\nRecommended\n");
    candidate(text, scenario, &placement.recommended);
    let others: Vec<&Candidate> =
        placement.pareto.iter().filter(|c| c.plan.replicas != placement.recommended.plan.replicas).collect();
    if !others.is_empty() {
        text.push_str("\nBetter at something else\n");
        for other in others.iter().take(OTHERS_SHOWN) {
            candidate(text, scenario, other);
        }
        if others.len() > OTHERS_SHOWN {
            line(text, format_args!("  and {} more; --json has all", others.len() - OTHERS_SHOWN));
        }
    }
    if !placement.left_out.is_empty() {
        text.push_str("\nLeft out\n");
        for left in &placement.left_out {
            line(text, format_args!("  {}: {}", node_name(&scenario.fleet, left.node), left.why));
        }
    }
    if placement.exact {
        text.push_str("\nEvery plan was considered; none is better.\n");
    } else {
        line(
            text,
            format_args!(
                "\nThe search was bounded; no plan is more than {:.1} % better.",
                placement.gap * 100.0
            ),
        );
    }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).expect("a String takes every text");
    text.push('\n');
}

fn candidate(text: &mut String, scenario: &Scenario, candidate: &Candidate) {
    let p = &candidate.prediction;
    line(
        text,
        format_args!(
            "  {}: {} a token ({:.1} tok/s), the first after {}, {:.1} tok/s in all",
            candidate.plan.mode().as_str(),
            fmt_ms(p.tpot_ms),
            1000.0 / p.tpot_ms,
            fmt_ms(p.ttft_ms),
            p.throughput_tok_s
        ),
    );
    for (i, replica) in candidate.plan.replicas.iter().enumerate() {
        for stage in &replica.stages {
            let device = &scenario.fleet.node(stage.node).device;
            let need =
                stage_bytes(&scenario.model, stage.layers, candidate.plan.context, candidate.plan.sessions);
            let copy =
                if candidate.plan.replicas.len() > 1 { format!("copy {}, ", i + 1) } else { String::new() };
            line(
                text,
                format_args!(
                    "    {copy}{}: layers {} to {}, {} of {} ({})",
                    node_name(&scenario.fleet, stage.node),
                    stage.layers.first,
                    stage.layers.end.saturating_sub(1),
                    fmt_bytes(need),
                    fmt_bytes(device.usable_bytes()),
                    device.name
                ),
            );
        }
    }
}

fn object(scenario: &Scenario, placement: &Result<Placement, Refusal>) -> Value {
    let mut object = json!({
        "scenario": scenario.name,
        "question": scenario.question,
        "seed": scenario.seed,
        "model": scenario.model.name,
        "recommended": null,
        "pareto": [],
        "left_out": [],
        "exact": null,
        "gap": null,
        "refusal": null,
    });
    match placement {
        Err(refusal) => object["refusal"] = json!(refusal.to_string()),
        Ok(placement) => {
            let fleet = &scenario.fleet;
            object["recommended"] = candidate_object(fleet, &placement.recommended);
            object["pareto"] = placement.pareto.iter().map(|c| candidate_object(fleet, c)).collect();
            let left =
                |l: &planner::place::LeftOut| json!({ "node": node_name(fleet, l.node), "why": l.why });
            object["left_out"] = placement.left_out.iter().map(left).collect();
            object["exact"] = json!(placement.exact);
            object["gap"] = json!(round3(placement.gap));
        }
    }
    object
}

fn candidate_object(fleet: &Fleet, candidate: &Candidate) -> Value {
    let replicas = candidate.plan.replicas.iter().enumerate();
    let stages: Vec<Value> = replicas
        .flat_map(|(replica, pipeline)| pipeline.stages.iter().map(move |stage| (replica, stage)))
        .map(|(replica, stage)| {
            let layers = [stage.layers.first, stage.layers.end];
            json!({ "replica": replica, "node": node_name(fleet, stage.node), "layers": layers })
        })
        .collect();
    let p = &candidate.prediction;
    json!({
        "mode": candidate.plan.mode().as_str(),
        "stages": stages,
        "decode_tok_s": round3(1000.0 / p.tpot_ms),
        "tpot_ms": round3(p.tpot_ms),
        "ttft_ms": round3(p.ttft_ms),
        "throughput_tok_s": round3(p.throughput_tok_s),
    })
}

fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
