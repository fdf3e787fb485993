//! What goes wrong and when: the scripted faults and the random ones, in one order, from the seed.

use std::collections::BTreeSet;

use planner::fleet::{Fleet, NodeId};
use rand_distr::{Distribution, Exp1};

use crate::scenario::{Churn, Fault, FaultKind, Scenario};
use crate::seed::Seed;

/// Every fault of a run, by time; of equal times scripted ones first, then by node.
///
/// Random crashes strike the churn's nodes, or everybody but `entries` where it names none, and never the last node that is
/// up: a crash that would is left out, with the repair that belongs to it.
pub(crate) fn schedule(scenario: &Scenario, entries: &[NodeId], seed: Seed) -> Vec<Fault> {
    let mut faults = scenario.faults.clone();
    if let Some(churn) = &scenario.churn {
        faults.extend(random(churn, &scenario.fleet, entries, seed.fork("faults")));
    }
    faults.sort_by(|a, b| a.at_us.total_cmp(&b.at_us));
    spare_the_last(faults, &scenario.fleet)
}

/// Crashes and repairs of each node in turn: up for an exponential time, down for another.
fn random(churn: &Churn, fleet: &Fleet, entries: &[NodeId], seed: Seed) -> Vec<Fault> {
    let everybody_else = fleet.ids().filter(|id| !entries.contains(id));
    let nodes: Vec<NodeId> =
        if churn.nodes.is_empty() { everybody_else.collect() } else { churn.nodes.clone() };
    let mut faults = Vec::new();
    for node in nodes {
        let mut rng = seed.fork(&fleet.node(node).name).rng();
        let mut draw = |mean_us: f64| -> f64 { Distribution::<f64>::sample(&Exp1, &mut rng) * mean_us };
        let mut at_us = draw(churn.mttf_us);
        while at_us < churn.until_us {
            faults.push(Fault { at_us, kind: FaultKind::Crash(node) });
            at_us += draw(churn.mttr_us);
            faults.push(Fault { at_us, kind: FaultKind::Restart(node) });
            at_us += draw(churn.mttf_us).max(LEAST_STEP_US);
        }
    }
    faults
}

/// Repairs and crashes of one node are at least this far apart, microseconds: a mean of zero must not stop the clock.
const LEAST_STEP_US: f64 = 1e3;

/// Leaves out what would bring the last node down, and the repair of what was left standing.
fn spare_the_last(faults: Vec<Fault>, fleet: &Fleet) -> Vec<Fault> {
    let mut up: BTreeSet<NodeId> = fleet.ids().collect();
    let keeps = |fault: &Fault| match fault.kind {
        FaultKind::Crash(node) if up.len() == 1 && up.contains(&node) => false,
        FaultKind::Crash(node) => up.remove(&node),
        FaultKind::Restart(node) => up.insert(node),
        _ => true,
    };
    faults.into_iter().filter(keeps).collect()
}

/// Whether a fault can make tokens stop.
pub(crate) fn interrupts(fault: &FaultKind) -> bool {
    matches!(fault, FaultKind::Crash(_) | FaultKind::Partition(..) | FaultKind::MemoryLoss(..))
}

/// The fault in words.
pub(crate) fn describe(fault: &FaultKind, fleet: &Fleet) -> String {
    let name = |node: &NodeId| fleet.nodes.get(node.index()).map_or("a stranger", |n| n.name.as_str());
    let names = |nodes: &[NodeId]| nodes.iter().map(name).collect::<Vec<_>>().join(", ");
    match fault {
        FaultKind::Crash(node) => format!("crash of {}", name(node)),
        FaultKind::Restart(node) => format!("restart of {}", name(node)),
        FaultKind::SlowDown(node, times) => format!("{} computes {times} times slower", name(node)),
        FaultKind::MemoryLoss(node, share) => format!("{} loses {share} of its memory for KV", name(node)),
        FaultKind::Partition(a, b) => format!("partition between {} and {}", names(a), names(b)),
        FaultKind::Heal => "partitions end".into(),
        FaultKind::LinkChange { a, b, .. } => {
            format!("link between {} and {} changes", name(a), name(b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    const SECOND: f64 = 1e6;

    fn churn(nodes: &[u32]) -> Churn {
        Churn {
            nodes: nodes.iter().copied().map(NodeId).collect(),
            mttf_us: 5.0 * SECOND,
            mttr_us: 2.0 * SECOND,
            until_us: 3_000.0 * SECOND,
        }
    }

    fn scenario(nodes: &[u32]) -> Scenario {
        Scenario { churn: Some(churn(nodes)), ..sample::scenario() }
    }

    fn crashes(faults: &[Fault]) -> Vec<NodeId> {
        faults
            .iter()
            .filter_map(|f| if let FaultKind::Crash(node) = f.kind { Some(node) } else { None })
            .collect()
    }

    #[test]
    fn the_schedule_is_in_order_and_the_seeds_own() {
        let of = |seed| schedule(&scenario(&[]), &[NodeId(0)], Seed::new(seed));
        assert!(of(1).is_sorted_by(|a, b| a.at_us <= b.at_us));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn entries_are_spared_unless_they_are_named() {
        let spared = schedule(&scenario(&[]), &[NodeId(0)], Seed::new(1));
        assert!(!crashes(&spared).contains(&NodeId(0)));
        assert!(crashes(&spared).contains(&NodeId(1)) && crashes(&spared).contains(&NodeId(2)));
        let named = schedule(&scenario(&[0]), &[NodeId(0)], Seed::new(1));
        assert_eq!(crashes(&named).iter().collect::<BTreeSet<_>>(), BTreeSet::from([&NodeId(0)]));
    }

    #[test]
    fn somebody_is_always_up_and_everybody_comes_back() {
        let faults = schedule(&scenario(&[0, 1, 2]), &[], Seed::new(3));
        let mut up = 3;
        for fault in &faults {
            match fault.kind {
                FaultKind::Crash(_) => up -= 1,
                FaultKind::Restart(_) => up += 1,
                _ => {}
            }
            assert!(up >= 1, "nobody is left at {} us", fault.at_us);
        }
        assert_eq!(up, 3);
    }

    #[test]
    fn times_between_faults_have_the_means_asked_for() {
        let faults = schedule(&scenario(&[1]), &[], Seed::new(5));
        let times: Vec<f64> = faults.iter().map(|f| f.at_us).collect();
        let gaps = |skip: usize| -> f64 {
            let gaps: Vec<f64> = times.windows(2).skip(skip).step_by(2).map(|w| w[1] - w[0]).collect();
            gaps.iter().sum::<f64>() / gaps.len() as f64 / SECOND
        };
        assert!((gaps(0) - 2.0).abs() < 0.4, "repairs took {} s in the mean", gaps(0));
        assert!((gaps(1) - 5.0).abs() < 1.0, "failures came after {} s in the mean", gaps(1));
        let last_crash = times[times.len() - 2];
        assert!(last_crash < 3_000.0 * SECOND);
    }

    #[test]
    fn scripted_faults_keep_their_times_among_the_random_ones() {
        let mut scenario = scenario(&[1]);
        let scripted = Fault { at_us: 7.0 * SECOND, kind: FaultKind::SlowDown(NodeId(2), 4.0) };
        scenario.faults = vec![scripted.clone()];
        let faults = schedule(&scenario, &[], Seed::new(1));
        assert!(faults.contains(&scripted));
        assert!(faults.is_sorted_by(|a, b| a.at_us <= b.at_us));
    }
}
