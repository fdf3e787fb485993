//! A node of a mesh: its network, and the models in which it takes part. A mesh may have one node.
//!
//! It takes part in every model that somebody serves, so that it can pass requests on: with layers in those that it hosts
//! itself, without in the others, of which it fetches all but the weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::attending::Attending;
use super::ring::{Parts, Ring, Wanted, kv_bytes};
use super::{Opened, Serve};
use crate::assign::{Assigner, Config};
use crate::cli::failure::Failure;
use crate::cli::loading;
use crate::clock::{Clock as _, Instant, TokioClock};
use crate::ids::PeerId;
use crate::membership::Fingerprint;
use crate::real::p2p::Net;

/// Models in which a node takes part at once.
pub(super) const RINGS_MAX: usize = 32;
/// How long a machine's start waits for models that its owner has chosen: loading a large one from a slow disk takes long.
const OWN_WITHIN: Duration = Duration::from_secs(900);
/// The same for models of others, who may never do as they say.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);

/// A model on this machine's disk.
pub(super) struct Own {
    pub(super) name: String,
    pub(super) opened: Opened,
    /// Its owner has chosen it: it is served whatever the mesh needs.
    pub(super) is_pinned: bool,
}

type Rings = BTreeMap<Fingerprint, Arc<Ring>>;

/// A running node.
pub(super) struct Meshed {
    net: Net,
    clock: TokioClock,
    asked: Serve,
    home: PathBuf,
    /// Models on this machine's disk.
    pub(super) own: BTreeMap<Fingerprint, Own>,
    rings: Mutex<Rings>,
    /// Somebody's part in a model began or ended.
    pub(super) changed: Notify,
    /// Which of its models this machine serves.
    pub(super) assigner: Mutex<Assigner>,
    /// Why the disk takes no model's header.
    pub(super) full: Mutex<Option<String>>,
    /// Models that were asked for, that somebody says it serves, and in which this node could not take part.
    missed: Mutex<BTreeMap<String, Missed>>,
}

/// Since when, and when last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    pub(super) since: Instant,
    pub(super) last: Instant,
}

impl Meshed {
    /// Takes part in this machine's own models, on the current runtime.
    pub(super) fn start(
        asked: &Serve,
        home: &Path,
        net: Net,
        own: Vec<Own>,
        clock: TokioClock,
    ) -> Result<Arc<Self>, Failure> {
        let (now, (me, profile)) =
            (clock.now(), net.roster().read(|roster| (roster.own().peer, roster.own().profile.clone())));
        let mut assigner = Assigner::new(me, profile, Config::default(), seed(me), now);
        let pinned = own.iter().filter(|own| own.is_pinned);
        pinned.for_each(|own| assigner.pin(now, &own.name));
        let meshed = Self {
            net,
            clock,
            asked: asked.clone(),
            home: home.to_owned(),
            own: own.into_iter().map(|own| (own.opened.fingerprint, own)).collect(),
            rings: Mutex::default(),
            changed: Notify::new(),
            assigner: Mutex::new(assigner),
            full: Mutex::default(),
            missed: Mutex::default(),
        };
        meshed.report();
        for own in meshed.own.values().filter(|own| own.is_pinned) {
            meshed.take_part(own.name.clone(), &own.opened)?;
        }
        Ok(Arc::new(meshed))
    }

    /// Follows the mesh, what is hosted by whom, and tells it what this node does, until what this gives is dropped.
    pub(super) fn follow(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(Attending::new(Arc::clone(self)).run());
        tasks.spawn(Arc::clone(self).work());
        tasks
    }

