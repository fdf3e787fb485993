//! Nobody waits for ever. The time from one token to the next (from the question to the first, from the last to the end)
//! is at most what the other requests explain, and after a fault what the fault explains.

use super::Evidence;
use crate::outcome::RequestRecord;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.outcome.requests.iter().filter_map(|record| longest_unexplained(evidence, record)).collect()
}

fn longest_unexplained(evidence: &Evidence<'_>, record: &RequestRecord) -> Option<String> {
    let end_us = record.ended_us.unwrap_or(evidence.outcome.ended_us);
    let marks: Vec<f64> =
        [record.asked_us].into_iter().chain(record.tokens_us.iter().copied()).chain([end_us]).collect();
    let bound_us = evidence.recovery_us + evidence.work_us;
    let gap = marks.windows(2).find(|gap| gap[1] - explained_until(evidence, gap[0], gap[1]) > bound_us)?;
    Some(format!(
        "session {} heard nothing from {:.3} s to {:.3} s, {:.0} s are the most that can be explained",
        record.session.0,
        gap[0] / 1e6,
        gap[1] / 1e6,
        bound_us / 1e6
    ))
}

/// When the wait begins to need another explanation: at the last fault that struck while it lasted.
fn explained_until(evidence: &Evidence<'_>, from_us: f64, to_us: f64) -> f64 {
    let strikes = evidence.struck.iter().map(|(at_ns, _)| *at_ns as f64 / 1e3);
    strikes.filter(|at_us| (from_us..to_us).contains(at_us)).fold(from_us, f64::max)
}

#[cfg(test)]
mod tests {
    use planner::fleet::NodeId;

    use super::super::sound::Sound;
    use super::*;
    use crate::scenario::FaultKind;

    fn found(doctor: impl FnOnce(&mut Sound)) -> Vec<String> {
        let mut run = Sound::new();
        doctor(&mut run);
        check(&run.evidence())
    }

    fn stall(run: &mut Sound, by_us: f64) {
        let record = &mut run.outcome.requests[1];
        record.tokens_us[3] += by_us;
        record.ended_us = record.ended_us.map(|at| at + by_us);
    }

    #[test]
    fn short_waits_need_no_explanation() {
        assert!(found(|_| {}).is_empty());
        assert!(found(|run| stall(run, run.recovery_us)).is_empty());
    }

    #[test]
    fn a_token_that_took_too_long_is_found() {
        let stalled = found(|run| stall(run, run.recovery_us + run.work_us + 1e6));
        assert!(stalled[0].contains("session 1 heard nothing"), "{stalled:?}");
    }

    #[test]
    fn a_fault_explains_the_time_after_it_and_no_more() {
        let with_fault = |by: f64| {
            found(|run| {
                let before_us = run.outcome.requests[1].tokens_us[2];
                let crash_us = before_us + run.recovery_us;
                run.struck.push(((crash_us * 1e3) as u64, FaultKind::Crash(NodeId(1))));
                stall(run, by * (run.recovery_us + run.work_us));
            })
        };
        assert!(with_fault(1.2).is_empty());
        assert_eq!(with_fault(3.0).len(), 1);
    }

    #[test]
    fn a_request_that_nobody_takes_up_is_found_too() {
        let ignored = found(|run| {
            let record = &mut run.outcome.requests[1];
            record.tokens.clear();
            record.tokens_us.clear();
            record.ended_us = None;
            run.outcome.ended_us = 2.0 * (run.recovery_us + run.work_us);
        });
        assert_eq!(ignored.len(), 1, "{ignored:?}");
    }
}
