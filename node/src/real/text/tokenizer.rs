//! The tokeniser of a GGUF file.

use std::collections::BTreeSet;

use planner::model::gguf::GgufFile;

use super::bpe::Bpe;
use super::detokenise::{Detokenizer, Spelling};
use super::error::TextError;
use super::metadata::{ADD_BOS, ADD_EOS, BOS, EOS, MODEL, Metadata, PRE, SPACE_PREFIX};
use super::pretokenise::Pretokeniser;
use super::sentencepiece::SentencePiece;
use super::special::{self, Part, Specials};
use super::vocabulary::{Kind, Vocabulary};
use crate::ids::Token;

/// What to do about a tokeniser or pretokeniser that is not known.
const UNKNOWN_CURE: &str =
    "run this model with a newer version, or convert it again with a present-day llama.cpp";

/// Makes tokens of text as the model was trained to read it, and text of tokens.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    specials: Specials,
    bos: Option<Token>,
    eos: Option<Token>,
    ends: BTreeSet<Token>,
    add_bos: bool,
    add_eos: bool,
    /// SentencePiece models may begin each text with a space.
    space_prefix: bool,
    name: String,
}

#[derive(Debug)]
enum Model {
    Bpe(Box<Bpe>),
    SentencePiece(SentencePiece),
}

/// What a kind of tokeniser does where the file does not say.
struct Defaults {
    add_bos: bool,
    space_prefix: bool,
}

impl Tokenizer {
    /// Reads the tokeniser of a file. Takes some tenths of a second for the largest vocabularies.
    ///
    /// # Errors
    /// [`TextError`] names the file and the key that is missing, contradictory, absurd or of a kind that is not known.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TextError> {
        let metadata = Metadata::of(file);
        let kind = metadata.text(MODEL)?.ok_or_else(|| metadata.missing(MODEL))?;
        let pre = metadata.text(PRE)?.unwrap_or("default");
        let family = family(&metadata, kind, pre)?;
        let mut vocabulary = Vocabulary::read(&metadata)?;
        let ends = special::ends(&metadata, &mut vocabulary)?;
        let model = match &family {
            Some(family) => Model::Bpe(Box::new(Bpe::read(&metadata, &vocabulary, family)?)),
            None => Model::SentencePiece(SentencePiece::read(&metadata, &vocabulary)?),
        };
        let defaults = match family {
            Some(family) => Defaults { add_bos: family.add_bos, space_prefix: false },
            None => Defaults { add_bos: true, space_prefix: true },
        };
        let specials = Specials::of(&metadata, &vocabulary)?;
        Ok(Self {
            bos: metadata.token(BOS, vocabulary.len())?,
            eos: metadata.token(EOS, vocabulary.len())?,
            add_bos: metadata.flag(ADD_BOS)?.unwrap_or(defaults.add_bos),
            add_eos: metadata.flag(ADD_EOS)?.unwrap_or(false),
            space_prefix: defaults.space_prefix && metadata.flag(SPACE_PREFIX)?.unwrap_or(true),
            name: if family.is_some() { format!("BPE ({pre})") } else { "SentencePiece".into() },
            vocabulary,
            model,
            specials,
            ends,
        })
    }

    /// The tokens of `text`. With `special`, the model's first and last tokens are added where it wants them. With
    /// `parse_special`, texts such as `<|im_start|>` become the tokens that steer the model; without, they stay text, as
    /// whatever a stranger typed must. Never fails: what the vocabulary cannot write is written byte by byte.
    pub fn encode(&self, text: &str, special: bool, parse_special: bool) -> Vec<Token> {
        let mut out = Vec::new();
        out.extend(self.bos.filter(|_| special && self.add_bos));
        let mut after_special = true;
        for part in self.specials.split(text, parse_special) {
            match part {
                Part::Special(token) => out.push(token),
                Part::Text(text) => self.encode_text(text, after_special, &mut out),
            }
            after_special = matches!(part, Part::Special(_));
        }
        out.extend(self.eos.filter(|_| special && self.add_eos));
        out
    }

    fn encode_text(&self, text: &str, after_special: bool, out: &mut Vec<Token>) {
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(text, out),
            Model::SentencePiece(model) if self.space_prefix && after_special => {
                model.encode(&self.vocabulary, &format!(" {text}"), out);
            }
            Model::SentencePiece(model) => model.encode(&self.vocabulary, text, out),
        }
    }

    /// Makes text of tokens that follow `before`, as they arrive: nothing where they begin a text.
    pub fn detokenizer(&self, before: Option<Token>) -> Detokenizer<'_> {
        let first = before.is_none_or(|token| self.vocabulary.kind(token) == Some(Kind::Control));
        Detokenizer::new(&self.vocabulary, self.spelling(), self.space_prefix && first)
    }

    fn spelling(&self) -> Spelling {
        match self.model {
            Model::Bpe(_) => Spelling::ByteLevel,
            Model::SentencePiece(_) => Spelling::SentencePiece,
        }
    }

    /// The text of whole sequences; tokens that steer the model are left out.
    pub fn decode(&self, tokens: &[Token]) -> String {
        let mut detokenizer = self.detokenizer(None);
        let mut text = String::new();
        for token in tokens {
            text.push_str(detokenizer.push(*token));
        }
        text.push_str(detokenizer.finish());
        text
    }

    /// The bytes that a token adds within a text, which may be no whole characters; none for tokens that steer the model.
    pub fn bytes(&self, token: Token) -> Vec<u8> {
        Detokenizer::new(&self.vocabulary, self.spelling(), false).bytes(token)
    }

    /// Whether a token ends an answer.
    pub fn is_end(&self, token: Token) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens that end an answer, ascending: end of text, of turn and of message.
    pub fn ends(&self) -> &BTreeSet<Token> {
        &self.ends
    }

    /// The token that begins texts.
    pub fn bos(&self) -> Option<Token> {
        self.bos
    }

    /// The token that ends texts.
    pub fn eos(&self) -> Option<Token> {
        self.eos
    }

    /// Whether `encode` with `special` begins with [`bos`](Self::bos).
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// Tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether there is no token; a file without one is refused, so never.
    pub fn is_empty(&self) -> bool {
        self.vocabulary.len() == 0
    }

    /// A token's text as the file has it, with stand-ins for spaces and bytes.
    pub fn piece(&self, token: Token) -> Option<&str> {
        self.vocabulary.text(token)
    }

    /// The token with this text, as the file has it.
    pub fn find(&self, piece: &str) -> Option<Token> {
        self.vocabulary.find(piece)
    }

    /// What kind of tokeniser it is, for people.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// How a byte-level model cuts text; `None` for SentencePiece.
fn family(metadata: &Metadata<'_>, kind: &str, pre: &str) -> Result<Option<Pretokeniser>, TextError> {
    let refuse =
        |key, problem| TextError::Key { file: metadata.path().into(), key, problem, cure: UNKNOWN_CURE };
    let shown = |text: &str| text.chars().take(32).flat_map(char::escape_debug).collect::<String>();
    match kind {
        "llama" => Ok(None),
        "gpt2" => {
            let unknown = || format!("is `{}`; known are {}", shown(pre), Pretokeniser::names());
            Pretokeniser::named(pre).map(Some).ok_or_else(|| refuse(PRE, unknown()))
        }
        other => Err(refuse(
            MODEL,
            format!("is `{}`; known are gpt2 (BPE) and llama (SentencePiece)", shown(other)),
        )),
    }
}
