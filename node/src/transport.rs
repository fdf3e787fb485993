//! One-way streams of frames, by peer and lane. Frames of one stream arrive in order or not at all: a stream that
//! loses one ends.

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::wire::Frame;

/// Streams of different lanes do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Small and urgent: liveness, plans.
    Control,
    /// One token's activations, tokens back, closes.
    Decode,
    /// Chunks of prompts.
    Prefill,
}

impl Lane {
    /// All of them.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Decode, Lane::Prefill];
    /// Those of tokens and activations.
    pub const DATA: [Lane; 2] = [Lane::Decode, Lane::Prefill];
}

/// What can go wrong on a stream. The stream is unusable afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No way there, or nobody answers.
    #[error("peer unreachable")]
    Unreachable,
    /// It worked and then broke.
    #[error("stream closed by the other side or the network")]
    Closed,
    /// The other side sent what is no frame.
    #[error("bad frame: {0}")]
    BadFrame(String),
}

/// The sending end of a stream.
pub trait Tx: Send + 'static {
    /// Hands the frame to the network; waits while the network pushes back.
    fn send(&mut self, frame: Frame) -> impl Future<Output = Result<(), NetError>> + Send;
}

/// The receiving end of a stream.
pub trait Rx: Send + 'static {
    /// The next frame; `None` when the sender has ended the stream in good order.
    fn recv(&mut self) -> impl Future<Output = Result<Option<Frame>, NetError>> + Send;
}

/// A node's network. Never asked to reach its own node: a node short-circuits what it sends to itself.
pub trait Transport: Clone + Send + Sync + 'static {
    /// The sending end.
    type Tx: Tx;
    /// The receiving end.
    type Rx: Rx;
    /// This node's name.
    fn local(&self) -> PeerId;
    /// A new stream to `peer`.
    fn open(&self, peer: PeerId, lane: Lane) -> impl Future<Output = Result<Self::Tx, NetError>> + Send;
    /// The next stream that some peer opens to this node.
    fn accept(&self) -> impl Future<Output = Result<(PeerId, Lane, Self::Rx), NetError>> + Send;
    /// The next peer whose connections ended and who refuses another: where it listened nobody does, though its machine
    /// answers. Each time is told once. A network that cannot tell that from silence waits for ever. Cancelled, it loses
    /// nothing.
    fn refused(&self) -> impl Future<Output = PeerId> + Send {
        std::future::pending()
    }
}
