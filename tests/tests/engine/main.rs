//! The CPU engine against what others compute, and against itself however the work is cut.
//!
//! Suites on real models need `tests/scripts/fetch-models`; what they are held to is under `tests/data`.

mod cuts;
mod perplexity;
mod pipeline;
mod reference;
mod transformers;
