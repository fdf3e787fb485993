//! How long it takes until everybody knows.

use std::collections::BTreeSet;

use node::PeerId;
use node::membership::{Event, Topic, Version};
use serde::Serialize;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// That it is gone.
    Down,
    /// That it is there.
    Up,
    /// That it says this or something later.
    Changed(Topic, Version),
}

/// Something that all others should notice.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) what: What,
    pub(super) kind: &'static str,
    pub(super) subject: u32,
    pub(super) at_ns: u64,
    pub(super) waiting: BTreeSet<u32>,
    pub(super) noticed: Vec<u64>,
}

/// How long something took to be known, seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// `crash`, `leave`, `join`, `restart`, `change`.
    pub kind: &'static str,
    /// Whose.
    pub node: u32,
    /// When it was, seconds from the start.
    pub at_s: f64,
    /// Until the first knew.
    pub first_s: Option<f64>,
    /// Until half of them knew.
    pub half_s: Option<f64>,
    /// Until all knew; nothing where some never did.
    pub all_s: Option<f64>,
    /// Who never did.
    pub missing: usize,
}

impl Watch {
    /// An observer was told something; `version` is what it now knows of the subject.
    pub(super) fn hears(
        &mut self,
        observer: u32,
        now_ns: u64,
        event: &Event,
        version: impl Fn(Topic) -> Option<Version>,
    ) {
        let about = |peer: &PeerId| peer.index() == self.subject;
        let notices = match (self.what, event) {
            (What::Down, Event::Down(peer)) => about(peer),
            (What::Down, Event::Restarted(peer)) => about(peer),
            (What::Up, Event::Up(peer) | Event::Restarted(peer)) => about(peer),
            (What::Changed(topic, least), Event::Changed(peer, changed)) if *changed == topic => {
                about(peer) && version(topic).is_some_and(|known| known >= least)
            }
            (What::Changed(topic, least), Event::Up(peer)) => {
                about(peer) && version(topic).is_some_and(|known| known >= least)
            }
            _ => false,
        };
        if notices && self.waiting.remove(&observer) {
            self.noticed.push(now_ns);
        }
    }

    pub(super) fn timing(&self) -> Timing {
        let seconds = |at: &u64| at.saturating_sub(self.at_ns) as f64 / 1e9;
        let all = self.noticed.len() + self.waiting.len();
        let half = self.noticed.get(all.saturating_sub(1) / 2);
        Timing {
            kind: self.kind,
            node: self.subject,
            at_s: self.at_ns as f64 / 1e9,
            first_s: self.noticed.first().map(seconds),
            half_s: half.map(seconds),
            all_s: if self.waiting.is_empty() { self.noticed.last().map(seconds) } else { None },
            missing: self.waiting.len(),
        }
    }
}
