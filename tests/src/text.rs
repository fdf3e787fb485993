//! A fixed text that models are held against, piece by piece.

use std::path::Path;

use node::engine::Want;
use node::real::text::Tokenizer;
use planner::model::gguf::GgufFile;

use crate::chain::{Chain, Part, Stage, values};

/// Tokens of a piece; each is read from an empty cache, and its second half is looked at.
pub const CONTEXT: usize = 512;

/// Pieces that are read.
pub const PIECES: usize = 6;

/// Positions whose logits are in memory together.
const ROWS: usize = 32;

/// The text in the model's tokens, cut into pieces; where the model begins texts by a token of its own, each piece does.
///
/// # Panics
/// Where the model has no sound tokeniser or the text is not there, which fails the test.
pub fn pieces(file: &GgufFile) -> Vec<Vec<u32>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/text/gpl-2.txt");
    let text = std::fs::read_to_string(path).expect("the text is in the tree");
    let tokenizer = Tokenizer::from_gguf(file).expect("a sound tokeniser");
    let begins = tokenizer.adds_bos();
    let tokens: Vec<u32> = tokenizer.encode(&text, begins, false).into_iter().map(|token| token.0).collect();
    let mut pieces: Vec<Vec<u32>> = tokens.chunks_exact(CONTEXT).take(PIECES).map(<[u32]>::to_vec).collect();
    if begins {
        pieces.iter_mut().for_each(|piece| piece[0] = tokens[0]);
    }
    pieces
}

/// Goes through a piece; `see` gets the logits of each position of its second half, and the token that follows there.
///
/// # Panics
/// Where the model refuses it, which fails the test.
pub fn second_half<S: Stage>(chain: &mut Chain<S>, piece: &[u32], mut see: impl FnMut(&[f32], u32)) {
    let (half, vocab) = (piece.len() / 2, chain.vocab());
    let part = |start: usize, tokens: &[u32], want| Part {
        session: 1,
        start: start as u32,
        tokens: tokens.to_vec(),
        want,
    };
    chain.step(&[part(0, &piece[..half], Want::Nothing)]).remove(0).expect("a sound step");
    for start in (half..piece.len() - 1).step_by(ROWS) {
        let end = (start + ROWS).min(piece.len() - 1);
        let out = chain.step(&[part(start, &piece[start..end], Want::Logits)]).remove(0);
        let logits = values(out.expect("a sound step"));
        for (logits, next) in logits.chunks_exact(vocab).zip(&piece[start + 1..=end]) {
            see(logits, *next);
        }
    }
    chain.truncate(1, 0);
}

/// Natural logarithm of one over the probability of `next` after logits like these.
pub fn surprise(logits: &[f32], next: u32) -> f64 {
    let greatest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - greatest).exp())).sum();
    sum.ln() + f64::from(greatest - logits[next as usize])
}

/// The likeliest token.
pub fn likeliest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0) as u32
}
