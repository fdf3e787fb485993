//! What is simulated: read from a small TOML file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::serving::Serving;
use crate::scenario::WorldKind;
use crate::seed::Seed;

/// A mesh, its network, what goes wrong in it, and what it promises.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// How many members, 2 to 10,000.
    pub nodes: u32,
    /// How long it runs, simulated seconds.
    pub seconds: f64,
    /// Everything random comes from it.
    #[serde(default = "one")]
    pub seed: u64,
    /// Where members run: `memory`, all in one loop over events, by the thousand; `turmoil`, each as tasks of its own
    /// over streams, up to about fifteen.
    #[serde(default = "in_memory")]
    pub world: WorldKind,
    /// Whether all know each other from the start, or join one after the other by the first.
    #[serde(default)]
    pub start: Start,
    /// The links.
    #[serde(default)]
    pub network: Network,
    /// What is asked for.
    #[serde(default)]
    pub demand: Demand,
    /// State changes per second over the whole mesh: load that moves.
    #[serde(default)]
    pub changes_per_s: f64,
    /// What goes wrong, by hand.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// What they serve, and to whom.
    pub serving: Option<Serving>,
    /// What goes wrong, drawn from the seed.
    pub chaos: Option<Chaos>,
    /// What is drawn anew for each seed.
    pub vary: Option<Vary>,
    /// What must hold at the end.
    #[serde(default)]
    pub promise: Promise,
}

/// What is drawn anew for each seed, so that many seeds are many meshes.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vary {
    /// Members: from this to `nodes`.
    pub fewest: u32,
    /// Distances, jitter, loss and clocks: from this share of what the network says to all of it.
    #[serde(default = "tenth")]
    pub network: f64,
    /// Faults of the chaos: from this to what it says.
    #[serde(default)]
    pub faults: u32,
}

fn tenth() -> f64 {
    0.1
}

fn in_memory() -> WorldKind {
    WorldKind::Memory
}

fn one() -> u64 {
    1
}

/// How a mesh begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// All know each other, as after a restart of what was saved.
    #[default]
    Warm,
    /// Each joins by the first one, over the first ten seconds.
    Cold,
}

/// Members lie on a plane, each behind a link of its own; a packet takes half the round trip and a random part.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Side of the plane as a round trip, milliseconds.
    pub width_ms: f64,
    /// Mean of the round trip that each member's own link adds, milliseconds (exponential).
    pub access_ms: f64,
    /// Mean of each packet's random delay, milliseconds (exponential).
    pub jitter_ms: f64,
    /// Share of packets lost.
    pub loss: f64,
    /// Clocks run fast or slow by up to this share.
    pub skew: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self { width_ms: 60.0, access_ms: 4.0, jitter_ms: 1.0, loss: 0.005, skew: 1e-4 }
    }
}

/// Requests, over the whole mesh.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Demand {
    /// Requests per second.
    pub per_s: f64,
    /// Models they are for, the first wanted most (Zipf).
    pub models: u32,
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A process dies, and starts again with nothing in memory.
    Crash,
    /// A process stands still, and goes on as if nothing had been.
    Pause,
    /// A process ends in good order.
    Leave,
    /// Some members and the rest cannot hear each other.
    Partition,
    /// What a member sends to half of the others is lost.
    Mute,
    /// A member loses a third of what it sends and gets.
    Lossy,
    /// A member does everything three tenths of a second late.
    Slow,
    /// A member that was not there joins.
    Join,
    /// A member has something new to say of itself.
    Change,
    /// A member sends forged, altered and old items to others.
    Lie,
    /// A member says of others that they are dead, suspected, or alive when they are gone.
    Accuse,
    /// A member says that it computes faster than anything can.
    Boast,
    /// A member says that it serves all that lies on its disk, and answers nobody.
    Pretend,
    /// A member claims to be asked ten thousand times a second.
    Flood,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, seconds from the start.
    pub at_s: f64,
    /// What.
    pub kind: FaultKind,
    /// For how long, seconds; to the end where nothing is said.
    pub for_s: Option<f64>,
    /// To how many members, drawn from the seed; of a partition the share of one side in per cent.
    #[serde(default = "one_member")]
    pub count: u32,
}

fn one_member() -> u32 {
    1
}

/// Random faults.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Chaos {
    /// How many.
    pub faults: u32,
    /// Of which kinds.
    pub kinds: Vec<FaultKind>,
    /// From when, seconds.
    pub from_s: f64,
    /// When the last one is over, seconds.
    pub until_s: f64,
    /// How long one lasts at most, seconds.
    pub longest_s: f64,
}

/// What must hold at the end of a run, whatever went wrong before the last `settle_s` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Promise {
    /// Quiet time before the end, seconds: within it everybody knows who lives, and nobody who does not.
    pub settle_s: f64,
    /// How far anybody's demand map may be from the truth for any model, in per cent of all requests.
    pub demand_percent: f64,
    /// The most that a member may send in any second, bytes.
    pub bytes_per_s: f64,
    /// What all send in the mean over the last ten seconds, bytes per second and member; not judged where zero.
    pub rest_bytes_per_s: f64,
}

