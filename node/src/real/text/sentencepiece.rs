//! SentencePiece's BPE: a text's characters are merged pair by pair into tokens, the token of the highest score first, the
//! leftmost of equals. What is no token in the end is written byte by byte.
//!
//! Scores order whole tokens here, where byte-level BPE orders pairs; so no list of merges is needed, which a conversion
//! to one would have to guess. Source: `src/bpe_model.cc` of SentencePiece.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::error::TextError;
use super::metadata::{Metadata, SCORES, TOKENS, UNKNOWN};
use super::vocabulary::{Kind, Vocabulary};
use crate::ids::Token;

/// What stands for a space within tokens.
pub(super) const SPACE: char = '▁';

/// Tokens of a text by merging characters.
#[derive(Debug)]
pub(super) struct SentencePiece {
    scores: Vec<f32>,
    /// The token of each byte, for characters that have none.
    bytes: Vec<Token>,
}

impl SentencePiece {
    pub(super) fn read(metadata: &Metadata<'_>, vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let scores = metadata.scores(SCORES, vocabulary.len())?.ok_or_else(|| metadata.missing(SCORES))?;
        let unknown = metadata.token(UNKNOWN, vocabulary.len())?;
        let byte = |byte: u8| {
            let found = vocabulary.find(&format!("<0x{byte:02X}>")).or(unknown);
            found.ok_or_else(|| {
                metadata.corrupt(TOKENS, format!("has neither `<0x{byte:02X}>` nor an unknown token"))
            })
        };
        let bytes = (0..=u8::MAX).map(byte).collect::<Result<_, _>>()?;
        Ok(Self { scores, bytes })
    }

    /// Appends the tokens of `text`, in which special tokens are text like any other.
    pub(super) fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<Token>) {
        let text = text.replace(' ', const { SPACE_TEXT });
        let mut merging = Merging::new(&text, vocabulary, &self.scores);
        merging.run();
        for piece in merging.pieces() {
            match usable(vocabulary, piece) {
                Some(token) => out.push(token),
                None => out.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }
}

const SPACE_TEXT: &str = "▁";

/// The token that text may become: those that steer the model are never made from text.
fn usable(vocabulary: &Vocabulary, text: &str) -> Option<Token> {
    let token = vocabulary.find(text)?;
    let kind = vocabulary.kind(token)?;
    (!matches!(kind, Kind::Control | Kind::Unknown | Kind::Byte)).then_some(token)
}

/// A piece of the text: bytes from `at` to `end`, and its neighbours. One without bytes was merged into its left neighbour.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    end: usize,
    left: Option<usize>,
    right: Option<usize>,
}

/// Two neighbours that make a token.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    bytes: usize,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

/// A text on its way from characters to tokens.
struct Merging<'a> {
    text: &'a str,
    vocabulary: &'a Vocabulary,
    scores: &'a [f32],
    pieces: Vec<Piece>,
    waiting: BinaryHeap<Pair>,
}

impl<'a> Merging<'a> {
    fn new(text: &'a str, vocabulary: &'a Vocabulary, scores: &'a [f32]) -> Self {
        let count = text.chars().count();
        let piece = |(index, (at, c)): (usize, (usize, char))| Piece {
            at,
            end: at + c.len_utf8(),
            left: index.checked_sub(1),
            right: (index + 1 < count).then_some(index + 1),
        };
        let pieces = text.char_indices().enumerate().map(piece).collect();
        let mut merging = Self { text, vocabulary, scores, pieces, waiting: BinaryHeap::new() };
        for right in 1..count {
            merging.offer(right - 1, right);
        }
        merging
    }

    /// Lets two neighbours wait for their turn, if together they are a token.
    fn offer(&mut self, left: usize, right: usize) {
        let (at, end) = (self.pieces[left].at, self.pieces[right].end);
        if let Some(token) = usable(self.vocabulary, &self.text[at..end]) {
            let score = self.scores[token.0 as usize];
            self.waiting.push(Pair { score, left, right, bytes: end - at });
        }
    }

    fn run(&mut self) {
        while let Some(pair) = self.waiting.pop() {
            if self.is_current(&pair) {
                self.merge(pair.left, pair.right);
            }
        }
    }

    /// Whether neither of the two was merged with something else since.
    fn is_current(&self, pair: &Pair) -> bool {
        let (left, right) = (self.pieces[pair.left], self.pieces[pair.right]);
        left.at < left.end
            && right.at < right.end
            && left.end == right.at
            && right.end - left.at == pair.bytes
    }

    fn merge(&mut self, left: usize, right: usize) {
        let gone = self.pieces[right];
        self.pieces[right].end = gone.at;
        self.pieces[left].end = gone.end;
        self.pieces[left].right = gone.right;
        if let Some(next) = gone.right {
            self.pieces[next].left = Some(left);
            self.offer(left, next);
        }
        if let Some(before) = self.pieces[left].left {
            self.offer(before, left);
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &'a str> {
        let text = self.text;
        self.pieces.iter().filter(|piece| piece.at < piece.end).map(move |piece| &text[piece.at..piece.end])
    }
}
