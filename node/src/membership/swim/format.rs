//! foca's packets as messages, and back.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, State};

use super::Id;
use crate::membership::item::Life;

/// What a message asks or says. The numbers are those of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::membership) enum Kind {
    /// Are you there?
    Ping(u8),
    /// Yes.
    Ack(u8),
    /// Ask the member in this slot for me.
    PingFor(u8, u32),
    /// Are you there? That one wants to know.
    PingOf(u8, u32),
    /// Yes; tell that one.
    AckFor(u8, u32),
    /// That one is there.
    AckOf(u8, u32),
    /// Nothing but updates.
    Gossip,
}

impl Kind {
    const GOSSIP: u8 = 6;

    /// Its number, the number of the probe, and the third member.
    pub(in crate::membership) fn parts(self) -> (u8, u8, Option<u32>) {
        match self {
            Kind::Ping(n) => (0, n, None),
            Kind::Ack(n) => (1, n, None),
            Kind::PingFor(n, slot) => (2, n, Some(slot)),
            Kind::PingOf(n, slot) => (3, n, Some(slot)),
            Kind::AckFor(n, slot) => (4, n, Some(slot)),
            Kind::AckOf(n, slot) => (5, n, Some(slot)),
            Kind::Gossip => (Self::GOSSIP, 0, None),
        }
    }

    /// Whether a kind of that number names a third member; `None` for no kind.
    pub(in crate::membership) fn has_third(number: u8) -> Option<bool> {
        (number <= Self::GOSSIP).then_some((2..=5).contains(&number))
    }

    pub(in crate::membership) fn from_parts(number: u8, probe: u8, third: u32) -> Option<Self> {
        Some(match number {
            0 => Kind::Ping(probe),
            1 => Kind::Ack(probe),
            2 => Kind::PingFor(probe, third),
            3 => Kind::PingOf(probe, third),
            4 => Kind::AckFor(probe, third),
            5 => Kind::AckOf(probe, third),
            Self::GOSSIP => Kind::Gossip,
            _ => return None,
        })
    }
}

/// What is said of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::membership) enum Status {
    Alive,
    Suspect,
    Down,
}

impl Status {
    pub(in crate::membership) fn number(self) -> u8 {
        self as u8
    }

    pub(in crate::membership) fn from_number(number: u8) -> Option<Self> {
        [Self::Alive, Self::Suspect, Self::Down].get(usize::from(number)).copied()
    }
}

/// One member's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::membership) struct Update {
    pub(in crate::membership) id: Id,
    pub(in crate::membership) incarnation: u16,
    pub(in crate::membership) status: Status,
}

/// A packet of foca's, without its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::membership) struct Message {
    pub(in crate::membership) kind: Kind,
    /// The sender's.
    pub(in crate::membership) incarnation: u16,
    /// The life of a third member, where the kind has one.
    pub(in crate::membership) third_life: Life,
    pub(in crate::membership) updates: Vec<Update>,
}

impl Message {
    /// What foca has written.
    pub(super) fn read_own(mut data: &[u8]) -> Option<Self> {
        let header = Format.decode_header(&mut data).ok()?;
        let (kind, third_life) = kind_of(&header.message)?;
        let count = if data.len() >= 2 { data.get_u16() } else { 0 };
        let updates: Option<Vec<Update>> = (0..count)
            .map(|_| {
                let member = Format.decode_member(&mut data).ok()?;
                let status = match member.state() {
                    State::Alive => Status::Alive,
                    State::Suspect => Status::Suspect,
                    State::Down => Status::Down,
                };
                Some(Update { id: *member.id(), incarnation: member.incarnation(), status })
            })
            .collect();
        Some(Self { kind, incarnation: header.src_incarnation, third_life, updates: updates? })
    }

    /// What foca reads.
    pub(super) fn write_own(&self, from: Id, to: Id) -> Vec<u8> {
        let message = self.foca_message();
        let header = Header { src: from, src_incarnation: self.incarnation, dst: to, message };
        let mut data = Vec::with_capacity(64 + self.updates.len() * MEMBER_BYTES);
        let written = Format.encode_header(&header, &mut data);
        data.put_u16(self.updates.len() as u16);
        for update in &self.updates {
            let state = match update.status {
                Status::Alive => State::Alive,
                Status::Suspect => State::Suspect,
                Status::Down => State::Down,
            };
            let _ = Format.encode_member(&Member::new(update.id, update.incarnation, state), &mut data);
        }
        debug_assert!(written.is_ok());
        data
    }

