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
        let from_us = if after == 0 { record.asked_us } else { record.tokens_us[after - 1] };
        let Some(to_us) = record.tokens_us.get(after).copied().or(record.ended_us) else { continue };
        let pause = Pause { session: record.session, from_us, to_us };
        if pauses.last() != Some(&pause) {
            pauses.push(pause);
        }
    }
    pauses
}

/// Writes to each interrupting incident the longest time until tokens flowed again. A pause belongs to the last
/// interruption before its end that came while it lasted, or just before it.
pub(crate) fn attribute(incidents: &mut [Incident], interrupting: &[bool], pauses: &[Pause]) {
    for pause in pauses {
        let before = |incident: &Incident| incident.at_us < pause.to_us;
        let cause = incidents
            .iter()
            .zip(interrupting)
            .enumerate()
            .filter(|(_, (incident, interrupts))| **interrupts && before(incident))
            .map(|(index, _)| index)
            .next_back();
        let Some(incident) = cause.and_then(|index| incidents.get_mut(index)) else { continue };
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

    #[test]
    fn the_longest_pause_is_written_to_the_fault_it_belongs_to() {
        let mut incidents = [crash(35.0), crash(40.0), crash(500.0)];
        let pause = |from_us, to_us| Pause { session: SessionId(1), from_us, to_us };
        attribute(&mut incidents, &[true, false, true], &[pause(30.0, 90.0), pause(36.0, 95.0)]);
        assert_eq!(incidents[0].pause_us, Some(59.0));
        assert_eq!(incidents[1].pause_us, None, "not an interruption");
        assert_eq!(incidents[2].pause_us, None, "it came later");
    }
}
