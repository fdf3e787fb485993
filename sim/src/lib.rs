//! Worlds to run nodes in, and everything around them: scenarios, workloads, faults, oracles, baselines, reports.
//! It holds no node logic: what runs is `node`, unchanged.
//!
//! * [`scenario`]: what is run, read from TOML.
//! * [`outcome`]: what came of it; every report, CSV, plot and oracle reads this.

pub mod outcome;
pub mod scenario;