    fn foca_message(&self) -> foca::Message<Id> {
        let third = |slot| Id { slot, life: self.third_life };
        match self.kind {
            Kind::Ping(n) => foca::Message::Ping(n),
            Kind::Ack(n) => foca::Message::Ack(n),
            Kind::PingFor(n, slot) => foca::Message::PingReq { target: third(slot), probe_number: n },
            Kind::PingOf(n, slot) => foca::Message::IndirectPing { origin: third(slot), probe_number: n },
            Kind::AckFor(n, slot) => foca::Message::IndirectAck { target: third(slot), probe_number: n },
            Kind::AckOf(n, slot) => foca::Message::ForwardedAck { origin: third(slot), probe_number: n },
            Kind::Gossip => foca::Message::Gossip,
        }
    }
}

fn kind_of(message: &foca::Message<Id>) -> Option<(Kind, Life)> {
    let none = Life::default();
    Some(match message {
        foca::Message::Ping(n) => (Kind::Ping(*n), none),
        foca::Message::Ack(n) => (Kind::Ack(*n), none),
        foca::Message::PingReq { target, probe_number } => {
            (Kind::PingFor(*probe_number, target.slot), target.life)
        }
        foca::Message::IndirectPing { origin, probe_number } => {
            (Kind::PingOf(*probe_number, origin.slot), origin.life)
        }
        foca::Message::IndirectAck { target, probe_number } => {
            (Kind::AckFor(*probe_number, target.slot), target.life)
        }
        foca::Message::ForwardedAck { origin, probe_number } => {
            (Kind::AckOf(*probe_number, origin.slot), origin.life)
        }
        foca::Message::Gossip => (Kind::Gossip, none),
        // Joining, and telling the dead, is done by other means.
        foca::Message::Announce
        | foca::Message::Feed
        | foca::Message::Broadcast
        | foca::Message::TurnUndead => {
            return None;
        }
    })
}

/// There is no room, or too few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes missing")]
pub(super) struct Short;

/// Fixed lengths, for the way between foca and this module only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format;

const ID_BYTES: usize = 12;
const HEADER_BYTES: usize = 2 * ID_BYTES + 2 + 2 + ID_BYTES;
const MEMBER_BYTES: usize = ID_BYTES + 3;

fn put_id(buf: &mut impl BufMut, id: Id) {
    buf.put_u32(id.slot);
    buf.put_u64(id.life.0);
}

fn get_id(buf: &mut impl Buf) -> Id {
    Id { slot: buf.get_u32(), life: Life(buf.get_u64()) }
}

impl Codec<Id> for Format {
    type Error = Short;

    fn encode_header(&mut self, header: &Header<Id>, mut buf: impl BufMut) -> Result<(), Short> {
        if buf.remaining_mut() < HEADER_BYTES {
            return Err(Short);
        }
        let (kind, third_life) = kind_of(&header.message).ok_or(Short)?;
        let (number, probe, third) = kind.parts();
        put_id(&mut buf, header.src);
        buf.put_u16(header.src_incarnation);
        put_id(&mut buf, header.dst);
        buf.put_u8(number);
        buf.put_u8(probe);
        put_id(&mut buf, Id { slot: third.unwrap_or_default(), life: third_life });
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Id>, Short> {
        if buf.remaining() < HEADER_BYTES {
            return Err(Short);
        }
        let (src, src_incarnation, dst) = (get_id(&mut buf), buf.get_u16(), get_id(&mut buf));
        let (number, probe, third) = (buf.get_u8(), buf.get_u8(), get_id(&mut buf));
        let kind = Kind::from_parts(number, probe, third.slot).ok_or(Short)?;
        let message =
            Message { kind, incarnation: 0, third_life: third.life, updates: Vec::new() }.foca_message();
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Id>, mut buf: impl BufMut) -> Result<(), Short> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(Short);
        }
        put_id(&mut buf, *member.id());
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Id>, Short> {
        if buf.remaining() < MEMBER_BYTES {
            return Err(Short);
        }
        let (id, incarnation) = (get_id(&mut buf), buf.get_u16());
        let state = match buf.get_u8() {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Short),
        };
        Ok(Member::new(id, incarnation, state))
    }
}
