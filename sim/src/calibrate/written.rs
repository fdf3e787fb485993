//! A record as a scenario: its machines with the rates that were found, its links as measured, its requests as they came.

use std::fmt::Write as _;
use std::path::Path;

use node::record::Link;
use planner::cost::constants::Software;
use planner::model::Model;
use planner::plan::LayerRange;

use super::requests::Requests;
use super::{Fitted, REQUESTS};
use crate::recorded::Run;
use crate::report::stats::middle;
use crate::scenario::device_table;

/// Context that plans give a session at least.
const CONTEXT: u32 = 4096;

/// What was found in the record.
pub(super) struct Found<'a> {
    pub(super) nodes: &'a [Fitted],
    pub(super) software: Option<Software>,
    pub(super) requests: &'a Requests,
}

pub(super) fn scenario(run: &Run, gguf: Option<&Path>, shape: &Model, found: &Found<'_>) -> String {
    let Found { nodes, software, requests } = found;
    let header = &run.header;
    let model = match gguf {
        Some(path) => format!("model = {{ gguf = {} }}", quoted(&path.display().to_string())),
        None => format!("model = {}", quoted(&header.model)),
    };
    let devices: String =
        nodes.iter().enumerate().map(|(i, node)| device_table(&id(i), &node.device) + "\n").collect();
    let machines: String = nodes
        .iter()
        .enumerate()
        .map(|(i, node)| format!("{} = {{ device = \"{}\" }}\n", quoted(&node.node), id(i)))
        .collect();
    let mut text = format!(
        "# What does the simulator make of a run of {} on {} {} machines?\n\n{model}\n\n{}{devices}[node]\n{machines}\n",
        header.model.replace('\n', " "),
        nodes.len(),
        header.world,
        network(&header.links, nodes.len()),
    );
    for link in &header.links {
        write!(
            text,
            "[[link]]\nbetween = [{}, {}]\nrtt = \"{} us\"\nbandwidth = \"{} B/s\"\n\n",
            quoted(&link.between.0),
            quoted(&link.between.1),
            link.round_trip_us.max(1.0),
            link.bytes_per_s.max(1.0),
        )
        .expect("writing to text never fails");
    }
    let entries: Vec<String> = requests.entries().into_iter().map(quoted).collect();
    let context = requests.longest().max(CONTEXT).min(shape.context_max.max(requests.longest()));
    write!(
        text,
        "[plan]\ncontext = {context}\nsessions = {}\n{}\n[workload]\ntrace = \"{REQUESTS}\"\nentry = [{}]\n\n[run]\nworld = \"memory\"\n\
         compute_error = {{ device = 0, step = 0 }}\n{}",
        requests.together(),
        split(nodes, shape),
        entries.join(", "),
        software.map_or_else(String::new, software_line),
    )
    .expect("writing to text never fails");
    text
}

fn software_line(software: Software) -> String {
    let Software { per_hop_us, per_step_us, .. } = software;
    format!("software = {{ per_hop = \"{per_hop_us} us\", per_step = \"{per_step_us} us\" }}\n")
}

fn id(node: usize) -> String {
    format!("found-{node}")
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A network for pairs that were not measured: as those that were.
fn network(links: &[Link], nodes: usize) -> String {
    if nodes < 2 {
        return String::new();
    }
    let rtt = middle(links.iter().map(|link| link.round_trip_us));
    let rtt = if links.is_empty() { 300.0 } else { rtt.max(1.0) };
    format!("[network.net]\nclass = \"lan\"\nrtt = \"{rtt} us\"\njitter = \"0 us\"\n\n")
}

/// The cut, where the layers that the nodes held make one copy of the model.
fn split(nodes: &[Fitted], shape: &Model) -> String {
    let mut held: Vec<(&str, LayerRange)> =
        nodes.iter().filter_map(|node| Some((node.node.as_str(), node.layers?))).collect();
    held.sort_by_key(|(_, layers)| layers.first);
    let mut next = 0;
    let fits = held.iter().all(|(_, layers)| std::mem::replace(&mut next, layers.end) == layers.first);
    if !fits || next != shape.layer_count() {
        return String::new();
    }
    let share = |(node, layers): &(&str, LayerRange)| format!("{} = {}", quoted(node), layers.len());
    format!("split = {{ {} }}\n", held.iter().map(share).collect::<Vec<_>>().join(", "))
}