    pub(super) fn clock(&self) -> TokioClock {
        self.clock
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// This node's name in the network.
    pub(super) fn peer(&self) -> String {
        let own = self.net.roster().read(|roster| roster.own().peer);
        data_encoding::HEXLOWER.encode(&own.0)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The models in which this node takes part, its own first, then by name.
    pub(super) fn rings(&self) -> Vec<Arc<Ring>> {
        let mut rings: Vec<Arc<Ring>> = self.lock().values().cloned().collect();
        rings.sort_by_key(|ring| (!ring.has_weights, ring.served().id.clone()));
        rings
    }

    /// Where that model's files lie, if on this machine.
    pub(super) fn path_of(&self, ring: &Ring) -> Option<PathBuf> {
        let own = self.own.values().find(|own| own.name == ring.name() && ring.has_weights)?;
        std::path::absolute(&own.opened.path).ok()
    }

    /// Takes part in one of this machine's own models, if it does not yet.
    pub(super) fn take_own(&self, name: &str) -> Result<(), Failure> {
        let Some(own) = self.own.values().find(|own| own.name == name) else { return Ok(()) };
        let takes_part = self.lock().contains_key(&own.opened.fingerprint);
        if takes_part { Ok(()) } else { self.take_part(own.name.clone(), &own.opened) }
    }

    /// Takes no part any more in a model of its own; where others host it, it soon does again, to pass requests on.
    pub(super) fn drop_own(&self, name: &str) {
        self.lock().retain(|_, ring| ring.name() != name);
        self.changed.notify_waiters();
    }

    /// Takes part in a model, with layers where the weights are here.
    pub(super) fn take_part(&self, name: String, opened: &Opened) -> Result<(), Failure> {
        let fingerprint = opened.fingerprint;
        let id = self.id(&name, &fingerprint);
        let parts = parts(&self.asked, opened, id, self.own.get(&fingerprint))?;
        if let Some(ring) = Ring::start(&self.net, self.clock, name, parts) {
            self.lock().insert(fingerprint, Arc::new(ring));
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// The model's name in the API: that among members, and where another model has that already, with something of its
    /// fingerprint.
    fn id(&self, name: &str, fingerprint: &Fingerprint) -> String {
        let rings = self.lock();
        let is_taken = rings.iter().any(|(other, ring)| other != fingerprint && ring.served().id == name);
        match is_taken {
            true => format!("{name}@{}", data_encoding::HEXLOWER.encode(&fingerprint[..4])),
            false => name.to_owned(),
        }
    }

    /// Models that are missed here.
    pub(super) fn missed(&self) -> MutexGuard<'_, BTreeMap<String, Missed>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when every model that is known serves, or when that must wait for other machines, or has failed, or takes
    /// too long.
    pub(super) async fn until_settled(&self) {
        let now = self.clock.now();
        for ring in self.rings() {
            let within = if ring.is_pinned { OWN_WITHIN } else { OTHERS_WITHIN };
            // What it is then is said of it.
            let _ = self.clock.timeout_at(now.after(within), ring.until_settled()).await;
        }
    }

    /// Returns when this node takes part in some model; `Err` with why it cannot, or when that takes too long.
    pub(super) async fn until_any(&self, within: Duration) -> Result<(), Failure> {
        let deadline = self.clock.now().after(within);
        let mut state = self.net.state();
        loop {
            let changed = self.changed.notified();
            if !self.lock().is_empty() {
                return Ok(());
            }
            if let Some(why) = self.full.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return Err(Failure::Start(why));
            }
            let refused = state.read_new(|state| state.refused.clone().filter(|_| state.members.is_empty()));
            if let Some(why) = refused {
                return Err(Failure::Join(why));
            }
            let news = async {
                tokio::select! {
                    biased;
                    () = changed => {}
                    _ = state.changed() => {}
                }
            };
            if self.clock.timeout_at(deadline, news).await.is_err() {
                let told = |(whom, what): (&String, &String)| format!("{whom}: {what}");
                let troubles: Vec<String> =
                    self.net.state().read(|state| state.troubles.iter().map(told).collect());
                return Err(Failure::Join(if troubles.is_empty() {
                    "no member of the mesh offers a model; start one with `meshwright serve --model`".into()
                } else {
                    troubles.join("; ")
                }));
            }
        }
    }

    /// Lets the mesh go on without this node.
    pub(super) async fn leave(&self) {
        let mut leaving = JoinSet::new();
        for ring in self.rings() {
            leaving.spawn(async move { ring.leave().await });
        }
        while leaving.join_next().await.is_some() {}
        self.net.leave().await;
    }
}

/// Spreads the times at which machines decide.
fn seed(me: PeerId) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| me.0[i]))
}

/// What a ring is made of; `own` where the weights are here.
fn parts(asked: &Serve, opened: &Opened, id: String, own: Option<&Own>) -> Result<Parts, Failure> {
    let weights = own.map(|own| own.opened.path.clone());
    let is_pinned = own.is_some_and(|own| own.is_pinned);
    let model = opened.file.model()?;
    let wanted = Wanted {
        context: asked.context,
        sessions: asked.sessions,
        split: is_pinned && asked.split.unwrap_or(false),
        cut: if is_pinned { asked.cut.clone() } else { Vec::new() },
    };
    let (ask, _) = wanted.ask(&model);
    let machine = asked.machine();
    let usual = loading::options(&machine, asked.threads.unwrap_or(0), ask.constraints.context)?;
    let options = usual.with_kv_bytes_max(kv_bytes(&model, &ask, machine.f32));
    let options = asked.activations.map_or(options, |kind| options.with_residual(kind.into()));
    let served = opened.served(id, ask.constraints.context)?;
    let fingerprint = opened.fingerprint;
    Ok(Parts { model, fingerprint, weights, is_pinned, options, served, wanted })
}
