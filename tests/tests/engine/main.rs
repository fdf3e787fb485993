//! The CPU engine, held to what others compute and to itself: see `tests/data` for what it is held to.
#![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

#[path = "../../../planner/tests/gguf/allocation.rs"]
mod allocation;
mod asides;
mod hostile;
mod invariance;
mod logits;
mod perplexity;
mod reference;
mod seam;
mod text;
