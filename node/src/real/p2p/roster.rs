//! Who is in the mesh, as far as this machine has heard: the latest ad of everybody, in the order they were met.

use std::collections::BTreeMap;

use planner::fleet::{Delay, Distance, Fleet, LinkClass, Network, NetworkId, Node};

use super::ad::{Ad, AdError, Fingerprint, Measured, Signed};
use super::identity::Key;
use crate::ids::PeerId;
use crate::view::FleetView;

/// Machines that a mesh may have. A flood of made-up ads ends here.
const MEMBERS_MAX: usize = 4096;

/// A round trip to a machine of whose link nothing is known yet, microseconds: a home's network.
const UNMEASURED_ROUND_TRIP_US: f64 = 1_000.0;
/// Its bandwidth, bytes per second.
const UNMEASURED_BYTES_PER_S: f64 = 12.5e6;

/// Versions of ads, by their owners: what somebody knows.
pub(super) type Known = BTreeMap<PeerId, u64>;

#[derive(Debug, Clone)]
struct Entry {
    ad: Ad,
    signed: Signed,
}

/// The ads of a mesh.
#[derive(Debug, Clone)]
pub struct Roster {
    key: Key,
    order: Vec<PeerId>,
    entries: BTreeMap<PeerId, Entry>,
}

impl Roster {
    /// A mesh of one. The version of `ad` counts from its own on.
    pub(super) fn new(key: Key, ad: Ad) -> Self {
        let mut roster = Self { key, order: Vec::new(), entries: BTreeMap::new() };
        let signed = Signed::new(&ad, &roster.key);
        roster.put(ad, signed);
        roster
    }

    fn put(&mut self, ad: Ad, signed: Signed) {
        let peer = ad.peer;
        if self.entries.insert(peer, Entry { ad, signed }).is_none() {
            self.order.push(peer);
        }
    }

    /// What this machine says of itself.
    pub fn own(&self) -> &Ad {
        &self.entries[&self.key.peer()].ad
    }

    /// What that machine says of itself.
    pub fn ad(&self, peer: PeerId) -> Option<&Ad> {
        self.entries.get(&peer).map(|entry| &entry.ad)
    }

    /// Everybody's ads, this machine's first, then in the order they were met.
    pub fn ads(&self) -> impl Iterator<Item = &Ad> {
        self.order.iter().map(|peer| &self.entries[peer].ad)
    }

    /// This machine now says this of itself. Gives whether that is news.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Ad)) -> bool {
        let before = self.own().clone();
        let mut ad = before.clone();
        change(&mut ad);
        (ad.peer, ad.version) = (before.peer, before.version);
        if ad == before {
            return false;
        }
        ad.version += 1;
        let signed = Signed::new(&ad, &self.key);
        self.put(ad, signed);
        true
    }

    /// Takes an ad that somebody passed on. Gives whether it was news.
    pub(super) fn hear(&mut self, signed: Signed) -> Result<bool, AdError> {
        let ad = signed.open()?;
        let known = self.entries.get(&ad.peer).map(|entry| entry.ad.version);
        if known.is_some_and(|known| known >= ad.version) {
            return Ok(false);
        }
        if ad.peer == self.key.peer() {
            // Of an earlier life whose clock was ahead: this life's must win.
            self.renumber(ad.version);
            return Ok(true);
        }
        if known.is_none() && self.entries.len() >= MEMBERS_MAX {
            return Err(AdError::Absurd("mesh, with so many members,"));
        }
        self.put(ad, signed);
        Ok(true)
    }

    /// Signs what this machine says anew, under a version above that one.
    fn renumber(&mut self, above: u64) {
        let ad = Ad { version: above.saturating_add(1), ..self.own().clone() };
        let signed = Signed::new(&ad, &self.key);
        self.put(ad, signed);
    }

    /// What is known here.
    pub(super) fn known(&self) -> Known {
        self.entries.iter().map(|(peer, entry)| (*peer, entry.ad.version)).collect()
    }

    /// Ads that are news to whoever knows this much.
    pub(super) fn news(&self, known: &Known) -> Vec<Signed> {
        let is_news =
            |(peer, entry): &(&PeerId, &Entry)| known.get(*peer).is_none_or(|v| *v < entry.ad.version);
        self.entries.iter().filter(is_news).map(|(_, entry)| entry.signed.clone()).collect()
    }

    /// The fleet for the planner: every machine in a network of its own, distances as measured. Machines have the model
    /// when their files have its fingerprint.
    pub fn view(&self, model: &Fingerprint) -> FleetView {
        let mut fleet = Fleet::default();
        for (i, ad) in self.ads().enumerate() {
            let port = self.port(ad);
            let has_model = ad.models.iter().any(|offer| offer.fingerprint == *model);
            fleet.networks.push(own_network(ad));
            fleet.nodes.push(Node {
                name: self.unique_name(ad),
                device: ad.device.clone(),
                machine: format!("{:?}", ad.peer),
                network: NetworkId(i as u32),
                up_bytes_per_s: Some(port),
                down_bytes_per_s: Some(port),
                has_model,
            });
        }
        for (b, to) in self.order.iter().enumerate() {
            for (a, from) in self.order[..b].iter().enumerate() {
                let round_trip_us =
                    self.link(*from, *to).map_or(UNMEASURED_ROUND_TRIP_US, |l| l.round_trip_us);
                let delay = Delay { base_us: round_trip_us / 2.0, jitter_us: 0.0 };
                let (a, b) = (NetworkId(a as u32), NetworkId(b as u32));
                fleet.distances.push(Distance { a, b, delay, class: LinkClass::Lan, loss: 0.0 });
            }
        }
        FleetView::new(fleet, self.order.clone())
    }

    /// What either of two machines has measured of the way between them.
    fn link(&self, a: PeerId, b: PeerId) -> Option<Measured> {
        let told = |by: PeerId, of: PeerId| self.ad(by)?.links.iter().find(|link| link.peer == of).copied();
        match (told(a, b), told(b, a)) {
            (Some(one), Some(other)) => Some(Measured {
                round_trip_us: one.round_trip_us.min(other.round_trip_us),
                bytes_per_s: one.bytes_per_s.max(other.bytes_per_s),
                ..one
            }),
            (one, other) => one.or(other),
        }
    }

    /// A machine's own connection: the fastest transfer that anybody had with it.
    fn port(&self, ad: &Ad) -> f64 {
        let with = self.order.iter().filter_map(|other| self.link(ad.peer, *other));
        with.map(|link| link.bytes_per_s).reduce(f64::max).unwrap_or(UNMEASURED_BYTES_PER_S)
    }

    fn unique_name(&self, ad: &Ad) -> String {
        let is_shared = self.ads().any(|other| other.peer != ad.peer && other.name == ad.name);
        if is_shared { format!("{} ({:?})", ad.name, ad.peer) } else { ad.name.clone() }
    }
}

