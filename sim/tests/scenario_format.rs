//! What the format means: quantities in base units, cuts, groups, ranges, includes, distances, faults, loads.
#![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

use std::path::Path;

use planner::fleet::{LinkClass, NodeId};
use planner::plan::LayerRange;
use sim::scenario::{Arrivals, FaultKind, Length, Scenario, WorldKind, load, load_text};

const MODEL: &str = "model = { layers = 47, hidden = 512, ffn = 2048 }\n";
const PAIR: &str =
    "[network.home]\nclass = \"lan\"\n[node]\na = { device = \"apple-m4\" }\nb = { device = \"rtx-3060\" }\n";

fn read(rest: &str) -> Scenario {
    seeded(rest, None)
}

fn seeded(rest: &str, seed: Option<u64>) -> Scenario {
    load_text(Path::new("case.toml"), &format!("{MODEL}{rest}"), &[], seed).unwrap_or_else(|e| panic!("{e}"))
}

fn ranges(scenario: &Scenario) -> Vec<(u32, u32, u32)> {
    let split = scenario.plan.split.as_ref().unwrap();
    split.iter().map(|(node, LayerRange { first, end })| (node.0, *first, *end)).collect()
}

#[test]
fn a_short_scenario_has_sensible_defaults() {
    let s = read("[node]\nonly = { device = \"apple-m4\" }\n");
    assert_eq!((s.seed, s.world, s.scale, s.name.as_str()), (1, WorldKind::Turmoil, None, "case"));
    assert_eq!(s.fleet.nodes[0].machine, "only");
    assert!(s.fleet.nodes[0].has_model);
    assert_eq!(s.workload.requests, 1);
    assert_eq!(s.workload.prompt, Length::Fixed(128));
    assert_eq!(s.plan.ask.constraints.context, 4096);
    assert_eq!(s.limit_us, 3600e6);
}

#[test]
fn a_round_trip_counts_the_jitter_in() {
    let s = read(
        "[network.home]\nclass = \"wifi\"\nrtt = \"31 ms\"\njitter = \"3 ms\"\nbandwidth = \"30 MB/s\"\n[node]\na = { device = \"apple-m4\" }\n",
    );
    let home = &s.fleet.networks[0];
    assert_eq!(
        (home.delay.base_us, home.delay.jitter_us, home.delay.mean_us()),
        (12_500.0, 3_000.0, 15_500.0)
    );
    // One transfer crosses the air twice, so the air itself passes twice what a transfer reaches.
    assert_eq!((home.bytes_per_s, home.air_crossings, home.shared), (60e6, 2.0, true));
}

#[test]
fn what_a_profile_measured_is_read_and_software_costs_too() {
    let measured = "measured = { head = \"9 GB/s\", kv = \"7 GB/s\", attention = \"50 GFLOP/s\" }";
    let device = format!("[device.here]\nlike = \"apple-m4\"\n{measured}\n");
    let run = "[run]\nsoftware = { per_hop = \"90 us\" }\n";
    let s = read(&format!("{device}[node]\na = {{ device = \"here\" }}\n{run}"));
    let found = s.fleet.nodes[0].device.measured.unwrap();
    assert_eq!((found.head_bytes_per_s, found.kv_bytes_per_s, found.attention_flops), (9e9, 7e9, 5e10));
    assert_eq!((s.software.per_hop_us, s.software.per_step_us), (90.0, 100.0));
    let short = device.replace("kv = \"7 GB/s\", ", "");
    let text = format!("{MODEL}{short}[node]\na = {{ device = \"here\" }}\n");
    let error = load_text(Path::new("case.toml"), &text, &[], None).unwrap_err().to_string();
    assert!(error.contains("of what a profile measures a part is missing"), "{error}");
}

#[test]
fn a_split_by_shares_rounds_each_boundary() {
    let s = read(&format!("{PAIR}[plan]\nsplit = {{ a = 0.85, b = 0.15 }}\n"));
    assert_eq!(ranges(&s), [(0, 0, 40), (1, 40, 47)]);
    let s = read(&format!("{PAIR}[plan]\nsplit = {{ b = 0.4, a = 0.6 }}\n"));
    assert_eq!(ranges(&s), [(1, 0, 19), (0, 19, 47)]);
}

