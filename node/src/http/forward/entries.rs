//! Which node is asked next.

use axum::http::HeaderValue;

use crate::clock::Instant;
use crate::ids::PeerId;

/// Nodes that are known at most: a table's, and those given at the start.
const ENTRIES_MAX: usize = 64;

/// Where a node can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Who it is, where that is known.
    pub peer: Option<PeerId>,
    /// Where it listens, as libp2p writes it.
    pub addresses: Vec<String>,
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.addresses.first(), self.peer) {
            (Some(address), _) => f.write_str(address),
            (None, Some(peer)) => write!(f, "{peer:?}"),
            (None, None) => f.write_str("a node without an address"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    door: Door,
    /// When it last did not answer.
    failed: Option<Instant>,
}

/// All that are known, the one that is asked now first.
#[derive(Debug)]
pub(super) struct Entries {
    entries: Vec<Entry>,
    /// Where somebody was at the start: never forgotten.
    given: Vec<Door>,
    models: Vec<String>,
    /// Of the table that the entries are from.
    version: Option<HeaderValue>,
    /// The version that the node has which answered last.
    theirs: Option<HeaderValue>,
    heard: Option<Instant>,
}

impl Entries {
    pub(super) fn new(given: Vec<Door>) -> Self {
        let entries = given.iter().cloned().map(|door| Entry { door, failed: None }).collect();
        Self { entries, given, models: Vec::new(), version: None, theirs: None, heard: None }
    }

    /// Those that answer first, the one that was asked last before them, then whoever failed longest ago.
    pub(super) fn order(&self) -> Vec<Door> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| entry.failed);
        entries.into_iter().map(|entry| entry.door.clone()).collect()
    }

    pub(super) fn failed(&mut self, door: &Door, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| is_same(&entry.door, door)) {
            entry.failed = Some(now);
        }
    }

    /// `peer` answered behind that door. One that is `willing` is asked first from now on.
    pub(super) fn answered(
        &mut self,
        door: &Door,
        peer: PeerId,
        now: Instant,
        version: Option<&HeaderValue>,
        willing: bool,
    ) {
        self.heard = Some(now);
        if let Some(place) = self.entries.iter().position(|entry| is_same(&entry.door, door)) {
            let mut entry = self.entries.remove(place);
            (entry.door.peer, entry.failed) = (Some(peer), None);
            self.entries.insert(if willing { 0 } else { place.min(self.entries.len()) }, entry);
        }
        if version.is_some() {
            self.theirs = version.cloned();
        }
    }

    /// A table: these are to be asked from now on. Where none of them answers those given at the start are, and those of
    /// earlier tables: an entry node that is cut off knows only others that are cut off with it.
    pub(super) fn take(&mut self, doors: Vec<Door>, models: Vec<String>, version: Option<HeaderValue>) {
        let before = std::mem::take(&mut self.entries);
        let first = before.first().map(|entry| entry.door.clone());
        let mut known: Vec<Door> = doors.into_iter().filter(|door| !door.addresses.is_empty()).collect();
        known.extend(first);
        known.extend(self.given.iter().cloned());
        known.extend(before.iter().map(|entry| entry.door.clone()));
        for door in known {
            if self.entries.len() < ENTRIES_MAX
                && !self.entries.iter().any(|entry| is_same(&entry.door, &door))
            {
                let failed = before.iter().find(|entry| is_same(&entry.door, &door)).and_then(|e| e.failed);
                self.entries.push(Entry { door, failed });
            }
        }
        (self.models, self.version) = (models, version.clone());
        self.theirs = version;
    }

    /// How many may be asked, and for which models.
    pub(super) fn known(&self) -> (usize, Vec<String>) {
        (self.entries.len(), self.models.clone())
    }

    pub(super) fn version(&self) -> Option<HeaderValue> {
        self.version.clone()
    }

    /// Whether the node that answered last has another table.
    pub(super) fn is_stale(&self) -> bool {
        self.theirs != self.version
    }

    /// When somebody answered last.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }
}

/// Whether both lead to one node, as far as is known.
fn is_same(one: &Door, other: &Door) -> bool {
    match (one.peer, other.peer) {
        (Some(one), Some(other)) => one == other,
        _ => one.addresses.iter().any(|address| other.addresses.contains(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(peer: u32, address: &str) -> Door {
        Door { peer: Some(PeerId::from_index(peer)), addresses: vec![address.into()] }
    }

    fn given(address: &str) -> Door {
        Door { peer: None, addresses: vec![address.into()] }
    }

    fn order(entries: &Entries) -> Vec<String> {
        entries.order().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_answers_is_asked_again_and_who_fails_comes_last() {
        let mut entries = Entries::new(vec![given("a"), given("b"), given("c")]);
        entries.failed(&given("a"), Instant(5));
        assert_eq!(order(&entries), ["b", "c", "a"]);
        entries.answered(&given("c"), PeerId::from_index(3), Instant(6), None, true);
        assert_eq!(order(&entries), ["c", "b", "a"]);
        entries.failed(&given("c"), Instant(7));
        entries.failed(&given("b"), Instant(8));
        assert_eq!(order(&entries), ["a", "c", "b"], "the longest ago first");
        entries.answered(&given("a"), PeerId::from_index(1), Instant(9), None, false);
        assert_eq!(order(&entries), ["a", "c", "b"], "it lives, if it would rather not answer");
    }

    #[test]
    fn a_table_comes_before_what_was_known() {
        let mut entries = Entries::new(vec![given("a"), given("b")]);
        entries.answered(&given("b"), PeerId::from_index(2), Instant(1), None, true);
        assert!(!entries.is_stale());
        let version = HeaderValue::from_static("\"7\"");
        entries.answered(&given("b"), PeerId::from_index(2), Instant(2), Some(&version), true);
        assert!(entries.is_stale(), "the node has one, and this client none");
        let told = vec![door(2, "b"), door(3, "c"), Door { peer: None, addresses: Vec::new() }];
        entries.take(told, vec!["m".into()], Some(version.clone()));
        assert_eq!(order(&entries), ["b", "c", "a"]);
        assert_eq!((entries.known(), entries.is_stale()), ((3, vec!["m".to_owned()]), false));
        entries.failed(&door(3, "c"), Instant(3));
        entries.take(vec![door(3, "c"), door(4, "d")], Vec::new(), Some(version));
        assert_eq!(order(&entries), ["d", "b", "a", "c"], "what failed is remembered");
        entries.take(vec![door(5, "e")], Vec::new(), None);
        assert_eq!(order(&entries), ["e", "a", "b", "d", "c"], "so are those of earlier tables");
    }
}
