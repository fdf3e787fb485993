//! `bench membership`: what it costs to know each other, and how long it takes, against the number of members.

mod figure;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use node::membership::Config;
use serde::{Deserialize, Serialize};
use sim::membership::serving::{Kill, Served, Serving};
use sim::membership::spec::{Demand, Fault, FaultKind, Network, Promise, Spec, Start};
use sim::membership::{Outcome, run_with};
use sim::report::manifest::Manifest;
use sim::report::stats::middle;
use sim::report::{ReportError, write_text};
use sim::scenario::WorldKind;

use crate::table;

/// When each thing happens, seconds from the start; the last ten seconds are rest.
const CRASH_S: f64 = 10.0;
const JOIN_S: f64 = 24.0;
const LEAVE_S: f64 = 30.0;
const CHANGE_S: f64 = 36.0;
const END_S: f64 = 60.0;
/// The same in the mesh that serves: all have their models by then, and service is back long before the end.
const HOSTS_DIE_S: f64 = 25.0;
const SERVED_S: f64 = 45.0;

/// What `bench membership` takes.
#[derive(Debug, Clone, Args)]
pub struct MembershipArgs {
    /// Numbers of members.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 30, 100, 300, 1000, 3000])]
    pub sizes: Vec<u32>,
    /// Seeds at each size, from 1 on; medians are shown, and the longest of the detections.
    #[arg(long, default_value_t = 3)]
    pub seeds: u64,
    /// The largest mesh that is run with models to serve as well: of thousands it takes many minutes.
    #[arg(long, default_value_t = 1000)]
    pub served: u32,
    /// Where CSV, figure and manifest go.
    #[arg(long, default_value = "results/membership")]
    pub out: PathBuf,
}

/// One size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    /// Members.
    nodes: u32,
    /// Runs.
    seeds: u64,
    /// What a member sends at rest, UDP and IP included.
    rest_bytes_per_s: f64,
    /// See `rest_bytes_per_s`.
    rest_packets_per_s: f64,
    /// From a crash until the first knows, median of the runs, seconds.
    crash_first_s: f64,
    /// Until all know.
    crash_all_s: f64,
    /// The longest of the runs.
    crash_all_longest_s: f64,
    /// From a member's start until all know it.
    join_all_s: f64,
    /// From a leave until all know.
    leave_all_s: f64,
    /// From a changed record until half have it.
    change_half_s: f64,
    /// Until all have it.
    change_all_s: f64,
    /// The most that one member sent in one second.
    peak_bytes_per_s: u64,
    /// From the death of all hosts of a model until another machine begins to load it; nothing where it went on
    /// in every run, or was not run.
    service_begun_s: Option<f64>,
    /// Until it is served again, loading included.
    service_back_s: Option<f64>,
    /// The longest of the runs.
    service_back_longest_s: Option<f64>,
}

/// Runs everything, writes it, and gives the table as text.
///
/// # Errors
/// A file could not be written.
pub fn run(args: &MembershipArgs, progress: &mut impl FnMut(&str)) -> Result<String, ReportError> {
    let mut rows = Vec::new();
    for nodes in &args.sizes {
        let (mut outcomes, mut served) = (Vec::new(), Vec::new());
        for seed in 1..=args.seeds.max(1) {
            progress(&format!("{nodes} members, seed {seed}"));
            outcomes.push(run_with(&spec(*nodes), seed, config(), None));
            if *nodes <= args.served {
                progress(&format!("{nodes} members that serve, seed {seed}"));
                served.push(run_with(&serving(*nodes), seed, Config::default(), None));
            }
        }
        rows.push(row(*nodes, &outcomes, &served));
        write_text(&args.out.join("membership.csv"), &table::csv(&rows))?;
    }
    figure::scene(&rows).save(&args.out, "membership")?;
    Manifest::of_files("membership", &[]).write(&args.out)?;
    Ok(text(&rows))
}

/// Coordinates are told in the first minutes of a mesh, at a rate that does not depend on its size: not at rest.
fn config() -> Config {
    Config { coordinate_first: Duration::from_secs(1 << 20), ..Config::default() }
}

fn spec(nodes: u32) -> Spec {
    let fault = |at_s, kind| Fault { at_s, kind, for_s: None, count: 1 };
    Spec {
        nodes,
        seconds: END_S,
        seed: 1,
        start: Start::Warm,
        world: WorldKind::Memory,
        network: Network::default(),
        demand: Default::default(),
        changes_per_s: 0.0,
        faults: vec![
            fault(CRASH_S, FaultKind::Crash),
            fault(JOIN_S, FaultKind::Join),
            fault(LEAVE_S, FaultKind::Leave),
            fault(CHANGE_S, FaultKind::Change),
        ],
        serving: None,
        chaos: None,
        vary: None,
        promise: Promise::default(),
    }
}

