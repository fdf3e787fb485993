//! Hosts that say they serve a model and do not.
//!
//! Each machine believes its own eyes at once: a host that failed it again and again does not count as a replica here, for a
//! while. To others it says only that it waits for the model (`Wants`), and names nobody. Where several wait for a model
//! that somebody says it serves, one more machine comes forward, and so on up to a few replicas. So nobody can be harmed
//! by an accusation; a gang of as many as are believed can have a model served more often than needed, up to that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::ids::PeerId;

/// Failures without an answer between them, ...
const FAILURES: u32 = 3;
/// ... over at least this time: many requests that fail at once are one reason.
const OVER: Duration = Duration::from_secs(3);
/// Failures that are further apart have nothing to do with each other.
const APART: Duration = Duration::from_secs(60);
/// How long a host is not believed, the first time and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(960));
/// Pairs of host and model that are remembered.
const DOUBTS_MAX: usize = 256;

/// Members that wait for a model that is served, until they are believed; half of the others in a small mesh.
const WITNESSES: u32 = 3;
/// They must wait this long: wants of before it was served are withdrawn in less.
pub(super) const LASTING: Duration = Duration::from_secs(5);
/// Replicas above which nobody comes forward because others wait.
pub(super) const REPLICAS_MOST: u32 = 4;

/// How many must wait, among so many members.
pub(super) fn witnesses(members: usize) -> u32 {
    WITNESSES.min((members as u32).div_ceil(2)).max(2)
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    failures: u32,
    first: Instant,
    last: Instant,
    until: Option<Instant>,
    pause: Duration,
}

/// What this machine has seen itself.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    hosts: BTreeMap<PeerId, BTreeMap<String, Doubt>>,
}

impl Doubts {
    /// A request failed there; whether the host is believed no longer because of it.
    pub(super) fn failed(&mut self, now: Instant, host: PeerId, model: &str) -> bool {
        if self.len() >= DOUBTS_MAX {
            self.forget(now);
        }
        let is_full = self.len() >= DOUBTS_MAX;
        let models = self.hosts.entry(host).or_default();
        if is_full && !models.contains_key(model) {
            return false;
        }
        let new = Doubt { failures: 0, first: now, last: now, until: None, pause: PAUSE.0 };
        let doubt = models.entry(model.to_owned()).or_insert(new);
        if doubt.until.is_some_and(|until| now < until) {
            return false;
        }
        // Who was doubted before is tried once.
        if doubt.until.is_none() && now.since(doubt.last) > APART {
            *doubt = new;
        }
        (doubt.failures, doubt.last) = (doubt.failures + 1, now);
        let is_doubted =
            doubt.until.is_some() || (doubt.failures >= FAILURES && now.since(doubt.first) >= OVER);
        // What fails while it is doubted says nothing new.
        if is_doubted && doubt.until.is_none_or(|until| until <= now) {
            doubt.until = Some(now.after(doubt.pause));
            doubt.pause = (doubt.pause * 2).min(PAUSE.1);
        }
        is_doubted
    }

    pub(super) fn answered(&mut self, host: PeerId, model: &str) {
        if let Some(models) = self.hosts.get_mut(&host) {
            models.remove(model);
            if models.is_empty() {
                self.hosts.remove(&host);
            }
        }
    }

    pub(super) fn is_doubted(&self, now: Instant, host: PeerId, model: &str) -> bool {
        let until = || self.hosts.get(&host)?.get(model)?.until;
        !self.hosts.is_empty() && until().is_some_and(|until| now < until)
    }

    fn len(&self) -> usize {
        self.hosts.values().map(BTreeMap::len).sum()
    }

    /// Those of which nothing was heard for long.
    fn forget(&mut self, now: Instant) {
        let is_recent = |doubt: &Doubt| {
            now.since(doubt.last) <= APART || doubt.until.is_some_and(|until| now < until.after(doubt.pause))
        };
        self.hosts.retain(|_, models| {
            models.retain(|_, doubt| is_recent(doubt));
            !models.is_empty()
        });
    }
}
