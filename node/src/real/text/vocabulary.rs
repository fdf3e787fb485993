//! The tokens of a model: their texts and what kind each is.

use indexmap::IndexSet;

use super::error::TextError;
use super::metadata::{KINDS, Metadata, TOKENS};
use crate::ids::Token;

/// What a token is, as the file marks it. Source: `llama_token_type` in `include/llama.h` of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text.
    Normal,
    /// What stands for text that has no token.
    Unknown,
    /// Steers the model and is no text: never made from what a person typed unless asked for, never shown.
    Control,
    /// A piece of text that is cut out before anything else.
    UserDefined,
    /// In the vocabulary for no use.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl Kind {
    fn from_id(id: i64) -> Self {
        match id {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }
}

/// All tokens; a token's number is its place.
#[derive(Debug)]
pub(super) struct Vocabulary {
    texts: IndexSet<String>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    /// Reads the tokens and their kinds.
    pub(super) fn read(metadata: &Metadata<'_>) -> Result<Self, TextError> {
        let texts = metadata.tokens(TOKENS)?;
        if texts.is_empty() {
            return Err(metadata.corrupt(TOKENS, "has no token"));
        }
        let kinds = match metadata.kinds(KINDS, texts.len())? {
            Some(ids) => ids.into_iter().map(Kind::from_id).collect(),
            None => vec![Kind::Normal; texts.len()],
        };
        Ok(Self { texts, kinds })
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The token with this text.
    pub(super) fn find(&self, text: &str) -> Option<Token> {
        self.texts.get_index_of(text).map(|at| Token(at as u32))
    }

    /// A token's text as the file has it: byte-level or with `▁` for spaces.
    pub(super) fn text(&self, token: Token) -> Option<&str> {
        self.texts.get_index(token.0 as usize).map(String::as_str)
    }

    pub(super) fn kind(&self, token: Token) -> Option<Kind> {
        self.kinds.get(token.0 as usize).copied()
    }

    pub(super) fn mark(&mut self, token: Token, kind: Kind) {
        self.kinds[token.0 as usize] = kind;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &str, Kind)> {
        let numbered = self.texts.iter().zip(&self.kinds).enumerate();
        numbered.map(|(at, (text, kind))| (Token(at as u32), text.as_str(), *kind))
    }
}
