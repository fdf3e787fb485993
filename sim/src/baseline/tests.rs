#![allow(clippy::unwrap_used, reason = "a failed play is the failed test")]

use planner::cost::constants::{LLAMA_RPC, RING, TENSOR_SERIAL_SHARE};
use planner::cost::predict::Load;
use planner::fleet::{Delay, Distance, Fleet, LinkClass, Network, NetworkId, Node, NodeId, catalog};
use planner::model::{Attention, Layer, Model};
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::LayerRange;

use super::{PlayError, play};
use crate::outcome::{Outcome, Status};
use crate::scenario::{
    Arrivals, EngineKind, Fault, FaultKind, Length, PlanSpec, Scenario, Workload, WorldKind,
};

const ALL: [EngineKind; 8] = [
    EngineKind::Ring,
    EngineKind::LlamaRpc,
    EngineKind::LlamaRpc558,
    EngineKind::LlamaRpc8,
    EngineKind::HopByHop,
    EngineKind::ClientRelay,
    EngineKind::Exo,
    EngineKind::TensorParallel,
];

fn model() -> Model {
    let layer = Layer {
        trunk_bytes: 130_000_000,
        trunk_params: 218_000_000,
        experts: None,
        attention: Attention::Full,
        kv_bytes_per_token: 4096,
        attention_flops_per_context: 16_384.0,
    };
    Model {
        name: "made up 8B".into(),
        architecture: "llama".into(),
        quant: "Q4_K_M".into(),
        hidden: 4096,
        heads: 32,
        kv_heads: 8,
        vocab: 128_000,
        context_max: 8192,
        embedding_bytes: 300_000_000,
        head_bytes: 400_000_000,
        head_params: 524_000_000,
        tied: false,
        layers: vec![layer; 30],
        source: "this test".into(),
    }
}

/// `nodes` M4 Max on one switched network with this round trip.
fn fleet(nodes: u32, round_trip_us: f64) -> Fleet {
    let node = |i: u32| Node {
        name: format!("n{i}"),
        device: catalog::device("apple-m4-max").unwrap(),
        machine: format!("m{i}"),
        network: NetworkId(0),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: true,
    };
    let network = Network {
        name: "lan".into(),
        class: LinkClass::Lan,
        delay: Delay { base_us: round_trip_us / 2.0, jitter_us: 0.0 },
        bytes_per_s: 1e9,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: None,
        down_bytes_per_s: None,
    };
    Fleet { nodes: (0..nodes).map(node).collect(), networks: vec![network], ..Fleet::default() }
}

/// An even cut over `nodes`, one user, one request of 16 tokens.
fn scenario(nodes: u32, round_trip_us: f64) -> Scenario {
    let model = model();
    let each = model.layer_count() / nodes;
    let split = (0..nodes).map(|i| (NodeId(i), LayerRange::new(i * each, (i + 1) * each))).collect();
    let constraints = Constraints {
        min_layers: 1,
        latency_cap_us: None,
        pinned: Vec::new(),
        excluded: Vec::new(),
        sessions: 8,
        context: 4096,
        shape: Shape::Auto,
    };
    let load = Load { prompt: 32, context: 40, concurrency: 1, head: None };
    Scenario {
        name: "test".into(),
        question: String::new(),
        seed: 1,
        world: WorldKind::Memory,
        scale: None,
        fleet: fleet(nodes, round_trip_us),
        model,
        plan: PlanSpec { ask: Ask { objective: Objective::Tpot, load, constraints }, split: Some(split) },
        engine: EngineKind::Ring,
        baselines: Vec::new(),
        software: RING,
        inject_us: 0.0,
        workload: Workload {
            arrivals: Arrivals::Closed { users: 1, think_us: 0.0 },
            requests: 1,
            prompt: Length::Fixed(32),
            output: Length::Fixed(16),
            entry: Vec::new(),
        },
        faults: Vec::new(),
        churn: None,
        compute_error: (0.0, 0.0),
        limit_us: 3600e6,
        published: None,
    }
}

/// Mean time between the tokens of the first request, microseconds.
fn gap_us(outcome: &Outcome) -> f64 {
    let tokens = &outcome.requests[0].tokens_us;
    (tokens[tokens.len() - 1] - tokens[0]) / (tokens.len() - 1) as f64
}

fn gap_of(scenario: &Scenario, kind: EngineKind) -> f64 {
    gap_us(&play(scenario, kind, 1).unwrap())
}

