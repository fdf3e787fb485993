//! Interruptions of a run: when each session had to begin again, for how long its client heard nothing, and which fault
//! that belongs to.

use std::collections::BTreeMap;

use node::ids::SessionId;
use node::probe::Event;

use crate::outcome::{Incident, RequestRecord};
use crate::record::Recorded;

/// A session's client heard nothing from `from_us` to `to_us`, because its tokens were sent again in between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pause {
    pub(crate) session: SessionId,
    /// When the last token before set out: a fault that came earlier would have stopped that one.
    pub(crate) since_us: f64,
    /// The last token before, or the question.
    pub(crate) from_us: f64,
    /// The first token after, or the end.
    pub(crate) to_us: f64,
}

/// When each session was sent along a route, microseconds.
pub(crate) fn attempts(events: &[Recorded]) -> BTreeMap<SessionId, Vec<f64>> {
    let mut attempts: BTreeMap<SessionId, Vec<f64>> = BTreeMap::new();
    for recorded in events {
        if let Event::Attempted { session, .. } = recorded.event {
            attempts.entry(session).or_default().push(recorded.at_ns as f64 / 1e3);
        }
    }
    attempts
}

/// The pauses of one request, in order: one for each gap between tokens in which it was sent again.
pub(crate) fn pauses(record: &RequestRecord, attempts: &[f64]) -> Vec<Pause> {
    let mut pauses: Vec<Pause> = Vec::new();
    for again_us in attempts.iter().skip(1) {
        let after = record.tokens_us.partition_point(|token_us| token_us <= again_us);
        let token_before = |n: usize| match after.checked_sub(n) {
            Some(index) => record.tokens_us.get(index).copied().unwrap_or(record.asked_us),
            None => record.asked_us,
        };
        let Some(to_us) = record.tokens_us.get(after).copied().or(record.ended_us) else { continue };
        let (since_us, from_us) = (token_before(2), token_before(1));
        let pause = Pause { session: record.session, since_us, from_us, to_us };
        if pauses.last() != Some(&pause) {
            pauses.push(pause);
        }
    }
    pauses
}

/// Writes to each interrupting incident the longest time until tokens flowed again. A pause belongs to the first
/// interruption that can have begun it, or else to the last one before its end, whose effect came late.
pub(crate) fn attribute(incidents: &mut [Incident], interrupting: &[bool], pauses: &[Pause]) {
    for pause in pauses {
        let mut before_end =
            (0..incidents.len()).filter(|n| interrupting[*n] && incidents[*n].at_us < pause.to_us);
        let began = before_end.clone().find(|n| incidents[*n].at_us >= pause.since_us);
        let Some(cause) = began.or_else(|| before_end.next_back()) else { continue };
        let incident = &mut incidents[cause];
        let lasted_us = pause.to_us - pause.from_us.max(incident.at_us);
        incident.pause_us = Some(incident.pause_us.map_or(lasted_us, |longest| longest.max(lasted_us)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Status;

    fn record(tokens_us: &[f64]) -> RequestRecord {
        RequestRecord {
            session: SessionId(3),
            entry: "max".into(),
            prompt: 4,
            output: tokens_us.len() as u32,
            asked_us: 10.0,
            tokens_us: tokens_us.to_vec(),
            tokens: Vec::new(),
            ended_us: tokens_us.last().copied(),
            status: Status::Completed,
            resumptions: 0,
        }
    }

    fn crash(at_us: f64) -> Incident {
        Incident { at_us, what: "crash".into(), pause_us: None }
    }

    #[test]
    fn a_pause_lasts_from_the_token_before_to_the_token_after() {
        let record = record(&[20.0, 30.0, 90.0, 100.0]);
        let found = pauses(&record, &[10.0, 50.0, 70.0]);
        assert_eq!(found.len(), 1, "two tries in one gap are one pause: {found:?}");
        assert_eq!((found[0].from_us, found[0].to_us), (30.0, 90.0));
        assert!(pauses(&record, &[10.0]).is_empty(), "the first try is no pause");
    }

    #[test]
    fn a_pause_before_the_first_token_begins_with_the_question() {
        let found = pauses(&record(&[80.0]), &[10.0, 60.0]);
        assert_eq!((found[0].from_us, found[0].to_us), (10.0, 80.0));
    }

    fn pause(since_us: f64, from_us: f64, to_us: f64) -> Pause {
        Pause { session: SessionId(1), since_us, from_us, to_us }
    }

    #[test]
    fn the_longest_pause_is_written_to_the_fault_it_belongs_to() {
        let mut incidents = [crash(35.0), crash(40.0), crash(500.0)];
        attribute(&mut incidents, &[true, false, true], &[pause(20.0, 30.0, 90.0), pause(30.0, 36.0, 95.0)]);
        assert_eq!(incidents[0].pause_us, Some(59.0));
        assert_eq!(incidents[1].pause_us, None, "not an interruption");
        assert_eq!(incidents[2].pause_us, None, "it came later");
    }

    #[test]
    fn the_fault_that_began_a_pause_owns_it_though_others_came_before_its_end() {
        let mut incidents = [crash(10.0), crash(28.0), crash(60.0)];
        attribute(&mut incidents, &[true; 3], &[pause(20.0, 30.0, 90.0)]);
        assert_eq!(incidents[1].pause_us, Some(60.0), "the token of 30 was past the device that died at 28");
        assert_eq!((incidents[0].pause_us, incidents[2].pause_us), (None, None));
    }

    #[test]
    fn a_fault_whose_effect_came_late_owns_the_pause() {
        let mut incidents = [crash(5.0), crash(10.0)];
        attribute(&mut incidents, &[true; 2], &[pause(20.0, 30.0, 90.0)]);
        assert_eq!(incidents[1].pause_us, Some(60.0));
    }
}
