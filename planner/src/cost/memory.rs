//! What a stage needs of a node's memory, and how long its weights take from local disk.

use super::constants::{ACTIVATION_COPIES, PREFILL_CHUNK};
use crate::fleet::{Device, Fleet};
use crate::model::{Attention, Model};
use crate::plan::{LayerRange, Plan, Stage};

/// Weight bytes of a stage: its layers, the embedding on the first stage, norm and head on the last. A tied tensor is
/// held once per node.
pub fn weight_bytes(model: &Model, layers: LayerRange) -> u64 {
    let of_layers: u64 = model.layers[layers.indices()].iter().map(|l| l.weight_bytes()).sum();
    let (first, last) = (layers.first == 0, layers.end == model.layer_count());
    let ends = match (first, last) {
        (true, true) if model.tied => model.embedding_bytes.max(model.head_bytes),
        (true, true) => model.embedding_bytes + model.head_bytes,
        (true, false) => model.embedding_bytes,
        (false, true) => model.head_bytes,
        (false, false) => 0,
    };
    of_layers + ends
}

/// KV bytes of a stage for one session of `context` tokens.
pub fn kv_bytes(model: &Model, layers: LayerRange, context: u32) -> u64 {
    let of = |l: &crate::model::Layer| {
        let tokens = match l.attention {
            Attention::Sliding { window } => context.min(window),
            Attention::Full | Attention::Latent => context,
        };
        u64::from(tokens) * l.kv_bytes_per_token
    };
    model.layers[layers.indices()].iter().map(of).sum()
}

/// Bytes of activation buffers of any stage.
pub fn activation_bytes(model: &Model) -> u64 {
    ACTIVATION_COPIES * u64::from(PREFILL_CHUNK) * u64::from(model.hidden) * 4
}

/// All bytes of a stage: weights, KV of `sessions` sessions of `context` tokens, activations.
pub fn stage_bytes(model: &Model, layers: LayerRange, context: u32, sessions: u32) -> u64 {
    weight_bytes(model, layers)
        + kv_bytes(model, layers, context).saturating_mul(u64::from(sessions))
        + activation_bytes(model)
}

/// Sessions of the plan's context that each of its replicas has room for: what the fullest stage holds beside weights and
/// buffers. `u32::MAX` where sessions take nothing.
pub fn sessions_room(fleet: &Fleet, model: &Model, plan: &Plan) -> u32 {
    let of = |stage: &Stage| {
        let usable = fleet.node(stage.node).device.usable_bytes();
        let room = usable.saturating_sub(stage_bytes(model, stage.layers, plan.context, 0));
        let sessions = room.checked_div(kv_bytes(model, stage.layers, plan.context));
        sessions.map_or(u32::MAX, |sessions| u32::try_from(sessions).unwrap_or(u32::MAX))
    };
    plan.stages().map(of).min().unwrap_or(0)
}

/// Time to bring `bytes` from local disk into the device's memory, microseconds.
pub fn load_us(device: &Device, bytes: u64) -> f64 {
    bytes as f64 / device.disk_bytes_per_s * 1e6
}
