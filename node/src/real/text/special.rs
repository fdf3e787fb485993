//! Special tokens: which texts are cut out before anything else, and which tokens end an answer.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::TextError;
use super::metadata::{EOM, EOS, EOT, Metadata, TOKENS};
use super::vocabulary::{Kind, Vocabulary};
use crate::ids::Token;

/// Bytes of all special tokens together. Gemma has the most, with some 80 KB; the search automaton takes a multiple.
const SPECIAL_BYTES_MAX: usize = 1 << 20;

/// Tokens that end an answer wherever a vocabulary has them, whatever the file says: conversions forget to.
/// Source: `special_eog_ids` in `src/llama-vocab.cpp` of llama.cpp.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|return|>",
    "<|fim_pad|>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<reponame>",
    "<|file_sep|>",
];

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Special(Token),
}

/// Finds special tokens in texts.
#[derive(Debug)]
pub(super) struct Specials {
    /// All of them, for texts that may steer the model.
    all: Finder,
    /// Those that count in any text.
    user_defined: Finder,
}

impl Specials {
    pub(super) fn of(metadata: &Metadata<'_>, vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let is_special = |kind| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
        let all = Finder::new(vocabulary, is_special);
        let user_defined = Finder::new(vocabulary, |kind| kind == Kind::UserDefined);
        match (all, user_defined) {
            (Some(all), Some(user_defined)) => Ok(Self { all, user_defined }),
            _ => {
                let problem = format!("has more than {SPECIAL_BYTES_MAX} bytes of special tokens");
                Err(metadata.corrupt(TOKENS, problem))
            }
        }
    }

    /// Cuts special tokens out of a text; the longest of those that begin leftmost.
    pub(super) fn split<'a>(&self, text: &'a str, parse_special: bool) -> Vec<Part<'a>> {
        let finder = if parse_special { &self.all } else { &self.user_defined };
        finder.split(text)
    }
}

#[derive(Debug)]
struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<Token>,
}

impl Finder {
    /// `None` where they are too many to search for.
    fn new(vocabulary: &Vocabulary, wanted: impl Fn(Kind) -> bool) -> Option<Self> {
        let of_kind = vocabulary.iter().filter(|(_, _, kind)| wanted(*kind));
        let (tokens, texts): (Vec<Token>, Vec<&str>) = of_kind.map(|(token, text, _)| (token, text)).unzip();
        if texts.iter().map(|text| text.len()).sum::<usize>() > SPECIAL_BYTES_MAX {
            return None;
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts).ok()?;
        Some(Self { automaton, tokens })
    }

    fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut at = 0;
        for found in self.automaton.find_iter(text) {
            if at < found.start() {
                parts.push(Part::Text(&text[at..found.start()]));
            }
            parts.push(Part::Special(self.tokens[found.pattern().as_usize()]));
            at = found.end();
        }
        if at < text.len() {
            parts.push(Part::Text(&text[at..]));
        }
        parts
    }
}

/// The tokens that end an answer; those known by their text become control tokens, for conversions forget that too.
pub(super) fn ends(
    metadata: &Metadata<'_>,
    vocabulary: &mut Vocabulary,
) -> Result<BTreeSet<Token>, TextError> {
    let mut ends = BTreeSet::new();
    for key in [EOS, EOT, EOM] {
        ends.extend(metadata.token(key, vocabulary.len())?);
    }
    for text in ENDS {
        if let Some(token) = vocabulary.find(text) {
            ends.insert(token);
            vocabulary.mark(token, Kind::Control);
        }
    }
    Ok(ends)
}
