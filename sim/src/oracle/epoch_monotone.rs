//! No node goes back to an older plan while it lives. (A node that starts again begins without one.)

use std::collections::BTreeMap;

use node::probe::Event;
use planner::fleet::NodeId;
use planner::plan::Epoch;

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut followed: BTreeMap<(NodeId, usize), Epoch> = BTreeMap::new();
    let mut wrong = Vec::new();
    for recorded in evidence.events {
        let Event::Adopted { epoch } = recorded.event else { continue };
        let life = life(evidence, recorded.node, recorded.at_ns);
        let before = followed.insert((recorded.node, life), epoch);
        if let Some(before) = before.filter(|before| *before > epoch) {
            wrong.push(format!(
                "{} went from epoch {} back to {} at {:.3} s",
                evidence.scenario.fleet.node(recorded.node).name,
                before.0,
                epoch.0,
                recorded.at_ns as f64 / 1e9
            ));
        }
    }
    wrong
}

/// How many lives the node had begun by then.
fn life(evidence: &Evidence<'_>, node: NodeId, at_ns: u64) -> usize {
    evidence.starts.iter().filter(|(started, since_ns)| *started == node && *since_ns <= at_ns).count()
}

#[cfg(test)]
mod tests {
    use super::super::sound::Sound;
    use super::*;
    use crate::record::Recorded;

    fn adopted(node: u32, at_ns: u64, epoch: u64) -> Recorded {
        Recorded { at_ns, node: NodeId(node), event: Event::Adopted { epoch: Epoch(epoch) } }
    }

    fn found(events: &[Recorded], restart_ns: Option<u64>) -> Vec<String> {
        let mut run = Sound::new();
        run.events.extend_from_slice(events);
        run.starts.extend(restart_ns.map(|at_ns| (NodeId(1), at_ns)));
        check(&run.evidence())
    }

    #[test]
    fn plans_that_only_get_newer_are_in_order() {
        assert!(found(&[adopted(1, 10, 2), adopted(0, 20, 2), adopted(1, 30, 3)], None).is_empty());
        assert!(
            found(&[adopted(1, 10, 2), adopted(1, 20, 2)], None).is_empty(),
            "the same from a lower peer"
        );
    }

    #[test]
    fn a_node_that_goes_back_is_found() {
        let back = found(&[adopted(1, 10, 3), adopted(1, 2_000_000_000, 2)], None);
        assert_eq!(back, ["mini went from epoch 3 back to 2 at 2.000 s"]);
    }

    #[test]
    fn a_node_that_starts_again_begins_anew() {
        assert!(found(&[adopted(1, 10, 3), adopted(1, 30, 2)], Some(20)).is_empty());
    }
}