fn own_network(ad: &Ad) -> Network {
    Network {
        name: format!("{:?}", ad.peer),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use planner::plan::NodeId;

    use super::super::ad::tests::ad;
    use super::*;

    fn roster(key: &Key) -> Roster {
        Roster::new(key.clone(), ad(key, 10))
    }

    #[test]
    fn news_travel_once_and_the_latest_wins() {
        let [a, b] = [Key::generate(), Key::generate()];
        let (mut ours, mut theirs) = (roster(&a), roster(&b));
        theirs.update(|ad| ad.name = "renamed".into());
        for signed in theirs.news(&ours.known()) {
            assert_eq!(ours.hear(signed), Ok(true));
        }
        assert_eq!(ours.ad(b.peer()).unwrap().name, "renamed");
        assert!(theirs.news(&ours.known()).is_empty());
        assert_eq!(ours.hear(Signed::new(&ad(&b, 9), &b)), Ok(false), "an older ad came back");
    }

    #[test]
    fn an_ad_of_an_earlier_life_does_not_outlive_it() {
        let key = Key::generate();
        let mut roster = roster(&key);
        roster.update(|ad| ad.name = "this life".into());
        assert_eq!(roster.hear(Signed::new(&ad(&key, 500), &key)), Ok(true));
        assert_eq!(roster.own().name, "this life");
        assert!(roster.own().version > 500);
        assert_eq!(roster.news(&Known::from([(key.peer(), 500)])).len(), 1);
        assert_eq!(roster.news(&Known::new())[0].open().unwrap(), *roster.own());
    }

    #[test]
    fn numbers_stay_and_links_are_known_from_either_end() {
        let [a, b, c] = [Key::generate(), Key::generate(), Key::generate()];
        let mut roster = roster(&a);
        let first = roster.view(&[1; 32]);
        let mut far = ad(&b, 1);
        far.links = vec![Measured { peer: a.peer(), round_trip_us: 4_000.0, bytes_per_s: 5e6 }];
        roster.hear(Signed::new(&far, &b)).unwrap();
        let second = roster.view(&[1; 32]);
        roster.hear(Signed::new(&ad(&c, 1), &c)).unwrap();
        let third = roster.view(&[2; 32]);
        assert!(second.continues(&first) && third.continues(&second));
        let path = second.fleet.path(NodeId(0), NodeId(1)).unwrap();
        assert_eq!(path.delay.mean_us(), 2_000.0);
        assert_eq!(second.fleet.nodes[1].up_bytes_per_s, Some(5e6));
        assert!(second.fleet.nodes[1].has_model && !third.fleet.nodes[1].has_model);
        assert!(third.fleet.path(NodeId(1), NodeId(2)).is_some());
    }

    #[test]
    fn machines_of_one_name_can_be_told_apart() {
        let [a, b] = [Key::generate(), Key::generate()];
        let mut roster = roster(&a);
        let twin = Ad { name: roster.own().name.clone(), ..ad(&b, 1) };
        roster.hear(Signed::new(&twin, &b)).unwrap();
        let view = roster.view(&[1; 32]);
        assert_ne!(view.fleet.nodes[0].name, view.fleet.nodes[1].name);
    }
}