#[test]
fn a_split_can_be_a_list_or_a_rule() {
    assert_eq!(ranges(&read(&format!("{PAIR}[plan]\nsplit = [40, 7]\n"))), [(0, 0, 40), (1, 40, 47)]);
    assert_eq!(ranges(&read(&format!("{PAIR}[plan]\nsplit = \"equal\"\n"))), [(0, 0, 24), (1, 24, 47)]);
    let memory = ranges(&read(&format!("{PAIR}[plan]\nsplit = \"memory\"\n")));
    let s = read(PAIR);
    let usable: Vec<f64> = s.fleet.nodes.iter().map(|n| n.device.usable_bytes() as f64).collect();
    let first = (usable[0] / (usable[0] + usable[1]) * 47.0).round() as u32;
    assert_eq!(memory, [(0, 0, first), (1, first, 47)]);
}

#[test]
fn several_alike_are_numbered_and_their_name_means_all() {
    let s = read(
        "[network.home]\n[node]\nmax = { device = \"apple-m4-max\" }\npi = { device = \"raspberry-pi-5\", count = 7 }\n[plan]\nsplit = { max = 40, pi = 1 }\nexclude = \"pi-3\"\n",
    );
    assert_eq!(s.fleet.nodes.len(), 8);
    assert_eq!(s.fleet.nodes[7].name, "pi-7");
    assert_eq!(ranges(&s)[7], (7, 46, 47));
    assert_eq!(s.plan.ask.constraints.excluded, [NodeId(3)]);
}

#[test]
fn ranges_are_drawn_from_the_seed_by_key_and_copy() {
    let text = "[network.home]\nrtt = { uniform = [\"5 ms\", \"40 ms\"] }\n[node]\npc = { device = { choice = [\"rtx-3060\", \"rtx-4090\", \"apple-m4\"] }, count = 20, up = { uniform = [\"1 MB/s\", \"2 MB/s\"] } }\n";
    let (one, again, other) = (seeded(text, Some(1)), seeded(text, Some(1)), seeded(text, Some(2)));
    assert_eq!(one, again);
    assert_ne!(one.fleet.networks, other.fleet.networks);
    let mean_us = one.fleet.networks[0].delay.mean_us();
    assert!((2_500.0..=20_000.0).contains(&mean_us), "{mean_us}");
    let devices: std::collections::BTreeSet<&str> =
        one.fleet.nodes.iter().map(|n| n.device.id.as_str()).collect();
    assert!(devices.len() > 1, "twenty draws out of three: {devices:?}");
    let ups: Vec<f64> = one.fleet.nodes.iter().filter_map(|n| n.up_bytes_per_s).collect();
    assert!(ups.iter().all(|up| (1e6..=2e6).contains(up)) && ups.windows(2).any(|w| w[0] != w[1]));
    // Another key moves no draw.
    let more = seeded(&format!("{text}[plan]\nmin_layers = {{ choice = [1, 2] }}\n"), Some(1));
    assert_eq!(more.fleet, one.fleet);
}

#[test]
fn a_device_can_start_from_another_one() {
    let s = read(
        "[device.big]\nlike = \"apple-m4-max\"\nmemory = \"128 GB\"\n[device.slow]\nlike = \"big\"\nbandwidth = \"100 GB/s\"\n[network.n]\n[node]\na = { device = \"slow\" }\nb = { device = { class = \"board\", memory = \"4 GB\", bandwidth = \"8 GB/s\", flops = \"60 GFLOP/s\" } }\nc = { device = \"apple-m4-max\" }\n",
    );
    let (slow, board, stock) = (&s.fleet.nodes[0].device, &s.fleet.nodes[1].device, &s.fleet.nodes[2].device);
    assert_eq!((slow.memory_bytes, slow.bandwidth_bytes_per_s), (128_000_000_000, 100e9));
    assert_eq!(slow.layer_overhead_us, stock.layer_overhead_us);
    // The catalog's Apple machines keep a share of the memory, whatever its size.
    let kept = |d: &planner::fleet::Device| d.reserved_bytes as f64 / d.memory_bytes as f64;
    assert!((kept(slow) - kept(stock)).abs() < 1e-6);
    assert_eq!((board.id.as_str(), board.flops, board.memory_bytes), ("b", 60e9, 4_000_000_000));
}

