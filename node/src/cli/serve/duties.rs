//! What this machine does for the mesh: it tells the assigner what it hears, does what that decides, and tells the mesh.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::joining;
use super::meshed::{Meshed, Missed};
use super::ring::Ring;
use crate::assign::{Action, Assigner, Notice};
use crate::clock::{Clock as _, Instant};
use crate::ids::PeerId;
use crate::membership::{Load, Profile, State};
use crate::real::p2p::roster::{Member, Roster};

/// How busy the node is, is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// How long a model may not serve that somebody says it serves, until requests that wait for it are held against that host:
/// longer than planning and loading anew take.
const SILENT: Duration = Duration::from_secs(10);
/// A model that was asked for so long ago is not missed any more.
const MISSED_FOR: Duration = Duration::from_secs(60);
/// How long a model that is given up may take to be gone from memory.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// What was heard and done last.
#[derive(Default)]
struct Seen {
    profile: Profile,
    others: BTreeMap<PeerId, (Profile, State)>,
    /// Models of which it was said whether they are served here.
    serving: BTreeMap<String, bool>,
    /// Plans that were written into the log.
    plans: BTreeMap<String, String>,
    /// Since when models do not serve that others say they serve.
    silent: BTreeMap<String, Instant>,
    /// What was decided and is not done yet.
    to_do: VecDeque<Action>,
    /// A model that is given up, and until when it may be in memory.
    leaving: Option<(String, Instant)>,
}

impl Meshed {
    pub(super) fn assigner(&self) -> MutexGuard<'_, Assigner> {
        self.assigner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this machine serves the model, or is about to.
    pub(super) fn hosts(&self, model: &str) -> bool {
        self.net().roster().read(|roster| roster.own().hosts(model))
    }

    /// Does its part until it is dropped.
    pub(super) async fn work(self: Arc<Self>) {
        let mut roster = self.net().roster();
        let mut seen = Seen::default();
        loop {
            let changed = self.changed.notified();
            let rings = self.rings();
            // Waits from before it looks, so that nothing is missed.
            let mut plans: JoinSet<()> = rings.iter().map(|ring| ring.changed()).collect();
            let now = self.clock().now();
            roster.read_new(|roster| hear(&mut self.assigner(), roster, now, &mut seen));
            self.look(&rings, now, &mut seen);
            self.act(now, &mut seen);
            self.report();
            self.narrate(&rings, &mut seen);
            let look = self.clock().now().after(LOOK);
            let due = if seen.leaving.is_some() { look } else { self.assigner().next_due().min(look) };
            let news = async {
                tokio::select! {
                    biased;
                    () = changed => {}
                    is_up = roster.changed() => if !is_up { std::future::pending().await },
                    Some(_) = plans.join_next() => {}
                }
            };
            let _ = self.clock().timeout_at(due, news).await;
        }
    }

    /// Looks how busy this machine is, and what has become of what it does.
    fn look(&self, rings: &[Arc<Ring>], now: Instant, seen: &mut Seen) {
        let mut assigner = self.assigner();
        let of = |ring: &Arc<Ring>| (ring.name().to_owned(), count(ring.node().held().len()));
        let sessions: BTreeMap<String, u32> = rings.iter().map(of).collect();
        assigner.load(now, load(rings), &sessions);
        assigner.demand(&self.net().demand());
        for ring in rings.iter().filter(|ring| ring.has_weights && self.hosts(ring.name())) {
            let model = ring.name();
            let serves = ring.held().is_some_and(|(_, serves)| serves);
            let before = seen.serving.insert(model.to_owned(), serves);
            match (before.unwrap_or(false), serves) {
                (false, true) => assigner.notice(now, Notice::Ready(model)),
                (true, false) => assigner.notice(now, Notice::Waits(model)),
                (false, false) if !ring.is_pinned && ring.has_failed() => {
                    assigner.notice(now, Notice::Failed(model));
                }
                _ => {}
            }
        }
        seen.serving.retain(|model, _| self.hosts(model));
        rings.iter().for_each(|ring| self.judge(&mut assigner, ring, now, seen));
        seen.silent.retain(|model, _| rings.iter().any(|ring| ring.name() == model));
        self.judge_missed(&mut assigner, rings, now);
    }

    /// Tells the assigner what becomes of requests at hosts that say they serve this model.
    fn judge(&self, assigner: &mut Assigner, ring: &Ring, now: Instant, seen: &mut Seen) {
        let model = ring.name();
        let hosts = self.who_says(model);
        if ring.is_serving() || hosts.is_empty() {
            seen.silent.remove(model);
            hosts.iter().for_each(|host| assigner.answered(*host, model));
            return;
        }
        let since = *seen.silent.entry(model.to_owned()).or_insert(now);
        if now.since(since) >= SILENT && ring.node().sessions() > 0 {
            hold_against(assigner, now, model, &hosts);
        }
    }

