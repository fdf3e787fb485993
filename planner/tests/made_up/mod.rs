//! Random fleets, models and questions, small enough to try every plan.
#![allow(dead_code, reason = "each suite uses its part")]

use planner::cost::predict::Load;
use planner::fleet::{
    Delay, Device, DeviceKind, Distance, Fleet, LinkClass, LinkOverride, Network, NetworkId, Node, NodeId,
};
use planner::model::{Attention, Experts, Layer, Model};
use planner::place::{Ask, Constraints, Objective, Shape};
use proptest::prelude::*;

pub(crate) mod every_plan;

const MB: u64 = 1_000_000;

/// `usual` cases, or `CASES_TIMES` times as many where that is set: a long search for counterexamples is the same tests.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let times = std::env::var("CASES_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases: usual.saturating_mul(times),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Sizes from which a case is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) layers: usize,
    pub(crate) prompt: u32,
}

/// A fleet, a model and a question.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) fleet: Fleet,
    pub(crate) model: Model,
    pub(crate) ask: Ask,
}

pub(crate) fn case(size: Size) -> impl Strategy<Value = Case> {
    (fleet(size.nodes), model(size.layers)).prop_flat_map(move |(fleet, model)| {
        let nodes = fleet.nodes.len() as u32;
        ask(nodes, size.prompt).prop_map(move |ask| Case { fleet: fleet.clone(), model: model.clone(), ask })
    })
}

pub(crate) fn fleet(most: usize) -> impl Strategy<Value = Fleet> {
    let nodes = prop::collection::vec(node(), 1..=most);
    let networks = prop::collection::vec(network(), 3);
    let distances = prop::collection::vec(prop::option::weighted(0.8, (0.0..60_000.0, 0.0..0.01)), 3);
    let overrides = prop::collection::vec((0..6u32, 0..6u32, 1.0..40_000.0, 1e5..1e9), 0..3);
    (nodes, networks, distances, overrides).prop_map(|(mut nodes, mut networks, distances, overrides)| {
        for (i, node) in nodes.iter_mut().enumerate() {
            node.name = format!("node{i}");
            if node.machine.is_empty() {
                node.machine = format!("machine{i}");
            }
        }
        for (i, network) in networks.iter_mut().enumerate() {
            network.name = format!("network{i}");
        }
        let ends = [(0, 1), (1, 2), (0, 2)];
        let distance = |((a, b), far): (&(u32, u32), &Option<(f64, f64)>)| {
            far.map(|(base_us, loss)| Distance {
                a: NetworkId(*a),
                b: NetworkId(*b),
                delay: Delay { base_us, jitter_us: base_us / 10.0 },
                class: LinkClass::Wan,
                loss,
            })
        };
        let distances = ends.iter().zip(&distances).filter_map(distance).collect();
        let count = nodes.len() as u32;
        let over = |(from, to, base_us, bytes_per_s): (u32, u32, f64, f64)| LinkOverride {
            from: NodeId(from % count),
            to: NodeId(to % count),
            delay: Some(Delay { base_us, jitter_us: 0.0 }),
            bytes_per_s: Some(bytes_per_s),
        };
        Fleet { nodes, networks, distances, overrides: overrides.into_iter().map(over).collect() }
    })
}

