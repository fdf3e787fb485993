//! Worlds to run nodes in, and everything around them: scenarios, workloads, faults, oracles, baselines, reports.
//! It holds no node logic: what runs is `node`, unchanged.
//!
//! * [`scenario`]: what is run, read from TOML.
//! * [`seed`]: one seed for everything random, forked by name.
//! * [`link`]: the network as arithmetic: Wi-Fi airtime, LAN, WAN, lanes, jitter, loss, partitions.
//! * [`engine`]: the simulated device; `digest` is what it computes.
//! * [`membership`]: who is in the mesh, by the thousand, in a loop of its own.
//! * [`paced`]: a real engine at the pace of the formula, for values that are a model's.
//! * [`mesh`]: a mesh under test and the [`mesh::Play`] that runs on it, the same in both worlds.
//! * [`memory`]: the world for figures and thousands of nodes.
//! * [`over_turmoil`]: the world of hardship: real framing over turmoil, up to about 30 hosts.
//! * [`timeline`], [`stepped`]: their clocks, exact to the nanosecond over timers that are not.
//! * [`wires`]: what a crash or a partition means for frames and streams, the same in both worlds.
//! * [`record`]: what a run leaves behind, and where each token's time went.
//! * [`advice`]: what would help most, by asking the planner about changed fleets.
//! * `workload`, `faults`: what comes and what goes wrong, drawn from the seed.
//! * [`run`]: one scenario, run: nodes, clients, faults, and the whole answer.
//! * [`oracle`]: what must hold of every run, one invariant a file.
//! * [`check`]: many seeds of a scenario, judged by the oracles; one of them again, with everything that happened.
//! * [`recorded`]: runs as files, real ones too. [`calibrate`]: from these to devices and a scenario.
//! * [`baseline`]: other engines, played over the same links.
//! * [`outcome`]: what came of it; every report, CSV, plot and oracle reads this.
//! * [`report`]: what people and programs get to see: summary, JSON, CSV, plots, traces.

pub mod advice;
pub mod baseline;
pub mod calibrate;
pub mod check;
mod digest;
pub mod engine;
mod faults;
mod layered;
pub mod link;
pub mod membership;
pub mod memory;
pub mod mesh;
pub mod oracle;
pub mod outcome;
pub mod over_turmoil;
pub mod paced;
pub mod record;
pub mod recorded;
pub mod report;
pub mod run;
pub mod scenario;
pub mod seed;
pub mod stepped;
pub mod timeline;
pub mod wires;
mod workload;
