//! From the raw tables to a scenario: quantities in base units, names looked up, ranges drawn.

mod device;
mod fault;
mod model;
mod network;
mod plan;
mod roster;
mod run;
mod workload;

use planner::fleet::{Distance, Fleet, Network};

use self::device::Devices;
use self::roster::Roster;
use super::Scenario;
use super::raw::{RawPlan, RawRun, RawScenario, RawWorkload};
use super::reading::Reading;

/// The scenario, or `None` where something was wrong, which is noted in `reading`.
pub(super) fn resolve(
    reading: &Reading,
    raw: &RawScenario,
    name: &str,
    question: String,
    seed: Option<u64>,
) -> Option<Scenario> {
    let (no_run, no_plan, no_load) = (RawRun::default(), RawPlan::default(), RawWorkload::default());
    let raw_run = raw.run.as_ref().unwrap_or(&no_run);
    let raw_plan = raw.plan.as_ref().unwrap_or(&no_plan);
    let written = reading.get(raw_run.seed).unwrap_or(1);
    let seed = seed.unwrap_or(written);
    reading.seed.set(seed);

    let model = model::model(reading, raw);
    let (roster, networks, distances) = places(reading, raw);
    let overrides = network::links(reading, &raw.link, &roster);
    let head = roster.one(reading, raw_plan.head);
    let load = workload::workload(reading, raw.workload.as_ref().unwrap_or(&no_load), &roster, head);
    let layers = model.as_ref().map(planner::model::Model::layer_count);
    let plan = plan::plan(reading, raw_plan, &roster, head, &load, layers);
    let run = run::run(reading, raw_run, roster.nodes.len());
    let faults = fault::faults(reading, &raw.fault, &roster);
    let churn = raw.churn.as_ref().and_then(|raw| fault::churn(reading, raw, &roster));
    let published = raw.published.as_ref().and_then(|raw| run::published(reading, raw, name));
    if reading.failed() {
        return None;
    }
    Some(Scenario {
        name: name.to_owned(),
        question,
        seed,
        world: run.world,
        scale: run.scale,
        fleet: Fleet { nodes: roster.nodes, networks, distances, overrides },
        model: model?,
        plan,
        engine: run.engine,
        baselines: run.baselines,
        software: run.software,
        inject_us: run.inject_us,
        workload: load,
        faults,
        churn,
        compute_error: run.compute_error,
        limit_us: run.limit_us,
        published,
    })
}

/// Machines, and the networks they are attached to.
fn places(reading: &Reading, raw: &RawScenario) -> (Roster, Vec<Network>, Vec<Distance>) {
    let devices = Devices { reading, own: &raw.device };
    devices.check_own();
    let mut networks = network::networks(reading, &raw.network);
    let distances = network::distances(reading, &raw.distance, &networks);
    if networks.is_empty() {
        networks.push(network::none_needed(reading));
    }
    let roster = Roster::read(reading, &raw.node, &raw.network, &networks, &devices);
    if raw.node.0.is_empty() {
        let cure = "write [node.NAME] with device = \"apple-m4\", for each machine";
        reading.fault_here(raw.here, "the scenario has no nodes", cure);
    }
    let several = roster.nodes.iter().any(|n| n.machine != roster.nodes[0].machine);
    if raw.network.0.is_empty() && several {
        let cure = "write [network.NAME] with class = \"wifi\" or \"lan\"; nodes are attached to it when it is the only one";
        reading.fault_here(raw.here, "several machines and no network between them", cure);
    }
    let mut used = vec![false; networks.len()];
    for node in &roster.nodes {
        used[node.network.0 as usize] = true;
    }
    network::check_joined(reading, &raw.network, &used, &distances);
    (roster, networks, distances)
}
