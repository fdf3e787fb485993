//! What the suites under `tests/tests` share.
//!
//! * [`chain`]: a model cut into ranges of layers, without a mesh.
//! * [`seam`]: what every engine does behind the node's seam.
//! * [`memory`]: how much of it this process holds.
//! * [`golden`]: logits of transformers; [`reference`]: tokens and log-probabilities of llama.cpp.
//! * [`models`]: the real models, and others made from them; [`text`]: a text they are held against.

pub mod chain;
pub mod golden;
pub mod memory;
pub mod models;
pub mod reference;
pub mod seam;
pub mod text;
