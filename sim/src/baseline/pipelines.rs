//! Pipelines of stages, by the way a token takes: round the ring, back through every stage, or through the client.

use planner::cost::constants::{
    CLIENT_RELAY, EXO, EXO_TOKEN_US, FRAME_HEADER_BYTES, HOP_BY_HOP, RING, Software, TOKEN_FRAME_BYTES,
};
use planner::cost::step::Sequence;
use planner::cost::transfer::activation_frame_bytes;

use super::course::Course;
use super::{Group, PlayError};

/// A ring: forward from stage to stage, the token back in one hop. This project's, as arithmetic.
pub(super) fn ring(group: &Group, course: &mut Course<'_>, batch: &[Sequence]) -> Result<(), PlayError> {
    forward(group, course, batch, &RING)?;
    reply(group, course, batch)
}

/// The same in Python, with what its event loop costs every token.
pub(super) fn exo(group: &Group, course: &mut Course<'_>, batch: &[Sequence]) -> Result<(), PlayError> {
    course.software(EXO_TOKEN_US);
    forward(group, course, batch, &EXO)?;
    reply(group, course, batch)
}

/// Forward with credit asked for and granted before each frame, the token back through every stage.
pub(super) fn hop_by_hop(
    group: &Group,
    course: &mut Course<'_>,
    batch: &[Sequence],
) -> Result<(), PlayError> {
    let mut at = group.host;
    let mut bytes = prompt_bytes(batch);
    for stage in &group.stages {
        course.send(at, stage.node, FRAME_HEADER_BYTES)?;
        course.send(stage.node, at, FRAME_HEADER_BYTES)?;
        course.send(at, stage.node, bytes)?;
        course.compute(stage.node, stage.layers, batch);
        at = stage.node;
        bytes = activations(course, batch, &HOP_BY_HOP);
    }
    let back = group.stages.iter().rev().skip(1).map(|stage| stage.node).chain([group.host]);
    for next in back {
        course.send(at, next, token_bytes(batch))?;
        at = next;
    }
    Ok(())
}

/// The client sends to each stage, gets its output back, and sends that to the next.
pub(super) fn client_relay(
    group: &Group,
    course: &mut Course<'_>,
    batch: &[Sequence],
) -> Result<(), PlayError> {
    let mut bytes = prompt_bytes(batch);
    for (i, stage) in group.stages.iter().enumerate() {
        course.send(group.host, stage.node, bytes)?;
        course.compute(stage.node, stage.layers, batch);
        let last = i + 1 == group.stages.len();
        bytes = if last { token_bytes(batch) } else { activations(course, batch, &CLIENT_RELAY) };
        course.send(stage.node, group.host, bytes)?;
    }
    Ok(())
}

fn forward(
    group: &Group,
    course: &mut Course<'_>,
    batch: &[Sequence],
    software: &Software,
) -> Result<(), PlayError> {
    let mut at = group.host;
    let mut bytes = prompt_bytes(batch);
    for stage in &group.stages {
        course.send(at, stage.node, bytes)?;
        course.software(software.per_step_us);
        course.compute(stage.node, stage.layers, batch);
        at = stage.node;
        bytes = activations(course, batch, software);
    }
    Ok(())
}

/// The sampled tokens, from the last stage to the host.
fn reply(group: &Group, course: &mut Course<'_>, batch: &[Sequence]) -> Result<(), PlayError> {
    let last = group.stages.last().map_or(group.host, |stage| stage.node);
    course.send(last, group.host, token_bytes(batch))
}

fn activations(course: &Course<'_>, batch: &[Sequence], software: &Software) -> u64 {
    activation_frame_bytes(course.model(), software, batch.iter().map(|s| s.new_tokens).sum())
}

fn prompt_bytes(batch: &[Sequence]) -> u64 {
    FRAME_HEADER_BYTES + 4 * batch.iter().map(|s| u64::from(s.new_tokens)).sum::<u64>()
}

fn token_bytes(batch: &[Sequence]) -> u64 {
    TOKEN_FRAME_BYTES * batch.iter().map(|s| u64::from(s.logits)).sum::<u64>().max(1)
}