#[test]
fn distances_join_all_pairs_or_follow_a_matrix() {
    let nets = "[network]\nx = {}\ny = {}\nz = {}\n[node]\na = { device = \"apple-m4\", network = \"x\" }\nb = { device = \"apple-m4\", network = \"y\" }\nc = { device = \"apple-m4\", network = \"z\" }\n";
    let s = read(&format!(
        "{nets}[[distance]]\nbetween = [\"x\", \"y\", \"z\"]\nrtt = [[\"0 s\", \"10 ms\", \"20 ms\"], [\"10 ms\", \"0 s\", \"30 ms\"], [\"20 ms\", \"30 ms\", \"0 s\"]]\njitter = \"1 ms\"\n"
    ));
    let means: Vec<(u32, u32, f64)> =
        s.fleet.distances.iter().map(|d| (d.a.0, d.b.0, d.delay.mean_us())).collect();
    assert_eq!(means, [(0, 1, 5_000.0), (0, 2, 10_000.0), (1, 2, 15_000.0)]);
    assert!(s.fleet.distances.iter().all(|d| d.class == LinkClass::Wan && d.delay.jitter_us == 1_000.0));
    let s = read(&format!(
        "{nets}[[distance]]\nbetween = [\"x\", \"y\", \"z\"]\nrtt = {{ uniform = [\"10 ms\", \"90 ms\"] }}\n"
    ));
    let means: Vec<f64> = s.fleet.distances.iter().map(|d| d.delay.mean_us()).collect();
    assert!(means[0] != means[1] && means[1] != means[2], "each pair draws for itself: {means:?}");
}

#[test]
fn faults_come_in_order_and_go_again() {
    let s = read(&format!(
        "{PAIR}[[fault]]\nat = \"4 s\"\npartition = [[\"a\"], [\"b\"]]\nfor = \"1 s\"\n[[fault]]\nat = \"1 s\"\ncrash = \"b\"\nfor = \"2 s\"\n[[fault]]\nat = \"2 s\"\nslow = [\"a\", \"b\"]\nfactor = 3\n[[fault]]\nat = \"6 s\"\nlink = [\"a\", \"b\"]\nrtt = \"80 ms\"\n"
    ));
    let at: Vec<f64> = s.faults.iter().map(|f| f.at_us / 1e6).collect();
    assert_eq!(at, [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(s.faults[0].kind, FaultKind::Crash(NodeId(1)));
    assert_eq!(s.faults[1].kind, FaultKind::SlowDown(NodeId(0), 3.0));
    assert_eq!(s.faults[3].kind, FaultKind::Restart(NodeId(1)));
    assert_eq!(s.faults[5].kind, FaultKind::Heal);
    assert!(
        matches!(s.faults[6].kind, FaultKind::LinkChange { delay: Some(d), .. } if d.mean_us() == 40_000.0)
    );
}

#[test]
fn loads_come_in_four_forms() {
    let load = |text: &str| read(&format!("{PAIR}[workload]\n{text}")).workload;
    assert_eq!(load("users = 3\nthink = \"1 s\"").arrivals, Arrivals::Closed { users: 3, think_us: 1e6 });
    assert_eq!(load("every = \"2 s\"").arrivals, Arrivals::Fixed { every_us: 2e6 });
    assert_eq!(load("rate = 0.5").arrivals, Arrivals::Poisson { per_s: 0.5 });
    let lengths = load("prompt = { uniform = [3, 9] }\noutput = { median = 10, p90 = 40, max = 100 }");
    assert_eq!(lengths.prompt, Length::Uniform(3, 9));
    assert_eq!(lengths.output, Length::LogNormal { median: 10, p90: 40, max: 100 });
    assert_eq!(load("entry = \"b\"").entry, [NodeId(1)]);
}

#[test]
fn a_trace_is_read_from_its_csv() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.csv"), "at_ms, prompt, output\n0, 10, 20\n1500.5, 30, 40\n")
        .unwrap();
    let text = format!("{MODEL}{PAIR}[workload]\ntrace = \"t.csv\"\n");
    let at = folder.path().join("case.toml");
    let s = load_text(&at, &text, &[], None).unwrap();
    let Arrivals::Trace(rows) = &s.workload.arrivals else { panic!("no trace") };
    assert_eq!((rows.len(), rows[1].at_us, s.workload.requests), (2, 1_500_500.0, 2));
    std::fs::write(folder.path().join("t.csv"), "at_ms,prompt,output\n5,1,1\n4,1,1\n").unwrap();
    let error = load_text(&at, &text, &[], None).unwrap_err().to_string();
    assert!(error.contains("t.csv: line 3: at_ms = 4 is negative or before the line above"), "{error}");
}

#[test]
fn the_including_file_wins_and_may_add() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "below.toml",
        &format!(
            "{MODEL}[network.home]\nclass = \"wifi\"\nrtt = \"40 ms\"\n[node]\na = {{ device = \"apple-m4\" }}\n[[fault]]\nat = \"1 s\"\ncrash = \"a\"\n"
        ),
    );
    write(
        "top.toml",
        "# Which?\ninclude = \"below.toml\"\n[network.home]\nrtt = \"10 ms\"\n[node]\nb = { device = \"rtx-3060\" }\n[[fault]]\nat = \"2 s\"\ncrash = \"b\"\n",
    );
    let s = load(&folder.path().join("top.toml"), &[], None).unwrap();
    assert_eq!((s.question.as_str(), s.fleet.networks[0].class), ("Which?", LinkClass::Wifi));
    assert_eq!(s.fleet.networks[0].delay.mean_us(), 5_000.0);
    let names: Vec<&str> = s.fleet.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!((names, s.faults.len()), (vec!["a", "b"], 2));
}

