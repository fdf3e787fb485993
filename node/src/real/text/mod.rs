//! Text into tokens and back, and conversations into prompts, all from what a GGUF file says about its own tokeniser.
//!
//! * [`Tokenizer`]: byte-level BPE (by the `tokenizers` crate) and SentencePiece's BPE (`sentencepiece`), special tokens,
//!   the tokens that end an answer.
//! * [`Detokenizer`]: text as tokens arrive, never half a character.
//! * [`StopStrings`]: ends an answer at given texts, however tokens cut them.
//! * [`ChatTemplate`]: the file's own Jinja template, or a fallback that its vocabulary suggests.
//! * `metadata`, `vocabulary`, `pretokenise`, `special`: the parts, and what in the file they come from.
//!
//! Nothing in the file is believed: what is missing, contradictory or absurd is a [`TextError`] that names the key.

mod bounded;
mod bpe;
mod chat;
mod detokenise;
mod error;
mod fallback;
mod metadata;
mod pretokenise;
mod python;
mod sentencepiece;
mod special;
mod stop;
mod template;
mod tokenizer;
mod vocabulary;

pub use chat::{Chat, Message, TemplateValue};
pub use detokenise::Detokenizer;
pub use error::{TemplateError, TextError};
pub use stop::{Passed, StopStrings};
pub use template::{ChatTemplate, Origin};
pub use tokenizer::Tokenizer;
