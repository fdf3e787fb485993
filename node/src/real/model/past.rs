//! The latest tokens of a session, for penalties: the last stage is told them once, and then knows what it sampled.

use crate::ids::Token;

/// Tokens at the positions from `first` on.
#[derive(Debug, Default)]
pub(super) struct Past {
    first: usize,
    tokens: Vec<Token>,
}

impl Past {
    /// `tokens` are those before `position`, the latest last.
    pub(super) fn before(position: usize, tokens: &[Token]) -> Self {
        let kept = &tokens[tokens.len().saturating_sub(position)..];
        Self { first: position - kept.len(), tokens: kept.to_vec() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the token before `position` is known.
    pub(super) fn reaches(&self, position: usize) -> bool {
        self.first < position && position <= self.first + self.tokens.len()
    }

    /// Up to `window` tokens before `position`.
    pub(super) fn at(&self, position: usize, window: usize) -> &[Token] {
        let known = &self.tokens[..position.saturating_sub(self.first).min(self.tokens.len())];
        &known[known.len() - window.min(known.len())..]
    }

    /// `token` was sampled at `position`: what was there before and after is no more. Unknown pasts stay unknown.
    pub(super) fn put(&mut self, position: usize, token: Token) {
        if self.reaches(position) {
            self.tokens.truncate(position - self.first);
            self.tokens.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_goes_on_with_what_was_sampled_and_back_with_what_was_not() {
        let mut past = Past::before(10, &[7, 8, 9].map(Token));
        assert!(past.reaches(10) && !past.reaches(11));
        past.put(10, Token(1));
        past.put(11, Token(2));
        assert_eq!(past.at(12, 3), [9, 1, 2].map(Token));
        past.put(10, Token(3));
        assert_eq!(past.at(11, 64), [7, 8, 9, 3].map(Token));
        assert!(!past.reaches(12));
    }
}
