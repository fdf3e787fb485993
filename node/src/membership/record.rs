//! What members say of themselves. Every size is bounded, every number must be one that can be.

use planner::cost::memory::kv_bytes;
use planner::fleet::Device;
use planner::model::Model;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

use super::coordinate::Coordinate;
use super::item::ItemError;
use crate::ids::PeerId;

/// Longest name of a machine, a model or an address, bytes.
pub const NAME_MAX: usize = 128;
/// Devices of one machine.
pub const DEVICES_MAX: usize = 8;
/// Models that one machine may offer from its disk.
pub const MODELS_MAX: usize = 64;
/// Models that one machine may serve at once, and stages that it may hold.
pub const SERVED_MAX: usize = 32;
/// Claims that one machine may make at once.
pub const CLAIMS_MAX: usize = 16;
/// Addresses of one machine.
pub const ADDRESSES_MAX: usize = 8;
/// Measured links that one machine may tell of.
pub const LINKS_MAX: usize = 32;

/// A digest of everything in a model's files but the weights.
pub type Fingerprint = [u8; 32];

/// What a model can do beside completing text, as far as that is known of it: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Abilities(u8);

impl Abilities {
    /// Its file has a chat template.
    pub const CHAT: Self = Self(1);
    /// The template takes tools.
    pub const TOOLS: Self = Self(2);
    /// It thinks before it answers.
    pub const THINKING: Self = Self(4);
    /// It takes images.
    pub const VISION: Self = Self(8);

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A model on a machine's disk. Where figures are zero they are not known, and the mesh assigns nobody to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offer {
    /// Its name in plans and in the API.
    pub name: String,
    /// Machines whose files have the same hold the same model.
    pub fingerprint: Fingerprint,
    /// Bytes of all its weights, as they are read from disk and held in memory.
    pub weight_bytes: u64,
    /// Bytes of weights that one decoded token reads: fewer than all where there are experts.
    pub active_bytes: u64,
    /// Bytes of KV cache for each token of context, over all layers; of windows, as at 4,096 tokens.
    pub kv_bytes_per_token: u32,
    /// Layers.
    pub layers: u16,
    /// The longest context it was made for, tokens.
    pub context: u32,
    /// What it can do.
    pub abilities: Abilities,
}

/// Context at which the KV cache of models with windows is told, tokens.
const KV_CONTEXT: u32 = 4_096;

impl Offer {
    /// The offer of a model whose shape is known. What it can do is for the caller to add.
    pub fn of(name: impl Into<String>, fingerprint: Fingerprint, model: &Model) -> Self {
        let all = LayerRange { first: 0, end: model.layer_count() };
        let kv = kv_bytes(model, all, KV_CONTEXT) / u64::from(KV_CONTEXT);
        Self {
            name: name.into(),
            fingerprint,
            weight_bytes: model.weight_bytes(),
            active_bytes: (model.active_bytes() as u64).min(model.weight_bytes()),
            kv_bytes_per_token: u32::try_from(kv).unwrap_or(u32::MAX),
            layers: u16::try_from(model.layer_count()).unwrap_or(u16::MAX),
            context: model.context_max,
            abilities: Abilities::default(),
        }
    }

    fn is_possible(&self) -> bool {
        is_name(&self.name, 1)
            && self.weight_bytes <= 1 << 50
            && self.active_bytes <= self.weight_bytes
            && self.kv_bytes_per_token <= 1 << 30
            && self.layers <= 4_096
            && self.context <= 1 << 30
    }
}

/// What a machine lets others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Caps {
    /// Sessions whose head may run here at once.
    pub sessions: u32,
    /// Requests that may wait here.
    pub queue: u32,
    /// Memory that others may plan with, bytes. Zero: what its largest device has to use.
    pub memory_bytes: u64,
    /// Whether the mesh may choose what it serves, beside what its owner has chosen ([`Intent::Pins`]).
    pub takes_models: bool,
}

/// A way to another machine, as one of the two has measured it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// To whom.
    pub peer: PeerId,
    /// The least round trip seen, software of both ends included, microseconds.
    pub round_trip_us: f32,
    /// What a long transfer reached, bytes per second.
    pub bytes_per_s: f32,
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
    /// Its ways to others, as far as it has measured them.
    pub links: Vec<Link>,
}

/// A stage that a machine holds in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Of which model.
    pub model: String,
    /// Which layers.
    pub layers: LayerRange,
}

/// What a machine is about to do about a model. Others give way to it, and stop to do so when nothing comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Intent {
    /// Its owner has chosen the model: it is never given up for another. Holds while it is served, and before.
    Pins,
    /// Somebody here waits for the model, which nobody serves.
    Wants,
    /// It will serve the model alone, unless a machine of higher rank claims it as well.
    Claims,
    /// It is loading the model, to serve it alone.
    Loads,
    /// It holds layers of the model, or is ready to, in the group of all who say so. Holds while the group serves.
    Enlists,
    /// It will stop to serve the model: it takes no new requests.
    Leaves,
}

/// An intent and its model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which model.
    pub model: String,
    /// What is about to be done.
    pub intent: Intent,
    /// Of `Loads` and `Enlists`: seconds from when this was first said until it serves, by its own estimate.
    pub ready_s: u16,
}