/// Machines that serve three models between them; all hosts of the one that is wanted most die at once.
fn serving(nodes: u32) -> Spec {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let serving = Serving {
        models: names(&["Llama-3.1-8B", "Qwen3-14B", "Gemma-3-12B"]),
        machines: names(&["rtx-4090", "rtx-3090", "rtx-4070-ti-super"]),
        on_disk: 0.5,
        pinned: 0.0,
        sessions: 8,
        queue: 32,
        prompt: 400.0,
        output: 150.0,
        clients: 0,
        shifts: Vec::new(),
        kills: vec![Kill { at_s: HOSTS_DIE_S, model: 0, hosts: None, for_s: None }],
        promise: Default::default(),
    };
    Spec {
        seconds: SERVED_S,
        demand: Demand { per_s: 4.0, models: 3 },
        faults: Vec::new(),
        serving: Some(serving),
        ..spec(nodes)
    }
}

fn row(nodes: u32, outcomes: &[Outcome], served: &[Outcome]) -> Row {
    let of = |kind: &'static str| {
        outcomes.iter().flat_map(|o| &o.timings).filter(move |timing| timing.kind == kind)
    };
    // What not all have learnt within the run has taken that long at least.
    let all = |kind| of(kind).map(|timing| timing.all_s.unwrap_or(END_S - timing.at_s));
    let round = |value: f64| (value * 1e3).round() / 1e3;
    // Where the first member hosts the model too, which is never killed, its service did not end. What was not back within
    // the run has taken that long at least.
    let ended = |served: &&Served| served.served_after_death_s.count > 0 || served.replicas[0] == 0;
    let served = || served.iter().filter_map(|outcome| outcome.serving.as_ref()).filter(ended);
    let back = |longest: f64| if longest > 0.0 { longest } else { SERVED_S - HOSTS_DIE_S };
    let backs = || served().map(|served| back(served.served_after_death_s.longest));
    let known = |values: Vec<f64>| (!values.is_empty()).then(|| round(middle(values)));
    Row {
        nodes,
        seeds: outcomes.len() as u64,
        rest_bytes_per_s: round(middle(outcomes.iter().map(|o| o.rest_bytes_per_s))),
        rest_packets_per_s: round(middle(outcomes.iter().map(|o| o.rest_packets_per_s))),
        crash_first_s: round(middle(of("crash").filter_map(|timing| timing.first_s))),
        crash_all_s: round(middle(all("crash"))),
        crash_all_longest_s: round(all("crash").fold(0.0, f64::max)),
        join_all_s: round(middle(all("join"))),
        leave_all_s: round(middle(all("leave"))),
        change_half_s: round(middle(of("change").filter_map(|timing| timing.half_s))),
        change_all_s: round(middle(all("change"))),
        peak_bytes_per_s: outcomes.iter().map(|o| o.peak_bytes_per_s).max().unwrap_or(0),
        service_begun_s: known(served().map(|served| back(served.begun_after_death_s.longest)).collect()),
        service_back_s: known(backs().collect()),
        service_back_longest_s: backs().max_by(f64::total_cmp).map(round),
    }
}

fn text(rows: &[Row]) -> String {
    let mut text =
        "members   B/s at rest   crash: first   all   join: all   leave: all   change: half   all   service: begun   back\n"
            .to_owned();
    let shown = |value: Option<f64>| value.map_or("-".into(), |seconds| format!("{seconds:.2} s"));
    for row in rows {
        text += &format!(
            "{:7} {:13.0} {:12.2} s {:4.2} s {:8.2} s {:10.2} s {:12.2} s {:4.2} s {:>14} {:>6}\n",
            row.nodes,
            row.rest_bytes_per_s,
            row.crash_first_s,
            row.crash_all_s,
            row.join_all_s,
            row.leave_all_s,
            row.change_half_s,
            row.change_all_s,
            shown(row.service_begun_s),
            shown(row.service_back_s)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_small_mesh_is_measured_and_drawn() {
        let out = tempfile::tempdir().unwrap();
        let args = MembershipArgs { sizes: vec![4, 9], seeds: 1, served: 9, out: out.path().to_owned() };
        let text = run(&args, &mut |_| {}).unwrap();
        assert_eq!(text.lines().count(), 3);
        for file in ["membership.csv", "membership.png", "membership.svg", "manifest.json"] {
            assert!(out.path().join(file).exists(), "{file}");
        }
        let rows: Vec<Row> = csv::Reader::from_path(out.path().join("membership.csv"))
            .unwrap()
            .deserialize()
            .map(Result::unwrap)
            .collect();
        assert!(rows.iter().all(|row| row.crash_all_s > 0.0 && row.crash_all_s < 20.0), "{rows:?}");
        assert!(
            rows.iter().all(|row| row.rest_bytes_per_s > 50.0 && row.rest_bytes_per_s < 400.0),
            "{rows:?}"
        );
    }
}
