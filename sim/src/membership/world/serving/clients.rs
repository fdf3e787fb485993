//! Passive clients: they hold a table, join nothing, and no member knows of them.

use node::PeerId;
use node::membership::{Profile, State};
use node::routing::table::Table;

use super::Due;
use crate::membership::serving::{Serving as Spec, ServingSabotage};
use crate::membership::world::{SECOND_NS, World};
use crate::seed::Draws;

/// A client that does not ask for anything looks this often whether its table is still right.
pub(super) const POLL_NS: u64 = 60 * SECOND_NS;
/// Bytes of a question for news and of the answer that there are none, headers included.
const NO_NEWS_BYTES: u64 = 160;

/// Entry nodes that a client remembers: those of its table, and of earlier ones as many as there is room for. An entry
/// node that is cut off names only others that are.
const REMEMBERED_MAX: usize = 64;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Client {
    version: Option<u64>,
    /// Whom it may ask; at first only who invited it.
    entries: Vec<u32>,
    at: usize,
    /// So many in turn have not answered.
    lost: usize,
}

pub(super) fn all(spec: &Spec, members: usize, draws: &mut Draws) -> Vec<Client> {
    let client = |_| {
        let entry = (draws.bits() % members.max(1) as u64) as u32;
        Client::invited(entry)
    };
    (0..spec.clients).map(client).collect()
}

impl Client {
    fn invited(entry: u32) -> Self {
        Self { version: None, entries: vec![entry], at: 0, lost: 0 }
    }

    pub(super) fn entry(&self) -> u32 {
        self.entries[self.at % self.entries.len()]
    }

    /// The one it used does not answer: the next one, or `None` where all have failed it in turn.
    fn moves_on(&mut self, failed: u32) -> Option<u32> {
        if self.entry() == failed {
            self.at = (self.at + 1) % self.entries.len();
            self.lost += 1;
        }
        (self.lost < self.entries.len()).then(|| self.entry())
    }

    /// Somebody it may ask who is not among these.
    pub(super) fn other_than(&self, asked: &[u32]) -> Option<u32> {
        let from = self.entries.iter().cycle().skip(self.at).take(self.entries.len());
        from.copied().find(|entry| !asked.contains(entry))
    }

    fn takes(&mut self, table: &Table) {
        self.version = Some(table.version());
        let entry = self.entry();
        let before = std::mem::take(&mut self.entries);
        self.entries = table.entries.iter().map(|entry| entry.peer.index()).collect();
        for former in before {
            if self.entries.len() < REMEMBERED_MAX && !self.entries.contains(&former) {
                self.entries.push(former);
            }
        }
        self.at = self.entries.iter().position(|i| *i == entry).unwrap_or(0);
    }
}

impl World {
    /// The client looks for news, in its own time.
    pub(super) fn poll(&mut self, client: u32) {
        let pause = POLL_NS as f64 * (0.8 + 0.4 * self.serving_mut().draws.unit());
        self.push_due(self.now_ns + pause as u64, Due::Poll(client));
        let entry = self.serving().clients[client as usize].entry();
        if self.members[entry as usize].is_there() {
            self.serving_mut().book.client_bytes += NO_NEWS_BYTES;
            self.client_sees(client, entry);
        } else {
            self.client_moves_on(client, entry);
        }
    }

    /// A client goes on at another entry node. One that has tried all it knows starts again by an invitation.
    pub(super) fn client_moves_on(&mut self, client: u32, entry: u32) -> u32 {
        if let Some(next) = self.serving_mut().clients[client as usize].moves_on(entry) {
            return next;
        }
        let next = self.somebody_else(entry);
        self.serving_mut().clients[client as usize] = Client::invited(next);
        next
    }

    /// An answer of an entry node names the version of its table.
    pub(super) fn client_sees(&mut self, client: u32, entry: u32) {
        let Some(table) = self.table_of(entry) else { return };
        let table = &table;
        let serving = self.serving_mut();
        serving.book.client_bytes += 8;
        serving.clients[client as usize].lost = 0;
        let known = serving.clients[client as usize].version;
        if let Some(table) = table.unless(known) {
            serving.book.tables += 1;
            serving.book.client_bytes += table.wire_len() as u64 + NO_NEWS_BYTES;
            serving.clients[client as usize].takes(table);
        }
    }

    /// Made anew once a second at most, whoever asks.
    fn table_of(&mut self, entry: u32) -> Option<Table> {
        let now_ns = self.now_ns;
        let host = self.serving().hosts[entry as usize].as_ref()?;
        let kept = host.table.as_ref().filter(|(at_ns, _)| at_ns + SECOND_NS > now_ns);
        if let Some((_, table)) = kept {
            return Some(table.clone());
        }
        let table = self.table(entry)?;
        let host = self.serving_mut().hosts[entry as usize].as_mut()?;
        host.table = Some((now_ns, table.clone()));
        Some(table)
    }

    fn table(&self, entry: u32) -> Option<Table> {
        let process = self.members[entry as usize].process.as_ref()?.look();
        let member = |peer: PeerId| -> Option<(PeerId, &Profile, &State)> {
            Some((peer, process.profile(peer)?, process.state(peer)?))
        };
        Some(Table::of(process.me(), process.members().filter_map(member)))
    }

    /// The broken variant: whoever is a client hears of every change.
    pub(super) fn clients_hear(&mut self, i: u32) {
        if self.serving().sabotage != Some(ServingSabotage::Push) {
            return;
        }
        let Some(table) = self.table(i) else { return };
        let serving = self.serving_mut();
        let count = serving.clients.iter().filter(|client| client.entry() == i).count() as u64;
        serving.book.tables += count;
        serving.book.client_bytes += count * table.wire_len() as u64;
    }
}
