//! What the planner says beside its plan: who is left out and why, whether a machine helps, what a change costs.
#![allow(clippy::unwrap_used, reason = "a test that fails here fails")]

use planner::cost::memory::weight_bytes;
use planner::cost::predict::Load;
use planner::fleet::{
    Delay, Device, Distance, Fleet, LinkClass, Network, NetworkId, Node, NodeId, catalog as devices,
};
use planner::model::{Model, catalog as models};
use planner::place::{
    Ask, Constraints, Objective, Placement, Refusal, Shape, cut, does_it_help, place, replan, would_help_most,
};
use planner::plan::{LayerRange, Mode, Pipeline, Plan, Stage};
use planner::units::fmt_ms;

fn home(shared: bool) -> Network {
    Network {
        name: "home".into(),
        class: if shared { LinkClass::Wifi } else { LinkClass::Lan },
        delay: Delay { base_us: if shared { 12_000.0 } else { 150.0 }, jitter_us: 50.0 },
        bytes_per_s: if shared { 3e7 } else { 1.25e8 },
        shared,
        air_crossings: 2.0,
        access_us: if shared { 400.0 } else { 0.0 },
        loss: 0.0,
        up_bytes_per_s: Some(5e6),
        down_bytes_per_s: Some(2e7),
    }
}

fn node(name: &str, device: &str, network: u32) -> Node {
    Node {
        name: name.into(),
        device: devices::device(device).unwrap(),
        machine: name.into(),
        network: NetworkId(network),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: true,
    }
}

fn fleet(nodes: Vec<Node>, shared: bool) -> Fleet {
    let away = Network { name: "away".into(), ..home(false) };
    let island = Network { name: "island".into(), ..home(false) };
    let distance = Distance {
        a: NetworkId(0),
        b: NetworkId(1),
        delay: Delay { base_us: 15_000.0, jitter_us: 500.0 },
        class: LinkClass::Wan,
        loss: 0.0,
    };
    let networks = vec![home(shared), away, island];
    Fleet { nodes, networks, distances: vec![distance], overrides: Vec::new() }
}

fn ask(objective: Objective) -> Ask {
    Ask {
        objective,
        load: Load { prompt: 200, context: 300, concurrency: 4, head: None },
        constraints: Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 2,
            context: 4096,
            shape: Shape::Auto,
        },
    }
}

fn llama70() -> Model {
    models::find("Llama-3.3-70B Q4_K_M").unwrap()
}

fn why(placement: &Placement, node: u32) -> &str {
    &placement.left_out.iter().find(|l| l.node == NodeId(node)).unwrap().why
}

#[test]
fn a_weak_machine_is_left_out_with_what_it_would_add() {
    let fleet = fleet(
        vec![node("left", "rtx-3090", 0), node("right", "rtx-3090", 0), node("old", "apple-m1", 0)],
        false,
    );
    let (model, ask) = (llama70(), ask(Objective::Tpot));
    let placement = place(&fleet, &model, &ask).unwrap();
    assert_eq!(placement.recommended.plan.layers_of(NodeId(2)), None);
    let mut with = ask;
    with.constraints.pinned = vec![NodeId(2)];
    let with = place(&fleet, &model, &with).unwrap().recommended;
    let more_ms = with.prediction.tpot_ms - placement.recommended.prediction.tpot_ms;
    let layers = with.plan.layers_of(NodeId(2)).unwrap().len();
    let text = why(&placement, 2);
    assert!(text.starts_with(&format!("adds {} per token: its {layers} layer", fmt_ms(more_ms))), "{text}");
    assert!(text.contains("left") || text.contains("right"), "{text}");
}

