//! What a passive client holds: whom it may ask, and for what.
//!
//! A client joins nothing and no member remembers it. Each answer names the version of the entry node's table, in eight
//! bytes; a client whose version is another one asks for the table with its next request, and gets it only if it differs
//! ([`Table::unless`]). So a table travels on change, to those who use it, and servers keep nothing for clients: a list of
//! subscribers would have to be bounded, mended and told of on each change whether anybody still listens or not.

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::membership::{Profile, State, mix};

/// Entry nodes in a table: enough that not all of them end before a client asks again.
pub const ENTRIES_MAX: usize = 32;
/// Models in a table.
pub const MODELS_MAX: usize = 256;

/// One node to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who.
    pub peer: PeerId,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// Whom to ask, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    version: u64,
    /// Entry nodes, the one that gave the table first.
    pub entries: Vec<Entry>,
    /// Models that somebody serves, by name.
    pub models: Vec<String>,
}

impl Table {
    /// The table that `me` gives away: itself and others, another choice at each node so that clients spread, and the
    /// same one while these are there.
    pub fn of<'a>(me: PeerId, members: impl IntoIterator<Item = (PeerId, &'a Profile, &'a State)>) -> Self {
        let mut models = std::collections::BTreeSet::new();
        let mut ranked = Vec::new();
        for (peer, profile, state) in members {
            models.extend(state.served.iter().cloned());
            ranked.push((peer != me, mix(word(me) ^ mix(word(peer))), peer, profile));
        }
        ranked.sort_by_key(|(is_other, chance, peer, _)| (*is_other, *chance, *peer));
        ranked.truncate(ENTRIES_MAX);
        let entries = ranked.into_iter();
        let entries = entries.map(|(_, _, peer, p)| Entry { peer, addresses: p.addresses.clone() }).collect();
        let mut table = Self { version: 0, entries, models: models.into_iter().take(MODELS_MAX).collect() };
        table.version = table.digest();
        table
    }

    /// The same for the same content, another for another.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The table, unless the client has this version already.
    pub fn unless(&self, version: Option<u64>) -> Option<&Self> {
        (version != Some(self.version)).then_some(self)
    }

    /// Bytes that it takes on the wire.
    pub fn wire_len(&self) -> usize {
        postcard::to_allocvec(self).map_or(0, |bytes| bytes.len())
    }

    fn digest(&self) -> u64 {
        let bytes = postcard::to_allocvec(&(&self.entries, &self.models)).unwrap_or_default();
        bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(hash.rotate_left(7) ^ u64::from_be_bytes(word))
        })
    }
}

fn word(peer: PeerId) -> u64 {
    peer.0.chunks_exact(8).fold(0, |word, chunk| {
        mix(word ^ chunk.iter().fold(0u64, |bytes, byte| (bytes << 8) | u64::from(*byte)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(served: &str, count: u32) -> Vec<(PeerId, Profile, State)> {
        let member = |i| {
            let state = State { served: vec![served.to_owned()], ..State::default() };
            (PeerId::from_index(i), Profile::default(), state)
        };
        (0..count).map(member).collect()
    }

    fn table(me: u32, members: &[(PeerId, Profile, State)]) -> Table {
        Table::of(PeerId::from_index(me), members.iter().map(|(peer, p, s)| (*peer, p, s)))
    }

    #[test]
    fn a_table_is_bounded_and_travels_on_change_only() {
        let before = table(3, &members("a", 500));
        assert_eq!((before.entries.len(), before.entries[0].peer), (ENTRIES_MAX, PeerId::from_index(3)));
        assert!(before.wire_len() < 4_096, "{}", before.wire_len());
        let busy: Vec<_> = members("a", 500)
            .into_iter()
            .map(|(peer, profile, mut state)| {
                state.load.sessions = peer.index();
                (peer, profile, state)
            })
            .collect();
        assert_eq!(table(3, &busy).unless(Some(before.version())), None, "load is no news for clients");
        let after = table(3, &members("b", 500));
        assert_eq!(after.unless(Some(before.version())).map(Table::version), Some(after.version()));
        assert!(after.unless(None).is_some());
    }

    #[test]
    fn who_is_not_in_a_table_does_not_change_it() {
        let before = table(3, &members("a", 500));
        let named = |peer: &PeerId| before.entries.iter().any(|entry| entry.peer == *peer);
        let rest: Vec<_> =
            members("a", 500).into_iter().filter(|(peer, ..)| named(peer) || peer.index() % 2 == 0).collect();
        assert_eq!(table(3, &rest), before);
        assert_ne!(table(4, &rest).entries, before.entries, "clients of another node spread elsewhere");
    }
}
