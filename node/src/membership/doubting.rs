//! Members that are suspected: each is looked into here, and nobody is dead on the word of others alone.
//!
//! A look-up asks the member itself whether it lives, four times over the time of suspicion, from the second time on
//! through two others as well. It ends with an answer or with the member's end; there is one for every member that the
//! failure detector suspects, so a suspicion always ends. Where others say that it is dead, three unanswered questions
//! are enough. Who only heard that others suspect it asks a little later: mostly its answer to them arrives first.

use std::time::Duration;

use rand::RngExt as _;

use super::item::Trust;
use super::packet::{Part, Relay, Short, Way, short};
use super::swim::Id;
use super::table::ME;
use super::{Event, Membership, Outputs, Task};
use crate::clock::Instant;
use crate::ids::PeerId;

/// Others that are asked to ask, each time.
const HELPERS: usize = 2;
/// Questions without an answer that others' word makes enough.
const CLAIMED_ASKS: u32 = 3;
/// Accusers that one look-up remembers.
const ACCUSERS_MAX: usize = 4;
/// A member that is asked again and again answers, but does not tell everybody each time.
const DOUBT_REST: Duration = Duration::from_millis(100);

/// A member that is being looked into.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    id: Id,
    incarnation: u16,
    asked: u32,
    helpers: Vec<u32>,
    /// Who says that it is dead.
    accusers: Vec<PeerId>,
    /// Whether itself or a helper was heard.
    is_heard: bool,
    /// The task that goes on with it.
    turn: u64,
}

/// Why a member is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It was found silent here.
    Silent,
    /// Others suspect it.
    Suspected,
    /// Somebody has it among the dead.
    Buried,
    /// That one says that it is dead.
    Accused(PeerId),
}

impl<T: Trust> Membership<T> {
    /// Looks into a member, at once or soon; nothing for those who are dead already.
    pub(super) fn look_into(&mut self, now: Instant, slot: u32, why: Why) {
        let entry = self.table.get(slot).filter(|_| slot != ME);
        let Some(id) = entry.map(|entry| Id { slot, life: entry.life }) else { return };
        let Some(incarnation) = self.swim.suspect(id, why == Why::Silent) else { return };
        let is_same = |look: &Look| look.id == id && look.incarnation == incarnation;
        let is_new = !self.looks.get(&slot).is_some_and(is_same);
        if is_new {
            let look = Look {
                id,
                incarnation,
                asked: 0,
                helpers: Vec::new(),
                accusers: Vec::new(),
                is_heard: false,
                turn: 0,
            };
            self.looks.insert(slot, look);
        }
        let pause = match why {
            Why::Suspected => self.config.suspicion.mul_f64(0.3 + 0.3 * self.rng.random::<f64>()),
            Why::Silent | Why::Buried | Why::Accused(_) => Duration::ZERO,
        };
        let Some(look) = self.looks.get_mut(&slot) else { return };
        if let Why::Accused(by) = why
            && !look.accusers.contains(&by)
            && look.accusers.len() < ACCUSERS_MAX
        {
            look.accusers.push(by);
        }
        if is_new || (look.asked == 0 && pause.is_zero()) {
            self.go_on(slot, now.after(pause));
        }
    }

    fn go_on(&mut self, slot: u32, at: Instant) {
        let turn = self.next_task + 1;
        if let Some(look) = self.looks.get_mut(&slot) {
            look.turn = turn;
            self.schedule(at, Task::Look(slot, turn));
        }
    }

    /// The next question, or the end.
    pub(super) fn look(&mut self, now: Instant, slot: u32, turn: u64, out: &mut Outputs) {
        let Some(look) = self.looks.get(&slot).filter(|look| look.turn == turn) else { return };
        let (id, incarnation, asked) = (look.id, look.incarnation, look.asked);
        if self.swim.suspected(id) != Some(incarnation) {
            self.settle(now, slot, out);
            return;
        }
        let most = if look.accusers.is_empty() { self.config.doubts } else { CLAIMED_ASKS };
        if asked >= most.min(self.config.doubts) {
            self.looks.remove(&slot);
            self.swim.bury(id, incarnation);
            return;
        }
        self.send(slot, vec![Part::Doubt(incarnation)], out);
        let helpers = if asked > 0 { self.helpers(slot) } else { Vec::new() };
        for helper in &helpers {
            self.send_relay(*helper, Way::Ask, slot, incarnation, out);
        }
        if let Some(look) = self.looks.get_mut(&slot) {
            look.asked = asked + 1;
            look.helpers.extend(helpers);
        }
        self.go_on(slot, now.after(self.config.suspicion / self.config.doubts.max(1)));
    }

