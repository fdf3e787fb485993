//! When nobody is served any more, no device holds anybody's KV: neither of sessions that ended, nor of tries that a
//! crash, a partition or a lost frame cut short.

use super::Evidence;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let name =
        |node: usize| evidence.scenario.fleet.nodes.get(node).map_or("a stranger", |n| n.name.as_str());
    let held = evidence.kv_left.iter().enumerate().filter(|(_, sessions)| **sessions > 0);
    held.map(|(node, sessions)| format!("{} still holds KV of {sessions} sessions", name(node))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sound::Sound;
    use super::*;

    #[test]
    fn devices_that_let_go_are_in_order_and_one_that_does_not_is_named() {
        let mut run = Sound::new();
        assert!(check(&run.evidence()).is_empty());
        run.kv_left[1] = 3;
        assert_eq!(check(&run.evidence()), ["mini still holds KV of 3 sessions"]);
    }
}
