//! Whatever happens to nodes and messages, once it is over all are of one mind.

use std::time::Duration;

use planner::plan::NodeId;
use proptest::collection::vec;
use proptest::prelude::*;

use super::bus::Bus;

const NODES: u32 = 5;

#[derive(Debug, Clone)]
enum Blow {
    Kill(u32),
    Start(u32),
    Restart(u32),
    Part(u32, u32),
    /// Only what goes one way is lost.
    Deafen(u32, u32),
    Slow(u32, u32, u64),
    Lose(u32),
    Double(u32),
    Heal,
    /// Its device loads nothing from now on.
    Spoil(u32),
    Wait(u64),
}

fn blow() -> impl Strategy<Value = Blow> {
    let node = || 0..NODES;
    prop_oneof![
        2 => node().prop_map(Blow::Kill),
        2 => node().prop_map(Blow::Start),
        1 => node().prop_map(Blow::Restart),
        2 => (node(), node()).prop_map(|(a, b)| Blow::Part(a, b)),
        1 => (node(), node()).prop_map(|(a, b)| Blow::Deafen(a, b)),
        1 => (node(), node(), 1..2000u64).prop_map(|(a, b, ms)| Blow::Slow(a, b, ms)),
        1 => (1..60u32).prop_map(Blow::Lose),
        1 => (1..60u32).prop_map(Blow::Double),
        2 => Just(Blow::Heal),
        1 => node().prop_map(Blow::Spoil),
        5 => prop_oneof![1..200u64, 200..5000u64].prop_map(Blow::Wait),
    ]
}

fn strike(bus: &mut Bus, blow: Blow) {
    match blow {
        Blow::Kill(node) => bus.kill(node),
        Blow::Start(node) if !bus.cores.contains_key(&node) => bus.start(node, None),
        Blow::Start(_) => {}
        Blow::Restart(node) => bus.restart(node),
        Blow::Part(a, b) => bus.part(a, b),
        Blow::Deafen(a, b) => {
            bus.weather.parted.insert((a, b));
        }
        Blow::Slow(a, b, ms) => {
            bus.weather.slow.insert((a, b), Duration::from_millis(ms));
        }
        Blow::Lose(share) => bus.weather.lost = share,
        Blow::Double(share) => bus.weather.doubled = share,
        Blow::Heal => bus.weather = Default::default(),
        Blow::Spoil(node) => {
            bus.cannot_load.insert(node);
        }
        Blow::Wait(ms) => bus.run(Duration::from_millis(ms)),
    }
}

/// `default`, or as many as the environment asks of every property.
fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]
    #[test]
    fn whatever_happens_all_are_of_one_mind_after_it_is_over(
        planned in any::<bool>(),
        blows in vec(blow(), 0..30),
    ) {
        let mut bus = Bus::new(NODES, planned.then_some(&[(0, 1), (2, 3)]));
        for blow in blows {
            strike(&mut bus, blow);
        }
        bus.mend();
        bus.run(Duration::from_secs(60));
        bus.assert_one_mind();
        prop_assert_eq!(bus.core(0).planner(), NodeId(0));
    }
}
