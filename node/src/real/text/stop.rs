//! Stop strings: texts at which an answer ends, wherever tokens cut them.

/// What may be shown of the text so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text that is certainly in front of any stop string.
    pub text: String,
    /// Which of them ended the answer, by its place in the list.
    pub stopped: Option<usize>,
}

/// Lets text pass until one of some stop strings is complete. What could be the start of one is held back. Text given in
/// pieces passes as it would in one: the answer ends at the stop string that is complete first, and of several complete at
/// the same character at the longest.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: Option<usize>,
}

impl StopStrings {
    /// Empty strings stop nothing.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().collect(), held: String::new(), stopped: None }
    }

    /// Takes the text that follows. After a stop string nothing passes any more.
    pub fn push(&mut self, text: &str) -> Passed {
        if self.stopped.is_some() {
            return Passed { text: String::new(), stopped: self.stopped };
        }
        self.held.push_str(text);
        if let Some((start, which)) = self.first_complete() {
            self.held.truncate(start);
            self.stopped = Some(which);
            return Passed { text: std::mem::take(&mut self.held), stopped: self.stopped };
        }
        let rest = self.held.split_off(self.certain());
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// What was held back, when no text follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string that is complete first begins, and which it is.
    fn first_complete(&self) -> Option<(usize, usize)> {
        let wanted = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found =
            wanted.filter_map(|(which, stop)| Some((self.held.find(stop.as_str())?, stop.len(), which)));
        let first = found.min_by_key(|(start, bytes, _)| (start + bytes, *start));
        first.map(|(start, _, which)| (start, which))
    }

    /// How many bytes of what is held can be part of no stop string.
    fn certain(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let starts = (from..self.held.len()).filter(|at| self.held.is_char_boundary(*at));
        let mut open = starts.filter(|at| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..])));
        open.next().unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(texts: &[&str]) -> StopStrings {
        StopStrings::new(texts.iter().map(|text| (*text).to_owned()))
    }

    fn passed(text: &str, stopped: Option<usize>) -> Passed {
        Passed { text: text.into(), stopped }
    }

    #[test]
    fn a_stop_string_over_three_tokens_ends_the_answer_in_front_of_it() {
        let mut stops = stops(&["\nUser:"]);
        assert_eq!(stops.push("Paris.\nU"), passed("Paris.", None));
        assert_eq!(stops.push("ser"), passed("", None));
        assert_eq!(stops.push(": and"), passed("", Some(0)));
        assert_eq!(stops.push("more"), passed("", Some(0)));
        assert_eq!(stops.finish(), "");
    }

    #[test]
    fn what_only_looked_like_a_stop_string_passes_later() {
        let mut stops = stops(&["###"]);
        assert_eq!(stops.push("a #"), passed("a ", None));
        assert_eq!(stops.push("# b"), passed("## b", None));
        assert_eq!(stops.push("#"), passed("", None));
        assert_eq!(stops.finish(), "#");
    }

    #[test]
    fn without_stop_strings_everything_passes() {
        assert_eq!(stops(&[]).push("text"), passed("text", None));
        assert_eq!(stops(&[""]).push("text"), passed("text", None));
    }

    fn run(stops: &[String], pieces: &[&str]) -> (String, Option<usize>) {
        let mut stops = StopStrings::new(stops.iter().cloned());
        let mut text = String::new();
        for piece in pieces {
            let passed = stops.push(piece);
            text.push_str(&passed.text);
            if passed.stopped.is_some() {
                return (text, passed.stopped);
            }
        }
        text.push_str(&stops.finish());
        (text, None)
    }

    proptest! {
        #[test]
        fn how_text_is_cut_changes_nothing(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let whole = run(&stops, &[&text]);
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<&str> = characters.iter().map(String::as_str).collect();
            prop_assert_eq!(&run(&stops, &pieces), &whole);
            let shortest = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str()).map(|at| at + s.len())).min();
            prop_assert_eq!(whole.1.is_some(), shortest.is_some());
        }
    }
}
