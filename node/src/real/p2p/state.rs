//! What the network's thread and the node share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::Multiaddr;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::invite::MeshKey;
use super::roster::Roster;
use super::streams::Received;
use crate::clock::{Clock as _, Elapsed, TokioClock};
use crate::ids::PeerId;

/// How long a stream may take to end in good order.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

/// How the network is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetState {
    /// Where this node listens.
    pub listening: Vec<Multiaddr>,
    /// Members that are connected and have proved that they are.
    pub members: BTreeSet<PeerId>,
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
    pub(super) roster: watch::Sender<Roster>,
    pub(super) state: watch::Sender<NetState>,
    pub(super) received: Received,
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

    /// The last connection to it is gone.
    pub(super) fn dismiss(&self, peer: PeerId) {
        if self.state.send_if_modified(|state| state.members.remove(&peer)) {
            tracing::info!(peer = ?peer, name = self.name(peer), "member gone");
        }
    }

    fn name(&self, peer: PeerId) -> String {
        self.roster.borrow().ad(peer).map_or_else(String::new, |ad| ad.name.clone())
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

    /// `work`, for so long at most.
    pub(super) async fn within<F: Future + Send>(&self, d: Duration, work: F) -> Result<F::Output, Elapsed> {
        self.clock.timeout_at(self.clock.now().after(d), work).await
    }
}
