//! How long the planner takes: exactly for 8 nodes and 128 layers, with a bound for 200 and for a thousand nodes, and to
//! plan again when one node of a thousand is lost. `cargo bench -p bench --bench place`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use planner::cost::predict::Load;
use planner::fleet::{Delay, Distance, Fleet, LinkClass, Network, NetworkId, Node, catalog as devices};
use planner::model::{Model, catalog as models};
use planner::place::{Ask, Constraints, Objective, Shape, place, replan};

const MIXED: [&str; 8] =
    ["apple-m4-max", "rtx-4090", "apple-m2", "rtx-3090", "apple-m4", "rtx-3060", "apple-m1", "rtx-4070"];

const OBJECTIVES: [(&str, Objective); 3] =
    [("tpot", Objective::Tpot), ("throughput", Objective::Throughput), ("ttft", Objective::Ttft)];

fn network(i: usize) -> Network {
    Network {
        name: format!("city{i}"),
        class: LinkClass::Lan,
        delay: Delay { base_us: 200.0, jitter_us: 50.0 },
        bytes_per_s: 1.25e8,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: Some(1.25e7),
        down_bytes_per_s: Some(5e7),
    }
}

/// `count` machines of `kinds` in turn, over `networks` networks that lie 5 ms and more apart.
fn fleet(count: usize, kinds: &[&str], networks: usize) -> Fleet {
    let node = |i: usize| Node {
        name: format!("node{i}"),
        device: devices::device(kinds[i % kinds.len()]).expect("the catalog has these devices"),
        machine: format!("machine{i}"),
        network: NetworkId((i / 3 % networks) as u32),
        up_bytes_per_s: Some(2.5e6 + 1e4 * i as f64),
        down_bytes_per_s: None,
        has_model: true,
    };
    let pairs = (0..networks).flat_map(|b| (0..b).map(move |a| (a, b)));
    let distance = |(a, b): (usize, usize)| Distance {
        a: NetworkId(a as u32),
        b: NetworkId(b as u32),
        delay: Delay { base_us: 5000.0 + 700.0 * (a * 3 + b) as f64, jitter_us: 300.0 },
        class: LinkClass::Wan,
        loss: 0.0,
    };
    Fleet {
        nodes: (0..count).map(node).collect(),
        networks: (0..networks).map(network).collect(),
        distances: pairs.map(distance).collect(),
        overrides: Vec::new(),
    }
}

/// The same machines on Wi-Fi: one medium for each network, shared by all hops, and the sites' uplinks.
fn wireless(mut fleet: Fleet) -> Fleet {
    for network in &mut fleet.networks {
        network.class = LinkClass::Wifi;
        network.shared = true;
        network.air_crossings = 2.0;
        network.access_us = 500.0;
        network.bytes_per_s = 3e7;
        network.delay = Delay { base_us: 1500.0, jitter_us: 1500.0 };
    }
    fleet
}

fn ask(objective: Objective, prompt: u32, concurrency: u32) -> Ask {
    Ask {
        objective,
        load: Load { prompt, context: prompt + 100, concurrency, head: None },
        constraints: Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 1,
            context: 4096,
            shape: Shape::Auto,
        },
    }
}

fn model(name: &str) -> Model {
    models::find(name).expect("the catalog has this model")
}

/// 128 layers of which no machine of the fleet holds all.
fn deep() -> Model {
    let mut model = model("Llama-3.3-70B Q4_K_M");
    model.layers = model.layers.iter().cycle().take(128).copied().collect();
    model
}

fn eight(c: &mut Criterion) {
    let mut group = c.benchmark_group("exact, 8 nodes, 128 layers");
    group.sample_size(10);
    let model = deep();
    let alike = fleet(8, &["rtx-3090"], 2);
    let wired = [("mixed", fleet(8, &MIXED, 2)), ("alike", alike.clone())];
    let on_air = [("mixed, Wi-Fi", wireless(fleet(8, &MIXED, 1))), ("alike, Wi-Fi", wireless(alike))];
    for (kind, fleet) in wired.into_iter().chain(on_air) {
        for (name, objective) in OBJECTIVES {
            for (load, prompt, concurrency) in [("one", 400, 1), ("sixteen", 4000, 16)] {
                let ask = ask(objective, prompt, concurrency);
                let found = place(&fleet, &model, &ask).expect("eight machines hold it");
                assert!(found.exact, "{kind} {name} {load}");
                let id = BenchmarkId::new(format!("{kind}/{name}"), load);
                group.bench_with_input(id, &ask, |b, ask| b.iter(|| black_box(place(&fleet, &model, ask))));
            }
        }
    }
    group.finish();
}

fn many(c: &mut Criterion) {
    let mut group = c.benchmark_group("with a bound");
    group.sample_size(10);
    for (count, model) in [(200, deep()), (1000, model("Llama-3.1-8B Q4_K_M"))] {
        let fleet = fleet(count, &MIXED, 10);
        for (name, objective) in OBJECTIVES {
            let ask = ask(objective, 400, count as u32);
            let found = place(&fleet, &model, &ask).expect("so many machines hold it");
            eprintln!("{count} nodes, {name}: within {:.1} % of the bound", found.gap * 100.0);
            let id = BenchmarkId::new(name, count);
            group.bench_with_input(id, &ask, |b, ask| b.iter(|| black_box(place(&fleet, &model, ask))));
        }
    }
    group.finish();
}

fn again(c: &mut Criterion) {
    let (fleet, model) = (fleet(1000, &MIXED, 10), model("Llama-3.3-70B Q4_K_M"));
    let ask = ask(Objective::Throughput, 400, 1000);
    let old = place(&fleet, &model, &ask).expect("a thousand machines hold it").recommended.plan;
    let lost = [old.replicas[0].stages[0].node];
    let mut group = c.benchmark_group("replan");
    group.sample_size(20);
    group.bench_function("one of 1000 lost", |b| {
        b.iter(|| black_box(replan(&fleet, &model, &ask, &old, &lost)));
    });
    group.finish();
}

criterion_group!(benches, eight, many, again);
criterion_main!(benches);
