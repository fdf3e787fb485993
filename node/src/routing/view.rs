//! What members say, as routing wants it.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::fleet::Device;

use super::{Host, Known};
use crate::ids::PeerId;
use crate::membership::{Intent, Offer, Profile, State};

/// A member as an entry node knows it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Who.
    pub peer: PeerId,
    /// What it is.
    pub profile: &'a Profile,
    /// What it does.
    pub state: &'a State,
    /// The round trip to it; of itself none.
    pub round_trip: Duration,
    /// Requests that the entry node has sent it since it told its load.
    pub sent: u32,
}

/// Every model that somebody serves, loads or has on disk, by name.
pub fn models<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Vec<Known<'a>> {
    let mut all: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    for member in members {
        for offer in &member.profile.models {
            let known = all.entry(&offer.name).or_insert_with(|| Known {
                model: &offer.name,
                offer: None,
                hosts: Vec::new(),
            });
            known.offer.get_or_insert(offer);
            known.hosts.extend(host(&member, offer));
        }
    }
    all.into_values().collect()
}

/// Only `model`, for a mesh of many: the same as [`models`] would say of it.
pub fn model<'a>(name: &str, members: impl IntoIterator<Item = Member<'a>>) -> Option<Known<'a>> {
    let mut known: Option<Known<'a>> = None;
    for member in members {
        let Some(offer) = member.profile.models.iter().find(|offer| offer.name == name) else { continue };
        let known =
            known.get_or_insert_with(|| Known { model: &offer.name, offer: Some(offer), hosts: Vec::new() });
        known.hosts.extend(host(&member, offer));
    }
    known
}

/// `None` where it neither serves the model nor is about to.
fn host<'a>(member: &Member<'a>, offer: &'a Offer) -> Option<Host<'a>> {
    let Member { peer, profile, state, round_trip, sent } = *member;
    let serves = state.served.contains(&offer.name);
    let comes = state.claims.iter().find(|claim| {
        matches!(claim.intent, Intent::Loads | Intent::Pins | Intent::Enlists) && claim.model == offer.name
    });
    if !serves && comes.is_none() {
        return None;
    }
    Some(Host {
        peer,
        offer,
        serves,
        leaves: state.intends(&offer.name, Intent::Leaves),
        ready: comes.map_or(Duration::ZERO, |claim| Duration::from_secs(u64::from(claim.ready_s))),
        load: state.load,
        caps: profile.caps,
        sent,
        tokens_per_s: tokens_per_s(profile.devices.iter().max_by_key(|d| d.usable_bytes()), offer),
        round_trip,
    })
}

/// Tokens per second of one session where nothing is measured: active weights over achieved bandwidth, and the dispatch
/// of each layer.
pub fn tokens_per_s(device: Option<&Device>, offer: &Offer) -> f64 {
    let Some(device) = device else { return 1.0 };
    let bytes_per_s = device.bandwidth_bytes_per_s * device.bandwidth_efficiency;
    let token_s = offer.active_bytes as f64 / bytes_per_s.max(1.0)
        + f64::from(offer.layers) * device.layer_overhead_us / 1e6;
    1.0 / token_s.max(1e-6)
}
