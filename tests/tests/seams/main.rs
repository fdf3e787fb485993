//! Suites over the seams, through the public API alone: one body of tests over every implementation of a seam.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod asking;
mod beside;
mod check;
mod engine;
mod fixture;
mod gossip;
mod link;
mod real_model;
mod ring;
mod worlds;
