//! What the network's thread and the node share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, StreamProtocol};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::choosing::Both;
use super::company::Own;
use super::identity::their_name;
use super::invite::MeshKey;
use super::moving::Lines;
use super::roster::Roster;
use super::streams::Received;
use super::swarm::Order;
use super::ways::{Doors, Way};
use crate::clock::{Clock as _, Elapsed, TokioClock};
use crate::ids::PeerId;
use crate::membership::Profile;

/// How long a stream may take to end in good order.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

/// How a peer is connected.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Grows with every connection to anybody: a peer that was gone meanwhile is connected anew.
    pub number: u64,
    /// The ways that are open.
    pub open: BTreeSet<Way>,
    /// The one that lanes use.
    pub used: Way,
    /// What was measured of each.
    pub measured: Both,
}

/// How the network is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetState {
    /// Where this node listens.
    pub listening: Vec<Multiaddr>,
    /// Of what it was told to listen on, what has no address yet.
    pub opening: Vec<ListenerId>,
    /// Members that are connected and have proved that they are.
    pub members: BTreeSet<PeerId>,
    /// Peers that are connected and only ask. Nothing of them is remembered when they are gone.
    pub guests: BTreeSet<PeerId>,
    /// How each peer is connected, member or not.
    pub connections: BTreeMap<PeerId, Connection>,
    /// Why a member turned this node away, until another one does not.
    pub refused: Option<String>,
    /// What went wrong last with whom, for people: refusals, addresses where nobody answers.
    pub troubles: BTreeMap<String, String>,
}

/// Kept by every task of the network.
pub(super) struct Shared {
    pub(super) me: PeerId,
    pub(super) mesh: MeshKey,
    pub(super) frame_bytes: u32,
    pub(super) clock: TokioClock,
    pub(super) runtime: Handle,
    pub(super) doors: Doors,
    /// Connections so far.
    pub(super) connections: AtomicU64,
    pub(super) lines: Lines,
    pub(super) roster: watch::Sender<Roster>,
    /// What this node says of itself.
    pub(super) own: watch::Sender<Own>,
    pub(super) state: watch::Sender<NetState>,
    pub(super) received: Received,
    /// Peers that are gone and refuse to be called again.
    pub(super) refused: mpsc::Sender<PeerId>,
}

/// Troubles that are remembered at once.
const TROUBLES_MAX: usize = 64;

impl Shared {
    pub(super) fn is_member(&self, peer: PeerId) -> bool {
        self.state.borrow().members.contains(&peer)
    }

    /// The peer has proved that it belongs to the mesh.
    pub(super) fn admit(&self, peer: PeerId) {
        let new = self.state.send_if_modified(|state| {
            state.refused = None;
            state.members.insert(peer)
        });
        if new {
            tracing::info!(peer = ?peer, name = self.name(peer), "member connected");
        }
    }

    /// The peer has proved that it may ask, and will do nothing else.
    pub(super) fn welcome(&self, peer: PeerId) {
        self.state.send_if_modified(|state| state.guests.insert(peer));
        tracing::debug!(?peer, "guest connected");
    }

    pub(super) fn is_guest(&self, peer: PeerId) -> bool {
        self.state.borrow().guests.contains(&peer)
    }

    /// A connection to it is there.
    pub(super) fn opened(&self, peer: PeerId, way: Way) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        self.state.send_modify(|state| {
            let fresh = Connection { number, open: BTreeSet::new(), used: way, measured: Both::new() };
            state.connections.entry(peer).or_insert(fresh).open.insert(way);
        });
    }

    /// The last connection to it that way is gone, but there is one the other way.
    pub(super) fn closed(&self, peer: PeerId, way: Way) {
        self.state.send_modify(|state| {
            if let Some(connection) = state.connections.get_mut(&peer) {
                connection.open.remove(&way);
                connection.used = way.other();
            }
        });
    }

    /// The way that lanes to it use.
    pub(super) fn used(&self, peer: PeerId) -> Option<Way> {
        self.state.borrow().connections.get(&peer).map(|connection| connection.used)
    }

    /// From now on lanes to it use that way, if it is open: those that are there move.
    pub(super) async fn use_way(
        self: &Arc<Self>,
        peer: PeerId,
        way: Way,
        measured: Both,
        order: &mpsc::Sender<Order>,
    ) {
        let mut is_other = false;
        self.state.send_modify(|state| {
            if let Some(connection) = state.connections.get_mut(&peer).filter(|c| c.open.contains(&way)) {
                is_other = std::mem::replace(&mut connection.used, way) != way;
                connection.measured = measured;
            }
        });
        tracing::info!(?peer, way = way.name(), is_other, "the better way was measured");
        if is_other {
            self.move_lines(peer);
            let _ = order.send(Order::Moved(peer)).await;
        }
    }

    /// A stream to it over the way in use; `None` when it cannot be had.
    pub(super) async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Option<libp2p::Stream> {
        self.doors.open(their_name(peer)?, self.used(peer)?, protocol).await
    }

    /// The last connection to it is gone. Gives whether it was a member.
    pub(super) fn dismiss(&self, peer: PeerId) -> bool {
        let mut was_member = false;
        self.state.send_modify(|state| {
            state.connections.remove(&peer);
            state.guests.remove(&peer);
            was_member = state.members.remove(&peer);
        });
        if was_member {
            tracing::info!(peer = ?peer, name = self.name(peer), "member gone");
        }
        was_member
    }

    fn name(&self, peer: PeerId) -> String {
        self.roster.borrow().member(peer).map_or_else(String::new, |member| member.profile.name.clone())
    }

    /// Something is wrong with `whom`; it is said once until it changes.
    pub(super) fn trouble(&self, whom: String, what: String) {
        self.state.send_if_modified(|state| {
            if state.troubles.get(&whom) == Some(&what) {
                return false;
            }
            tracing::warn!(with = whom, "{what}");
            if state.troubles.len() >= TROUBLES_MAX {
                state.troubles.pop_first();
            }
            state.troubles.insert(whom, what);
            true
        });
    }

    /// A member has turned this node away.
    pub(super) fn refused(&self, why: &str) {
        self.state.send_modify(|state| state.refused = Some(why.into()));
    }

    /// Nothing is wrong with `whom` any more.
    pub(super) fn fine(&self, whom: &str) {
        self.state.send_if_modified(|state| state.troubles.remove(whom).is_some());
    }

    /// This node is something else from now on.
    pub(super) fn update(&self, change: impl FnOnce(&mut Profile)) {
        self.own.send_if_modified(|own| {
            let before = own.profile.clone();
            change(&mut own.profile);
            own.profile != before
        });
    }

    /// `work`, for so long at most.
    pub(super) async fn within<F: Future + Send>(&self, d: Duration, work: F) -> Result<F::Output, Elapsed> {
        self.clock.timeout_at(self.clock.now().after(d), work).await
    }
}
