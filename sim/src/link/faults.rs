//! What is wrong with the network just now: partitions, and links that are no longer what they were.

use planner::fleet::{Delay, Fleet, LinkOverride, NodeId};

/// One partition: no frame passes between the two groups.
#[derive(Debug)]
pub(super) struct Cut {
    side_of: Vec<Option<bool>>,
}

impl Cut {
    /// Nodes in neither group are not touched. A node in both counts with the second.
    pub(super) fn new(nodes: usize, a: &[NodeId], b: &[NodeId]) -> Self {
        let mut side_of = vec![None; nodes];
        for (group, side) in [(a, false), (b, true)] {
            for node in group {
                if let Some(slot) = side_of.get_mut(node.index()) {
                    *slot = Some(side);
                }
            }
        }
        Self { side_of }
    }

    /// Whether it stands between the two.
    pub(super) fn separates(&self, from: NodeId, to: NodeId) -> bool {
        match (self.side_of.get(from.index()), self.side_of.get(to.index())) {
            (Some(Some(a)), Some(Some(b))) => a != b,
            _ => false,
        }
    }
}

/// Gives one direction of a pair a delay or a bandwidth of its own; what is absent stays as it was.
pub(super) fn change_direction(
    fleet: &mut Fleet,
    from: NodeId,
    to: NodeId,
    delay: Option<Delay>,
    bytes_per_s: Option<f64>,
) {
    match fleet.overrides.iter_mut().find(|known| known.from == from && known.to == to) {
        Some(known) => {
            known.delay = delay.or(known.delay);
            known.bytes_per_s = bytes_per_s.or(known.bytes_per_s);
        }
        None => fleet.overrides.push(LinkOverride { from, to, delay, bytes_per_s }),
    }
}
