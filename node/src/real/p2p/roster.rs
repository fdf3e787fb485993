//! Who is in the mesh, as far as this machine has heard: what each says of itself, in the order they were met. A picture of
//! the membership, for those who must not wait for it.

use std::collections::BTreeMap;

use libp2p::Multiaddr;
use planner::fleet::{Delay, Device, Distance, Fleet, LinkClass, Network, NetworkId, Node};

use crate::ids::PeerId;
use crate::membership::{Event, Fingerprint, Intent, Link, Membership, Profile, State, Trust};
use crate::view::FleetView;

/// Machines that are remembered in one run of a node, those that are gone included.
const MEMBERS_MAX: usize = 4096;

/// A round trip to a machine of whose link nothing is known yet, microseconds: a home's network.
const UNMEASURED_ROUND_TRIP_US: f64 = 1_000.0;
/// Its bandwidth, bytes per second.
const UNMEASURED_BYTES_PER_S: f64 = 12.5e6;

/// What is known of a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// Whether it is there.
    pub alive: bool,
    /// What it is.
    pub profile: Profile,
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
    /// What it does.
    pub state: State,
}

impl Member {
    pub(super) fn new(peer: PeerId, profile: Profile) -> Self {
        let mut member = Self {
            peer,
            alive: true,
            profile: Profile::default(),
            addresses: Vec::new(),
            state: State::default(),
        };
        member.is(profile);
        member
    }

    /// It is this. Addresses that cannot be read are left out: another version may write them.
    fn is(&mut self, profile: Profile) {
        self.addresses = profile.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        self.profile = profile;
    }

    /// Whether its disk has the model.
    pub fn has(&self, model: &Fingerprint) -> bool {
        self.profile.models.iter().any(|offer| offer.fingerprint == *model)
    }

    /// Whether it takes layers of the model, or serves it already.
    pub fn hosts(&self, model: &str) -> bool {
        let takes = |intent| matches!(intent, Intent::Pins | Intent::Loads | Intent::Enlists);
        let State { served, claims, .. } = &self.state;
        served.iter().any(|served| served == model)
            || claims.iter().any(|claim| claim.model == model && takes(claim.intent))
    }

    /// Its device, with the memory that the model may have beside the others that it hosts: each has a part in proportion
    /// to its weights.
    fn device(&self, model: &Fingerprint) -> Device {
        let device = device(self);
        let hosted = self.profile.models.iter().filter(|offer| self.hosts(&offer.name));
        let (mut all, mut own) = (0u128, 0u128);
        for offer in hosted {
            let bytes = u128::from(offer.weight_bytes.max(1));
            all += bytes;
            own += if offer.fingerprint == *model { bytes } else { 0 };
        }
        if own == 0 || own == all {
            return device;
        }
        let usable = (u128::from(device.usable_bytes()) * own / all) as u64;
        Device { reserved_bytes: device.memory_bytes - usable, ..device }
    }
}

/// The members of a mesh, and those who were.
#[derive(Debug, Clone)]
pub struct Roster {
    me: PeerId,
    order: Vec<PeerId>,
    members: BTreeMap<PeerId, Member>,
}

impl Roster {
    /// A mesh of one.
    pub(super) fn new(me: PeerId, profile: Profile) -> Self {
        Self { me, order: vec![me], members: BTreeMap::from([(me, Member::new(me, profile))]) }
    }

    /// What is known of this machine.
    pub fn own(&self) -> &Member {
        &self.members[&self.me]
    }

    /// What is known of that machine.
    pub fn member(&self, peer: PeerId) -> Option<&Member> {
        self.members.get(&peer)
    }

