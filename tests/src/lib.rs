//! What the suites under `tests/tests` share.
//!
//! * [`chain`]: a model cut into ranges of layers, without a mesh.
//! * [`memory`]: how much of it this process holds.
//! * [`models`]: the real models, and others made from them; [`text`]: a text they are held against.

pub mod chain;
pub mod memory;
pub mod models;
pub mod text;
