//! What the suites under `tests/tests` share.
//!
//! * [`chain`]: a model cut into ranges of layers, without a mesh.
//! * [`memory`]: how much of it this process holds.
//! * [`models`]: the real models, and others made from them.

pub mod chain;
pub mod memory;
pub mod models;
