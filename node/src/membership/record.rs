//! What members say of themselves. Every size is bounded, every number must be one that can be.

use planner::fleet::Device;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

use super::coordinate::Coordinate;
use super::item::ItemError;

/// Longest name of a machine, a model or an address, bytes.
pub const NAME_MAX: usize = 128;
/// Devices of one machine.
pub const DEVICES_MAX: usize = 8;
/// Models that one machine may offer from its disk.
pub const MODELS_MAX: usize = 64;
/// Models that one machine may serve at once, and stages that it may hold.
pub const SERVED_MAX: usize = 32;
/// Addresses of one machine.
pub const ADDRESSES_MAX: usize = 8;

/// A digest of everything in a model's files but the weights.
pub type Fingerprint = [u8; 32];

/// A model on a machine's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its name in plans and in the API.
    pub name: String,
    /// Machines whose files have the same hold the same model.
    pub fingerprint: Fingerprint,
}

/// What a machine lets others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Caps {
    /// Sessions whose head may run here at once.
    pub sessions: u32,
    /// Requests that may wait here.
    pub queue: u32,
    /// Memory that others may plan with, bytes.
    pub memory_bytes: u64,
}

/// What a machine is: changes seldom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// What its owner calls it.
    pub name: String,
    /// Where it listens, in the transport's own writing.
    pub addresses: Vec<String>,
    /// What computes there.
    pub devices: Vec<Device>,
    /// What lies on its disk.
    pub models: Vec<Offer>,
    /// What it lets others do.
    pub caps: Caps,
}

/// A stage that a machine holds in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Of which model.
    pub model: String,
    /// Which layers.
    pub layers: LayerRange,
}

/// How busy a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Sessions that run there.
    pub sessions: u32,
    /// Requests that wait there.
    pub waiting: u32,
    /// How full its KV memory is, per cent.
    pub kv_percent: u8,
}

/// What a machine does: changes often.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// Names of the models it answers for.
    pub served: Vec<String>,
    /// What it holds for them.
    pub stages: Vec<Held>,
    /// How busy it is.
    pub load: Load,
    /// Where it is in the network.
    pub coordinate: Coordinate,
}

impl Profile {
    /// The profile, where it is one that can be.
    ///
    /// # Errors
    /// Which part cannot be.
    pub fn checked(self) -> Result<Self, ItemError> {
        let absurd = |what| Err(ItemError::Absurd(what));
        if !is_name(&self.name, 0) {
            return absurd("name");
        }
        if self.addresses.len() > ADDRESSES_MAX || !self.addresses.iter().all(|a| is_name(a, 1)) {
            return absurd("list of addresses");
        }
        if self.devices.len() > DEVICES_MAX || !self.devices.iter().all(is_possible) {
            return absurd("device");
        }
        if self.models.len() > MODELS_MAX || !self.models.iter().all(|offer| is_name(&offer.name, 1)) {
            return absurd("list of models");
        }
        Ok(self)
    }
}

impl State {
    /// The state, where it is one that can be.
    ///
    /// # Errors
    /// Which part cannot be.
    pub fn checked(self) -> Result<Self, ItemError> {
        let absurd = |what| Err(ItemError::Absurd(what));
        if self.served.len() > SERVED_MAX || !self.served.iter().all(|name| is_name(name, 1)) {
            return absurd("list of served models");
        }
        let is_stage = |held: &Held| is_name(&held.model, 1) && held.layers.first < held.layers.end;
        if self.stages.len() > SERVED_MAX || !self.stages.iter().all(is_stage) {
            return absurd("list of stages");
        }
        if self.load.kv_percent > 100 {
            return absurd("load");
        }
        Ok(self)
    }

    /// Whether others must hear of the difference at once: what is served, not how busy it is.
    pub(super) fn differs_in_kind(&self, other: &Self) -> bool {
        self.served != other.served || self.stages != other.stages
    }
}

fn is_name(text: &str, least: usize) -> bool {
    (least..=NAME_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether such a device is to be had: faster ones than these are lies or slips of units.
fn is_possible(device: &Device) -> bool {
    let within = |value: f64, least: f64, most: f64| (least..=most).contains(&value);
    is_name(&device.id, 0)
        && is_name(&device.name, 0)
        && (1..=1u64 << 50).contains(&device.memory_bytes)
        && device.reserved_bytes <= device.memory_bytes
        && within(device.bandwidth_bytes_per_s, 1.0, 1e15)
        && within(device.bandwidth_efficiency, 0.0, 2.0)
        && within(device.flops, 1.0, 1e18)
        && within(device.flops_efficiency, 0.0, 2.0)
        && within(device.layer_overhead_us, 0.0, 1e7)
        && within(device.expert_overhead_us, 0.0, 1e7)
        && within(device.disk_bytes_per_s, 0.0, 1e13)
        && device.measured.as_ref().is_none_or(|measured| {
            within(measured.head_bytes_per_s, 1.0, 1e15)
                && within(measured.kv_bytes_per_s, 1.0, 1e15)
                && within(measured.attention_flops, 1.0, 1e18)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_not_believed() {
        let spoil: [fn(&mut Profile); 4] = [
            |profile| profile.name = "a\u{1b}[31m".into(),
            |profile| profile.name = "x".repeat(NAME_MAX + 1),
            |profile| profile.models = vec![Offer { name: String::new(), fingerprint: [0; 32] }],
            |profile| profile.addresses = vec!["x".into(); ADDRESSES_MAX + 1],
        ];
        for change in spoil {
            let mut profile = Profile { name: "laptop".into(), ..Profile::default() };
            assert!(profile.clone().checked().is_ok());
            change(&mut profile);
            assert!(matches!(profile.checked(), Err(ItemError::Absurd(_))));
        }
        let backwards = Held { model: "m".into(), layers: LayerRange { first: 4, end: 4 } };
        assert!(State { stages: vec![backwards], ..State::default() }.checked().is_err());
        assert!(
            State { load: Load { kv_percent: 101, ..Load::default() }, ..State::default() }
                .checked()
                .is_err()
        );
    }
}
