//! Properties of the network model.

use node::transport::Lane;
use planner::cost::constants::{RING, WIRE_OVERHEAD};
use planner::cost::transfer::transfer_time;
use planner::fleet::{Delay, Fleet, NodeId};
use proptest::prelude::*;
use sim::link::{Delivery, Net};

use crate::fixture;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);

/// Mean of the parts and of the whole over frames sent one at a time.
fn mean_us(net: &mut Net, lane: Lane, bytes: u64, frames: u32) -> (f64, f64) {
    let (mut now_ns, mut total, mut parts) = (0, 0.0, 0.0);
    for _ in 0..frames {
        let delivery = net.send(now_ns, A, B, lane, bytes).unwrap();
        total += (delivery.at_ns - now_ns) as f64 / 1e3;
        parts += sum_us(&delivery);
        now_ns = delivery.at_ns + 1_000_000_000;
    }
    (total / f64::from(frames), parts / f64::from(frames))
}

fn sum_us(delivery: &Delivery) -> f64 {
    delivery.latency_us + delivery.bandwidth_us + delivery.queueing_us + delivery.software_us
}

fn assert_idle_mean_is_the_planners(fleet: Fleet, bytes: u64) {
    let expected = transfer_time(&fleet.path(A, B).unwrap(), bytes, &RING).total_us();
    for lane in Lane::ALL {
        let (whole, parts) = mean_us(&mut Net::new(fleet.clone(), 11), lane, bytes, 60_000);
        assert!((whole / expected - 1.0).abs() < 0.01, "{lane:?}: {whole} us, the planner says {expected}");
        assert!((parts / whole - 1.0).abs() < 1e-4, "{lane:?}: parts {parts} of {whole}");
    }
}

#[test]
fn an_idle_lan_takes_what_the_planner_says() {
    assert_idle_mean_is_the_planners(fixture::lan(2), 4_192);
}

#[test]
fn an_idle_wifi_takes_what_the_planner_says() {
    assert_idle_mean_is_the_planners(fixture::wifi(2), 4_192);
}

#[test]
fn an_idle_long_way_with_loss_takes_what_the_planner_says() {
    assert_idle_mean_is_the_planners(fixture::homes(1, 0.004), 16_480);
}

#[test]
fn senders_on_one_wifi_never_get_more_than_the_air_carries() {
    let fleet = fixture::wifi(6);
    let rate = fleet.networks[0].bytes_per_s / fleet.networks[0].air_crossings;
    for lane in Lane::ALL {
        let mut net = Net::new(fleet.clone(), 5);
        let (mut last_ns, mut bytes) = (0, 0);
        for round in 0..200u64 {
            for sender in 0..6 {
                let to = NodeId((sender + 1) % 6);
                let sent = net.send(round * 1_000_000, NodeId(sender), to, lane, 20_000).unwrap();
                bytes += 20_000;
                last_ns = last_ns.max(sent.at_ns);
            }
        }
        let reached = bytes as f64 * WIRE_OVERHEAD / (last_ns as f64 / 1e9);
        assert!(reached <= rate, "{lane:?}: {reached} of {rate} bytes/s");
        assert!(reached > 0.6 * rate, "{lane:?}: only {reached} of {rate} bytes/s");
    }
}

#[test]
fn contention_costs_access_time_only_while_others_wait() {
    let fleet = fixture::wifi(3);
    let mut net = Net::new(fleet, 5);
    let alone = net.send(0, A, B, Lane::Decode, 4_000).unwrap();
    let contended = net.send(1_000, C, B, Lane::Decode, 4_000).unwrap();
    let later = net.send(10_000_000_000, C, B, Lane::Decode, 4_000).unwrap();
    assert!(contended.bandwidth_us > alone.bandwidth_us);
    assert!(contended.queueing_us > 0.0);
    assert_eq!(later.bandwidth_us, alone.bandwidth_us);
    assert_eq!(later.queueing_us, 0.0);
}

#[test]
fn a_decode_frame_does_not_wait_for_a_whole_prefill() {
    let mut net = Net::new(fixture::lan(3), 5);
    let bulk = net.send(0, A, B, Lane::Prefill, 20_000_000).unwrap();
    let token = net.send(1_000_000, A, B, Lane::Decode, 4_000).unwrap();
    let behind = net.send(2_000_000, A, C, Lane::Prefill, 4_000).unwrap();
    assert!(bulk.bandwidth_us > 150_000.0);
    assert!(token.queueing_us < 2.0 * 600.0, "at most a quantum at each port: {token:?}");
    assert!(behind.queueing_us > 150_000.0, "{behind:?}");
}

