//! Packets that no honest member sends: for tests, and for simulated members that lie. Whatever is in them must change
//! nobody's view.

use super::item::{Content, Item, Life, Trust, Version};
use super::packet::{Claim, Packet, Part, Probe, short};
use super::swim::{Kind, Status};
use crate::ids::PeerId;

/// A false word on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slander {
    /// It is suspected, in that incarnation.
    Suspected(u16),
    /// It is dead.
    Dead,
    /// It lives, in that incarnation.
    Lives(u16),
    /// The sender remembers its end.
    Grave,
    /// To the member itself: you are dead.
    Buried,
}

/// A packet of nothing but items, as a member sends it.
pub fn carrying(from: Life, items: Vec<Item>) -> Vec<u8> {
    Packet { from: from.tag(), to: 0, parts: items.into_iter().map(Part::Item).collect() }.encode()
}

/// A packet that says `what` of `victim` in its life, from one member to another, each in its present life.
pub fn slander(from: Life, to: Life, victim: (PeerId, Life), what: Slander) -> Vec<u8> {
    let (of, life) = (short(victim.0), victim.1);
    let claim = |status, incarnation| {
        let claims = vec![Claim { of, tag: life.tag(), incarnation, status }];
        Part::Probe(Probe { kind: Kind::Gossip, third: None, incarnation: 0, claims })
    };
    let part = match what {
        Slander::Suspected(incarnation) => claim(Status::Suspect, incarnation),
        Slander::Dead => claim(Status::Down, 0),
        Slander::Lives(incarnation) => claim(Status::Alive, incarnation),
        Slander::Grave => Part::Graves(vec![(of, life)]),
        Slander::Buried => Part::Buried(life),
    };
    Packet { from: from.tag(), to: to.tag(), parts: vec![part] }.encode()
}

/// Something that `owner` says of itself and signs, however absurd.
pub fn signed(trust: &impl Trust, owner: PeerId, version: Version, content: &Content) -> Item {
    let (topic, body) = (content.topic(), content.body().unwrap_or_default());
    let mut item = Item { owner, topic, version, body, signature: [0; 64] };
    item.signature = trust.sign(&item.message());
    item
}
