//! What goes wrong, when: written in the file or drawn from the seed, and the state of it.

use std::collections::BTreeMap;

use super::spec::{Fault, FaultKind, Spec};
use crate::seed::{Draws, Seed};

/// A fault with those whom it strikes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strike {
    pub(super) at_ns: u64,
    pub(super) until_ns: Option<u64>,
    pub(super) kind: FaultKind,
    pub(super) nodes: Vec<u32>,
}

/// All of a run, by time.
pub(super) fn strikes(spec: &Spec, seed: Seed) -> Vec<Strike> {
    let mut draws = seed.fork("faults").draws();
    let mut faults = spec.faults.clone();
    if let Some(chaos) = &spec.chaos {
        for _ in 0..chaos.faults {
            let kind = chaos.kinds[(draws.bits() % chaos.kinds.len() as u64) as usize];
            let at_s = chaos.from_s + draws.unit() * (chaos.until_s - chaos.from_s);
            let longest = chaos.longest_s.min(chaos.until_s - at_s).max(0.0);
            let for_s = Some(draws.unit() * longest);
            let count = if kind == FaultKind::Partition { 10 + (draws.bits() % 41) as u32 } else { 1 };
            // Whoever leaves does not come back, and lies are told to the end.
            let for_s = if matches!(kind, FaultKind::Leave | FaultKind::Join) { None } else { for_s };
            faults.push(Fault { at_s, kind, for_s, count });
        }
    }
    let mut joined = spec.nodes;
    let mut strikes: Vec<Strike> =
        faults.iter().map(|fault| strike(fault, spec.nodes, &mut joined, &mut draws)).collect();
    strikes.sort_by_key(|strike| strike.at_ns);
    strikes
}

fn strike(fault: &Fault, nodes: u32, joined: &mut u32, draws: &mut Draws) -> Strike {
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    let count = match fault.kind {
        FaultKind::Partition => (u64::from(nodes) * u64::from(fault.count.min(100)) / 100).max(1) as u32,
        _ => fault.count.min(nodes - 1),
    };
    let nodes = if fault.kind == FaultKind::Join {
        *joined += count;
        (*joined - count..*joined).collect()
    } else {
        chosen(count, nodes, draws)
    };
    Strike {
        at_ns: ns(fault.at_s),
        until_ns: fault.for_s.map(|s| ns(fault.at_s + s)),
        kind: fault.kind,
        nodes,
    }
}

/// So many different ones, never the first: others join by it.
fn chosen(count: u32, nodes: u32, draws: &mut Draws) -> Vec<u32> {
    let mut left: Vec<u32> = (1..nodes).collect();
    let mut chosen = Vec::new();
    for _ in 0..count.min(nodes - 1) {
        chosen.push(left.swap_remove((draws.bits() % left.len() as u64) as usize));
    }
    chosen.sort_unstable();
    chosen
}

/// What is wrong just now with the ways between members.
#[derive(Debug, Clone, Default)]
pub(super) struct Ways {
    /// Partitions: the number of the fault, who is on its one side.
    splits: BTreeMap<usize, Vec<bool>>,
    muted: BTreeMap<usize, (u32, u64)>,
    lossy: BTreeMap<usize, u32>,
}

impl Ways {
    pub(super) fn begin(&mut self, number: usize, strike: &Strike, members: usize) {
        match strike.kind {
            FaultKind::Partition => {
                let mut side = vec![false; members];
                strike.nodes.iter().for_each(|node| side[*node as usize] = true);
                self.splits.insert(number, side);
            }
            FaultKind::Mute => {
                self.muted.insert(number, (strike.nodes[0], strike.at_ns | 1));
            }
            FaultKind::Lossy => {
                self.lossy.insert(number, strike.nodes[0]);
            }
            _ => {}
        }
    }

    pub(super) fn end(&mut self, number: usize) {
        self.splits.remove(&number);
        self.muted.remove(&number);
        self.lossy.remove(&number);
    }

    pub(super) fn is_split(&self) -> bool {
        !self.splits.is_empty()
    }

    /// Of each partition, who is on its one side.
    pub(super) fn sides(&self) -> impl Iterator<Item = &[bool]> {
        self.splits.values().map(Vec::as_slice)
    }

    /// Whether a packet can get there at all.
    pub(super) fn is_open(&self, from: u32, to: u32) -> bool {
        let apart = |side: &Vec<bool>| side.get(from as usize) != side.get(to as usize);
        !self.splits.values().any(apart) && !self.is_muted(from, to)
    }

    /// Whether nothing that the one sends gets to the other, though the other way is open.
    pub(super) fn is_muted(&self, from: u32, to: u32) -> bool {
        let half = |salt: u64| crate::seed::mix(salt ^ u64::from(to)) & 1 == 0;
        self.muted.values().any(|(node, salt)| *node == from && half(*salt))
    }

    /// Share of packets that is lost beside that of the network.
    pub(super) fn loss(&self, from: u32, to: u32) -> f64 {
        let ends = self.lossy.values().filter(|node| **node == from || **node == to).count();
        1.0 - (2.0f64 / 3.0).powi(ends as i32)
    }
}
