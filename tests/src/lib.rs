//! What the suites under `tests/tests` share.
//!
//! * [`chain`]: a model cut into ranges of layers, without a mesh.
//! * [`models`]: the real models, and others made from them.

pub mod chain;
pub mod models;
