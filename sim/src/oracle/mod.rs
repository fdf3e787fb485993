//! What must hold of every run, whatever goes wrong in it: one invariant a file. Each looks at what was recorded and says
//! what it found wrong; nothing, where the invariant held.
//!
//! * `exact_tokens`: a request gets the tokens of its prompt, in order, none doubled, none lost.
//! * `everybody_answered`: a request that came ends, and an accepted one ends whole.
//! * `bounded_time`: nobody waits longer than a fault explains.
//! * `kv_freed`: when nobody is served, nobody's KV is held.
//! * `liveness`: after the faults the mesh serves again, within a bound.
//! * `epoch_monotone`: no node goes back to an older plan.
//! * `memory_bounds`: no device holds more than it has.

mod bounded_time;
mod epoch_monotone;
mod everybody_answered;
mod exact_tokens;
mod kv_freed;
mod liveness;
mod memory_bounds;
#[cfg(test)]
mod sound;

use planner::fleet::NodeId;

use crate::outcome::{Outcome, RequestRecord};
use crate::record::Recorded;
use crate::scenario::{FaultKind, Scenario};

/// Everything the oracles may look at.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What was run.
    pub scenario: &'a Scenario,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// What the nodes told, in order, to the very end of the run.
    pub events: &'a [Recorded],
    /// Short questions asked after the last fault, with their answers; `None` where none were to be asked.
    pub probes: Option<&'a [RequestRecord]>,
    /// When each life of each node began, nanoseconds.
    pub starts: &'a [(NodeId, u64)],
    /// The faults that struck, and when, nanoseconds.
    pub struck: &'a [(u64, FaultKind)],
    /// The most each node's device ever had in memory, bytes.
    pub memory_peak_bytes: &'a [u64],
    /// Sessions whose KV each node held at the very end.
    pub kv_left: &'a [u32],
    /// Whether a plan is possible with the nodes that are left after the last fault.
    pub servable: bool,
    /// The longest wait that is explained by a fault, microseconds after it.
    pub recovery_us: f64,
    /// The longest wait that is explained by the other requests, microseconds.
    pub work_us: f64,
}

/// An invariant: its name, and what is found wrong.
pub type Oracle = (&'static str, fn(&Evidence<'_>) -> Vec<String>);

/// All of them.
pub const ORACLES: [Oracle; 7] = [
    ("exact_tokens", exact_tokens::check),
    ("everybody_answered", everybody_answered::check),
    ("bounded_time", bounded_time::check),
    ("kv_freed", kv_freed::check),
    ("liveness", liveness::check),
    ("epoch_monotone", epoch_monotone::check),
    ("memory_bounds", memory_bounds::check),
];

/// What all oracles find wrong, each with its oracle's name.
pub fn violations(evidence: &Evidence<'_>) -> Vec<String> {
    let found = |(name, check): &Oracle| -> Vec<String> {
        check(evidence).into_iter().map(|what| format!("{name}: {what}")).collect()
    };
    ORACLES.iter().flat_map(found).collect()
}
