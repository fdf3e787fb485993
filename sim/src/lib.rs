//! Worlds to run nodes in, and everything around them: scenarios, workloads, faults, oracles, baselines, reports.
//! It holds no node logic: what runs is `node`, unchanged.
//!
//! * [`scenario`]: what is run, read from TOML.
//! * [`seed`]: one seed for everything random, forked by name.
//! * [`link`]: the network as arithmetic: Wi-Fi airtime, LAN, WAN, lanes, jitter, loss, partitions.
//! * [`outcome`]: what came of it; every report, CSV, plot and oracle reads this.

pub mod link;
pub mod outcome;
pub mod scenario;
pub mod seed;
