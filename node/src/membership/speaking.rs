//! Packets out.

use std::time::Duration;

use rand::RngExt as _;

use super::doubting::Why;
use super::item::{ITEM_OVERHEAD, Topic, Trust};
use super::packet::{Claim, Notice, Packet, Part, Probe, short};
use super::swim::{Id, Kind, Message, News, Timer};
use super::table::ME;
use super::{Membership, Outputs, Ping, Task};
use crate::clock::Instant;
use crate::ids::PeerId;

/// The failure detector's own words never need more; what is left of a packet is for items.
const ROOM_LEAST: usize = 64;

impl<T: Trust> Membership<T> {
    /// Does what the failure detector wants.
    pub(super) fn absorb(&mut self, now: Instant, out: &mut Outputs) {
        loop {
            let effects = self.swim.take_effects();
            if effects.news.is_empty() && effects.sends.is_empty() && effects.timers.is_empty() {
                return;
            }
            if let Some((_, message)) = effects.sends.last() {
                self.incarnation = message.incarnation;
            }
            self.pending.extend(effects.sends);
            for (timer, after) in effects.timers {
                self.schedule(now.after(after), Task::Swim(timer));
            }
            for news in effects.news {
                self.news(now, news, out);
            }
        }
    }

    fn news(&mut self, now: Instant, news: News, out: &mut Outputs) {
        match news {
            News::Up(id) => self.found(id, out),
            News::Down(id) => self.lost(now, id, out),
            News::Renamed(..) => {}
            News::Buried => self.revive(now, out),
            News::Suspected(id) => self.look_into(now, id.slot, Why::Silent),
        }
    }

    pub(super) fn swim_timer(&mut self, now: Instant, timer: Timer, out: &mut Outputs) {
        if self.left {
            return;
        }
        let forgets = timer.forgets();
        self.swim.timer(timer);
        self.absorb(now, out);
        if let Some(id) = forgets {
            self.table.exorcise(id.slot, id.life);
        }
        let entry = forgets.and_then(|id| self.table.get(id.slot).filter(|entry| entry.life == id.life));
        if let (Some(id), Some(peer)) =
            (forgets, entry.filter(|entry| !entry.is_alive).map(|entry| entry.peer))
        {
            self.forget(id.slot, peer);
        }
    }

    /// News are sent to a few members, and again as long as there are any.
    pub(super) fn gossip(&mut self, now: Instant) {
        self.has_gossip = false;
        if self.has_news() && !self.left {
            self.swim.gossip();
            self.schedule_gossip(now, self.config.gossip_period);
        }
    }

    fn has_news(&self) -> bool {
        !self.rumours.is_empty() || self.swim.is_gossiping()
    }

    fn schedule_gossip(&mut self, now: Instant, after: Duration) {
        if !self.has_gossip {
            self.has_gossip = true;
            self.schedule(now.after(after), Task::Gossip);
        }
    }

    /// Puts what waits into packets. News that came in go out soon, not all at the same time.
    pub(super) fn flush(&mut self, now: Instant, out: &mut Outputs) {
        for (id, message) in std::mem::take(&mut self.pending) {
            self.wrap(now, id, &message, out);
        }
        if self.has_news() && !self.left {
            let soon = self.config.gossip_period.mul_f64(0.25 * self.rng.random::<f64>());
            self.schedule_gossip(now, soon);
        }
    }

    fn wrap(&mut self, now: Instant, to: Id, message: &Message, out: &mut Outputs) {
        let Some(entry) = self.table.get(to.slot).filter(|entry| entry.life == to.life) else { return };
        let peer = entry.peer;
        let Some(probe) = self.probe(message) else { return };
        let mut parts = Vec::new();
        if let Kind::Ping(number) = message.kind {
            self.ping = Some(Ping { to, number, at: now });
            parts.push(Part::Root(self.table.digest().root()));
        }
        let used = 64 + probe.claims.len() * 14;
        parts.push(Part::Probe(probe));
        // After the answer that it goes with, which gives the round trip.
        if let Kind::Ack(_) = message.kind {
            parts.push(Part::Coordinate(self.point.written()));
        }
        let room = self.config.packet_bytes.saturating_sub(used).max(ROOM_LEAST);
        let table = &self.table;
        let length = |(slot, topic): (u32, Topic)| Some(table.get(slot)?.item(topic)?.item.wire_len());
        let mut notices = Vec::new();
        for ((slot, topic), is_whole) in self.rumours.take(room, message.kind == Kind::Gossip, length) {
            let Some(known) = self.table.get(slot).and_then(|entry| entry.item(topic)) else { continue };
            if is_whole {
                parts.push(Part::Item(known.item.clone()));
            } else {
                let version = known.item.version;
                let (of, tag) = (short(known.item.owner), version.life.tag());
                notices.push(Notice { of, tag, topic: topic as u8, sequence: version.sequence });
            }
        }
        if !notices.is_empty() {
            parts.push(Part::Have(notices));
        }
        self.send_to(peer, to.life.tag(), parts, out);
    }

    fn probe(&self, message: &Message) -> Option<Probe> {
        let third = match message.kind.parts().2 {
            Some(slot) => Some(short(self.table.get(slot)?.peer)),
            None => None,
        };
        let claim = |update: &super::swim::Update| {
            let peer = self.table.get(update.id.slot)?.peer;
            let (of, tag) = (short(peer), update.id.life.tag());
            Some(Claim { of, tag, incarnation: update.incarnation, status: update.status })
        };
        let claims = message.updates.iter().filter_map(claim).collect();
        Some(Probe { kind: message.kind, third, incarnation: message.incarnation, claims })
    }

    /// Sends to a member in its present life.
    pub(super) fn send(&self, slot: u32, parts: Vec<Part>, out: &mut Outputs) {
        if let Some(entry) = self.table.get(slot) {
            self.send_to(entry.peer, entry.life.tag(), parts, out);
        }
    }

    pub(super) fn send_to(&self, peer: PeerId, to: u16, parts: Vec<Part>, out: &mut Outputs) {
        if peer != self.me {
            let packet = Packet { from: self.life().tag(), to, parts };
            out.packets.push((peer, packet.encode()));
        }
    }

    /// Sends items in as many packets as they need, up to the bound; gives how many were sent.
    pub(super) fn send_items(
        &self,
        peer: PeerId,
        to: u16,
        subjects: impl IntoIterator<Item = (u32, Topic)>,
        out: &mut Outputs,
    ) -> usize {
        let (mut parts, mut in_packet, mut in_all, mut count) = (Vec::new(), 0, 0, 0);
        for (slot, topic) in subjects {
            let Some(known) = self.table.get(slot).and_then(|entry| entry.item(topic)) else { continue };
            let bytes = known.item.body.len() + ITEM_OVERHEAD;
            if in_all + bytes > self.config.sync_bytes {
                break;
            }
            if in_packet > 0 && in_packet + bytes > self.config.packet_bytes {
                self.send_to(peer, to, std::mem::take(&mut parts), out);
                in_packet = 0;
            }
            parts.push(Part::Item(known.item.clone()));
            (in_packet, in_all, count) = (in_packet + bytes, in_all + bytes, count + 1);
        }
        if !parts.is_empty() {
            self.send_to(peer, to, parts, out);
        }
        count
    }

    /// Sends everything this member says of itself.
    pub(super) fn introduce(&self, peer: PeerId, to: u16, out: &mut Outputs) {
        self.send_items(peer, to, Topic::ALL.map(|topic| (ME, topic)), out);
    }
}