    /// Ends a look-up that has its answer. Where the member itself gave it, who said that it is dead was wrong.
    pub(super) fn settle(&mut self, now: Instant, slot: u32, out: &mut Outputs) {
        let is_over = |look: &Look| self.swim.suspected(look.id) != Some(look.incarnation);
        if !self.looks.get(&slot).is_some_and(is_over) {
            return;
        }
        let Some(look) = self.looks.remove(&slot) else { return };
        if self.swim.suspected(look.id).is_some() {
            self.look_into(now, slot, Why::Buried);
        }
        let Some(entry) = self.table.get(slot) else { return };
        let victim = short(entry.peer);
        if !look.is_heard || !entry.is_alive || entry.life != look.id.life {
            return;
        }
        for accuser in look.accusers {
            if self.standings.erred(now, accuser, victim) {
                out.events.push(Event::Distrusted(accuser));
            }
        }
    }

    /// A few others that live.
    fn helpers(&mut self, except: u32) -> Vec<u32> {
        (0..HELPERS)
            .filter_map(|_| self.any(|entry| entry.is_alive))
            .filter(|helper| *helper != except)
            .collect()
    }

    fn send_relay(&self, to: u32, way: Way, of: u32, incarnation: u16, out: &mut Outputs) {
        if let Some(entry) = self.table.get(of) {
            let (of, tag) = (short(entry.peer), entry.life.tag());
            self.send(to, vec![Part::Relay(Relay { way, of, tag, incarnation })], out);
        }
    }

    /// Whether a look-up waits for the member's own answer: what others say of it comes too late.
    pub(super) fn is_asked(&self, slot: u32) -> bool {
        self.looks.get(&slot).is_some_and(|look| look.asked > 0)
    }

    /// A member was heard.
    pub(super) fn heard_of(&mut self, slot: u32) {
        if let Some(look) = self.looks.get_mut(&slot) {
            look.is_heard = true;
        }
    }

    /// Somebody asks whether this member lives.
    pub(super) fn hear_doubt(&mut self, now: Instant, sender: u32, incarnation: u16, out: &mut Outputs) {
        self.refute(now, sender, incarnation, out);
        self.send(sender, vec![Part::Alive(self.incarnation)], out);
    }

    /// Tells others that it lives, unless whoever doubts it does so all the time.
    fn refute(&mut self, now: Instant, sender: u32, incarnation: u16, out: &mut Outputs) {
        let Some(by) = self.table.get(sender).map(|entry| short(entry.peer)) else { return };
        if self.may(now, by, super::hearing::limit::DOUBT, DOUBT_REST) {
            self.swim.doubted(incarnation);
            self.absorb(now, out);
        }
    }

    pub(super) fn hear_alive(&mut self, sender: u32, incarnation: u16) {
        if let Some(entry) = self.table.get(sender) {
            self.swim.alive(Id { slot: sender, life: entry.life }, incarnation);
        }
    }

    /// Questions and answers that go through others.
    pub(super) fn hear_relay(&mut self, now: Instant, sender: u32, relay: Relay, out: &mut Outputs) {
        let Relay { way, of, tag, incarnation } = relay;
        let Some(slot) = self.table.find(of) else { return };
        if self.table.get(slot).is_none_or(|entry| entry.life.tag() != tag || !entry.is_alive) {
            return;
        }
        match way {
            Way::Ask if slot == ME => self.hear_doubt(now, sender, incarnation, out),
            Way::Ask => self.send_relay(slot, Way::AskFor, sender, incarnation, out),
            Way::AskFor => {
                self.refute(now, sender, incarnation, out);
                self.send_relay(sender, Way::Answer, slot, self.incarnation, out);
                self.send(slot, vec![Part::Alive(self.incarnation)], out);
            }
            Way::Answer if slot == ME => self.hear_alive(sender, incarnation),
            Way::Answer => self.send_relay(slot, Way::AnswerOf, sender, incarnation, out),
            Way::AnswerOf => {
                let Some(look) = self.looks.get_mut(&slot) else { return };
                if look.helpers.contains(&sender) {
                    look.is_heard = true;
                    self.hear_alive(slot, incarnation);
                    self.settle(now, slot, out);
                }
            }
        }
    }

    /// There is a reason to doubt that this one lives.
    pub(super) fn doubt_peer(&mut self, now: Instant, peer: PeerId, out: &mut Outputs) {
        if let Some(slot) = self.table.slot(peer) {
            self.look_into(now, slot, Why::Silent);
            self.absorb(now, out);
        }
    }

    /// Looks into everybody who is suspected and is not looked into: whatever was lost, no suspicion is left over.
    pub(super) fn look_after(&mut self, now: Instant) {
        for slot in self.swim.suspects() {
            if !self.looks.contains_key(&slot) {
                self.look_into(now, slot, Why::Suspected);
            }
        }
    }

    /// This member is held for dead by that one, in that life.
    pub(super) fn hear_buried(&mut self, now: Instant, by: PeerId, life: super::Life, out: &mut Outputs) {
        let me: Short = short(self.me);
        if life != self.life() || self.left || !self.standings.is_heard_on(now, by, me) {
            return;
        }
        if self.standings.erred(now, by, me) {
            out.events.push(Event::Distrusted(by));
        }
        self.revive(now, out);
    }
}