    /// The same of models in which this node cannot take part, since none of these hosts tells what they are.
    fn judge_missed(&self, assigner: &mut Assigner, rings: &[Arc<Ring>], now: Instant) {
        let is_missed = |model: &String, missed: &mut Missed| {
            now.since(missed.last) < MISSED_FOR && !rings.iter().any(|ring| ring.name() == model)
        };
        let mut all = self.missed();
        all.retain(is_missed);
        for (model, _) in all.iter().filter(|(_, missed)| now.since(missed.since) >= SILENT) {
            hold_against(assigner, now, model, &self.who_says(model));
        }
    }

    /// Members that say that they serve the model.
    fn who_says(&self, model: &str) -> Vec<PeerId> {
        let says_so = |member: &&Member| member.alive && member.state.served.iter().any(|name| name == model);
        self.net().roster().read(|roster| roster.others().filter(says_so).map(|m| m.peer).collect())
    }

    /// Does what is decided, one after the other: what is given up must be out of memory before the next is loaded.
    fn act(&self, now: Instant, seen: &mut Seen) {
        self.let_go(now, seen);
        if seen.leaving.is_none() {
            let mut assigner = self.assigner();
            if assigner.next_due() <= now {
                seen.to_do.extend(assigner.decide(now));
            }
        }
        while seen.leaving.is_none()
            && let Some(action) = seen.to_do.pop_front()
        {
            self.report();
            match action {
                Action::Serve(model) | Action::Enlist(model) => {
                    tracing::info!("the mesh needs {model} here");
                    if let Err(why) = self.take_own(&model) {
                        tracing::error!("{why}");
                        self.assigner().notice(now, Notice::Failed(&model));
                    }
                }
                Action::Retire(model) => {
                    tracing::info!("the mesh does not need {model} here any more");
                    seen.leaving = Some((model, now.after(GONE_WITHIN)));
                    self.let_go(now, seen);
                }
            }
        }
    }

    /// Lets go of a model that is given up, when others have planned without this machine, or nobody is there to.
    fn let_go(&self, now: Instant, seen: &mut Seen) {
        let Some((model, until)) = &seen.leaving else { return };
        let ring = self.rings().into_iter().find(|ring| ring.name() == model);
        let is_needed = ring.as_ref().is_some_and(|ring| ring.held().is_some() && ring.has_other_hosts());
        if is_needed && now < *until {
            return;
        }
        if ring.is_some_and(|ring| ring.held().is_some()) {
            self.drop_own(model);
        }
        seen.leaving = None;
    }

    /// Tells the mesh what this node does.
    pub(super) fn report(&self) {
        let rings = self.rings();
        let (served, claims) = {
            let assigner = self.assigner();
            (assigner.served(), assigner.claims())
        };
        let stages = rings.iter().filter_map(|ring| ring.held()).map(|(held, _)| held).collect();
        self.net().report(State { served, claims, stages, load: load(&rings), ..State::default() });
    }

    /// Says in the log what is planned and what serves, as it changes, and keeps in the home directory how to come back.
    fn narrate(&self, rings: &[Arc<Ring>], seen: &mut Seen) {
        for ring in rings {
            if let Some(words) = ring.words()
                && seen.plans.get(ring.name()) != Some(&words)
            {
                tracing::info!("{words}");
                seen.plans.insert(ring.name().to_owned(), words);
                joining::remember(self.home(), self.net());
            }
        }
        seen.plans.retain(|model, _| rings.iter().any(|ring| ring.name() == model));
    }
}

/// Who asked these hosts for the model has waited in vain.
fn hold_against(assigner: &mut Assigner, now: Instant, model: &str, hosts: &[PeerId]) {
    hosts.iter().for_each(|host| assigner.failed(now, *host, model));
    assigner.wanted(now, model);
}

/// Tells the assigner what is new of the members.
fn hear(assigner: &mut Assigner, roster: &Roster, now: Instant, seen: &mut Seen) {
    let own = roster.own();
    if own.profile != seen.profile {
        seen.profile.clone_from(&own.profile);
        assigner.profile(now, own.profile.clone());
    }
    for member in roster.others() {
        let Member { peer, alive, profile, state, .. } = member;
        if !alive {
            if seen.others.remove(peer).is_some() {
                assigner.gone(now, *peer);
            }
        } else if !seen.others.get(peer).is_some_and(|(known, was)| known == profile && was == state) {
            assigner.see(now, *peer, profile, state);
            seen.others.insert(*peer, (profile.clone(), state.clone()));
        }
    }
}

/// Sessions that have room here, and at least how many wait for some: heads of this node without any, where it hosts the
/// model.
fn load(rings: &[Arc<Ring>]) -> Load {
    let (mut sessions, mut waiting) = (0, 0);
    for ring in rings {
        let held = ring.node().held().len();
        sessions += held;
        if ring.held().is_some() {
            waiting += ring.node().sessions().saturating_sub(held);
        }
    }
    Load { sessions: count(sessions), waiting: count(waiting) }
}

fn count(sessions: usize) -> u32 {
    u32::try_from(sessions).unwrap_or(u32::MAX)
}
