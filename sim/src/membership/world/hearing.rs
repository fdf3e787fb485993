//! What members tell, and what is wrong with it: looked at when each tells it.

use std::sync::Arc;

use node::PeerId;
use node::membership::{Event, Topic};

use super::{SECOND_NS, World};
use crate::membership::member::Member;
use crate::membership::spec::FaultKind;
use crate::membership::watch::Watch;

/// Up to so many members, every item that is believed is looked at.
const WATCHED_MAX: u32 = 400;

impl World {
    /// A process has told something.
    pub(super) fn hear(&mut self, i: u32, event: &Event) {
        self.note(|| format!("{i} {event:?}"));
        match event {
            Event::Refused { .. } => self.refused += 1,
            Event::Down(peer) if self.is_well(peer.index()) && self.is_well(i) => {
                let seconds = self.now_ns as f64 / 1e9;
                self.mourned.push(format!("member {i} took {peer:?} for dead at {seconds:.3} s"));
            }
            Event::Distrusted(peer) => {
                self.exposed.insert((peer.index(), i));
                if self.liars.contains(&peer.index()) {
                    return;
                }
                let seconds = self.now_ns as f64 / 1e9;
                self.wronged.push(format!("member {i} no longer believes {peer:?} at {seconds:.3} s"));
            }
            Event::Changed(peer, topic) if self.spec.nodes <= WATCHED_MAX => self.inspect(i, *peer, *topic),
            Event::Up(peer) if self.spec.nodes <= WATCHED_MAX => {
                Topic::ALL.iter().for_each(|topic| self.inspect(i, *peer, *topic));
            }
            _ => {}
        }
        self.serving_hears(i, event);
        let now_ns = self.now_ns;
        if let Event::Up(peer) = event {
            self.members[i as usize].found.insert(*peer, now_ns);
        }
        let Some(process) = &self.members[i as usize].process else { return };
        let process = process.look();
        for watch in &mut self.watches {
            let subject = PeerId::from_index(watch.subject);
            watch.hears(i, now_ns, event, |topic| {
                process.known(subject, topic).map(|known| known.item.version)
            });
        }
        let (done, open) =
            std::mem::take(&mut self.watches).into_iter().partition(|w: &Watch| w.waiting.is_empty());
        self.watches = open;
        self.done.extend::<Vec<Watch>>(done);
    }

    /// Whether it runs, and everybody could hear it over the last ten seconds. Who lies or has something to say is well.
    fn is_well(&self, i: u32) -> bool {
        use FaultKind::{Crash, Lossy, Mute, Partition, Pause};
        let is_struck = self.is_struck(i, &[Crash, Lossy, Mute, Partition, Pause], 10 * SECOND_NS);
        self.members.get(i as usize).is_some_and(Member::is_there) && !is_struck
    }

    /// Whether nothing keeps others from hearing it just now.
    pub(super) fn is_audible(&self, i: u32) -> bool {
        use FaultKind::{Lossy, Mute, Partition, Pause};
        !self.is_struck(i, &[Lossy, Mute, Partition, Pause], 0)
    }

    /// Whether a fault of these kinds strikes it, or ended less than `within_ns` ago. A partition strikes all.
    fn is_struck(&self, i: u32, kinds: &[FaultKind], within_ns: u64) -> bool {
        self.strikes.iter().any(|strike| {
            kinds.contains(&strike.kind)
                && strike.at_ns <= self.now_ns
                && strike.until_ns.is_none_or(|until| self.now_ns < until + within_ns)
                && (strike.kind == FaultKind::Partition || strike.nodes.contains(&i))
        })
    }

    /// What a process believes must have been signed by its owner, and must not be older than what it believed before.
    fn inspect(&mut self, i: u32, peer: PeerId, topic: Topic) {
        let Some(process) = &self.members[i as usize].process else { return };
        let Some(known) = process.look().known(peer, topic).map(Arc::clone) else { return };
        if !self.vault.look().is_genuine(&known.item) {
            self.broken
                .push(format!("forgery: member {i} believes what {peer:?} has not signed ({topic:?})"));
        }
        let version = known.item.version;
        let before = self.members[i as usize].seen.insert((peer, topic as usize), version);
        if let Some(before) = before.filter(|before| *before > version) {
            self.broken
                .push(format!("stale: member {i} went back from {before:?} to {version:?} of {peer:?}"));
        }
    }
}
