//! Taking part in the models that others host, so that this machine can pass requests on: of those that it does not have it
//! fetches all but the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Opened;
use super::meshed::{Meshed, RINGS_MAX};
use crate::clock::{Clock as _, Instant};
use crate::ids::PeerId;
use crate::membership::Fingerprint;
use crate::real::p2p::HeaderError;

/// A host that did not show a model's header is asked again after so long.
const RETRY: Duration = Duration::from_secs(5);
/// A model that nobody hosts any more is kept in mind so long.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Models, their names, and who hosts them.
type Hosted = BTreeMap<Fingerprint, (String, Vec<PeerId>)>;

/// A host that was asked for a model's header and did not show it.
struct Failed {
    at: Instant,
    why: String,
}

/// What became of asking a host.
struct Asked {
    model: Fingerprint,
    name: String,
    host: PeerId,
    failed: Option<String>,
}

/// What is known of others' models.
pub(super) struct Attending {
    meshed: Arc<Meshed>,
    /// Models that nobody hosts any more, since when.
    idle: BTreeMap<Fingerprint, Instant>,
    failed: BTreeMap<(Fingerprint, PeerId), Failed>,
    asking: JoinSet<Asked>,
    /// Models for which a host is being asked: one at once for each.
    sought: BTreeSet<Fingerprint>,
}

impl Attending {
    pub(super) fn new(meshed: Arc<Meshed>) -> Self {
        Self {
            meshed,
            idle: BTreeMap::new(),
            failed: BTreeMap::new(),
            asking: JoinSet::new(),
            sought: BTreeSet::new(),
        }
    }

    /// Takes part in what others host, and no longer in what nobody does, until it is dropped.
    pub(super) async fn run(mut self) {
        let meshed = Arc::clone(&self.meshed);
        let mut roster = meshed.net().roster();
        let mut state = meshed.net().state();
        loop {
            let now = meshed.clock().now();
            for ring in meshed.rings() {
                // Not as read: what changes before the last ring has seen it is still news.
                roster.read(|roster| ring.see(roster));
            }
            let hosted = self.hosted();
            self.forget(now, &hosted);
            let connected = state.read_new(|state| state.members.clone());
            self.take_part(now, hosted, |host| connected.contains(host));
            let retry =
                self.failed.values().map(|failed| failed.at.after(RETRY)).filter(|at| *at > now).min();
            let due = retry.unwrap_or(now.after(FORGOTTEN));
            let news = async {
                tokio::select! {
                    biased;
                    changed = roster.changed() => (changed, None),
                    changed = state.changed() => (changed, None),
                    Some(asked) = self.asking.join_next() => (true, asked.ok()),
                }
            };
            match meshed.clock().timeout_at(due, news).await {
                Ok((false, _)) => return,
                Ok((true, Some(asked))) => self.heard(asked),
                Ok((true, None)) | Err(_) => {}
            }
        }
    }

    /// The models that living members host, their names, and by whom.
    fn hosted(&self) -> Hosted {
        let mut hosted = Hosted::new();
        self.meshed.net().roster().read(|roster| {
            for member in roster.others().filter(|member| member.alive) {
                for offer in member.profile.models.iter().filter(|offer| member.hosts(&offer.name)) {
                    let (_, hosts) =
                        hosted.entry(offer.fingerprint).or_insert_with(|| (offer.name.clone(), Vec::new()));
                    hosts.push(member.peer);
                }
            }
        });
        hosted
    }

    /// Drops models of others that nobody has hosted for a while, and what is held against who hosts them no more.
    fn forget(&mut self, now: Instant, hosted: &Hosted) {
        let hosts = |model: &Fingerprint, host: &PeerId| {
            hosted.get(model).is_some_and(|(_, hosts)| hosts.contains(host))
        };
        self.failed.retain(|(model, host), _| hosts(model, host));
        let mut rings = self.meshed.lock();
        self.idle.retain(|model, _| rings.contains_key(model) && !hosted.contains_key(model));
        let before = rings.len();
        rings.retain(|model, ring| {
            if hosted.contains_key(model) || self.meshed.hosts(ring.name()) {
                return true;
            }
            let since = *self.idle.entry(*model).or_insert(now);
            now.since(since) < FORGOTTEN || ring.node().sessions() > 0
        });
        if rings.len() != before {
            self.meshed.changed.notify_waiters();
        }
    }

    /// Takes part in those that are on this machine's disk, and asks for the headers of the others.
    fn take_part(&mut self, now: Instant, hosted: Hosted, is_connected: impl Fn(&PeerId) -> bool) {
        for (model, (name, hosts)) in hosted {
            let (takes_part, begun) = {
                let rings = self.meshed.lock();
                (rings.contains_key(&model), rings.len() + self.sought.len())
            };
            if takes_part || begun >= RINGS_MAX || self.sought.contains(&model) {
                continue;
            }
            if let Some(own) = self.meshed.own.get(&model) {
                if let Err(why) = self.meshed.take_own(&own.name) {
                    tracing::warn!("{why}");
                }
                continue;
            }
            let failed = |host: &PeerId| self.failed.get(&(model, *host)).map(|failed| failed.at);
            let may =
                |host: &&PeerId| is_connected(host) && failed(host).is_none_or(|at| now.since(at) >= RETRY);
            // Who was never asked comes first, then who was asked longest ago.
            if let Some(host) = hosts.iter().filter(may).min_by_key(|host| failed(host)).copied() {
                self.sought.insert(model);
                self.asking.spawn(ask(Arc::clone(&self.meshed), model, name, host));
            }
        }
    }

    fn heard(&mut self, asked: Asked) {
        let Asked { model, name, host, failed } = asked;
        self.sought.remove(&model);
        let Some(why) = failed else { return };
        let failed = Failed { at: self.meshed.clock().now(), why: format!("{name}: {why}") };
        let before = self.failed.get(&(model, host));
        if before.is_none_or(|before| before.why != failed.why) {
            tracing::warn!(?host, "{}", failed.why);
        }
        self.failed.insert((model, host), failed);
    }
}

/// Fetches all but the weights of a model from a host, and takes part in it.
async fn ask(meshed: Arc<Meshed>, model: Fingerprint, name: String, host: PeerId) -> Asked {
    let header = meshed.net().header(host, model, &meshed.home().join("headers")).await;
    let header = header.map_err(|why| {
        if matches!(why, HeaderError::Disk { .. }) {
            *meshed.full.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{name}: {why}"));
            meshed.changed.notify_waiters();
        }
        why.to_string()
    });
    let taken = header.and_then(|path| {
        let opened = Opened::open(&path).map_err(|why| why.to_string())?;
        meshed.take_part(name.clone(), &opened).map_err(|why| why.to_string())
    });
    Asked { model, name, host, failed: taken.err() }
}