fn network() -> impl Strategy<Value = Network> {
    (0.0..5000.0, 1e6..1e9, any::<bool>(), prop::option::of(5e5..5e7)).prop_map(
        |(base_us, bytes_per_s, shared, up)| Network {
            name: String::new(),
            class: if shared { LinkClass::Wifi } else { LinkClass::Lan },
            delay: Delay { base_us, jitter_us: base_us / 5.0 },
            bytes_per_s,
            shared,
            air_crossings: 2.0,
            access_us: if shared { 300.0 } else { 0.0 },
            loss: 0.0,
            up_bytes_per_s: up,
            down_bytes_per_s: up.map(|up| up * 3.0),
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    let machine = prop_oneof![4 => Just(String::new()), 1 => Just("shared".to_string())];
    (device(), machine, 0..3u32, prop::option::of(1e6..1e8), prop::bool::weighted(0.9)).prop_map(
        |(device, machine, network, up, has_model)| Node {
            name: String::new(),
            device,
            machine,
            network: NetworkId(network),
            up_bytes_per_s: up,
            down_bytes_per_s: None,
            has_model,
        },
    )
}

/// A few kinds, so that fleets have equal machines too, and machines of any kind.
pub(crate) fn device() -> impl Strategy<Value = Device> {
    let free = (40..800u64, 1e9..4e10, 1e10..2e12, 5.0..200.0, 0.0..300.0);
    let kinds = prop::sample::select(vec![(160, 1e10, 2e11, 40.0, 60.0), (90, 3e10, 1e12, 20.0, 30.0)]);
    prop_oneof![free, kinds].prop_map(|(memory, bandwidth, flops, layer_us, expert_us)| Device {
        id: "made-up".into(),
        name: "made up".into(),
        kind: DeviceKind::Cpu,
        memory_bytes: memory * MB,
        reserved_bytes: 10 * MB,
        bandwidth_bytes_per_s: bandwidth,
        bandwidth_efficiency: 0.7,
        flops,
        flops_efficiency: 0.5,
        layer_overhead_us: layer_us,
        expert_overhead_us: expert_us,
        disk_bytes_per_s: 5e8,
        measured: None,
    })
}

pub(crate) fn model(most: usize) -> impl Strategy<Value = Model> {
    let layers = prop::collection::vec(layer(), 1..=most);
    let alike = (layer(), 1..=most).prop_map(|(layer, count)| vec![layer; count]);
    (prop_oneof![layers, alike], 1..20u64, 1..20u64, any::<bool>()).prop_map(
        |(layers, embedding, head, tied)| Model {
            name: "made up".into(),
            architecture: "llama".into(),
            quant: "Q4_K_M".into(),
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            vocab: 1000,
            context_max: 8192,
            embedding_bytes: embedding * MB,
            head_bytes: head * MB,
            head_params: head * MB * 2,
            tied,
            layers,
            source: "this test".into(),
        },
    )
}

fn layer() -> impl Strategy<Value = Layer> {
    let experts = (2..16u32, 1..10u64).prop_map(|(count, each)| Experts {
        count,
        used: 1 + count / 4,
        bytes_each: each * MB / 2,
        params_each: each * MB,
    });
    let attention = prop_oneof![
        3 => Just(Attention::Full),
        1 => Just(Attention::Latent),
        1 => (16..512u32).prop_map(|window| Attention::Sliding { window }),
    ];
    (5..40u64, prop::option::weighted(0.4, experts), attention, 100..4000u64).prop_map(
        |(trunk, experts, attention, kv)| Layer {
            trunk_bytes: trunk * MB,
            trunk_params: trunk * MB * 2,
            experts,
            attention,
            kv_bytes_per_token: kv,
            attention_flops_per_context: kv as f64 * 4.0,
        },
    )
}

pub(crate) fn objective() -> impl Strategy<Value = Objective> {
    prop::sample::select(vec![Objective::Tpot, Objective::Throughput, Objective::Ttft])
}

pub(crate) fn ask(nodes: u32, longest_prompt: u32) -> impl Strategy<Value = Ask> {
    let shape = prop_oneof![
        6 => Just(Shape::Auto),
        1 => Just(Shape::Solo),
        1 => Just(Shape::Pipeline),
        2 => Just(Shape::Replicas),
    ];
    let some_node =
        || prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec((0..nodes).prop_map(NodeId), 1..3)];
    let load =
        (1..=longest_prompt, 0..1500u32, 0..20u32, prop::option::weighted(0.3, (0..nodes).prop_map(NodeId)))
            .prop_map(|(prompt, context, concurrency, head)| Load { prompt, context, concurrency, head });
    let limits = (prop_oneof![4 => Just(1u32), 1 => 0..4u32], prop::option::weighted(0.2, 100.0..40_000.0));
    (objective(), load, limits, some_node(), some_node(), (1..6u32, 0..3000u32), shape).prop_map(
        |(objective, load, (min_layers, latency_cap_us), pinned, excluded, (sessions, context), shape)| Ask {
            objective,
            load,
            constraints: Constraints {
                min_layers,
                latency_cap_us,
                pinned: pinned.into_iter().filter(|p| !excluded.contains(p)).collect(),
                excluded,
                sessions,
                context,
                shape,
            },
        },
    )
}
