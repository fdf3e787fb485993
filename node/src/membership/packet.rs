//! What members send each other. A packet is a few parts; whatever bytes arrive, they are a packet or they are not.
//!
//! Members are named by the first eight bytes of their keys: a packet about somebody unknown is of no use anyhow.

use super::bytes::{Reader, Writer};
use super::coordinate::Coordinate;
use super::item::{Item, Life, TOPICS};
use super::swim::{Kind, Status};
use crate::ids::PeerId;

/// Longest packet that is read, bytes.
pub const PACKET_MAX: usize = 16 << 10;

const FORMAT: u8 = 1;

/// The first eight bytes of a key.
pub(crate) type Short = u64;

pub(crate) fn short(peer: PeerId) -> Short {
    let [a, b, c, d, e, f, g, h, ..] = peer.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A member's status as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) of: Short,
    /// Of its life.
    pub(super) tag: u16,
    pub(super) incarnation: u16,
    pub(super) status: Status,
}

/// A message of the failure detector as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    /// The slot of a third member stands for its place here: it is `third`.
    pub(super) kind: Kind,
    pub(super) third: Option<Short>,
    pub(super) incarnation: u16,
    pub(super) claims: Vec<Claim>,
}

/// Versions of what one member says of itself, as somebody knows them: the life and a sequence for each topic, zero for
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Versions {
    pub(super) of: Short,
    pub(super) life: Life,
    pub(super) sequences: [u32; TOPICS],
}

/// That there is an item, for a twentieth of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) of: Short,
    pub(super) tag: u16,
    pub(super) topic: u8,
    pub(super) sequence: u32,
}

impl Notice {
    /// Bytes it takes, at most.
    pub(super) const BYTES: usize = 8 + 2 + 1 + 5;

    fn write(&self, writer: &mut Writer) {
        writer.long(self.of);
        writer.short(self.tag);
        writer.byte(self.topic);
        writer.number(u64::from(self.sequence));
    }

    fn from_reader(reader: &mut Reader<'_>) -> Option<Self> {
        let (of, tag) = (reader.long()?, reader.short()?);
        let topic = reader.byte().filter(|topic| usize::from(*topic) < TOPICS)?;
        Some(Self { of, tag, topic, sequence: reader.number_u32()? })
    }
}

/// A part of a packet.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// The digest of everything the sender knows.
    Root(u32),
    /// Where the sender is.
    Coordinate(Coordinate),
    /// The failure detector's.
    Probe(Probe),
    /// Something that somebody says of itself.
    Item(Item),
    /// The digest in parts: two to this power of them.
    Buckets(Vec<u32>),
    /// Everything the sender knows in these buckets, of so many.
    Entries(u32, Vec<u16>, Vec<Versions>),
    /// Send what is newer than this.
    Want(Vec<Versions>),
    /// The sender holds these for dead.
    Graves(Vec<(Short, Life)>),
    /// The sender has these: whose, of which life, what, which.
    Have(Vec<Notice>),
    /// You are dead, as the sender knows.
    Buried(Life),
    /// Are you alive? You did not answer in this incarnation.
    Doubt(u16),
    /// I am.
    Alive(u16),
    /// The sender has these for alive.
    Lives(Vec<(Short, Life)>),
    /// A question whether a member lives, or the answer, on its way through a third.
    Relay(Relay),
}

/// Where a relayed question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Does that one live?
    Ask,
    /// Do you live? That one asks.
    AskFor,
    /// I do; tell that one.
    Answer,
    /// That one lives.
    AnswerOf,
}

impl Way {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Ask, Self::AskFor, Self::Answer, Self::AnswerOf].get(usize::from(number)).copied()
    }
}

/// See [`Part::Relay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relay {
    pub(super) way: Way,
    /// The third: whom it is about, or whom it is for.
    pub(super) of: Short,
    /// Of its life.
    pub(super) tag: u16,
    /// Of the one who may be dead.
    pub(super) incarnation: u16,
}

/// What a member sends.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Packet {
    /// Which life of the sender this is.
    pub(super) from: u16,
    /// Which life of the receiver the sender knows.
    pub(super) to: u16,
    pub(super) parts: Vec<Part>,
}

