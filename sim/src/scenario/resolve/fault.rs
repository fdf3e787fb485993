//! Scripted faults and churn.

use planner::fleet::NodeId;

use super::network::{Delays, one_way};
use super::roster::{Roster, texts};
use crate::scenario::kind::Groups;
use crate::scenario::leaf::Leaf;
use crate::scenario::raw::{RawChurn, RawFault};
use crate::scenario::reading::{Reading, above_zero, within};
use crate::scenario::tree::Value;
use crate::scenario::{Churn, Fault, FaultKind};

/// A device this many times slower is one that stands still.
const SLOWEST: f64 = 1e6;

/// All faults by time; equal times stay in the file's order.
pub(super) fn faults(reading: &Reading, raw: &[RawFault], roster: &Roster) -> Vec<Fault> {
    let mut found: Vec<Fault> = raw.iter().flat_map(|raw| fault(reading, raw, roster)).collect();
    found.sort_by(|a, b| a.at_us.total_cmp(&b.at_us));
    found
}

fn fault(reading: &Reading, raw: &RawFault, roster: &Roster) -> Vec<Fault> {
    check_keys(reading, raw);
    let at = reading.get(raw.at);
    let lasts = reading.checked(raw.lasts, above_zero("how long it lasts", "\"5 s\""));
    let over_us = at.zip(lasts).map(|(at, lasts)| at + lasts);
    let at_us = at.unwrap_or(0.0);
    let mut found = Vec::new();
    let mut add = |kind: FaultKind, over: Option<FaultKind>| {
        found.push(Fault { at_us, kind });
        if let (Some(at_us), Some(kind)) = (over_us, over) {
            found.push(Fault { at_us, kind });
        }
    };
    for id in roster.some(reading, raw.crash) {
        add(FaultKind::Crash(id), Some(FaultKind::Restart(id)));
    }
    for id in roster.some(reading, raw.restart) {
        add(FaultKind::Restart(id), None);
    }
    let factor = reading.checked(raw.factor, within(1.0, SLOWEST)).unwrap_or(1.0);
    for id in roster.some(reading, raw.slow) {
        add(FaultKind::SlowDown(id, factor), Some(FaultKind::SlowDown(id, 1.0)));
    }
    let share = reading.checked(raw.share, within(0.0, 1.0)).unwrap_or(0.0);
    for id in roster.some(reading, raw.memory_loss) {
        add(FaultKind::MemoryLoss(id, share), Some(FaultKind::MemoryLoss(id, 0.0)));
    }
    if let Some((a, b)) = raw.partition.and_then(|leaf| groups(reading, leaf, roster)) {
        add(FaultKind::Partition(a, b), Some(FaultKind::Heal));
    }
    if reading.get(raw.heal) == Some(true) {
        add(FaultKind::Heal, None);
    }
    for kind in link_changes(reading, raw, roster) {
        add(kind, None);
    }
    found
}

fn check_keys(reading: &Reading, raw: &RawFault) {
    let verbs = [
        ("crash", raw.crash.is_some()),
        ("restart", raw.restart.is_some()),
        ("slow", raw.slow.is_some()),
        ("memory_loss", raw.memory_loss.is_some()),
        ("partition", raw.partition.is_some()),
        ("heal", raw.heal.is_some()),
        ("link", raw.link.is_some()),
    ];
    let given: Vec<&str> = verbs.iter().filter(|(_, there)| *there).map(|(verb, _)| *verb).collect();
    let all: Vec<&str> = verbs.iter().map(|(verb, _)| *verb).collect();
    if given.len() != 1 {
        let message = if given.is_empty() {
            "the fault says not what happens".into()
        } else {
            format!("{} in one fault", given.join(" and "))
        };
        reading.fault_here(raw.here, message, format!("give it one of: {}", all.join(", ")));
    }
    if raw.at.is_none() {
        reading.fault_here(
            raw.here,
            "the fault says not when",
            "write at = \"3 s\", counted from the start of the run",
        );
    }
    let verb = given.first().copied().unwrap_or_default();
    let companions = [
        ("factor", "slow", raw.factor.is_some(), true),
        ("share", "memory_loss", raw.share.is_some(), true),
        ("rtt", "link", raw.rtt.is_some(), false),
        ("delay", "link", raw.delay.is_some(), false),
        ("jitter", "link", raw.jitter.is_some(), false),
        ("bandwidth", "link", raw.bandwidth.is_some(), false),
    ];
    for (key, owner, there, needed) in companions {
        if there && verb != owner {
            reading.fault_here(
                raw.here,
                format!("`{key}` goes with `{owner}`"),
                format!("leave `{key}` out, or write `{owner}`"),
            );
        } else if needed && !there && verb == owner {
            reading.fault_here(
                raw.here,
                format!("`{owner}` needs `{key}`"),
                format!("write {key} = a number beside it"),
            );
        }
    }
    if raw.lasts.is_some() && matches!(verb, "restart" | "heal" | "link") {
        reading.fault_here(
            raw.here,
            format!("`for` does not go with `{verb}`"),
            "write a second fault for the way back",
        );
    }
}

