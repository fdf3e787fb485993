//! What a node tells clients of its mesh: whom to ask, and for what, as `GET /table` shows it.

use axum::http::HeaderValue;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::Door;
use crate::ids::PeerId;
use crate::routing::table::{ENTRIES_MAX, MODELS_MAX, Table};

/// A table as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::http) struct Shown {
    entries: Vec<ShownEntry>,
    /// Names of what is served.
    pub(super) models: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ShownEntry {
    /// Its public key, 64 hexadecimal digits.
    peer: String,
    addresses: Vec<String>,
}

/// Its version, as an entity tag.
pub(in crate::http) fn tag(table: &Table) -> HeaderValue {
    HeaderValue::try_from(format!("\"{:016x}\"", table.version())).expect("digits are a header's value")
}

impl Shown {
    pub(in crate::http) fn of(table: &Table) -> Self {
        let entry = |entry: &crate::routing::table::Entry| ShownEntry {
            peer: HEXLOWER.encode(&entry.peer.0),
            addresses: entry.addresses.clone(),
        };
        Self { entries: table.entries.iter().map(entry).collect(), models: table.models.clone() }
    }

    /// The table that a node sent, as much of it as there may be.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut shown: Self = serde_json::from_slice(bytes).ok()?;
        shown.entries.truncate(ENTRIES_MAX);
        shown.models.truncate(MODELS_MAX);
        Some(shown)
    }

    pub(super) fn doors(&self) -> Vec<Door> {
        let door = |entry: &ShownEntry| {
            let addresses = entry.addresses.iter().take(crate::membership::ADDRESSES_MAX).cloned().collect();
            Some(Door { peer: Some(named(&entry.peer)?), addresses })
        };
        self.entries.iter().filter_map(door).collect()
    }
}

fn named(hex: &str) -> Option<PeerId> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok().map(PeerId)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

    use super::*;
    use crate::membership::{Profile, State};

    #[test]
    fn a_table_arrives_as_it_was_sent() {
        let profile = Profile { addresses: vec!["/ip4/10.0.0.1/tcp/9338".into()], ..Profile::default() };
        let state = State { served: vec!["m".into()], ..State::default() };
        let peer = PeerId(std::array::from_fn(|i| 255 - i as u8));
        let table = Table::of(peer, [(peer, &profile, &state)]);
        let sent = serde_json::to_vec(&Shown::of(&table)).unwrap();
        let came = Shown::parse(&sent).unwrap();
        let door = Door { peer: Some(peer), addresses: profile.addresses.clone() };
        assert_eq!((came.doors(), came.models), (vec![door], state.served));
        assert!(Shown::parse(b"{}").is_none() && named("0g").is_none() && named("").is_none());
    }
}
