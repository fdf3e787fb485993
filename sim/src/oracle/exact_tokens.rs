//! A request gets exactly the tokens that follow its prompt, in order. A token that was doubled, lost, swapped, or
//! computed on a KV cache that was not the session's own shows as another token here.

use super::Evidence;
use crate::outcome::{RequestRecord, Status};
use crate::run::expected_tokens;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let probes = evidence.probes.unwrap_or_default();
    let all = evidence.outcome.requests.iter().chain(probes);
    all.filter_map(|record| compare(evidence, record)).collect()
}

fn compare(evidence: &Evidence<'_>, record: &RequestRecord) -> Option<String> {
    let session = record.session.0;
    let (got, whole) = (record.tokens.len(), record.output as usize);
    if record.tokens_us.len() != got {
        return Some(format!("session {session} has {got} tokens and {} times", record.tokens_us.len()));
    }
    if !record.tokens_us.is_sorted() {
        return Some(format!("session {session} got a token before the one it follows"));
    }
    if got > whole || (record.status == Status::Completed && got != whole) {
        return Some(format!("session {session} asked for {whole} tokens and got {got}"));
    }
    let expected = expected_tokens(&evidence.scenario.model, evidence.outcome.seed, record);
    let wrong = record.tokens.iter().zip(&expected).position(|(got, expected)| got != expected)?;
    Some(format!(
        "session {session} got token {} at place {wrong} of its answer, where {} follows",
        record.tokens[wrong].0, expected[wrong].0
    ))
}

#[cfg(test)]
mod tests {
    use super::super::sound::Sound;
    use super::*;

    fn found(doctor: impl FnOnce(&mut RequestRecord)) -> Vec<String> {
        let mut run = Sound::new();
        doctor(&mut run.outcome.requests[1]);
        check(&run.evidence())
    }

    #[test]
    fn the_right_tokens_are_right() {
        assert_eq!(found(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_token_is_found_at_its_place() {
        let wrong = found(|record| record.tokens[2].0 += 1);
        assert!(wrong[0].contains("session 1") && wrong[0].contains("at place 2"), "{wrong:?}");
    }

    #[test]
    fn a_token_that_comes_twice_is_found() {
        let doubled = found(|record| {
            let again = record.tokens[1];
            record.tokens.insert(1, again);
            record.tokens_us.insert(1, record.tokens_us[1]);
        });
        assert_eq!(doubled.len(), 1, "{doubled:?}");
    }

    #[test]
    fn a_lost_token_is_found_in_the_middle_and_at_the_end() {
        let middle = found(|record| {
            record.tokens.remove(1);
            record.tokens_us.remove(1);
        });
        assert!(middle[0].contains("asked for 4 tokens and got 3"), "{middle:?}");
        let end = found(|record| {
            record.tokens.pop();
            record.tokens_us.pop();
        });
        assert!(end[0].contains("got 3"), "{end:?}");
    }

    #[test]
    fn an_answer_that_was_cut_off_must_be_right_as_far_as_it_goes() {
        let cut = |record: &mut RequestRecord| {
            record.status = Status::Unfinished;
            record.tokens.truncate(2);
            record.tokens_us.truncate(2);
        };
        assert!(found(cut).is_empty());
        let wrong = found(|record| {
            cut(record);
            record.tokens.swap(0, 1);
        });
        assert_eq!(wrong.len(), 1, "{wrong:?}");
    }
}
