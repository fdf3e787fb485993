//! One member as assignment sees it.

use std::time::Duration;

use super::config::{CLAIM_MOST, Config, READY_MOST, SPEEDS, USE_MOST};
use super::names::{ModelId, Names};
use crate::clock::Instant;
use crate::ids::PeerId;
use crate::membership::{Intent, Load, Offer, Profile, State, mix};

/// What a model takes on the machine that offers it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Need {
    pub(super) weights: u64,
    active: u64,
    kv_per_token: u64,
    layers: u16,
    context: u32,
}

impl Need {
    pub(super) fn of(offer: &Offer) -> Self {
        Self {
            weights: offer.weight_bytes,
            active: offer.active_bytes,
            kv_per_token: u64::from(offer.kv_bytes_per_token),
            layers: offer.layers,
            context: offer.context,
        }
    }

    /// Nobody is assigned to what is not known.
    pub(super) fn is_known(&self) -> bool {
        self.weights > 0 && self.active > 0 && self.layers > 0
    }

    /// Memory for all of it, bytes.
    pub(super) fn room(&self, config: &Config) -> u64 {
        let context = u64::from(config.context.min(if self.context == 0 { u32::MAX } else { self.context }));
        let kv = self.kv_per_token.saturating_mul(context).saturating_mul(u64::from(config.sessions));
        self.weights.saturating_add(kv).saturating_add(config.overhead_bytes)
    }
}

/// Something a member has said it is about to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stated {
    pub(super) model: ModelId,
    pub(super) intent: Intent,
    pub(super) ready_s: u16,
    /// Since when it is known here.
    pub(super) since: Instant,
}

impl Stated {
    /// Whether something may still come of it.
    pub(super) fn counts(&self, now: Instant, config: &Config) -> bool {
        let most = match self.intent {
            Intent::Claims => CLAIM_MOST,
            Intent::Loads | Intent::Pins => {
                let ready = Duration::from_secs(u64::from(self.ready_s)).min(READY_MOST);
                ready * 2 + Duration::from_secs(15)
            }
            Intent::Wants => config.wants * 2,
            Intent::Enlists | Intent::Leaves => return true,
        };
        now.since(self.since) <= most
    }
}

/// One member.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    hash: u64,
    profile_digest: u64,
    pub(super) takes: bool,
    pub(super) usable: u64,
    bytes_per_s: f64,
    layer_s: f64,
    disk_bytes_per_s: f64,
    slots: u32,
    pub(super) offers: Vec<(ModelId, Need)>,
    pub(super) serves: Vec<ModelId>,
    pub(super) claims: Vec<Stated>,
    pub(super) load: Load,
}

impl Seat {
    pub(super) fn new(
        now: Instant,
        peer: PeerId,
        profile: &Profile,
        state: &State,
        names: &mut Names,
    ) -> Self {
        let device = profile.devices.iter().max_by_key(|device| device.usable_bytes());
        let usable = match (profile.caps.memory_bytes, device) {
            (0, device) => device.map_or(0, planner::fleet::Device::usable_bytes),
            (bytes, _) => bytes,
        };
        let offers = profile.models.iter().filter_map(|o| Some((names.take(&o.name)?, Need::of(o))));
        let offers = offers.collect();
        let serves = state.served.iter().filter_map(|name| names.take(name)).collect();
        let stated = |claim: &crate::membership::Claim, names: &mut Names| {
            let model = names.take(&claim.model)?;
            Some(Stated { model, intent: claim.intent, ready_s: claim.ready_s, since: now })
        };
        Self {
            hash: hash(&peer.0),
            profile_digest: digest(profile),
            takes: profile.caps.takes_models,
            usable,
            bytes_per_s: device.map_or(1e9, |d| d.bandwidth_bytes_per_s * d.bandwidth_efficiency),
            layer_s: device.map_or(0.0, |d| d.layer_overhead_us / 1e6),
            disk_bytes_per_s: device.map_or(5e8, |d| d.disk_bytes_per_s).max(1e6),
            slots: profile.caps.sessions.max(1),
            offers,
            serves,
            claims: state.claims.iter().filter_map(|claim| stated(claim, names)).collect(),
            load: state.load,
        }
    }

    /// Whether that says the same, load apart. Most of what members say is their load, so this is quick.
    pub(super) fn is(&self, profile: &Profile, state: &State, names: &Names) -> bool {
        let serves = self.serves.len() == state.served.len()
            && self.serves.iter().zip(&state.served).all(|(id, name)| names.name(*id) == name);
        let claims = self.claims.len() == state.claims.len()
            && self.claims.iter().zip(&state.claims).all(|(stated, claim)| {
                stated.intent == claim.intent && names.name(stated.model) == claim.model
            });
        serves && claims && self.profile_digest == digest(profile)
    }

