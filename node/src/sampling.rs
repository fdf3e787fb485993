//! How the last stage chooses a token: what travels with a step, and what comes back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::Token;

/// Tokens that penalties may look back at.
pub const WINDOW_MAX: usize = 4096;

/// Tokens with a bias of their own.
pub const BIASES_MAX: usize = 1024;

/// Candidates whose log-probabilities are told for a position.
pub const CHANCES_MAX: usize = 64;

/// How the last stage chooses a token. Draws are a function of (seed, position): any split gives the same tokens.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Everything else, where anything else is asked for.
    pub rules: Option<Arc<Rules>>,
    /// The tokens before the first position that is sampled, the latest last: with the first sampling step of an attempt
    /// whose rules have penalties, since the last stage does not see tokens. From then on it knows what it sampled.
    pub past: Option<Arc<[Token]>>,
}

/// What shapes the distribution, and what is told about it. In this order: biases, penalties, top-k, top-p, min-p, then
/// the temperature. [`Rules::default`] changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Only the likeliest so many are candidates; 0 for all.
    pub top_k: u32,
    /// Only the likeliest that together have this probability; 1 for all.
    pub top_p: f32,
    /// Only those at least this many times as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// What repeats is made less likely.
    pub penalties: Option<Penalties>,
    /// Added to the logits of these tokens, each at most once.
    pub biases: Vec<(Token, f32)>,
    /// Tell the log-probabilities of the chosen token and of this many of the likeliest (0 with the chosen one alone);
    /// `None` tells nothing. They are those of the model, before any rule and temperature.
    pub chances: Option<u8>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { top_k: 0, top_p: 1.0, min_p: 0.0, penalties: None, biases: Vec::new(), chances: None }
    }
}

/// Penalties on tokens among the latest `window`, prompt included, as llama.cpp computes them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Penalties {
    /// How many tokens are looked back at; at most [`WINDOW_MAX`].
    pub window: u32,
    /// Logits above 0 are divided by it, others multiplied; 1 for none.
    pub repeat: f32,
    /// Subtracted once from a token that is there; 0 for none.
    pub presence: f32,
    /// Subtracted for each time that it is there; 0 for none.
    pub frequency: f32,
}

/// Why sampling parameters are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sampling: {field} must be {expected}")]
pub struct UnsoundSampling {
    /// Which parameter.
    pub field: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

impl Sampling {
    /// The likeliest token, always.
    pub const GREEDY: Self = Self { temperature: 0.0, seed: 0, rules: None, past: None };

    /// Draws from the model's own distribution at this temperature.
    pub const fn drawn(temperature: f32, seed: u64) -> Self {
        Self { temperature, seed, rules: None, past: None }
    }

    /// The same under `rules`.
    #[must_use]
    pub fn with(self, rules: Rules) -> Self {
        Self { rules: Some(Arc::new(rules)), ..self }
    }

    /// How many of the latest tokens decide about the next one.
    pub fn window(&self) -> usize {
        let penalties = self.rules.as_ref().and_then(|rules| rules.penalties);
        penalties.map_or(0, |penalties| penalties.window as usize)
    }

    /// What must travel with the first step of an attempt that samples at `tokens.len()`: the same, with as much of the
    /// past as the penalties look at. Whatever past was there before is forgotten.
    #[must_use]
    pub fn after(&self, tokens: &[Token]) -> Self {
        let seen = &tokens[tokens.len().saturating_sub(self.window().min(WINDOW_MAX))..];
        Self { past: (self.window() > 0).then(|| seen.into()), ..self.clone() }
    }

    /// Bytes beyond temperature and seed that it takes on a link, at most: five for a varint and four for a number.
    pub(crate) fn extra_len(&self) -> u64 {
        let past = self.past.as_ref().map_or(0, |past| 2 + 5 * past.len());
        let rules = self.rules.as_ref().map_or(0, |rules| 36 + 9 * rules.biases.len());
        (past + rules) as u64
    }

    /// Holds every parameter against its bounds; a stranger may have sent them.
    ///
    /// # Errors
    /// [`UnsoundSampling`] names the first that is out of them.
    pub fn check(&self) -> Result<(), UnsoundSampling> {
        let ensure = |holds: bool, field, expected| {
            if holds { Ok(()) } else { Err(UnsoundSampling { field, expected }) }
        };
        ensure((0.0..=1000.0).contains(&self.temperature), "temperature", "from 0 to 1000")?;
        let past = self.past.as_ref().map_or(0, |past| past.len());
        ensure(past <= WINDOW_MAX, "past", "at most 4096 tokens")?;
        let Some(rules) = &self.rules else { return Ok(()) };
        ensure(rules.top_p > 0.0 && rules.top_p <= 1.0, "top_p", "above 0 and at most 1")?;
        ensure((0.0..=1.0).contains(&rules.min_p), "min_p", "from 0 to 1")?;
        ensure(rules.biases.len() <= BIASES_MAX, "biases", "at most 1024")?;
        ensure(rules.biases.iter().all(|(_, bias)| bias.abs() <= 1000.0), "biases", "from -1000 to 1000")?;
        ensure(usize::from(rules.chances.unwrap_or(0)) <= CHANCES_MAX, "chances", "at most 64")?;
        let Some(penalties) = &rules.penalties else { return Ok(()) };
        ensure(penalties.window as usize <= WINDOW_MAX, "window", "at most 4096")?;
        ensure((0.01..=100.0).contains(&penalties.repeat), "repeat", "from 0.01 to 100")?;
        ensure(penalties.presence.abs() <= 100.0, "presence", "from -100 to 100")?;
        ensure(penalties.frequency.abs() <= 100.0, "frequency", "from -100 to 100")
    }
}

/// A token that was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Which.
    pub token: Token,
    /// How likely it and others were, where the rules ask for it.
    pub chances: Option<Box<Chances>>,
}

impl Sampled {
    /// Bytes beyond the token that it takes on a link, at most.
    pub(crate) fn extra_len(&self) -> u64 {
        self.chances.as_ref().map_or(0, |chances| 6 + 9 * chances.top.len() as u64)
    }
}

impl From<Token> for Sampled {
    fn from(token: Token) -> Self {
        Self { token, chances: None }
    }
}

/// Natural logarithms of probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chances {
    /// Of the chosen token.
    pub chosen: f32,
    /// Of the likeliest, the likeliest first.
    pub top: Vec<(Token, f32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_their_bounds_are_named() {
        let with = |rules| Sampling::drawn(1.0, 0).with(rules).check().map_err(|e| e.field);
        assert_eq!(with(Rules::default()), Ok(()));
        assert_eq!(with(Rules { top_p: f32::NAN, ..Rules::default() }), Err("top_p"));
        assert_eq!(with(Rules { min_p: -0.1, ..Rules::default() }), Err("min_p"));
        assert_eq!(with(Rules { chances: Some(65), ..Rules::default() }), Err("chances"));
        let biases = vec![(Token(1), f32::INFINITY)];
        assert_eq!(with(Rules { biases, ..Rules::default() }), Err("biases"));
        let penalties = Penalties { window: u32::MAX, repeat: 1.0, presence: 0.0, frequency: 0.0 };
        assert_eq!(with(Rules { penalties: Some(penalties), ..Rules::default() }), Err("window"));
        assert_eq!(Sampling::drawn(f32::NAN, 0).check().map_err(|e| e.field), Err("temperature"));
        let past = Some(vec![Token(0); WINDOW_MAX + 1].into());
        assert_eq!(Sampling { past, ..Sampling::GREEDY }.check().map_err(|e| e.field), Err("past"));
    }
}