#[test]
fn whoever_cannot_take_part_is_told_why() {
    let mut nodes =
        vec![node("left", "rtx-3090", 0), node("right", "rtx-3090", 0), node("empty", "rtx-3090", 0)];
    nodes.extend([node("banned", "rtx-3090", 0), node("far", "rtx-3090", 2), node("away", "rtx-3090", 1)]);
    nodes[2].has_model = false;
    let tiny = Device { memory_bytes: 3 << 30, ..devices::device("apple-m1").unwrap() };
    nodes.push(Node { device: tiny, ..node("tiny", "apple-m1", 0) });
    let fleet = fleet(nodes, false);
    let mut ask = ask(Objective::Tpot);
    ask.constraints.excluded = vec![NodeId(3)];
    ask.constraints.latency_cap_us = Some(5_000.0);
    let placement = place(&fleet, &llama70(), &ask).unwrap();
    assert!(why(&placement, 2).contains("weights are not on its disk"));
    assert_eq!(why(&placement, 3), "excluded");
    assert!(why(&placement, 4).contains("cannot reach"), "{}", why(&placement, 4));
    assert!(why(&placement, 5).contains("over the latency cap of 5.00 ms"), "{}", why(&placement, 5));
    assert!(why(&placement, 6).contains("too little memory"), "{}", why(&placement, 6));
}

#[test]
fn a_machine_helps_or_does_not_and_by_how_much() {
    let fleet = fleet(vec![node("left", "rtx-3090", 0), node("right", "rtx-3090", 0)], false);
    let (model, ask) = (llama70(), ask(Objective::Tpot));
    let strong = does_it_help(&fleet, &model, &ask, &[node("big", "a100-80", 0)]);
    let (before, after) = (strong.without.clone().unwrap(), strong.with.clone().unwrap());
    assert!(strong.used && strong.gain > 0.05);
    assert!((strong.gain - (before.tpot_ms / after.tpot_ms - 1.0)).abs() < 1e-12);
    let weak = does_it_help(&fleet, &model, &ask, &[node("old", "apple-m1", 1)]);
    assert!(!weak.used && weak.gain == 0.0);
    let alone = Fleet { nodes: fleet.nodes[..1].to_vec(), ..fleet.clone() };
    let needed = does_it_help(&alone, &model, &ask, &[node("right", "rtx-3090", 0)]);
    assert!(needed.without.is_err() && needed.gain == f64::INFINITY);
}

#[test]
fn a_pipeline_over_wifi_is_told_to_take_a_cable() {
    let fleet = fleet(vec![node("left", "rtx-3090", 0), node("right", "rtx-3090", 0)], true);
    let (model, ask) = (llama70(), ask(Objective::Tpot));
    let placement = place(&fleet, &model, &ask).unwrap();
    let found = would_help_most(&fleet, &model, &ask, &placement);
    let cable = found.iter().find(|s| s.text.contains("cable")).unwrap();
    let again = place(&cable.fleet, &model, &ask).unwrap().recommended.prediction;
    let gain = placement.recommended.prediction.tpot_ms / again.tpot_ms - 1.0;
    assert!((cable.gain - gain).abs() < 1e-12 && gain > 0.1, "{cable:?}");
    assert!(found.windows(2).all(|w| w[0].gain >= w[1].gain));
}

fn plan(model: &Model, replicas: &[&[(u32, u32, u32)]]) -> Plan {
    let stage = |(node, first, end): &(u32, u32, u32)| Stage {
        node: NodeId(*node),
        layers: LayerRange::new(*first, *end),
    };
    let pipeline = |stages: &&[(u32, u32, u32)]| Pipeline { stages: stages.iter().map(stage).collect() };
    Plan {
        model: model.name.clone(),
        replicas: replicas.iter().map(pipeline).collect(),
        experts: Vec::new(),
        context: 4096,
        sessions: 2,
    }
}

