//! What a node tells about itself. Probes only listen: nothing a node does depends on one.

use planner::plan::{Epoch, LayerRange};
use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::ids::{Attempt, PeerId, SessionId, Token};

/// Something that happened in a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A head took a request on.
    Accepted {
        /// Its session.
        session: SessionId,
        /// Prompt length.
        prompt: u32,
    },
    /// The router turned a request away.
    Refused {
        /// Its session.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// A head sends the session's tokens (again) along a route.
    Attempted {
        /// Whose.
        session: SessionId,
        /// Which try; above zero it is a resumption.
        attempt: Attempt,
        /// Along the plan of this epoch.
        epoch: Epoch,
        /// Tokens to prefill: prompt plus what was generated.
        tokens: u32,
    },
    /// A token reached the head and went to the client.
    Emitted {
        /// Whose.
        session: SessionId,
        /// Place in the session, prompt included.
        position: u32,
        /// Which.
        token: Token,
    },
    /// A session ended with all of its tokens.
    Completed {
        /// Whose.
        session: SessionId,
    },
    /// A session ended otherwise.
    Failed {
        /// Whose.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// A stage began an engine step.
    StepBegan {
        /// What each session has in it.
        batch: Vec<Share>,
    },
    /// The step ended.
    StepEnded {
        /// Sessions in the batch.
        sessions: u32,
    },
    /// The node began to load layers.
    LoadBegan {
        /// For this plan.
        epoch: Epoch,
        /// Which.
        layers: Option<LayerRange>,
    },
    /// Loading ended.
    LoadEnded {
        /// For this plan.
        epoch: Epoch,
        /// Whether it worked.
        ok: bool,
    },
    /// This node no longer counts on that peer.
    PeerLost {
        /// Whom.
        peer: PeerId,
    },
    /// This node counts on that peer again.
    PeerBack {
        /// Whom.
        peer: PeerId,
    },
    /// This node follows a new plan.
    Adopted {
        /// Its number.
        epoch: Epoch,
    },
    /// A frame of an old attempt or epoch was dropped.
    Stale {
        /// Whose.
        session: SessionId,
    },
}

impl Event {
    /// Whether it is the beginning or the end of an engine step: there are more of these than of all others.
    pub fn is_step(&self) -> bool {
        matches!(self, Event::StepBegan { .. } | Event::StepEnded { .. })
    }
}

/// A session's part of an engine step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Whose.
    pub session: SessionId,
    /// How many tokens.
    pub tokens: u32,
    /// Position behind the last of them.
    pub end: u32,
    /// When its frame had arrived.
    pub arrived: Instant,
}

/// Listens.
pub trait Probe: Clone + Send + Sync + 'static {
    /// Called as it happens; must not block.
    fn on(&self, at: Instant, event: Event);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Probe for Silent {
    fn on(&self, _at: Instant, _event: Event) {}
}
