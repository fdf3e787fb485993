//! A small answer made by hand: three machines on Wi-Fi, one crash, two baselines.

use node::ids::{SessionId, Token};
use planner::cost::constants::RING;
use planner::cost::predict::Load;
use planner::fleet::{Delay, Device, DeviceKind, Fleet, LinkClass, Network, NetworkId, Node, NodeId};
use planner::model::{Attention, Layer, Model};
use planner::place::{Ask, Candidate, Constraints, Objective, Shape};
use planner::plan::{Breakdown, Epoch, LayerRange, Pipeline, Plan, Prediction, Stage};

use super::{Advice, Help, json};
use crate::outcome::{Answer, Dilation, Incident, NodeUse, Outcome, RequestRecord, Span, Status};
use crate::scenario::{Arrivals, EngineKind, Length, PlanSpec, Scenario, Workload, WorldKind};

const LAYERS: u32 = 47;

fn device(name: &str, memory: u64, gb_s: f64) -> Device {
    Device {
        id: name.to_lowercase().replace(' ', "-"),
        name: name.to_owned(),
        kind: DeviceKind::Apple,
        memory_bytes: memory * 1_000_000_000,
        reserved_bytes: memory * 250_000_000,
        bandwidth_bytes_per_s: gb_s * 1e9,
        bandwidth_efficiency: 0.8,
        flops: 30e12,
        flops_efficiency: 0.4,
        layer_overhead_us: 60.0,
        expert_overhead_us: 60.0,
        disk_bytes_per_s: 3e9,
        measured: None,
    }
}

fn node(name: &str, device: Device) -> Node {
    Node {
        name: name.to_owned(),
        device,
        machine: name.to_owned(),
        network: NetworkId(0),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: true,
    }
}

fn fleet() -> Fleet {
    let home = Network {
        name: "home".to_owned(),
        class: LinkClass::Wifi,
        delay: Delay { base_us: 15_000.0, jitter_us: 5_000.0 },
        bytes_per_s: 30e6,
        shared: true,
        air_crossings: 2.0,
        access_us: 200.0,
        loss: 0.0,
        up_bytes_per_s: None,
        down_bytes_per_s: None,
    };
    Fleet {
        nodes: vec![
            node("max", device("Apple M4 Max", 64, 546.0)),
            node("mini", device("Apple M4", 16, 120.0)),
            node("laptop", device("Apple M1", 16, 68.25)),
        ],
        networks: vec![home],
        distances: Vec::new(),
        overrides: Vec::new(),
    }
}

fn model() -> Model {
    let layer = Layer {
        trunk_bytes: 360_000_000,
        trunk_params: 600_000_000,
        experts: None,
        attention: Attention::Latent,
        kv_bytes_per_token: 1_152,
        attention_flops_per_context: 40_000.0,
    };
    Model {
        name: "GLM-4.7-Flash Q4_K_M".to_owned(),
        architecture: "deepseek2".to_owned(),
        quant: "Q4_K_M".to_owned(),
        hidden: 2048,
        heads: 20,
        kv_heads: 1,
        vocab: 154_880,
        context_max: 202_752,
        embedding_bytes: 178_000_000,
        head_bytes: 260_000_000,
        head_params: 317_000_000,
        tied: false,
        layers: vec![layer; LAYERS as usize],
        source: "made by hand".to_owned(),
    }
}

fn plan(cuts: &[(u32, u32, u32)]) -> Plan {
    let stages = cuts
        .iter()
        .map(|(n, first, end)| Stage { node: NodeId(*n), layers: LayerRange::new(*first, *end) })
        .collect();
    Plan {
        model: model().name,
        replicas: vec![Pipeline { stages }],
        experts: Vec::new(),
        context: 4096,
        sessions: 2,
    }
}

fn constraints() -> Constraints {
    Constraints {
        min_layers: 1,
        latency_cap_us: None,
        pinned: Vec::new(),
        excluded: Vec::new(),
        sessions: 2,
        context: 4096,
        shape: Shape::Auto,
    }
}

/// The scenario.
pub(crate) fn scenario() -> Scenario {
    let load = Load { prompt: 300, context: 364, concurrency: 2, head: None };
    Scenario {
        name: "wifi3".to_owned(),
        question: "What do three machines on home Wi-Fi get from GLM-4.7-Flash?".to_owned(),
        seed: 7,
        world: WorldKind::Turmoil,
        scale: None,
        fleet: fleet(),
        model: model(),
        plan: PlanSpec {
            ask: Ask { objective: Objective::Tpot, load, constraints: constraints() },
            split: Some(vec![(NodeId(0), LayerRange::new(0, 40))]),
        },
        engine: EngineKind::Ring,
        baselines: vec![EngineKind::LlamaRpc, EngineKind::TensorParallel],
        software: RING,
        inject_us: 0.0,
        workload: Workload {
            arrivals: Arrivals::Closed { users: 2, think_us: 0.0 },
            requests: 6,
            prompt: Length::Fixed(300),
            output: Length::Fixed(48),
            entry: Vec::new(),
        },
        faults: Vec::new(),
        churn: None,
        compute_error: (0.05, 0.02),
        limit_us: 600e6,
        published: None,
    }
}

/// Requests of two users in turn; a token every `gap_ms`, give or take a tenth, and a pause of three seconds for the
/// request that runs while the crash at `crash_s` happens.
fn requests(gap_ms: f64, crash_s: Option<f64>) -> Vec<RequestRecord> {
    let mut free_us = [0.0, 700_000.0];
    (0..6).map(|i| request(i, gap_ms, crash_s, &mut free_us[i as usize % 2])).collect()
}

