//! Checks and measurements over the public API of the other crates.
//!
//! * [`engine`]: our engine and llama.cpp on the same models, turn by turn.
//! * [`live`]: real processes behind an emulated network, next to what the simulator predicts.
//! * [`membership`]: what it costs to know each other, against the number of members.
//! * `table`: their rows as CSV.
//! * [`plots`]: runs every shipped scenario and a few sweeps, and draws what came of them.
//! * [`validate`]: predicts what others measured, one file per published row, and says how far off it is.

pub mod engine;
pub mod live;
pub mod membership;
pub mod plots;
mod table;
pub mod validate;