/// How busy a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Sessions that run there.
    pub sessions: u32,
    /// Requests that wait there.
    pub waiting: u32,
}

/// What a machine does: changes often.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// Names of the models it answers for.
    pub served: Vec<String>,
    /// What it holds for them.
    pub stages: Vec<Held>,
    /// What it is about to do: of one model and intent at most one.
    pub claims: Vec<Claim>,
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
        if self.models.len() > MODELS_MAX || !self.models.iter().all(Offer::is_possible) {
            return absurd("list of models");
        }
        if self.links.len() > LINKS_MAX || !self.links.iter().all(is_link) {
            return absurd("list of links");
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
        if self.claims.len() > CLAIMS_MAX || !self.claims.iter().all(|claim| is_name(&claim.model, 1)) {
            return absurd("list of claims");
        }
        Ok(self)
    }

    /// Whether others must hear of the difference at once: what is served or about to be, not how busy it is.
    pub(super) fn differs_in_kind(&self, other: &Self) -> bool {
        self.served != other.served || self.stages != other.stages || self.claims != other.claims
    }

    /// Whether it says so of the model.
    pub fn intends(&self, model: &str, intent: Intent) -> bool {
        self.claims.iter().any(|claim| claim.intent == intent && claim.model == model)
    }
}

fn is_name(text: &str, least: usize) -> bool {
    (least..=NAME_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_link(link: &Link) -> bool {
    (0.0..=1e9).contains(&link.round_trip_us) && (1.0..=1e13).contains(&link.bytes_per_s)
}

/// Whether such a device is to be had: faster ones than these are lies or slips of units.
fn is_possible(device: &Device) -> bool {
    let within = |value: f64, least: f64, most: f64| (least..=most).contains(&value);
    is_name(&device.id, 0)
        && is_name(&device.name, 0)
        && (1..=1u64 << 50).contains(&device.memory_bytes)
        && device.reserved_bytes <= device.memory_bytes
        && within(device.bandwidth_bytes_per_s, 1.0, 1e15)
        && within(device.bandwidth_efficiency, 1e-6, 10.0)
        && within(device.flops, 1.0, 1e18)
        && within(device.flops_efficiency, 1e-6, 10.0)
        && within(device.layer_overhead_us, 0.0, 1e7)
        && within(device.expert_overhead_us, 0.0, 1e7)
        && within(device.disk_bytes_per_s, 1.0, 1e13)
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
        let link = Link { peer: PeerId([3; 32]), round_trip_us: 900.0, bytes_per_s: 1e8 };
        let offer = |name: &str| Offer { name: name.into(), weight_bytes: 1, ..Offer::default() };
        let spoil: [fn(&mut Profile); 9] = [
            |profile| profile.links[0].bytes_per_s = f32::INFINITY,
            |profile| profile.links[0].round_trip_us = -1.0,
            |profile| profile.links = vec![profile.links[0]; LINKS_MAX + 1],
            |profile| profile.name = "a\u{1b}[31m".into(),
            |profile| profile.name = "x".repeat(NAME_MAX + 1),
            |profile| profile.models[0].name.clear(),
            |profile| profile.models[0].weight_bytes = 1 << 60,
            |profile| profile.models[0].active_bytes = 2,
            |profile| profile.addresses = vec!["x".into(); ADDRESSES_MAX + 1],
        ];
        for change in spoil {
            let mut profile = Profile {
                name: "laptop".into(),
                models: vec![offer("smol")],
                links: vec![link],
                ..Profile::default()
            };
            assert!(profile.clone().checked().is_ok());
            change(&mut profile);
            assert!(matches!(profile.checked(), Err(ItemError::Absurd(_))));
        }
        let backwards = Held { model: "m".into(), layers: LayerRange { first: 4, end: 4 } };
        assert!(State { stages: vec![backwards], ..State::default() }.checked().is_err());
        let claim = Claim { model: "m".into(), intent: Intent::Claims, ready_s: 0 };
        assert!(State { claims: vec![claim.clone(); CLAIMS_MAX + 1], ..State::default() }.checked().is_err());
    }

    #[test]
    fn claims_travel_at_once_and_load_does_not() {
        let claim = Claim { model: "m".into(), intent: Intent::Claims, ready_s: 0 };
        let state = State { claims: vec![claim], ..State::default() };
        assert!(state.differs_in_kind(&State::default()) && state.intends("m", Intent::Claims));
        let busy = State { load: Load { sessions: 3, ..Load::default() }, ..State::default() };
        assert!(!busy.differs_in_kind(&State::default()));
    }

    #[test]
    fn the_longest_ordinary_profile_fits_an_item() {
        let model = planner::model::catalog::find("Qwen3-30B-A3B Q4_K_M").expect("the catalog has it");
        let offer =
            Offer::of("a-model-with-an-ordinarily-long-name-30b-a3b-instruct-q4_k_m", [7; 32], &model);
        assert!(offer.is_possible() && offer.active_bytes < offer.weight_bytes / 4, "{offer:?}");
        let profile = Profile { models: vec![offer; MODELS_MAX], ..Profile::default() };
        let body = postcard::to_allocvec(&profile).expect("plain data goes to memory");
        assert!(body.len() <= crate::membership::BODY_MAX, "{} bytes", body.len());
    }
}