fn request(index: u64, gap_ms: f64, crash_s: Option<f64>, free_us: &mut f64) -> RequestRecord {
    let asked_us = *free_us;
    let mut at = asked_us + 6.0 * gap_ms * 1e3;
    let mut resumptions = 0;
    let mut tokens_us = Vec::new();
    for t in 0..48u64 {
        let wobble = ((index * 31 + t * 17) % 21) as f64 / 100.0 - 0.1;
        let next = at + gap_ms * 1e3 * (1.0 + wobble);
        let crashed = crash_s.is_some_and(|s| at < s * 1e6 && s * 1e6 <= next);
        resumptions += u32::from(crashed);
        at = if crashed { next + 3e6 } else { next };
        tokens_us.push(at);
    }
    *free_us = at + 1e3;
    RequestRecord {
        session: SessionId(index),
        entry: "max".to_owned(),
        prompt: 300,
        output: 48,
        asked_us,
        tokens: vec![Token(1); 48],
        tokens_us,
        ended_us: Some(at),
        status: Status::Completed,
        resumptions,
    }
}

fn breakdown(compute_ms: f64, latency_ms: f64) -> Breakdown {
    Breakdown { compute_ms, latency_ms, bandwidth_ms: 1.4, queueing_ms: 2.25, software_ms: 0.48 }
}

/// A run of `engine`.
pub(crate) fn outcome(engine: EngineKind, gap_ms: f64, crash_s: Option<f64>) -> Outcome {
    let requests = requests(gap_ms, crash_s);
    let ended_us = requests.iter().filter_map(|r| r.ended_us).fold(0.0, f64::max);
    let incidents = crash_s.map_or_else(Vec::new, |s| {
        vec![
            Incident { at_us: s * 1e6, what: "crash of laptop".to_owned(), pause_us: Some(3.1e6) },
            Incident { at_us: s * 1e6 + 2.4e6, what: "epoch 2 adopted by all".to_owned(), pause_us: None },
        ]
    });
    Outcome {
        engine,
        world: WorldKind::Turmoil,
        dilation: Dilation { scale: 40, error: 0.0021 },
        seed: 7,
        plan: plan(&[(0, 0, 40), (1, 40, 44), (2, 44, 47)]),
        requests,
        breakdown: breakdown(14.9, gap_ms - 19.03),
        incidents,
        nodes: vec![
            NodeUse {
                node: "max".to_owned(),
                busy: 0.21,
                memory_bytes: 15_200_000_000,
                steps: 301,
                sent_bytes: 1_310_000,
                kv_left: 0,
            },
            NodeUse {
                node: "mini".to_owned(),
                busy: 0.05,
                memory_bytes: 1_800_000_000,
                steps: 301,
                sent_bytes: 1_310_000,
                kv_left: 0,
            },
            NodeUse {
                node: "laptop".to_owned(),
                busy: 0.062,
                memory_bytes: 1_600_000_000,
                steps: 288,
                sent_bytes: 21_000,
                kv_left: 0,
            },
        ],
        epoch: Epoch(u64::from(crash_s.is_some()) + 1),
        ended_us,
        spans: spans(),
        violations: Vec::new(),
    }
}

fn spans() -> Vec<Span> {
    let span = |track: &str, kind: &str, label: &str, from_us: f64, to_us: f64| Span {
        track: track.to_owned(),
        kind: kind.to_owned(),
        label: label.to_owned(),
        from_us,
        to_us,
    };
    vec![
        span("mini", "load", "epoch 1, layers 40..44", 0.0, 900.0),
        span("max", "compute", "session 0, position 301", 1_000.0, 13_000.0),
        span("max", "wait", "session 1", 2_000.0, 13_000.0),
        span("max", "wait", "session 2", 3_000.0, 14_500.5),
        span("max → mini", "transfer", "session 0", 13_000.0, 33_400.25),
        span("mini", "compute", "session 0, position 301", 33_400.25, 36_000.0),
    ]
}

fn prediction(tpot_ms: f64) -> Prediction {
    Prediction {
        tpot_ms,
        ttft_ms: tpot_ms * 6.2,
        opening_ms: tpot_ms * 0.7,
        throughput_tok_s: 1900.0 / tpot_ms,
        breakdown: breakdown(tpot_ms * 0.5, tpot_ms * 0.5 - 4.13),
    }
}

/// The answer; with a crash five seconds in when `crash`.
pub(crate) fn answer(crash: bool) -> Answer {
    let solo = plan(&[(0, 0, 47)]);
    let run = Outcome { plan: solo.clone(), ..outcome(EngineKind::Ring, 19.6, None) };
    Answer {
        main: outcome(EngineKind::Ring, 62.0, crash.then_some(5.0)),
        baselines: vec![
            outcome(EngineKind::LlamaRpc, 80.5, None),
            outcome(EngineKind::TensorParallel, 1_930.0, None),
        ],
        predicted: Some(prediction(61.2)),
        recommended: Some(Candidate { plan: solo, prediction: prediction(19.4) }),
        recommended_run: Some(run),
    }
}

/// What the planner says beside it.
pub(crate) fn advice() -> Advice {
    let text = |t: &str| t.to_owned();
    Advice {
        left_out: vec![
            (
                text("mini"),
                text("each token would cross the Wi-Fi twice more: 61.2 ms instead of 19.4 ms a token"),
            ),
            (
                text("laptop"),
                text("slower than any layer it takes over: its 68 GB/s would add 2.1 ms a token"),
            ),
        ],
        help: vec![
            Help { text: text("a cable instead of Wi-Fi between max and mini"), gain: 0.02 },
            Help { text: text("a second M4 Max"), gain: 0.0 },
        ],
        refusal: None,
        gap: 0.0,
    }
}

/// The report of [`scenario`] and [`answer`].
pub(crate) fn report(crash: bool) -> json::Report {
    json::Report::new(&scenario(), &answer(crash), &advice())
}
