//! What `status` shows people.

use planner::units::{fmt_bytes, fmt_ms};

use crate::cli::figures::{count, plural};
use crate::http::{Health, ModelHealth, PeerHealth, PlanHealth};

/// Demand below this is not worth a line, requests per second.
const LEAST_PER_S: f64 = 1e-3;
/// Lines of demand.
const WANTED_MAX: usize = 8;

pub(super) fn page(health: &Health) -> String {
    let Health { serving, why, node, version, models, sessions, demand, peers, received, troubles } = health;
    let state =
        if *serving { "serving".into() } else { format!("not serving: {}", why.as_deref().unwrap_or("?")) };
    let mut page = format!("{node} (meshwright {version}) is {state}\n\n");
    page.push_str(&format!("  asked by  {} now\n", plural(*sessions as u64, "session")));
    page.push_str(&mesh(peers));
    for peer in peers.iter().filter(|peer| peer.alive) {
        page.push_str(&format!("  node      {}\n", node_line(peer)));
    }
    for (whom, what) in troubles {
        page.push_str(&format!("  trouble   {whom}: {what}\n"));
    }
    let all: u64 = received.values().sum();
    if all > 0 {
        let kinds = received.iter().filter(|(_, bytes)| **bytes > 0);
        let kinds: Vec<String> = kinds
            .map(|(kind, bytes)| format!("{} of {}", fmt_bytes(*bytes), kind.replace('_', " ")))
            .collect();
        page.push_str(&format!("  received  {}\n", kinds.join(", ")));
    }
    for model in models {
        page.push_str(&model_lines(model));
    }
    for (model, per_s) in demand.iter().filter(|(_, per_s)| *per_s >= LEAST_PER_S).take(WANTED_MAX) {
        let served = models.iter().any(|known| known.id == *model && known.serving);
        let state = if served { "" } else { ", which nobody serves" };
        page.push_str(&format!("  wanted    {model}{state}: {}\n", rate(*per_s)));
    }
    page
}

/// Requests per second or per minute, whichever reads better.
fn rate(per_s: f64) -> String {
    if per_s >= 1.0 {
        format!("{per_s:.1} requests a second")
    } else {
        format!("{:.1} requests a minute", per_s * 60.0)
    }
}

fn mesh(peers: &[PeerHealth]) -> String {
    let alive = peers.iter().filter(|peer| peer.alive).count();
    let lost: Vec<&str> = peers.iter().filter(|peer| !peer.alive).map(|peer| peer.name.as_str()).collect();
    let others = plural(alive as u64, "node");
    match (alive, lost.is_empty()) {
        (0, true) => "  mesh      this machine alone\n".into(),
        (_, true) => format!("  mesh      {others} besides this one\n"),
        (_, false) => format!("  mesh      {others} besides this one; gone: {}\n", lost.join(", ")),
    }
}

/// What a node serves, and the way to it.
fn node_line(peer: &PeerHealth) -> String {
    let PeerHealth { name, serves, sessions, round_trip_ms, way, ways, .. } = peer;
    let serves = if serves.is_empty() { "nothing".into() } else { serves.join(", ") };
    let mut line = format!("{name}: serves {serves}, {}", plural(u64::from(*sessions), "session"));
    line.push_str(&format!(", {} there and back", fmt_ms(*round_trip_ms)));
    if let Some(way) = way {
        let figures = ways.iter().map(|(way, of)| {
            format!("{way} {:.0} us and {}/s", of.frame_us, fmt_bytes(of.bytes_per_s as u64))
        });
        let figures: Vec<String> = figures.collect();
        let measured = if figures.is_empty() { String::new() } else { format!(": {}", figures.join(", ")) };
        line.push_str(&format!("; by {way}{measured}"));
    }
    line
}

fn model_lines(model: &ModelHealth) -> String {
    let ModelHealth { id, serving, why, sessions, epoch, plan, .. } = model;
    let state = match (serving, why) {
        (true, _) => format!("served, {}", plural(*sessions as u64, "session")),
        (false, Some(why)) => format!("not served: {why}"),
        (false, None) => "not served".into(),
    };
    let plan = plan.as_ref().map_or_else(String::new, |plan| plan_lines(plan, *epoch));
    format!("  model     {id}: {state}\n{plan}")
}

fn plan_lines(plan: &PlanHealth, epoch: u64) -> String {
    let PlanHealth { context, sessions, replicas, .. } = plan;
    let (context, sessions) = (count(u64::from(*context)), plural(u64::from(*sessions), "session"));
    let mut page = format!("            plan {epoch}: {sessions} of {context} tokens\n");
    for replica in replicas {
        let stages: Vec<String> = replica
            .stages
            .iter()
            .map(|s| format!("{} layers {} to {}", s.node, s.first, s.end.saturating_sub(1)))
            .collect();
        let state = if replica.serving { "" } else { " (not serving)" };
        page.push_str(&format!("            {}{state}\n", stages.join(" → ")));
    }
    page
}
