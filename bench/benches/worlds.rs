//! How fast the worlds run: an element is a simulated millisecond, so 1 Kelem/s is real time and 2 Melem/s is 2,000
//! times as fast. `cargo bench -p bench --bench worlds`; the figures in `docs/performance.md` come from here.

#![allow(missing_docs, reason = "criterion's macros make public items without words")]

use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sim::run::run;
use sim::scenario::{Scenario, WorldKind, load};

fn shipped(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(format!("{name}.toml"));
    load(&path, &[], None).expect("shipped scenarios load")
}

fn play(c: &mut Criterion, name: &str, world: WorldKind) {
    let scenario = shipped(name);
    let once = run(&scenario, scenario.seed, world, false).expect("shipped scenarios run");
    let mut group = c.benchmark_group("worlds");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements((once.ended_us / 1e3) as u64));
    let world_name = match world {
        WorldKind::Memory => "memory",
        WorldKind::Turmoil => "turmoil",
    };
    group.bench_function(format!("{name}/{world_name}"), |b| {
        b.iter(|| run(&scenario, scenario.seed, world, false).expect("it ran before"));
    });
    group.finish();
}

fn worlds(c: &mut Criterion) {
    play(c, "wifi3", WorldKind::Memory);
    play(c, "wifi3", WorldKind::Turmoil);
    play(c, "lan4", WorldKind::Memory);
    play(c, "lan4", WorldKind::Turmoil);
    play(c, "scale-1000", WorldKind::Memory);
}

criterion_group!(benches, worlds);
criterion_main!(benches);
