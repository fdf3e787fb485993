//! llama.cpp's RPC back end: the host drives one server after the other, and waits for each.
//!
//! For each token and server: the host sends the activations (f32) and the graph, then asks for the result and waits for
//! it: one blocking round trip. Servers hold the first layers, the host's own device the last ones with the head, so
//! that logits are made where they are needed; a host without layers gets the whole vocabulary in f32 from the last
//! server. A delay proxy on compute commands alone sees two of them per server and one for the first, 2N-3 for N devices.

use planner::cost::constants::{
    FRAME_HEADER_BYTES, LLAMA_RPC, LLAMA_RPC_CALLS_CACHED, LLAMA_RPC_CALLS_CHATTY, LLAMA_RPC_LAYER_US,
};
use planner::cost::step::Sequence;
use planner::cost::transfer::activation_frame_bytes;
use planner::plan::{LayerRange, Stage};

use super::course::Course;
use super::{Group, PlayError};
use crate::scenario::EngineKind;

/// Takes one batch through the servers and the host's own layers.
pub(super) fn step(
    group: &Group,
    course: &mut Course<'_>,
    batch: &[Sequence],
    kind: EngineKind,
    inject_us: f64,
) -> Result<(), PlayError> {
    let model = course.model();
    let tokens = batch.iter().map(|s| s.new_tokens).sum();
    let logits: u64 = batch.iter().map(|s| u64::from(s.logits)).sum();
    let activations = activation_frame_bytes(model, &LLAMA_RPC, tokens);
    for (i, server) in group.stages.iter().filter(|s| s.node != group.host).enumerate() {
        for _ in 1..calls(kind) {
            course.send(group.host, server.node, FRAME_HEADER_BYTES)?;
            course.send(server.node, group.host, FRAME_HEADER_BYTES)?;
        }
        course.send(group.host, server.node, activations)?;
        course.delay(if i == 0 { inject_us } else { 2.0 * inject_us });
        course.software(LLAMA_RPC_LAYER_US * f64::from(server.layers.len()));
        course.compute(server.node, server.layers, batch);
        let result = if server.layers.end == model.layer_count() {
            FRAME_HEADER_BYTES + 4 * logits * u64::from(model.vocab)
        } else {
            activations
        };
        course.send(server.node, group.host, result)?;
    }
    if let Some(own) = group.stages.iter().find(|s| s.node == group.host) {
        course.compute(own.node, own.layers, batch);
    }
    Ok(())
}

/// Blocking calls to each server for each step.
fn calls(kind: EngineKind) -> u32 {
    match kind {
        EngineKind::LlamaRpc558 => LLAMA_RPC_CALLS_CHATTY,
        EngineKind::LlamaRpc8 => LLAMA_RPC_CALLS_CACHED,
        _ => 1,
    }
}

/// The same shares in llama.cpp's order: servers first, the host's own device last.
pub(super) fn host_last(group: Group) -> Group {
    let (own, servers): (Vec<Stage>, Vec<Stage>) = group.stages.iter().partition(|s| s.node == group.host);
    let mut first = 0;
    let stages = servers
        .into_iter()
        .chain(own)
        .map(|stage| {
            let layers = LayerRange::new(first, first + stage.layers.len());
            first = layers.end;
            Stage { layers, ..stage }
        })
        .collect();
    Group { stages, ..group }
}