#[test]
fn a_delay_proxy_on_compute_commands_shows_2n_minus_3_delays() {
    for nodes in [2u32, 3, 5] {
        let quiet = scenario(nodes, 200.0);
        let delayed = Scenario { inject_us: 5_000.0, ..quiet.clone() };
        let added_us = gap_of(&delayed, EngineKind::LlamaRpc) - gap_of(&quiet, EngineKind::LlamaRpc);
        assert!((added_us - f64::from(2 * nodes - 3) * 5_000.0).abs() < 1.0, "{nodes}: {added_us}");
    }
}

#[test]
fn llama_rpc_waits_one_round_trip_per_server() {
    let near = gap_of(&scenario(3, 0.0), EngineKind::LlamaRpc);
    let far = gap_of(&scenario(3, 40_000.0), EngineKind::LlamaRpc);
    assert!((far - near - 2.0 * 40_000.0).abs() < 1.0, "{}", far - near);
}

#[test]
fn calls_without_a_cache_cost_a_round_trip_each() {
    let scenario = scenario(2, 1_000.0);
    let plain = gap_of(&scenario, EngineKind::LlamaRpc);
    let call_us = 1_000.0 + 2.0 * LLAMA_RPC.per_hop_us;
    for (kind, calls) in [(EngineKind::LlamaRpc8, 7.0), (EngineKind::LlamaRpc558, 557.0)] {
        let added_us = gap_of(&scenario, kind) - plain;
        assert!((added_us / (calls * call_us) - 1.0).abs() < 0.01, "{kind:?}: {added_us}");
    }
}

#[test]
fn a_host_without_layers_gets_the_whole_vocabulary_back() {
    let mut apart = scenario(2, 200.0);
    apart.fleet.nodes.push(Node {
        name: "host".into(),
        machine: "host".into(),
        ..apart.fleet.nodes[0].clone()
    });
    apart.workload.entry = vec![NodeId(2)];
    let outcome = play(&apart, EngineKind::LlamaRpc, 1).unwrap();
    let logits = 4 * u64::from(apart.model.vocab);
    assert!(outcome.nodes[1].sent_bytes > 15 * logits);
    assert!(outcome.nodes[0].sent_bytes < 2 * logits);
    let within = play(&scenario(2, 200.0), EngineKind::LlamaRpc, 1).unwrap();
    assert!(within.nodes.iter().all(|n| n.sent_bytes < 2 * logits));
}

#[test]
fn the_host_computes_last_whatever_the_order_of_the_plan() {
    let mut turned = scenario(2, 200.0);
    turned.workload.entry = vec![NodeId(0)];
    let usual = scenario(2, 200.0);
    let (a, b) = (gap_of(&turned, EngineKind::LlamaRpc), gap_of(&usual, EngineKind::LlamaRpc));
    assert!((a - b).abs() < 1.0, "{a} {b}");
}

#[test]
fn engines_differ_by_the_trips_of_a_token() {
    // Three stages, the host with the first: a ring makes 3 one-way trips; credit asked for on 2 hops and a reply over 2
    // makes 8; a client between the stages makes 2 round trips.
    let trips = |kind| (gap_of(&scenario(3, 20_000.0), kind) - gap_of(&scenario(3, 0.0), kind)) / 10_000.0;
    for (kind, expected) in [
        (EngineKind::Ring, 3.0),
        (EngineKind::Exo, 3.0),
        (EngineKind::HopByHop, 8.0),
        (EngineKind::ClientRelay, 4.0),
        (EngineKind::TensorParallel, 30.0 * 8.0),
    ] {
        assert!((trips(kind) - expected).abs() < 0.01, "{kind:?}: {}", trips(kind));
    }
}

#[test]
fn tensor_parallelism_divides_all_but_the_serial_share() {
    let alone = play(&scenario(1, 0.0), EngineKind::TensorParallel, 1).unwrap().breakdown.compute_ms;
    let four = play(&scenario(2, 0.0), EngineKind::TensorParallel, 1).unwrap().breakdown.compute_ms;
    let expected = TENSOR_SERIAL_SHARE + (1.0 - TENSOR_SERIAL_SHARE) / 2.0;
    assert!((four / alone - expected).abs() < 1e-3, "{}", four / alone);
}

