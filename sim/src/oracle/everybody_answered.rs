//! Every request that came ends. One that was accepted ends with all of its tokens, unless too little of the mesh is left
//! to compute them; one that was turned away or given up hears why.

use std::collections::BTreeSet;

use node::ids::SessionId;
use node::probe::Event;

use super::Evidence;
use crate::outcome::{RequestRecord, Status};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let accepted: BTreeSet<SessionId> = evidence
        .events
        .iter()
        .filter_map(|r| if let Event::Accepted { session, .. } = r.event { Some(session) } else { None })
        .collect();
    let out_of_time = evidence.outcome.ended_us >= evidence.scenario.limit_us;
    let judge = |record| judge(record, accepted.contains(&record.session), out_of_time, evidence.servable);
    evidence.outcome.requests.iter().filter_map(judge).collect()
}

fn judge(record: &RequestRecord, accepted: bool, out_of_time: bool, servable: bool) -> Option<String> {
    let session = record.session.0;
    match &record.status {
        Status::Completed if !accepted => {
            Some(format!("session {session} was answered by a head nobody saw"))
        }
        Status::Completed => None,
        Status::Unfinished if out_of_time => None,
        Status::Unfinished => Some(format!("session {session} has no end")),
        Status::Failed(why) | Status::Refused(why) if why.trim().is_empty() => {
            Some(format!("session {session} ended without a reason"))
        }
        Status::Refused(why) if accepted => {
            Some(format!("session {session} was accepted and then refused: {why}"))
        }
        Status::Failed(why) if servable => {
            Some(format!("session {session} failed on a mesh that could have served it: {why}"))
        }
        Status::Failed(_) | Status::Refused(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sound::Sound;
    use super::*;

    fn found(status: Status, doctor: impl FnOnce(&mut Sound)) -> Vec<String> {
        let mut run = Sound::new();
        run.outcome.requests[1].status = status;
        doctor(&mut run);
        check(&run.evidence())
    }

    fn forget_acceptance(run: &mut Sound) {
        run.events.retain(|r| !matches!(r.event, Event::Accepted { .. }));
    }

    #[test]
    fn completed_requests_are_answered() {
        assert!(found(Status::Completed, |_| {}).is_empty());
        assert_eq!(found(Status::Completed, forget_acceptance).len(), 2, "answers out of nowhere");
    }

    #[test]
    fn a_request_without_an_end_is_found_unless_time_was_up() {
        assert!(found(Status::Unfinished, |_| {})[0].contains("session 1 has no end"));
        assert!(found(Status::Unfinished, |run| run.outcome.ended_us = run.scenario.limit_us).is_empty());
    }

    #[test]
    fn a_failure_counts_where_the_mesh_could_have_served() {
        let failed = || Status::Failed("gave up".into());
        assert!(found(failed(), |_| {})[0].contains("could have served"));
        assert!(found(failed(), |run| run.servable = false).is_empty());
        assert_eq!(found(Status::Failed(" ".into()), |run| run.servable = false).len(), 1, "without a word");
    }

    #[test]
    fn a_refusal_comes_before_acceptance() {
        let refused = || Status::Refused("full".into());
        assert!(found(refused(), |_| {})[0].contains("accepted and then refused"));
        let before = found(refused(), |run| {
            run.events.retain(|r| !matches!(r.event, Event::Accepted { session, .. } if session.0 == 1));
        });
        assert!(before.is_empty());
    }
}
