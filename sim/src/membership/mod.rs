//! Membership by the thousand: the code of [`node::membership`], unchanged, in a loop over events without any runtime.
//!
//! Packets are delayed, lost and counted (with the 28 bytes of UDP and IP), clocks run fast and slow, members crash,
//! restart, stand still, leave, lie, and are cut off from each other. Everything random comes from one seed.
//!
//! * [`spec`]: what is simulated. [`serving`]: models, machines, requests and clients, where there are any.
//! * `world`: the loop. `member`: one process in it. `hosted`: the same with members that are tasks of their own, in turmoil.
//! * `network`, `faults`: what becomes of packets. `liar`: a member that is not honest.
//! * `trust`: signatures. `watch`: how long until everybody knows. `truth`: what is really asked for.
//! * `oracle`: what must hold at the end, one invariant a file.
//! * `report`: what people and programs get to see.

mod faults;
mod hosted;
mod liar;
mod member;
mod network;
pub(crate) mod oracle;
pub mod report;
pub mod serving;
pub mod spec;
#[cfg(test)]
mod tests;
mod trust;
mod truth;
mod watch;
mod world;

use std::collections::BTreeMap;

use node::membership::Config;
use serde::Serialize;

use self::serving::{Served, ServingSabotage};
use self::spec::Spec;
use self::world::World;
use crate::scenario::WorldKind;
use crate::seed::Seed;

pub use self::watch::Timing;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Everything random came from it.
    pub seed: u64,
    /// Members at the start.
    pub nodes: u32,
    /// Simulated seconds.
    pub seconds: f64,
    /// Packets and bytes that were sent, UDP and IP included.
    pub packets: u64,
    /// See `packets`.
    pub bytes: u64,
    /// Over the last ten seconds: bytes per second that a living member sent, in the mean.
    pub rest_bytes_per_s: f64,
    /// Packets per second in the same time.
    pub rest_packets_per_s: f64,
    /// The most that one member sent in one second.
    pub peak_bytes_per_s: u64,
    /// Faults that struck.
    pub faults: usize,
    /// Members that were told of as gone while they were there and nothing was wrong with them or their ways.
    pub false_downs: u64,
    /// Items that were not believed.
    pub refused: u64,
    /// Members that were found liars, and by how many others.
    pub distrusted: BTreeMap<u32, u32>,
    /// How long news took.
    pub timings: Vec<Timing>,
    /// How wrong coordinates are at the end over pairs of members, relative: half of the pairs, nine in ten.
    pub coordinate_error: Option<(f64, f64)>,
    /// What was served, where the spec has models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<Served>,
    /// What the oracles found.
    pub violations: Vec<String>,
}

/// A broken variant, to see the oracles catch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Every signature is believed.
    BlindTrust,
    /// Nobody who does not answer is ever given up.
    EndlessSuspicion,
    /// Nobody knocks at the dead.
    NoKnocking,
    /// Gaps are never looked for, and news travel with probes alone.
    NoMending,
    /// Demand is told to nobody.
    SecretDemand,
    /// Packets may have any length.
    LongPackets,
    /// Members forget what they knew and take old items for new.
    Amnesia,
    /// Who is said to be dead is not asked.
    Hasty,
    /// The first mistake is taken for a lie.
    Grudge,
}

impl Sabotage {
    fn config(self, config: &mut Config) {
        use std::time::Duration;
        let never = Duration::from_secs(1_000_000);
        match self {
            Self::EndlessSuspicion => config.suspicion = never,
            Self::NoKnocking => config.knock = never,
            Self::NoMending => (config.sync_rest, config.gossip_period) = (never, never),
            Self::SecretDemand => config.demand_rest = never,
            Self::LongPackets => (config.packet_bytes, config.sync_bytes) = (60_000, 600_000),
            Self::Hasty => config.doubts = 0,
            Self::Grudge => config.lies = 0.1,
            Self::BlindTrust | Self::Amnesia => {}
        }
    }
}

/// Runs `spec` from `seed`.
pub fn run(spec: &Spec, seed: u64) -> Outcome {
    run_so(spec, seed, Way::default()).0
}

/// The same with another configuration, or broken.
pub fn run_with(spec: &Spec, seed: u64, config: Config, sabotage: Option<Sabotage>) -> Outcome {
    run_so(spec, seed, Way { config, sabotage, ..Way::default() }).0
}

/// The same with a mesh that serves wrongly.
pub fn run_serving(spec: &Spec, seed: u64, sabotage: ServingSabotage) -> Outcome {
    run_so(spec, seed, Way { serving_sabotage: Some(sabotage), ..Way::default() }).0
}

/// How a run is to be.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Way {
    /// In which world, instead of the spec's own.
    pub world: Option<WorldKind>,
    /// Another configuration of the membership.
    pub config: Config,
    /// Something is broken.
    pub sabotage: Option<Sabotage>,
    /// See `sabotage`, of what serves.
    pub serving_sabotage: Option<ServingSabotage>,
    /// Everything that members tell of is written down.
    pub is_logged: bool,
}

/// Runs `spec` from `seed` in that way, and gives the log, if there is one. A world that cannot go on is a violation.
pub fn run_so(spec: &Spec, seed: u64, way: Way) -> (Outcome, Vec<String>) {
    let mut config = way.config;
    if let Some(sabotage) = way.sabotage {
        sabotage.config(&mut config);
    }
    let spec = spec.drawn(seed);
    let mut world = World::new(&spec, seed, config, way.sabotage, way.serving_sabotage);
    if way.is_logged {
        world = world.logging();
    }
    if way.world.unwrap_or(spec.world) == WorldKind::Memory {
        world.run();
        return judged(world, seed);
    }
    let unrun = Outcome { seed, ..world.outcome() };
    match hosted::over_turmoil(world, Seed::new(seed).fork("hosts")) {
        Ok(world) => judged(world, seed),
        Err(error) => (Outcome { violations: vec![format!("world: {error}")], ..unrun }, Vec::new()),
    }
}

fn judged(mut world: World, seed: u64) -> (Outcome, Vec<String>) {
    let mut outcome = Outcome { seed, ..world.outcome() };
    outcome.violations = oracle::violations(&world);
    outcome.violations.extend(world::serving::violations(&world));
    (outcome, world.take_log())
}