    /// Gives its names back.
    pub(super) fn end(&self, names: &mut Names) {
        let claimed = self.claims.iter().map(|claim| claim.model);
        let offered = self.offers.iter().map(|(model, _)| *model);
        offered.chain(self.serves.iter().copied()).chain(claimed).for_each(|id| names.give_back(id));
    }

    /// What was said before is not new; returns whether something else is said.
    pub(super) fn keeps_times_of(&mut self, before: &Seat) -> bool {
        for claim in &mut self.claims {
            let same = |old: &&Stated| (old.model, old.intent) == (claim.model, claim.intent);
            if let Some(old) = before.claims.iter().find(same) {
                claim.since = old.since;
            }
        }
        let kinds = |seat: &Seat| seat.claims.iter().map(|c| (c.model, c.intent)).collect::<Vec<_>>();
        self.serves != before.serves
            || kinds(self) != kinds(before)
            || self.offers != before.offers
            || (self.takes, self.usable) != (before.takes, before.usable)
    }

    pub(super) fn need(&self, model: ModelId) -> Option<&Need> {
        let known = |(id, need): &&(ModelId, Need)| *id == model && need.is_known();
        self.offers.iter().find(known).map(|(_, need)| need)
    }

    pub(super) fn says(&self, model: ModelId, intent: Intent) -> bool {
        self.claims.iter().any(|claim| claim.intent == intent && claim.model == model)
    }

    pub(super) fn serves(&self, model: ModelId) -> bool {
        self.serves.contains(&model)
    }

    /// What it serves or will, each once.
    pub(super) fn taken(&self, now: Instant, config: &Config) -> impl Iterator<Item = ModelId> {
        let takes = move |claim: &&Stated| {
            let holds =
                matches!(claim.intent, Intent::Pins | Intent::Claims | Intent::Loads | Intent::Enlists);
            holds && (claim.intent == Intent::Pins || claim.counts(now, config)) && !self.serves(claim.model)
        };
        let claimed = self.claims.iter().filter(takes).map(|claim| claim.model);
        self.serves.iter().copied().chain(claimed)
    }

    /// Whether it is about to serve something already: one after the other, its disk is one.
    pub(super) fn is_promoting(&self, now: Instant, config: &Config) -> bool {
        let is = |claim: &Stated| {
            matches!(claim.intent, Intent::Claims | Intent::Loads) && claim.counts(now, config)
        };
        self.claims.iter().any(is)
    }

    /// How busy it is: sessions and waiting by the sessions it lets run.
    pub(super) fn busy(&self) -> f64 {
        let all = f64::from(self.load.sessions) + f64::from(self.load.waiting);
        (all / f64::from(self.slots)).min(USE_MOST)
    }

    /// Tokens per second of one session by its own word, as far as it counts.
    pub(super) fn speed(&self, need: &Need) -> f64 {
        let token_s = need.active as f64 / self.bytes_per_s.max(1.0) + f64::from(need.layers) * self.layer_s;
        (1.0 / token_s.max(1e-9)).clamp(SPEEDS.0, SPEEDS.1)
    }

    /// Time to load `bytes` from its disk.
    pub(super) fn loading(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64((bytes as f64 / self.disk_bytes_per_s).clamp(0.1, 3_600.0))
    }

    /// Its place in the queue for a model, the least first: rendezvous hashing (Thaler, Ravishankar 1998) with weights
    /// (Schindelhauer, Schomaker 2005), so that one of twice the weight is first twice as often, and who joins or leaves
    /// moves nobody else.
    pub(super) fn score(&self, model: &str, weight: f64) -> f64 {
        let draw = (mix(self.hash ^ hash(model.as_bytes())) >> 11) as f64 + 0.5;
        -(draw / (1u64 << 53) as f64).ln() / weight.max(1e-6)
    }
}

/// Of all that a seat takes from a profile.
fn digest(profile: &Profile) -> u64 {
    let mut all = u64::from(profile.caps.sessions) ^ profile.caps.memory_bytes.rotate_left(8);
    all = mix(all ^ u64::from(profile.caps.takes_models));
    for device in &profile.devices {
        let figures = [
            device.memory_bytes ^ device.reserved_bytes.rotate_left(32),
            device.bandwidth_bytes_per_s.to_bits() ^ device.bandwidth_efficiency.to_bits().rotate_left(32),
            device.layer_overhead_us.to_bits() ^ device.disk_bytes_per_s.to_bits().rotate_left(32),
        ];
        all = figures.into_iter().fold(all, |all, figure| mix(all ^ figure));
    }
    for offer in &profile.models {
        let sizes = offer.weight_bytes ^ offer.active_bytes.rotate_left(20) ^ u64::from(offer.context) << 40;
        let rest = u64::from(offer.kv_bytes_per_token) ^ u64::from(offer.layers) << 40;
        all = mix(mix(all ^ hash(offer.name.as_bytes())) ^ mix(sizes) ^ rest);
    }
    all
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash.rotate_left(7) ^ u64::from_be_bytes(word))
    })
}
