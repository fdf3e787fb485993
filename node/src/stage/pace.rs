//! How fast the engine takes prompts in, as it was seen to.

use std::time::Duration;

use crate::limits::Limits;

/// Steps of fewer tokens say nothing of a prompt's pace: reading the weights is most of them.
const TOKENS_MIN: u32 = 64;

/// One part in so many of the pace is the last step's.
const NEWEST: u32 = 4;

/// Time per token of a prompt; none is known at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pace(Option<Duration>);

impl Pace {
    /// A step of so many tokens took so long.
    pub(super) fn took(&mut self, tokens: u32, time: Duration) {
        if tokens < TOKENS_MIN {
            return;
        }
        let each = time / tokens;
        self.0 = Some(self.0.map_or(each, |known| (known * (NEWEST - 1) + each) / NEWEST));
    }

    /// Whether a step of so many prompt tokens will be a long one. What is not known is.
    pub(super) fn is_long(self, tokens: u32, limits: &Limits) -> bool {
        tokens > 0 && self.0.is_none_or(|each| each * tokens > limits.long_step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_long_by_what_was_seen_and_by_its_tokens() {
        let limits = Limits { long_step: Duration::from_millis(60), ..Limits::default() };
        let mut pace = Pace::default();
        assert!(pace.is_long(1, &limits) && !pace.is_long(0, &limits));
        pace.took(8, Duration::from_secs(9));
        assert_eq!(pace, Pace::default());
        pace.took(512, Duration::from_millis(51));
        assert!(!pace.is_long(512, &limits));
        pace.took(512, Duration::from_millis(512));
        assert!(pace.is_long(512, &limits) && !pace.is_long(64, &limits));
    }
}
