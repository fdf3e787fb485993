//! Tokenisers, detokenising and chat templates read from GGUF files, against what llama.cpp and `transformers` make of the
//! same files, and against files that lie.
//!
//! * `golden`: tokens of a multilingual corpus, for each way to cut text, on small vocabularies.
//! * `streaming`: text of tokens as they arrive.
//! * `templates`: conversations into prompts.
//! * `hostile`: missing, contradictory, cyclic, oversized and mutated metadata.
//! * `real`: the same questions to the models that the test script fetches.

#![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

mod golden;
mod hostile;
mod streaming;
mod templates;
mod vocabularies;
mod writer;