#[test]
fn a_spare_takes_over_the_lost_stage_and_only_its_layers_are_loaded() {
    let names = ["a", "b", "c", "d"];
    let fleet = fleet(names.map(|n| node(n, "rtx-3090", 0)).to_vec(), false);
    let (model, ask) = (llama70(), ask(Objective::Tpot));
    let old = plan(&model, &[&[(0, 0, 40), (1, 40, 80)]]);
    let new = replan(&fleet, &model, &ask, &old, &[NodeId(1)]).unwrap();
    assert_eq!(new.plan.layers_of(NodeId(0)), Some(LayerRange::new(0, 40)));
    assert_eq!(new.plan.layers_of(NodeId(2)), Some(LayerRange::new(40, 80)));
    let bytes = weight_bytes(&model, LayerRange::new(40, 80));
    assert_eq!(new.cost.bytes_to_load, vec![(NodeId(2), bytes)]);
    let load_us = bytes as f64 / fleet.node(NodeId(2)).device.disk_bytes_per_s * 1e6;
    assert!((new.cost.load_us - load_us).abs() < 1.0);
    assert_eq!((new.cost.stages_unchanged, new.cost.sessions_to_replay), (1, 2));
    assert_eq!(new.cost.replicas_touched, vec![0]);
}

#[test]
fn without_a_spare_the_others_take_over_the_lost_layers() {
    let fleet = fleet(["a", "b", "c"].map(|n| node(n, "rtx-3090", 0)).to_vec(), false);
    let (model, ask) = (llama70(), ask(Objective::Tpot));
    let old = plan(&model, &[&[(0, 0, 30), (1, 30, 50), (2, 50, 80)]]);
    let new = replan(&fleet, &model, &ask, &old, &[NodeId(1)]).unwrap();
    assert_eq!(new.plan.mode(), Mode::Pipeline);
    let (a, c) = (new.plan.layers_of(NodeId(0)).unwrap(), new.plan.layers_of(NodeId(2)).unwrap());
    assert!(a.first == 0 && a.end >= 30 && c.first == a.end && c.first <= 50 && c.end == 80);
    let loaded: u64 = new.cost.bytes_to_load.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(loaded, model.layers[30..50].iter().map(|l| l.weight_bytes()).sum::<u64>());
}

#[test]
fn losing_one_replica_leaves_the_sessions_of_the_other_alone() {
    let fleet = fleet(["a", "b", "c", "d"].map(|n| node(n, "rtx-3090", 0)).to_vec(), false);
    let (model, ask) = (llama70(), ask(Objective::Throughput));
    let old = plan(&model, &[&[(0, 0, 40), (1, 40, 80)], &[(2, 0, 40), (3, 40, 80)]]);
    let new = replan(&fleet, &model, &ask, &old, &[NodeId(3)]).unwrap();
    assert_eq!(new.plan.replicas, vec![old.replicas[0].clone()]);
    assert_eq!(new.cost.replicas_touched, vec![1]);
    assert!(new.cost.bytes_to_load.is_empty() && new.cost.load_us == 0.0);
}

#[test]
fn a_model_that_fits_nowhere_is_refused_with_both_figures() {
    let fleet = fleet(vec![node("old", "apple-m1", 0)], false);
    let refusal = place(&fleet, &llama70(), &ask(Objective::Tpot)).unwrap_err();
    assert!(refusal.to_string().contains("needs"), "{refusal}");
}

#[test]
fn chosen_cuts_go_to_nodes_in_the_order_of_their_names_or_are_refused_with_a_reason() {
    let nodes = vec![node("c", "rtx-3090", 0), node("a", "rtx-3090", 0), node("b", "rtx-3090", 0)];
    let fleet = fleet(nodes, false);
    let (model, ask) = (llama70(), ask(Objective::Tpot));
    let plan = cut(&fleet, &model, &ask, &[30, 60]).unwrap().plan;
    let stages: Vec<_> = plan.stages().map(|s| (s.node.0, s.layers.first, s.layers.end)).collect();
    assert_eq!(stages, [(1, 0, 30), (2, 30, 60), (0, 60, 80)]);
    for cuts in [&[0, 10][..], &[10, 10], &[20, 10], &[80], &[10, 20, 90]] {
        assert!(matches!(cut(&fleet, &model, &ask, cuts), Err(Refusal::Constraint(_))), "{cuts:?}");
    }
    assert!(matches!(cut(&fleet, &model, &ask, &[20, 40, 60]), Err(Refusal::NoNodes(_))));
    let full = cut(&fleet, &model, &ask, &[79]).unwrap_err().to_string();
    assert!(full.contains("a has"), "{full}");
}
