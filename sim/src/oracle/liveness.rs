//! After the last fault, when enough of the mesh is left, it serves again: a short question at each entry is answered
//! within a bound.

use super::Evidence;
use crate::outcome::Status;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let Some(probes) = evidence.probes else { return Vec::new() };
    if probes.is_empty() {
        return vec!["no entry was up to be asked after the faults".into()];
    }
    let bound_s = evidence.recovery_us / 1e6;
    let unanswered = probes.iter().filter(|probe| probe.status != Status::Completed);
    let tell = |probe: &crate::outcome::RequestRecord| match &probe.status {
        Status::Failed(why) | Status::Refused(why) => {
            format!("after the faults {} could not answer: {why}", probe.entry)
        }
        _ => format!(
            "after the faults {} got {} of {} tokens within {bound_s:.0} s",
            probe.entry,
            probe.tokens.len(),
            probe.output
        ),
    };
    unanswered.map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sound::Sound;
    use super::*;

    fn found(doctor: impl FnOnce(&mut Sound)) -> Vec<String> {
        let mut run = Sound::new();
        doctor(&mut run);
        check(&run.evidence())
    }

    #[test]
    fn answered_probes_show_a_mesh_that_lives() {
        assert!(found(|_| {}).is_empty());
        assert!(found(|run| run.probes = None).is_empty(), "nothing to be asked");
    }

    #[test]
    fn a_mesh_that_does_not_come_back_is_found() {
        let silent = found(|run| {
            for probe in run.probes.iter_mut().flatten() {
                probe.status = Status::Unfinished;
                probe.tokens.truncate(1);
            }
        });
        assert!(silent[0].contains("max got 1 of 4 tokens"), "{silent:?}");
        let refused = found(|run| {
            for probe in run.probes.iter_mut().flatten() {
                probe.status = Status::Refused("no plan yet".into());
            }
        });
        assert!(refused[0].contains("could not answer: no plan yet"), "{refused:?}");
        assert_eq!(found(|run| run.probes = Some(Vec::new())).len(), 1);
    }
}