impl Packet {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.byte(FORMAT);
        writer.short(self.from);
        writer.short(self.to);
        for part in &self.parts {
            part.write(&mut writer);
        }
        writer.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PACKET_MAX {
            return None;
        }
        let mut reader = Reader(bytes);
        if reader.byte()? != FORMAT {
            return None;
        }
        let (from, to) = (reader.short()?, reader.short()?);
        let mut parts = Vec::new();
        while !reader.is_empty() {
            parts.push(Part::from_reader(&mut reader)?);
        }
        Some(Self { from, to, parts })
    }
}

/// A list that cannot be longer than the bytes that are left.
fn list<T>(reader: &mut Reader<'_>, mut one: impl FnMut(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = reader.number_u16()?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(one(reader)?);
    }
    Some(all)
}

impl Versions {
    fn write(&self, writer: &mut Writer) {
        writer.long(self.of);
        writer.number(self.life.0);
        for sequence in self.sequences {
            writer.number(u64::from(sequence));
        }
    }

    fn from_reader(reader: &mut Reader<'_>) -> Option<Self> {
        let (of, life) = (reader.long()?, Life(reader.number()?));
        let mut sequences = [0; TOPICS];
        for sequence in &mut sequences {
            *sequence = reader.number_u32()?;
        }
        Some(Self { of, life, sequences })
    }
}

impl Part {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Part::Root(root) => {
                writer.byte(1);
                writer.word(*root);
            }
            Part::Coordinate(coordinate) => {
                writer.byte(2);
                writer.0.extend_from_slice(&coordinate.to_bytes());
            }
            Part::Probe(probe) => {
                writer.byte(3);
                probe.write(writer);
            }
            Part::Item(item) => {
                writer.byte(4);
                item.write(writer);
            }
            Part::Buckets(sums) => {
                writer.byte(5);
                writer.number(sums.len() as u64);
                for sum in sums {
                    writer.word(*sum);
                }
            }
            Part::Entries(of, buckets, entries) => {
                writer.byte(6);
                writer.number(u64::from(*of));
                writer.number(buckets.len() as u64);
                for bucket in buckets {
                    writer.number(u64::from(*bucket));
                }
                write_versions(entries, writer);
            }
            Part::Want(versions) => {
                writer.byte(7);
                write_versions(versions, writer);
            }
            Part::Graves(graves) => {
                writer.byte(8);
                write_lives(graves, writer);
            }
            Part::Buried(life) => {
                writer.byte(9);
                writer.number(life.0);
            }
            Part::Doubt(incarnation) => {
                writer.byte(10);
                writer.number(u64::from(*incarnation));
            }
            Part::Alive(incarnation) => {
                writer.byte(11);
                writer.number(u64::from(*incarnation));
            }
            Part::Have(notices) => {
                writer.byte(12);
                writer.number(notices.len() as u64);
                notices.iter().for_each(|notice| notice.write(writer));
            }
            Part::Lives(lives) => {
                writer.byte(13);
                write_lives(lives, writer);
            }
            Part::Relay(relay) => {
                writer.byte(14);
                writer.byte(relay.way as u8);
                writer.long(relay.of);
                writer.short(relay.tag);
                writer.number(u64::from(relay.incarnation));
            }
        }
    }

    fn from_reader(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            1 => Part::Root(reader.word()?),
            2 => Part::Coordinate(Coordinate::from_bytes(reader.array()?)),
            3 => Part::Probe(Probe::from_reader(reader)?),
            4 => Part::Item(Item::from_reader(reader)?),
            5 => Part::Buckets(list(reader, |r| r.word())?),
            6 => {
                let of = reader.number_u32()?;
                let buckets = list(reader, |r| r.number_u16())?;
                Part::Entries(of, buckets, list(reader, Versions::from_reader)?)
            }
            7 => Part::Want(list(reader, Versions::from_reader)?),
            8 => Part::Graves(list(reader, life_of)?),
            9 => Part::Buried(Life(reader.number()?)),
            10 => Part::Doubt(reader.number_u16()?),
            11 => Part::Alive(reader.number_u16()?),
            12 => Part::Have(list(reader, Notice::from_reader)?),
            13 => Part::Lives(list(reader, life_of)?),
            14 => {
                let (way, of) = (Way::from_number(reader.byte()?)?, reader.long()?);
                Part::Relay(Relay { way, of, tag: reader.short()?, incarnation: reader.number_u16()? })
            }
            _ => return None,
        })
    }
}

