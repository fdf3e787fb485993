//! No device ever holds more than it has to give: not in fact, and not by the plan.

use planner::cost::memory::stage_bytes;
use planner::units::fmt_bytes;

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let nodes = &evidence.scenario.fleet.nodes;
    let held = nodes.iter().zip(evidence.memory_peak_bytes).filter_map(|(node, peak)| {
        let usable = node.device.usable_bytes();
        let too_much = *peak > usable;
        too_much.then(|| format!("{} held {} of {}", node.name, fmt_bytes(*peak), fmt_bytes(usable)))
    });
    let plan = &evidence.outcome.plan;
    let planned = plan.stages().filter_map(|stage| {
        let node = evidence.scenario.fleet.node(stage.node);
        let need = stage_bytes(&evidence.scenario.model, stage.layers, plan.context, plan.sessions);
        let usable = node.device.usable_bytes();
        (need > usable)
            .then(|| format!("the plan asks {} for {} of {}", node.name, fmt_bytes(need), fmt_bytes(usable)))
    });
    held.chain(planned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sound::Sound;
    use super::*;

    #[test]
    fn a_device_that_holds_more_than_it_has_is_named() {
        let mut run = Sound::new();
        assert!(check(&run.evidence()).is_empty());
        run.memory_peak_bytes[1] = run.scenario.fleet.nodes[1].device.usable_bytes() + 1;
        let found = check(&run.evidence());
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("mini held"), "{found:?}");
    }

    #[test]
    fn a_plan_that_does_not_fit_is_found() {
        let mut run = Sound::new();
        run.outcome.plan.sessions = 100_000;
        assert!(check(&run.evidence()).iter().all(|found| found.starts_with("the plan asks")));
        assert!(!check(&run.evidence()).is_empty());
    }
}
