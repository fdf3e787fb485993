//! What people and programs get to see of a run.

use std::collections::BTreeMap;

use super::serving::{Served, Spread};
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
    for (member, others) in &outcome.distrusted {
        text += &format!("  member {member} was found a liar by {others}\n");
    }
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
    if let Some(served) = &outcome.serving {
        text += &serving(served);
    }
    for violation in &outcome.violations {
        text += &format!("  broken: {violation}\n");
    }
    text
}

fn serving(served: &Served) -> String {
    let spread = |what: &str, times: &Spread| match times.count {
        0 => String::new(),
        count => format!(
            "  {what}: {:.2} s (median), {:.2} s (p99), {:.2} s (longest) of {count}\n",
            times.median, times.p99, times.longest
        ),
    };
    let Served { requests, answered, retried, resumed, put_off, .. } = served;
    let mut text = format!(
        "  {requests} requests, {answered} answered; {retried} tried elsewhere before the first token, {resumed} resumed \
        after it, {put_off} times asked to come again\n"
    );
    text += &spread("whole answers", &served.answer_s);
    text += &spread("unserved models loaded", &served.begun_s);
    text += &spread("of these after a death", &served.begun_after_death_s);
    text += &spread("served again, loading included", &served.served_s);
    text += &spread("of these after a death", &served.served_after_death_s);
    text += &format!(
        "  models taken up {} times, given up {} times; {} times too many loaded one ({:.1} s); replicas at the end: {}\n",
        served.taken_up,
        served.given_up,
        served.doubled,
        served.doubled_s,
        served.replicas.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
    );
    if served.tables > 0 {
        text += &format!(
            "  clients: {:.0} B a minute each beside requests; {} tables sent\n",
            served.client_bytes_per_minute, served.tables
        );
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
