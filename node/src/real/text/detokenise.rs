//! Text of tokens as they arrive. A token may hold half a character: it is kept back until the rest comes, or until it is
//! certain that none will.

use super::sentencepiece::SPACE;
use super::vocabulary::{Kind, Vocabulary};
use crate::ids::Token;

/// How a vocabulary writes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each byte as one printable character, as GPT-2 began it.
    ByteLevel,
    /// As it is, with `▁` for spaces, and `<0x0A>` for bytes that have no token.
    SentencePiece,
}

/// Makes text of tokens, one after the other.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    vocabulary: &'a Vocabulary,
    spelling: Spelling,
    /// Whether the next text's first space is the one that encoding added.
    drop_space: bool,
    /// The start of a character whose rest has not come.
    pending: Vec<u8>,
    text: String,
}

impl<'a> Detokenizer<'a> {
    pub(super) fn new(vocabulary: &'a Vocabulary, spelling: Spelling, drop_space: bool) -> Self {
        Self { vocabulary, spelling, drop_space, pending: Vec::new(), text: String::new() }
    }

    /// The text that `token` completes; empty for tokens that steer the model, and for ones outside the vocabulary.
    pub fn push(&mut self, token: Token) -> &str {
        self.text.clear();
        let from = self.pending.len();
        self.spell(token);
        if self.drop_space && self.pending.len() > from {
            self.drop_space = false;
            if self.pending[from] == b' ' {
                self.pending.remove(from);
            }
        }
        self.take_characters();
        &self.text
    }

    /// What is left when no token will follow: half a character, as U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.text
    }

    /// A token's own bytes, which may be no whole characters; none for tokens that steer the model.
    pub(super) fn bytes(mut self, token: Token) -> Vec<u8> {
        self.spell(token);
        self.pending
    }

    /// Appends a token's bytes to those that wait.
    fn spell(&mut self, token: Token) {
        let (Some(text), Some(kind)) = (self.vocabulary.text(token), self.vocabulary.kind(token)) else {
            return;
        };
        match (kind, self.spelling) {
            (Kind::Control, _) => {}
            (Kind::UserDefined | Kind::Unknown, _) => self.pending.extend(text.bytes()),
            (_, Spelling::ByteLevel) => text.chars().for_each(|c| self.spell_byte_level(c)),
            (_, Spelling::SentencePiece) => match byte_token(text) {
                Some(byte) => self.pending.push(byte),
                None => self.pending.extend(text.replace(SPACE, " ").bytes()),
            },
        }
    }

    fn spell_byte_level(&mut self, c: char) {
        match byte_of(c) {
            Some(byte) => self.pending.push(byte),
            None => self.pending.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }

    /// Moves whole characters to the text, and bytes that can be part of none as U+FFFD.
    fn take_characters(&mut self) {
        let mut taken = 0;
        loop {
            let rest = &self.pending[taken..];
            let Err(error) = std::str::from_utf8(rest) else {
                self.text.push_str(&String::from_utf8_lossy(rest));
                taken = self.pending.len();
                break;
            };
            let valid = error.valid_up_to();
            self.text.push_str(&String::from_utf8_lossy(&rest[..valid]));
            taken += valid;
            let Some(invalid) = error.error_len() else { break };
            self.text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid;
        }
        self.pending.drain(..taken);
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hexadecimal { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte that a character of byte-level text stands for: printable ones for themselves, the others in order from U+0100.
/// Source: `bytes_to_unicode` in `src/encoder.py` of GPT-2.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_one_character() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 256);
        assert_eq!(
            [byte_of('Ġ'), byte_of('Ċ'), byte_of('a'), byte_of('ł')],
            [Some(b' '), Some(b'\n'), Some(b'a'), Some(0xa0)]
        );
    }

    #[test]
    fn byte_tokens_are_two_hexadecimal_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xFFF>"), None);
        assert_eq!(byte_token("<0x+A>"), None);
    }
}
