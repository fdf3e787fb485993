//! The network of a machine that serves alone: nobody is there.

use std::convert::Infallible;

use crate::ids::PeerId;
use crate::transport::{Lane, NetError, Rx, Transport, Tx};
use crate::wire::Frame;

/// Reaches nobody, and nobody comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lonely(pub(super) PeerId);

/// One end of a stream that cannot be.
#[derive(Debug)]
pub(super) struct Never(Infallible);

impl Tx for Never {
    async fn send(&mut self, _frame: Frame) -> Result<(), NetError> {
        match self.0 {}
    }
}

impl Rx for Never {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        match self.0 {}
    }
}

impl Transport for Lonely {
    type Tx = Never;
    type Rx = Never;

    fn local(&self) -> PeerId {
        self.0
    }

    async fn open(&self, _peer: PeerId, _lane: Lane) -> Result<Never, NetError> {
        Err(NetError::Unreachable)
    }

    async fn accept(&self) -> Result<(PeerId, Lane, Never), NetError> {
        std::future::pending().await
    }
}
