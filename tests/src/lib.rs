//! What the suites under `tests/tests` share.
//!
//! * [`models`]: the real models, and others made from them.

pub mod chain;
pub mod models;
