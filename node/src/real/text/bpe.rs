//! Byte-level BPE: text is cut into words, a word's bytes are merged pair by pair, the most frequent pairs first.
//! The `tokenizers` crate does it; this module feeds it from a file and keeps from it what it would panic about.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::error::TextError;
use super::metadata::{MERGES, Metadata, PRE};
use super::pretokenise::Pretokeniser;
use super::vocabulary::Vocabulary;
use crate::ids::Token;

/// Tokens of words by merging bytes.
pub(super) struct Bpe {
    inner: Tokenizer,
}

impl Bpe {
    pub(super) fn read(
        metadata: &Metadata<'_>,
        vocabulary: &Vocabulary,
        family: &Pretokeniser,
    ) -> Result<Self, TextError> {
        let merges = metadata.pairs(MERGES)?.ok_or_else(|| metadata.missing(MERGES))?;
        check_merges(metadata, vocabulary, &merges)?;
        let tokens: Vocab = vocabulary.iter().map(|(token, text, _)| (text.to_owned(), token.0)).collect();
        let model = BPE::builder()
            .vocab_and_merges(tokens, merges)
            .ignore_merges(family.whole_words)
            .build()
            .map_err(|e| metadata.corrupt(MERGES, e.to_string()))?;
        let mut inner = Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(cutter(metadata, family)?));
        Ok(Self { inner })
    }

    /// Appends the tokens of `text`, in which special tokens are text like any other.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<Token>) {
        let encoding = self.inner.encode_fast(text, false);
        let encoding =
            encoding.expect("cutting by patterns and merging pairs never fails; errors are of other models");
        out.extend(encoding.get_ids().iter().map(|id| Token(*id)));
    }
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bpe")
    }
}

/// Refuses merges of or to texts that are no tokens: the crate panics on some of them.
fn check_merges(
    metadata: &Metadata<'_>,
    vocabulary: &Vocabulary,
    merges: &[(String, String)],
) -> Result<(), TextError> {
    for (rank, (left, right)) in merges.iter().enumerate() {
        let merged = [left.as_str(), right].concat();
        let stranger = [left, right, &merged].into_iter().find(|text| vocabulary.find(text).is_none());
        if let Some(stranger) = stranger {
            let shown: String = stranger.chars().take(32).flat_map(char::escape_debug).collect();
            return Err(metadata.corrupt(MERGES, format!("needs `{shown}` at {rank}, which is no token")));
        }
    }
    Ok(())
}

/// Cuts by the family's patterns, then writes bytes as the characters that stand for them.
fn cutter(metadata: &Metadata<'_>, family: &Pretokeniser) -> Result<Sequence, TextError> {
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for pattern in family.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        steps.push(split.map_err(|e| metadata.corrupt(PRE, e.to_string()))?.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    Ok(Sequence::new(steps))
}
