//! Faults as they strike and end.

use node::PeerId;
use node::membership::{Input, Life, Topic};

use super::{Happening, SECOND_NS, World};
use crate::membership::spec::FaultKind;
use crate::membership::watch::{Watch, What};
use crate::membership::{Sabotage, liar};

/// A liar speaks this often.
const LIE_NS: u64 = SECOND_NS / 5;
/// How late a slow member is.
const LATE_NS: u64 = 3 * SECOND_NS / 10;
/// Requests of a flood.
const FLOOD: u32 = 100_000;

impl World {
    pub(super) fn watch(&mut self, kind: &'static str, what: What, subject: u32, except: &[u32]) {
        let is_observer = |i: &u32| {
            let member = &self.members[*i as usize];
            let peer = PeerId::from_index(subject);
            let has = member.process.as_ref().is_some_and(|process| process.look().is_member(peer));
            let can = *i != subject && member.is_there() && !except.contains(i);
            can && (has || what == What::Up)
        };
        let waiting = (0..self.members.len() as u32).filter(is_observer).collect();
        let watch = Watch { what, kind, subject, at_ns: self.now_ns, waiting, noticed: Vec::new() };
        self.watches.push(watch);
    }

    pub(super) fn strike(&mut self, number: usize) {
        let strike = self.strikes[number].clone();
        self.note(|| format!("* {:?} {:?} begins", strike.kind, strike.nodes));
        self.ways.begin(number, &strike, self.members.len());
        if self.sabotage == Some(Sabotage::Amnesia) && strike.kind == FaultKind::Change {
            self.forget(0);
        }
        for i in &strike.nodes {
            match strike.kind {
                FaultKind::Crash => self.stop(*i, "crash", &strike.nodes),
                FaultKind::Leave => self.leave(*i, &strike.nodes),
                FaultKind::Pause => self.members[*i as usize].paused = strike.until_ns.or(Some(u64::MAX)),
                FaultKind::Slow => self.members[*i as usize].late_ns = LATE_NS,
                FaultKind::Join => self.begin_again("join", *i),
                FaultKind::Change if self.members[*i as usize].is_running() => {
                    self.change(*i, true);
                    self.watch_change(*i);
                }
                FaultKind::Lie | FaultKind::Accuse | FaultKind::Boast => {
                    self.liars.insert(*i);
                    self.push(self.now_ns, Happening::Lie(*i, strike.kind));
                }
                FaultKind::Flood => self.flood(*i),
                FaultKind::Pretend => self.pretend(*i, true),
                FaultKind::Change | FaultKind::Partition | FaultKind::Mute | FaultKind::Lossy => {}
            }
        }
        self.reflect();
    }

    fn watch_change(&mut self, i: u32) {
        let process = self.members[i as usize].process.as_ref();
        let said = process.and_then(|process| {
            let process = process.look();
            process.known(process.me(), Topic::State).map(|known| known.item.version)
        });
        if let Some(version) = said {
            self.watch("change", What::Changed(Topic::State, version), i, &[]);
        }
    }

    pub(super) fn stop(&mut self, i: u32, kind: &'static str, with: &[u32]) {
        if self.members[i as usize].process.is_none() || self.members[i as usize].has_left {
            return;
        }
        self.members[i as usize].end();
        if let Some(hosted) = &mut self.hosted {
            hosted.crash(i);
        }
        self.serving_ends(i);
        self.watches.iter_mut().for_each(|watch| {
            watch.waiting.remove(&i);
        });
        self.watches.retain(|watch| watch.subject != i);
        self.watch(kind, What::Down, i, with);
    }

    fn leave(&mut self, i: u32, with: &[u32]) {
        if self.members[i as usize].is_there() {
            self.members[i as usize].has_left = true;
            self.watches.retain(|watch| watch.subject != i);
            self.watch("leave", What::Down, i, with);
            self.serving_ends(i);
            self.input(i, Input::Leave);
            self.watches.iter_mut().for_each(|watch| {
                watch.waiting.remove(&i);
            });
        }
    }

    pub(super) fn begin_again(&mut self, kind: &'static str, i: u32) {
        let member = &self.members[i as usize];
        if member.process.is_none() && !member.has_left {
            self.watches.retain(|watch| watch.subject != i);
            self.truth.restarted(i);
            self.watch(kind, What::Up, i, &[]);
            self.start(i);
        }
    }

    pub(super) fn end(&mut self, number: usize) {
        self.ways.end(number);
        let strike = self.strikes[number].clone();
        self.note(|| format!("* {:?} {:?} is over", strike.kind, strike.nodes));
        for i in strike.nodes {
            match strike.kind {
                FaultKind::Slow => self.members[i as usize].late_ns = 0,
                FaultKind::Pretend => self.pretend(i, false),
                FaultKind::Crash => self.begin_again("restart", i),
                FaultKind::Pause => self.resume(i),
                _ => {}
            }
        }
        self.reflect();
    }

    fn resume(&mut self, i: u32) {
        let member = &mut self.members[i as usize];
        if member.paused.is_none_or(|until| until > self.now_ns) {
            return;
        }
        member.paused = None;
        let inbox = std::mem::take(&mut member.inbox);
        self.input(i, Input::Tick);
        for (from, bytes) in inbox {
            self.input(i, Input::Packet { from: PeerId::from_index(from), bytes: &bytes });
        }
    }

    /// The broken variant: it believes again what it believed at the start.
    fn forget(&mut self, i: u32) {
        if let Some(life) = self.members[i as usize].process.as_ref().map(|process| process.look().life()) {
            let forgetful = self.process(i, life);
            if let Some(process) = &self.members[i as usize].process {
                *process.look() = forgetful;
            }
            let initial = std::mem::take(&mut self.initial);
            self.with(i, |process, now, out| process.restore(now, &initial, out));
            self.initial = initial;
        }
    }

    fn flood(&mut self, i: u32) {
        self.floods += 1;
        self.truth.floods(i);
        self.with(i, |process, now, out| {
            (0..FLOOD).for_each(|_| process.on(now, Input::Asked(liar::FLOODED), out));
        });
    }

    pub(super) fn lie(&mut self, i: u32, kind: FaultKind) {
        self.push(self.now_ns + LIE_NS, Happening::Lie(i, kind));
        if !self.members[i as usize].is_there() {
            return;
        }
        let Some(life) = self.members[i as usize].process.as_ref().map(|process| process.look().life())
        else {
            return;
        };
        let to = (self.choices.bits() % u64::from(self.spec.nodes)) as u32;
        let bytes = match kind {
            FaultKind::Accuse => self.accusation(i, life, to),
            FaultKind::Boast => Some(liar::boast(&self.keys(i), life, &mut self.choices)),
            _ => Some(liar::packet(life, &self.vault.look(), &mut self.choices)),
        };
        if let Some(bytes) = bytes {
            self.send(i, to, bytes);
        }
    }

    /// Of somebody that the liar knows, as it knows it: alive or gone.
    fn accusation(&mut self, i: u32, life: Life, to: u32) -> Option<Vec<u8>> {
        let victim = PeerId::from_index((self.choices.bits() % self.members.len() as u64) as u32);
        let process = self.members[i as usize].process.as_ref()?.look();
        let known = |peer| process.known(peer, Topic::Profile).map(|known| (peer, known.item.version.life));
        let (to, victim) =
            (known(PeerId::from_index(to))?, known(victim).filter(|(peer, _)| peer.index() != i)?);
        Some(liar::accusation(life, to, victim, &mut self.choices))
    }
}