fn groups(reading: &Reading, leaf: Leaf<Groups>, roster: &Roster) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
    const CURE: &str = "write two groups: [[\"a\"], [\"b\", \"c\"]]";
    let slot = reading.at(leaf);
    let Value::List(items) = &slot.node.value else {
        reading.fault_in(leaf, "a partition is a list of two groups", CURE);
        return None;
    };
    let [one, other] = items.as_slice() else {
        reading.fault_in(leaf, "a partition has two sides", CURE);
        return None;
    };
    let side = |node| -> Vec<NodeId> {
        let named = texts(reading, node, &slot.key);
        named.iter().flat_map(|(name, span)| roster.lookup(reading, name, span, &slot.key)).collect()
    };
    let (a, b) = (side(one), side(other));
    if let Some(both) = a.iter().find(|id| b.contains(id)) {
        let name = &roster.nodes[both.index()].name;
        reading.fault_in(leaf, format!("`{name}` stands on both sides"), "name it on one side only");
    }
    Some((a, b))
}

fn link_changes(reading: &Reading, raw: &RawFault, roster: &Roster) -> Vec<FaultKind> {
    if raw.link.is_none() {
        return Vec::new();
    }
    let Some((first, second)) = roster.two_ends(reading, raw.link, raw.here) else { return Vec::new() };
    let given = Delays { rtt: raw.rtt, delay: raw.delay, jitter: raw.jitter };
    let delay = one_way(reading, &given, 0.0);
    let bytes_per_s = reading.checked(raw.bandwidth, above_zero("the bandwidth", "\"100 Mbit/s\""));
    if raw.rtt.is_none() && raw.delay.is_none() && raw.bandwidth.is_none() {
        reading.fault_here(raw.here, "the link does not change", "give it `rtt`, `delay` or `bandwidth`");
    }
    let pairs = first.iter().flat_map(|a| second.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).map(|(a, b)| FaultKind::LinkChange { a, b, delay, bytes_per_s }).collect()
}

/// The random crashes; what is wrong is noted.
pub(super) fn churn(reading: &Reading, raw: &RawChurn, roster: &Roster) -> Option<Churn> {
    for (key, missing) in
        [("mttf", raw.mttf.is_none()), ("mttr", raw.mttr.is_none()), ("until", raw.until.is_none())]
    {
        if missing {
            let cure = "write mttf = \"30 s\", mttr = \"5 s\" and until = \"60 s\"";
            reading.fault_here(raw.here, format!("churn needs `{key}`"), cure);
        }
    }
    let nodes = roster.some(reading, raw.nodes);
    let mttf_us = reading.checked(raw.mttf, above_zero("the mean time to failure", "\"30 s\""));
    let mttr_us = reading.checked(raw.mttr, above_zero("the mean time to repair", "\"5 s\""));
    let until_us = reading.checked(raw.until, above_zero("the end of the churn", "\"60 s\""));
    Some(Churn { nodes, mttf_us: mttf_us?, mttr_us: mttr_us?, until_us: until_us? })
}
