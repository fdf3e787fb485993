//! The API as its clients meet it: real sockets, a real node, and SmolLM2's own weights.

#![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

mod answers;
mod client;
mod ending;
mod forward;
mod hostile;
mod house;
mod likely;
mod models;
mod refusals;
mod resume;
mod shapes;
mod streams;
mod turns;