    /// Everybody, this machine first, then in the order they were met, those who are gone included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.order.iter().map(|peer| &self.members[peer])
    }

    /// Everybody but this machine.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members().skip(1)
    }

    /// What this machine says of itself.
    pub(super) fn said(&mut self, profile: &Profile, state: &State) {
        if let Some(own) = self.members.get_mut(&self.me) {
            own.is(profile.clone());
            own.state = State { coordinate: own.state.coordinate, ..state.clone() };
        }
    }

    /// Follows what the membership has heard.
    pub(super) fn follow<T: Trust>(&mut self, membership: &Membership<T>, events: &[Event]) {
        for event in events {
            match event {
                Event::Up(peer) | Event::Restarted(peer) | Event::Changed(peer, _) => {
                    self.learn(membership, *peer);
                }
                Event::Down(peer) => {
                    if let Some(member) = self.members.get_mut(peer).filter(|member| member.peer != self.me) {
                        member.alive = false;
                    }
                }
                Event::Refused { .. } | Event::Garbled(_) | Event::Distrusted(_) | Event::Revived => {}
            }
        }
        if let (Some(own), Some(state)) = (self.members.get_mut(&self.me), membership.state(self.me)) {
            own.state.coordinate = state.coordinate;
        }
    }

    fn learn<T: Trust>(&mut self, membership: &Membership<T>, peer: PeerId) {
        if peer == self.me {
            return;
        }
        let Some(profile) = membership.profile(peer) else { return };
        if !self.members.contains_key(&peer) {
            if self.order.len() >= MEMBERS_MAX {
                return;
            }
            self.order.push(peer);
            self.members.insert(peer, Member::new(peer, Profile::default()));
        }
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.alive = membership.is_member(peer);
        if member.profile != *profile {
            member.is(profile.clone());
        }
        member.state = membership.state(peer).cloned().unwrap_or_default();
    }

    /// The fleet for the planner of one model, called `name` among members: every machine in a network of its own, distances
    /// as measured, or by coordinates. Machines have the model when their files have its fingerprint and they take layers of it.
    pub fn view(&self, model: &Fingerprint, name: &str) -> FleetView {
        let mut fleet = Fleet::default();
        for (i, member) in self.members().enumerate() {
            let has_model = member.has(model) && member.hosts(name);
            let port = if has_model || i == 0 { self.port(member) } else { UNMEASURED_BYTES_PER_S };
            fleet.networks.push(own_network(member));
            fleet.nodes.push(Node {
                name: self.unique_name(member),
                device: member.device(model),
                machine: format!("{:?}", member.peer),
                network: NetworkId(i as u32),
                up_bytes_per_s: Some(port),
                down_bytes_per_s: Some(port),
                has_model,
            });
        }
        // Tokens go between this machine and those that have the model.
        let takes_part = |i: &usize| *i == 0 || fleet.nodes[*i].has_model;
        let parties: Vec<usize> = (0..self.order.len()).filter(takes_part).collect();
        for (n, b) in parties.iter().copied().enumerate() {
            for a in parties[..n].iter().copied() {
                let (from, to) = (&self.order[a], &self.order[b]);
                let delay = Delay { base_us: self.round_trip_us(*from, *to) / 2.0, jitter_us: 0.0 };
                let (a, b) = (NetworkId(a as u32), NetworkId(b as u32));
                fleet.distances.push(Distance { a, b, delay, class: LinkClass::Lan, loss: 0.0 });
            }
        }
        FleetView::new(fleet, self.order.clone())
    }

    /// The round trip between two machines, microseconds: as either of them has measured it, else by their coordinates.
    pub fn round_trip_us(&self, a: PeerId, b: PeerId) -> f64 {
        if let Some(link) = self.link(a, b) {
            return f64::from(link.round_trip_us);
        }
        let place = |peer: PeerId| self.member(peer).map(|member| member.state.coordinate);
        match (place(a), place(b)) {
            (Some(a), Some(b)) if a.error().max(b.error()) < 1.0 => a.round_trip_us(b),
            _ => UNMEASURED_ROUND_TRIP_US,
        }
    }

    /// What either of two machines has measured of the way between them.
    fn link(&self, a: PeerId, b: PeerId) -> Option<Link> {
        let told = |by: PeerId, of: PeerId| {
            self.member(by)?.profile.links.iter().find(|link| link.peer == of).copied()
        };
        match (told(a, b), told(b, a)) {
            (Some(one), Some(other)) => Some(Link {
                round_trip_us: one.round_trip_us.min(other.round_trip_us),
                bytes_per_s: one.bytes_per_s.max(other.bytes_per_s),
                ..one
            }),
            (one, other) => one.or(other),
        }
    }

    /// A machine's own connection: the fastest of the latest transfers that living members had with it.
    fn port(&self, member: &Member) -> f64 {
        let living = self.members().filter(|other| other.alive);
        let with = living.filter_map(|other| self.link(member.peer, other.peer));
        with.map(|link| f64::from(link.bytes_per_s)).reduce(f64::max).unwrap_or(UNMEASURED_BYTES_PER_S)
    }

    fn unique_name(&self, member: &Member) -> String {
        let name = &member.profile.name;
        let is_shared = self.members().any(|other| other.peer != member.peer && other.profile.name == *name);
        if is_shared || name.is_empty() { format!("{name} ({:?})", member.peer) } else { name.clone() }
    }
}

/// What computes there. A member that says nothing of it has no model either, and so computes nothing.
fn device(member: &Member) -> Device {
    member.profile.devices.first().cloned().unwrap_or_else(|| Device {
        id: "unknown".into(),
        name: "unknown".into(),
        kind: planner::fleet::DeviceKind::Cpu,
        memory_bytes: 1,
        reserved_bytes: 1,
        bandwidth_bytes_per_s: 1.0,
        bandwidth_efficiency: 1.0,
        flops: 1.0,
        flops_efficiency: 1.0,
        layer_overhead_us: 0.0,
        expert_overhead_us: 0.0,
        disk_bytes_per_s: 1.0,
        measured: None,
    })
}

fn own_network(member: &Member) -> Network {
    Network {
        name: format!("{:?}", member.peer),
        class: LinkClass::Lan,
        delay: Delay::default(),
        bytes_per_s: 1e12,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: None,
        down_bytes_per_s: None,
    }
}
