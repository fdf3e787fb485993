//! Checks and measurements over the public API of the other crates.
//!
//! * [`validate`]: predicts what others measured, one file per published row, and says how far off it is.

pub mod validate;