#[test]
fn the_parts_add_up_to_the_time_between_tokens() {
    let mut scenario = scenario(3, 3_000.0);
    scenario.compute_error = (0.05, 0.02);
    for kind in ALL {
        let outcome = play(&scenario, kind, 3).unwrap();
        let (parts, gap) = (outcome.breakdown.total_ms() * 1e3, gap_us(&outcome));
        assert!((parts - gap).abs() < 0.002 * gap, "{kind:?}: {parts} {gap}");
        assert_eq!(outcome.requests[0].status, Status::Completed);
        assert_eq!(outcome.requests[0].tokens_us.len(), 16);
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome_and_another_does_not() {
    let mut scenario = scenario(3, 3_000.0);
    scenario.compute_error = (0.05, 0.02);
    scenario.workload.arrivals = Arrivals::Poisson { per_s: 20.0 };
    scenario.workload.requests = 12;
    scenario.workload.output = Length::LogNormal { median: 12, p90: 40, max: 80 };
    for kind in ALL {
        let again = play(&scenario, kind, 7).unwrap();
        assert_eq!(again, play(&scenario, kind, 7).unwrap());
        assert_ne!(again.requests, play(&scenario, kind, 8).unwrap().requests);
    }
    let lengths = |kind| -> Vec<(u64, u32)> {
        let outcome = play(&scenario, kind, 7).unwrap();
        outcome.requests.iter().map(|r| (r.asked_us as u64, r.output)).collect()
    };
    assert_eq!(lengths(EngineKind::LlamaRpc), lengths(EngineKind::TensorParallel), "all play the same load");
}

#[test]
fn streams_share_steps() {
    let mut many = scenario(2, 10_000.0);
    many.workload.arrivals = Arrivals::Closed { users: 4, think_us: 0.0 };
    many.workload.requests = 4;
    let one = play(&scenario(2, 10_000.0), EngineKind::LlamaRpc, 1).unwrap();
    let four = play(&many, EngineKind::LlamaRpc, 1).unwrap();
    assert!(four.requests.iter().all(|r| r.status == Status::Completed));
    assert!(four.ended_us < 2.0 * one.ended_us, "{} {}", four.ended_us, one.ended_us);
}

#[test]
fn a_dead_server_fails_its_streams_and_the_group_comes_back_after_loading() {
    let mut broken = scenario(2, 1_000.0);
    broken.workload.arrivals = Arrivals::Fixed { every_us: 500_000.0 };
    broken.workload.requests = 12;
    let at = |at_us, kind| Fault { at_us, kind };
    broken.faults =
        vec![at(550_000.0, FaultKind::Crash(NodeId(1))), at(1_600_000.0, FaultKind::Restart(NodeId(1)))];
    let outcome = play(&broken, EngineKind::LlamaRpc, 1).unwrap();
    let status: Vec<&Status> = outcome.requests.iter().map(|r| &r.status).collect();
    assert_eq!(status[0], &Status::Completed);
    assert!(matches!(status[1], Status::Failed(_)), "{status:?}");
    assert!(matches!(status[2], Status::Refused(_)), "{status:?}");
    assert_eq!(status[4], &Status::Completed);
    let first_us = outcome.requests[4].tokens_us[0];
    assert!(first_us > 1_600_000.0 + 300_000.0, "two gigabytes come from disk first: {first_us}");
}

#[test]
fn a_partition_fails_the_streams_until_it_heals() {
    let mut parted = scenario(2, 1_000.0);
    parted.workload.arrivals = Arrivals::Fixed { every_us: 500_000.0 };
    parted.workload.requests = 6;
    let (a, b) = (vec![NodeId(0)], vec![NodeId(1)]);
    parted.faults = vec![
        Fault { at_us: 900_000.0, kind: FaultKind::Partition(a, b) },
        Fault { at_us: 1_900_000.0, kind: FaultKind::Heal },
    ];
    let outcome = play(&parted, EngineKind::HopByHop, 1).unwrap();
    let failed = outcome.requests.iter().filter(|r| matches!(r.status, Status::Failed(_))).count();
    assert_eq!(failed, 2);
    assert_eq!(outcome.requests[5].status, Status::Completed);
}

#[test]
fn networks_that_are_not_joined_are_an_error_that_names_the_nodes() {
    let mut apart = scenario(2, 1_000.0);
    let far = Network { name: "far".into(), ..apart.fleet.networks[0].clone() };
    apart.fleet.networks.push(far);
    apart.fleet.nodes[1].network = NetworkId(1);
    let error = play(&apart, EngineKind::ClientRelay, 1).unwrap_err();
    assert_eq!(error, PlayError::Unreachable { from: NodeId(0), to: NodeId(1) });
    apart.fleet.distances.push(Distance {
        a: NetworkId(0),
        b: NetworkId(1),
        delay: Delay { base_us: 10_000.0, jitter_us: 0.0 },
        class: LinkClass::Wan,
        loss: 0.0,
    });
    assert!(play(&apart, EngineKind::ClientRelay, 1).is_ok());
}
