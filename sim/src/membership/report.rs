//! What people and programs get to see of a run.

use std::collections::BTreeMap;

use super::{Outcome, Timing};
use crate::report::stats::middle;

/// A run as text, ending in a line break.
pub fn text(name: &str, outcome: &Outcome) -> String {
    let Outcome { seed, nodes, seconds, packets, bytes, .. } = outcome;
    let mut text = format!("{name}: {nodes} members, {seconds} s from seed {seed}\n");
    text += &format!(
        "  {} packets, {:.1} MB; at rest {:.0} B/s and {:.2} packets/s a member; peak {:.1} kB/s\n",
        packets,
        *bytes as f64 / 1e6,
        outcome.rest_bytes_per_s,
        outcome.rest_packets_per_s,
        outcome.peak_bytes_per_s as f64 / 1e3
    );
    text += &format!(
        "  {} faults, {} members taken for dead without a reason, {} items refused\n",
        outcome.faults, outcome.false_downs, outcome.refused
    );
    for (kind, timings) in by_kind(&outcome.timings) {
        let first = middle(timings.iter().filter_map(|timing| timing.first_s));
        let all: Vec<f64> = timings.iter().filter_map(|timing| timing.all_s).collect();
        let worst = all.iter().copied().fold(0.0, f64::max);
        let open = timings.len() - all.len();
        text += &format!(
            "  {kind:8} {:4} times: known to the first after {first:.2} s, to all after {:.2} s (median), \
            {worst:.2} s (longest)",
            timings.len(),
            middle(all)
        );
        text += &if open > 0 { format!("; {open} not to all\n") } else { "\n".to_owned() };
    }
    if let Some((half, most)) = outcome.coordinate_error {
        text += &format!(
            "  round trips by coordinates: off by {:.0} % (median), {:.0} % (p90)\n",
            half * 100.0,
            most * 100.0
        );
    }
    for violation in &outcome.violations {
        text += &format!("  broken: {violation}\n");
    }
    text
}

/// Timings by what they are of.
pub fn by_kind(timings: &[Timing]) -> BTreeMap<&'static str, Vec<&Timing>> {
    let mut kinds: BTreeMap<&'static str, Vec<&Timing>> = BTreeMap::new();
    for timing in timings {
        kinds.entry(timing.kind).or_default().push(timing);
    }
    kinds
}
