//! The engine steps of a record.

use std::collections::{BTreeMap, BTreeSet};

use node::ids::SessionId;
use node::probe::{Event, Share};
use node::record::{Line, Node};
use planner::cost::fit::Timed;
use planner::cost::step::Sequence;
use planner::model::Model;
use planner::plan::LayerRange;

use crate::recorded::Run;
use crate::report::stats::middle;

/// Contexts that are near each other by this many tokens make one kind.
const NEAR: u32 = 64;

/// A step under way.
struct Begun {
    at_ns: u64,
    layers: LayerRange,
    batch: Vec<Sequence>,
    /// Another one ran in its midst, or it in another's, where it waits for a layer to end: its time is not its own.
    is_mixed: bool,
}

/// Every step of that node, timed.
pub(super) fn of(run: &Run, node: &Node, shape: &Model) -> Vec<Timed> {
    let emitted: BTreeSet<(SessionId, u32)> = run.lines.iter().filter_map(emitted).collect();
    let mut layers = node.layers;
    let mut loading = layers;
    // Steps may run in the midst of a longer one.
    let mut begun: Vec<Begun> = Vec::new();
    let mut timed = Vec::new();
    for line in run.lines.iter().filter(|line| line.node == node.name) {
        match &line.event {
            Event::LoadBegan { layers: wanted, .. } => (loading, layers) = (*wanted, None),
            Event::LoadEnded { ok: true, .. } => layers = loading,
            Event::StepBegan { batch } => {
                let is_mixed = !begun.is_empty();
                begun.iter_mut().for_each(|step| step.is_mixed = true);
                if let Some(layers) = layers {
                    let is_last = layers.end == shape.layer_count();
                    let samples = |share: &Share| is_last && emitted.contains(&(share.session, share.end));
                    let batch = batch.iter().map(|share| sequence(share, samples(share))).collect();
                    begun.push(Begun { at_ns: line.at_ns, layers, batch, is_mixed });
                }
            }
            Event::StepEnded { .. } => {
                let Some(step) = begun.pop().filter(|step| !step.is_mixed) else { continue };
                let us = line.at_ns.saturating_sub(step.at_ns) as f64 / 1e3;
                if us > 0.0 && !step.batch.is_empty() {
                    timed.push(Timed { layers: step.layers, batch: step.batch, us, weight: 1.0 });
                }
            }
            _ => {}
        }
    }
    timed
}

/// The token that came to somebody, by the position of the step that sampled it.
fn emitted(line: &Line) -> Option<(SessionId, u32)> {
    match line.event {
        Event::Emitted { session, position, .. } => Some((session, position)),
        _ => None,
    }
}

fn sequence(share: &Share, samples: bool) -> Sequence {
    let Share { tokens, end, .. } = *share;
    Sequence { new_tokens: tokens, context: end.saturating_sub(tokens), logits: samples.into() }
}

/// Steps that are nearly alike as one, which takes as long as the middle of them and counts as the logarithm of how many
/// there are.
pub(super) fn kinds(timed: Vec<Timed>) -> Vec<Timed> {
    let mut kinds: BTreeMap<_, Vec<Timed>> = BTreeMap::new();
    for step in timed {
        let sum = |of: fn(&Sequence) -> u32| step.batch.iter().map(of).sum::<u32>();
        let context: u64 = step.batch.iter().map(|sequence| u64::from(sequence.context)).sum();
        let (tokens, logits) = (sum(|s| s.new_tokens), sum(|s| s.logits));
        let near = context / u64::from(NEAR) / step.batch.len() as u64;
        let key = (step.layers.first, step.layers.end, step.batch.len(), tokens, logits, near);
        kinds.entry(key).or_default().push(step);
    }
    let one = |steps: Vec<Timed>| {
        let (us, weight) = (middle(steps.iter().map(|step| step.us)), 1.0 + (steps.len() as f64).ln());
        let place = steps.len() / 2;
        let step = steps.into_iter().nth(place)?;
        Some(Timed { us, weight, ..step })
    };
    kinds.into_values().filter_map(one).collect()
}