#[test]
fn a_frame_from_elsewhere_does_not_wait_behind_one_that_has_not_come_yet() {
    // The second frame of node 0 waits on its narrow uplink; the far network's air is idle until it comes.
    let mut net = Net::new(fixture::homes(2, 0.0), 5);
    for _ in 0..2 {
        net.send(0, A, B, Lane::Decode, 5_000_000).unwrap();
    }
    let local = net.send(1_000_000_000, NodeId(2), B, Lane::Decode, 4_000).unwrap();
    assert!(local.queueing_us < 1_000.0, "{local:?}");
}

#[test]
fn no_frame_passes_a_partition_and_all_do_after_it() {
    let mut net = Net::new(fixture::lan(3), 5);
    net.cut(&[A], &[B]);
    assert_eq!(net.send(0, A, B, Lane::Decode, 64), None);
    assert_eq!(net.send(0, B, A, Lane::Control, 64), None);
    assert!(net.send(0, A, C, Lane::Decode, 64).is_some());
    assert!(!net.reaches(A, B) && net.reaches(A, C));
    net.heal();
    assert!(net.send(0, A, B, Lane::Decode, 64).is_some());
}

#[test]
fn networks_that_are_not_joined_do_not_reach_each_other() {
    let mut fleet = fixture::homes(1, 0.0);
    fleet.distances.clear();
    let mut net = Net::new(fleet, 5);
    assert_eq!(net.send(0, A, B, Lane::Decode, 64), None);
    assert_eq!(net.send(0, A, NodeId(99), Lane::Decode, 64), None);
}

#[test]
fn a_changed_link_changes_both_directions_from_then_on() {
    let mut net = Net::new(fixture::lan(3), 5);
    let delay = Delay { base_us: 40_000.0, jitter_us: 0.0 };
    let before = net.send(0, A, B, Lane::Decode, 10_000).unwrap();
    net.change_link(A, B, Some(delay), Some(1e6));
    for (from, to) in [(A, B), (B, A)] {
        let after = net.send(1_000_000_000, from, to, Lane::Decode, 10_000).unwrap();
        assert_eq!(after.latency_us, 40_000.0);
        assert!(after.bandwidth_us > 10_000.0 && before.bandwidth_us < 100.0);
    }
    assert_eq!(net.send(2_000_000_000, A, C, Lane::Decode, 10_000).unwrap().latency_us, 250.0);
}

#[test]
fn the_same_seed_gives_the_same_deliveries_and_another_does_not() {
    let deliveries = |seed| {
        let mut net = Net::new(fixture::wifi(4), seed);
        (0..400u64)
            .map(|i| {
                let (from, to) = (NodeId((i % 4) as u32), NodeId(((i + 1 + i / 7) % 4) as u32));
                net.send(i * 90_000, from, to, Lane::Decode, 2_000 + i).map(|d| d.at_ns)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(deliveries(1), deliveries(1));
    assert_ne!(deliveries(1), deliveries(2));
}

proptest! {
    #[test]
    fn streams_keep_their_order_and_every_delay_is_the_sum_of_its_parts(
        sends in prop::collection::vec((0u64..3_000_000, 0u32..4, 0u32..4, 0usize..3, 1u64..400_000), 1..200),
        shape in 0u32..3,
    ) {
        let fleet = match shape { 0 => fixture::lan(4), 1 => fixture::wifi(4), _ => fixture::homes(3, 0.01) };
        let mut net = Net::new(fleet, 9);
        let mut last = std::collections::BTreeMap::new();
        let mut now_ns = 0;
        for (gap, from, to, lane, bytes) in sends {
            now_ns += gap;
            let sent = net.send(now_ns, NodeId(from), NodeId(to), Lane::ALL[lane], bytes).unwrap();
            let before = last.insert((from, to, lane), sent.at_ns).unwrap_or(0);
            prop_assert!(sent.at_ns >= before && sent.at_ns > now_ns);
            prop_assert!(((sent.at_ns - now_ns) as f64 / 1e3 - sum_us(&sent)).abs() < 0.01, "{sent:?}");
            prop_assert!(sent.queueing_us >= 0.0 && sent.latency_us >= 0.0);
        }
    }

    #[test]
    fn a_port_never_carries_more_than_its_rate_whatever_is_sent(
        sends in prop::collection::vec((0u64..300_000, 1u32..4, 1u64..100_000), 10..200),
    ) {
        let fleet = fixture::lan(4);
        let rate = fleet.networks[0].bytes_per_s;
        let mut net = Net::new(fleet, 9);
        let (mut now_ns, mut bytes, mut end_ns) = (0, 0, 0);
        for (gap, from, size) in sends {
            now_ns += gap;
            let sent = net.send(now_ns, NodeId(from), A, Lane::Decode, size).unwrap();
            bytes += size;
            end_ns = end_ns.max(sent.at_ns);
        }
        prop_assert!(bytes as f64 * WIRE_OVERHEAD <= rate * end_ns as f64 / 1e9);
    }
}