impl Default for Promise {
    fn default() -> Self {
        Self { settle_s: 45.0, demand_percent: 15.0, bytes_per_s: 1_500_000.0, rest_bytes_per_s: 0.0 }
    }
}

/// Why a file is not one of these.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It cannot be read.
    #[error("{path}: {cause}")]
    Read {
        /// Which.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is not as it should be.
    #[error("{path}: {cause}")]
    Parse {
        /// Which.
        path: String,
        /// Where and why.
        cause: Box<toml::de::Error>,
    },
    /// A value cannot be.
    #[error("{key} is {value}; it must be {must}")]
    Value {
        /// Which.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        must: &'static str,
    },
}

impl Spec {
    /// Whether the file is one of these: its `nodes` are a number, where those of other scenarios are a table `node`.
    pub fn is_in(path: &Path) -> bool {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let table = text.parse::<toml::Table>().unwrap_or_default();
        table.get("nodes").is_some_and(toml::Value::is_integer)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be.
    pub fn load(path: &Path) -> Result<Self, SpecError> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|cause| SpecError::Read { path: name.clone(), cause })?;
        let spec: Self =
            toml::from_str(&text).map_err(|cause| SpecError::Parse { path: name, cause: Box::new(cause) })?;
        spec.checked()
    }

    /// What `seed` makes of it.
    #[must_use]
    pub fn drawn(&self, seed: u64) -> Self {
        let Some(vary) = self.vary else { return self.clone() };
        let mut draws = Seed::new(seed).fork("vary").draws();
        let mut among = |least: u32, most: u32| least + (draws.bits() % u64::from(most - least + 1)) as u32;
        let mut spec = Self { nodes: among(vary.fewest, self.nodes), ..self.clone() };
        spec.start = if among(0, 1) == 0 { Start::Warm } else { Start::Cold };
        if let Some(chaos) = &mut spec.chaos {
            chaos.faults = among(vary.faults, chaos.faults);
        }
        let mut share = |most: f64| most * (vary.network + (1.0 - vary.network) * draws.unit());
        let Network { width_ms, access_ms, jitter_ms, loss, skew } = self.network;
        spec.network = Network {
            width_ms: share(width_ms),
            access_ms: share(access_ms),
            jitter_ms: share(jitter_ms),
            loss: share(loss),
            skew: share(skew),
        };
        spec
    }

    /// The spec, where it is one that can be run.
    ///
    /// # Errors
    /// Which value cannot be.
    pub fn checked(self) -> Result<Self, SpecError> {
        let value = |key, value: String, must| Err(SpecError::Value { key, value, must });
        let is_time = |seconds: f64| (0.0..=1e5).contains(&seconds);
        if !(2..=10_000).contains(&self.nodes) {
            return value("nodes", self.nodes.to_string(), "2 to 10000");
        }
        if !is_time(self.seconds) {
            return value("seconds", self.seconds.to_string(), "0 to 100000");
        }
        if !(0.0..1.0).contains(&self.network.loss) || !(0.0..=0.1).contains(&self.network.skew) {
            return value("network", format!("{:?}", self.network), "loss in 0..1, skew in 0..0.1");
        }
        let delays = [self.network.width_ms, self.network.access_ms, self.network.jitter_ms];
        if !delays.iter().all(|ms| (0.0..=10_000.0).contains(ms)) {
            return value("network", format!("{:?}", self.network), "of delays from 0 to 10000 ms");
        }
        if !(0.0..=1e5).contains(&self.demand.per_s) || !(0.0..=1e5).contains(&self.changes_per_s) {
            return value("demand.per_s, changes_per_s", self.demand.per_s.to_string(), "0 to 100000");
        }
        let bad = |fault: &&Fault| !is_time(fault.at_s) || !fault.for_s.is_none_or(is_time);
        if let Some(fault) = self.faults.iter().find(bad) {
            return value("fault", format!("{fault:?}"), "of times from 0 to 100000 s");
        }
        if let Some(chaos) = &self.chaos
            && (chaos.kinds.is_empty()
                || !is_time(chaos.from_s)
                || chaos.until_s < chaos.from_s
                || !is_time(chaos.until_s))
        {
            return value("chaos", format!("{chaos:?}"), "of at least one kind, and until_s after from_s");
        }
        if let Some(vary) = &self.vary {
            let faults = self.chaos.as_ref().map_or(0, |chaos| chaos.faults);
            if !(2..=self.nodes).contains(&vary.fewest) || vary.faults > faults {
                return value(
                    "vary",
                    format!("{vary:?}"),
                    "of 2 to `nodes` members and no more faults than there are",
                );
            }
            if !(0.0..=1.0).contains(&vary.network) {
                return value("vary.network", vary.network.to_string(), "a share from 0 to 1");
            }
        }
        if let Some(serving) = &self.serving {
            serving.checked()?;
            if self.demand.models as usize > serving.models.len() {
                return value(
                    "demand.models",
                    self.demand.models.to_string(),
                    "at most as many as serving.models",
                );
            }
        }
        Ok(self)
    }
}
