//! A fleet and a model that are small and alike.

use planner::fleet::{Delay, Device, DeviceKind, Fleet, LinkClass, Network, NetworkId, Node};
use planner::model::{Attention, Layer, Model};

pub(crate) const LAYERS: u32 = 6;

fn device() -> Device {
    Device {
        id: "tiny".into(),
        name: "tiny".into(),
        kind: DeviceKind::Cpu,
        // Four of the six layers fit beside KV and buffers.
        memory_bytes: 4_900_000_000,
        reserved_bytes: 0,
        bandwidth_bytes_per_s: 1000e9,
        bandwidth_efficiency: 0.8,
        flops: 4e13,
        flops_efficiency: 0.5,
        layer_overhead_us: 30.0,
        expert_overhead_us: 60.0,
        disk_bytes_per_s: 1e10,
        measured: None,
    }
}

pub(crate) fn fleet(count: u32) -> Fleet {
    let node = |i: u32| Node {
        name: format!("n{i}"),
        device: device(),
        machine: format!("n{i}"),
        network: NetworkId(0),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: true,
    };
    let network = Network {
        name: "lan".into(),
        class: LinkClass::Lan,
        delay: Delay { base_us: 2000.0, jitter_us: 0.0 },
        bytes_per_s: 1e9,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: None,
        down_bytes_per_s: None,
    };
    Fleet {
        nodes: (0..count).map(node).collect(),
        networks: vec![network],
        distances: Vec::new(),
        overrides: Vec::new(),
    }
}

pub(crate) fn model() -> Model {
    let layer = Layer {
        trunk_bytes: 1_000_000_000,
        trunk_params: 1_000_000_000,
        experts: None,
        attention: Attention::Full,
        kv_bytes_per_token: 512,
        attention_flops_per_context: 4096.0,
    };
    Model {
        name: "Tiny F16".into(),
        architecture: "llama".into(),
        quant: "F16".into(),
        hidden: 64,
        heads: 4,
        kv_heads: 4,
        vocab: 50_000,
        context_max: 16_384,
        embedding_bytes: 1_000_000,
        head_bytes: 1_000_000,
        head_params: 500_000,
        tied: false,
        layers: vec![layer; LAYERS as usize],
        source: "made up for tests".into(),
    }
}
