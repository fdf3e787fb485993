//! `plan`: what the planner makes of the machines of a mesh.

use clap::Args;
use planner::units::{fmt_bytes, fmt_ms};

use super::failure::Failure;
use super::figures::{count, plural, rate};
use super::status::ask;
use super::{print, print_json, serve};
use crate::http::Advice;

/// Show what the planner makes of the machines of the mesh: who would compute what, what that gives, and what would help.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Where the API of a node of the mesh listens.
    #[arg(long, value_name = "URL", env = "MESHWRIGHT_API", default_value = serve::API)]
    api: String,
    /// Print a JSON array, an object for each model.
    #[arg(long)]
    json: bool,
}

pub(super) fn plan(asked: &Plan) -> Result<(), Failure> {
    let advice: Vec<Advice> = ask(&asked.api, "/plan")?;
    if asked.json {
        return print_json(&advice);
    }
    let pages: Vec<String> = advice.iter().map(page).collect();
    print(&if pages.is_empty() { "No member of the mesh offers a model.\n".into() } else { pages.join("\n") })
}

fn page(advice: &Advice) -> String {
    let Advice { model, machines, refusal, proposal, left_out, would_help } = advice;
    let mut page = format!("{model} on {}\n\n", plural(machines.len() as u64, "machine"));
    for machine in machines {
        let model = if machine.has_model { "" } else { ", without the model's file" };
        page.push_str(&format!(
            "  {:<20} {}, {} of memory for models at {} a second{model}\n",
            machine.name,
            machine.device,
            fmt_bytes(machine.usable_bytes),
            fmt_bytes(machine.bytes_per_s as u64)
        ));
    }
    if let Some(why) = refusal {
        page.push_str(&format!("\nThere is no plan: {why}\n"));
    }
    if let Some(proposal) = proposal {
        page.push_str("\nThe best plan for one stream:\n\n");
        for stage in proposal.plan.replicas.iter().flat_map(|replica| &replica.stages) {
            let (first, last) = (stage.first, stage.end.saturating_sub(1));
            page.push_str(&format!("  {:<20} layers {first} to {last}\n", stage.node));
        }
        let (context, sessions) =
            (count(u64::from(proposal.plan.context)), u64::from(proposal.plan.sessions));
        page.push_str(&format!(
            "\n  a token        {} ({})\n  the first      {}\n  room           {} of {context} tokens\n",
            fmt_ms(proposal.tpot_ms),
            rate(1e3 / proposal.tpot_ms),
            fmt_ms(proposal.ttft_ms),
            plural(sessions, "session"),
        ));
        let parts = proposal.parts.iter().filter(|(_, ms)| *ms >= 5e-4);
        let parts: Vec<String> = parts.map(|(part, ms)| format!("{} {part}", fmt_ms(*ms))).collect();
        page.push_str(&format!("  a token takes  {}\n", parts.join(", ")));
    }
    for (title, lines) in [("Left out:", left_out), ("What would help most:", would_help)] {
        if !lines.is_empty() {
            page.push_str(&format!("\n{title}\n\n"));
            lines.iter().for_each(|line| page.push_str(&format!("  {line}\n")));
        }
    }
    page
}
