//! Tensor parallelism with a root: every node holds an equal part of every layer, and all wait for each other four times
//! in each layer.
//!
//! In each round the root sends a vector to all, each computes its part, and the root gathers the parts: queries, keys
//! and values with attention; its output projection; the feed-forward part's way up; its way down. Only the way down
//! is sent at the feed-forward width, and only the way up is gathered at it.

use planner::cost::constants::{
    FRAME_HEADER_BYTES, TENSOR_FEED_FORWARD_WIDTH, TENSOR_PARALLEL, TENSOR_SERIAL_SHARE, TOKEN_FRAME_BYTES,
};
use planner::cost::step::Sequence;
use planner::fleet::NodeId;

use super::course::Course;
use super::{Group, PlayError};

/// Widths of the four rounds' scattered and gathered vectors, in widths of the residual stream.
const ROUNDS: [(f64, f64); 4] =
    [(1.0, 1.0), (1.0, 1.0), (1.0, TENSOR_FEED_FORWARD_WIDTH), (TENSOR_FEED_FORWARD_WIDTH, 1.0)];

/// Takes one batch through all layers.
pub(super) fn step(group: &Group, course: &mut Course<'_>, batch: &[Sequence]) -> Result<(), PlayError> {
    let nodes: Vec<NodeId> = group.stages.iter().map(|s| s.node).collect();
    let root = nodes.iter().copied().find(|n| *n == group.host).unwrap_or(nodes[0]);
    let tokens: u32 = batch.iter().map(|s| s.new_tokens).sum();
    course.send(group.host, root, FRAME_HEADER_BYTES + 4 * u64::from(tokens))?;
    rounds(course, &nodes, root, tokens, batch)?;
    course.send(root, group.host, TOKEN_FRAME_BYTES)
}

fn rounds(
    course: &mut Course<'_>,
    nodes: &[NodeId],
    root: NodeId,
    tokens: u32,
    batch: &[Sequence],
) -> Result<(), PlayError> {
    let sharers = nodes.len() as f64;
    let layers = course.model().layer_count();
    let slowest_us = course.slowest_us(&shares(course, nodes, root, batch));
    let stream = f64::from(course.model().hidden) * TENSOR_PARALLEL.activation_bytes * f64::from(tokens);
    for _ in 0..layers {
        for (scattered, gathered) in ROUNDS {
            course.scatter(root, nodes, FRAME_HEADER_BYTES + (stream * scattered) as u64)?;
            course.computed(slowest_us / (f64::from(layers) * ROUNDS.len() as f64));
            course.gather(nodes, root, FRAME_HEADER_BYTES + (stream * gathered / sharers) as u64)?;
        }
    }
    Ok(())
}

/// What each node computes in a step, microseconds by the formula: its equal part, and at the root what is not divided.
fn shares(course: &Course<'_>, nodes: &[NodeId], root: NodeId, batch: &[Sequence]) -> Vec<(NodeId, f64)> {
    let share = |node: &NodeId| {
        let whole_us = course.shared_step_us(*node, nodes.len() as u64, batch);
        let divided_us = whole_us * (1.0 - TENSOR_SERIAL_SHARE) / nodes.len() as f64;
        let alone_us = if *node == root { whole_us * TENSOR_SERIAL_SHARE } else { 0.0 };
        (*node, divided_us + alone_us)
    };
    nodes.iter().map(share).collect()
}