fn write_lives(lives: &[(Short, Life)], writer: &mut Writer) {
    writer.number(lives.len() as u64);
    for (of, life) in lives {
        writer.long(*of);
        writer.number(life.0);
    }
}

fn life_of(reader: &mut Reader<'_>) -> Option<(Short, Life)> {
    Some((reader.long()?, Life(reader.number()?)))
}

fn write_versions(all: &[Versions], writer: &mut Writer) {
    writer.number(all.len() as u64);
    for versions in all {
        versions.write(writer);
    }
}

impl Probe {
    fn write(&self, writer: &mut Writer) {
        let (number, probe, _) = self.kind.parts();
        writer.byte(number);
        writer.byte(probe);
        writer.number(u64::from(self.incarnation));
        if let Some(third) = self.third {
            writer.long(third);
        }
        writer.number(self.claims.len() as u64);
        for claim in &self.claims {
            writer.long(claim.of);
            writer.short(claim.tag);
            writer.number(u64::from(claim.incarnation));
            writer.byte(claim.status.number());
        }
    }

    fn from_reader(reader: &mut Reader<'_>) -> Option<Self> {
        let (number, probe) = (reader.byte()?, reader.byte()?);
        let incarnation = reader.number_u16()?;
        let third = if Kind::has_third(number)? { Some(reader.long()?) } else { None };
        let claims = list(reader, |r| {
            let (of, tag, incarnation) = (r.long()?, r.short()?, r.number_u16()?);
            Some(Claim { of, tag, incarnation, status: Status::from_number(r.byte()?)? })
        })?;
        Some(Self { kind: Kind::from_parts(number, probe, 0)?, third, incarnation, claims })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::super::item::{Topic, Version};
    use super::*;

    fn parts() -> Vec<Part> {
        let item = Item {
            owner: PeerId([7; 32]),
            topic: Topic::State,
            version: Version { life: Life::new(9), sequence: 3 },
            body: vec![1, 2, 3].into(),
            signature: [5; 64],
        };
        let claim = Claim { of: 4, tag: 2, incarnation: 300, status: Status::Down };
        let versions = Versions { of: 1, life: Life::new(77), sequences: [1, 0, 900] };
        vec![
            Part::Root(7),
            Part::Coordinate(Coordinate::default()),
            Part::Probe(Probe {
                kind: Kind::PingFor(3, 0),
                third: Some(8),
                incarnation: 1,
                claims: vec![claim],
            }),
            Part::Probe(Probe { kind: Kind::Gossip, third: None, incarnation: 0, claims: Vec::new() }),
            Part::Item(item),
            Part::Buckets(vec![1, 2, 3, 4]),
            Part::Entries(4, vec![0, 3], vec![versions]),
            Part::Want(vec![versions, versions]),
            Part::Graves(vec![(3, Life::new(5))]),
            Part::Buried(Life::new(5)),
            Part::Doubt(2),
            Part::Alive(3),
            Part::Have(vec![Notice { of: 3, tag: 4, topic: 2, sequence: 70_000 }]),
            Part::Lives(vec![(4, Life::new(6))]),
            Part::Relay(Relay { way: Way::AskFor, of: 5, tag: 9, incarnation: 400 }),
        ]
    }

    #[test]
    fn a_packet_comes_back() {
        let packet = Packet { from: 1, to: 2, parts: parts() };
        assert_eq!(Packet::decode(&packet.encode()), Some(packet));
    }

    #[test]
    fn a_packet_cut_short_is_none_or_fewer_parts() {
        let bytes = Packet { from: 1, to: 2, parts: parts() }.encode();
        for end in 0..bytes.len() {
            if let Some(packet) = Packet::decode(&bytes[..end]) {
                assert!(packet.parts.len() < parts().len());
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Packet::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            let _ = Packet::decode(&bytes);
        }

        #[test]
        fn a_spoilt_packet_is_a_packet_or_none(at in 0usize..400, with in any::<u8>()) {
            let mut bytes = Packet { from: 1, to: 2, parts: parts() }.encode();
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = Packet::decode(&bytes);
        }
    }
}