#[test]
fn an_override_keeps_the_rest_of_a_named_device() {
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let overrides =
        [set("node.b.device.memory", "24 GB"), set("run.world", "memory"), set("plan.split", "[7, 40]")];
    let s = load_text(Path::new("case.toml"), &format!("{MODEL}{PAIR}"), &overrides, None).unwrap();
    assert_eq!((s.fleet.nodes[1].device.memory_bytes, s.world), (24_000_000_000, WorldKind::Memory));
    assert_eq!(
        s.fleet.nodes[1].device.bandwidth_bytes_per_s,
        read(PAIR).fleet.nodes[1].device.bandwidth_bytes_per_s
    );
    assert_eq!(ranges(&s)[0], (0, 0, 7));
}

#[test]
fn a_described_model_weighs_what_its_shape_says() {
    // Llama 2 7B: 6.74 billion parameters.
    let text = "model = { name = \"Llama-2-7B\", quant = \"Q40\", layers = 32, hidden = 4096, ffn = 11008, size = \"3.95 GB\" }\n[node]\na = { device = \"raspberry-pi-4\" }\n";
    let s = load_text(Path::new("case.toml"), text, &[], None).unwrap();
    let params: u64 = s.model.layers.iter().map(|l| l.trunk_params).sum::<u64>() + 2 * s.model.head_params;
    assert!((params as f64 / 6.74e9 - 1.0).abs() < 0.01, "{params}");
    assert!((s.model.weight_bytes() as f64 / 3.95e9 - 1.0).abs() < 1e-6);
    assert_eq!((s.model.name.as_str(), s.model.layers[0].kv_bytes_per_token), ("Llama-2-7B Q40", 16_384));
    let moe = read("[node]\na = { device = \"apple-m4\" }\n").model;
    assert!(moe.layers.iter().all(|l| l.experts.is_none()));
    let text = "model = { layers = 4, hidden = 512, ffn = 2048, experts = { count = 8, used = 2, ffn = 256, dense_layers = 1 } }\n[node]\na = { device = \"apple-m4\" }\n";
    let moe = load_text(Path::new("case.toml"), text, &[], None).unwrap().model;
    assert!(moe.layers[0].experts.is_none());
    assert_eq!(moe.layers[1].experts.map(|e| (e.count, e.used, e.params_each)), Some((8, 2, 3 * 512 * 256)));
}

#[test]
fn a_case_carries_what_was_measured() {
    let text = format!(
        "{PAIR}[published]\ndecode = [12, 13]\ngrade = \"B\"\nfamily = \"mesh\"\nsource = \"their page\"\nassumed = \"the link\"\n"
    );
    let published = read(&text).published.unwrap();
    assert_eq!((published.decode_tok_s, published.grade, published.id.as_str()), ((12.0, 13.0), 'B', "case"));
    assert!(!published.calibrated_on);
}
