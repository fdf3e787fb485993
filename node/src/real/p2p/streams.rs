//! The node's [`Transport`] over libp2p: one-way streams of frames, one protocol for each lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::StreamProtocol;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, mpsc};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::identity::their_name;
use super::moving::Line;
use super::state::Shared;
use crate::framed::read_frame;
use crate::ids::PeerId;
use crate::transport::{Lane, NetError, Rx, Transport, Tx};
use crate::wire::{Frame, StepInput};

/// Streams of peers that wait to be taken by the node. What comes beyond is dropped, and opened again by its peer.
pub(super) const INCOMING_MAX: usize = 256;

/// Peers that refuse and were not asked for yet. What comes beyond is found out by pings.
pub(super) const REFUSED_MAX: usize = 64;

/// The protocol of a lane.
pub(super) fn protocol(lane: Lane) -> StreamProtocol {
    StreamProtocol::new(match lane {
        Lane::Control => "/meshwright/control/1",
        Lane::Decode => "/meshwright/decode/1",
        Lane::Prefill => "/meshwright/prefill/1",
    })
}

/// A stream that a member has opened.
pub(super) type Incoming = (PeerId, Lane, libp2p::Stream);

/// Bytes of what came over the network, by what it was.
#[derive(Debug, Default)]
pub struct Received {
    activations: AtomicU64,
    tokens: AtomicU64,
    rest: AtomicU64,
    headers: AtomicU64,
    weights: AtomicU64,
}

impl Received {
    fn count(&self, frame: &Frame) {
        let mut activations = 0;
        let mut tokens = 0;
        if let Frame::Steps(steps) = frame {
            for step in steps {
                match &step.input {
                    StepInput::Hidden(payload) => activations += payload.wire_len(),
                    StepInput::Tokens(ids) => tokens += 4 * ids.len() as u64,
                }
            }
        }
        self.activations.fetch_add(activations, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.rest.fetch_add(frame.wire_len().saturating_sub(activations + tokens), Ordering::Relaxed);
    }

    /// So much of a model's files came, of which so much stood behind the first tensor's beginning.
    pub(super) fn count_files(&self, bytes: u64, weights: u64) {
        self.headers.fetch_add(bytes.saturating_sub(weights), Ordering::Relaxed);
        self.weights.fetch_add(weights, Ordering::Relaxed);
    }

    /// Each kind with its bytes so far.
    pub fn by_kind(&self) -> [(&'static str, u64); 5] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("activations", read(&self.activations)),
            ("token_ids", read(&self.tokens)),
            ("control", read(&self.rest)),
            ("headers", read(&self.headers)),
            ("weights", read(&self.weights)),
        ]
    }
}

/// The network of a real node.
#[derive(Clone)]
pub struct P2p {
    pub(super) shared: Arc<Shared>,
    pub(super) incoming: Arc<Mutex<mpsc::Receiver<Incoming>>>,
    pub(super) refused: Arc<Mutex<mpsc::Receiver<PeerId>>>,
}

/// Sends frames to a peer. Dropped, it ends the stream in good order.
pub struct P2pTx {
    line: Arc<Line>,
    shared: Arc<Shared>,
}

/// Receives frames of a peer.
pub struct P2pRx {
    peer: PeerId,
    /// What its opener calls it; none until that is read.
    number: Option<u64>,
    stream: Compat<libp2p::Stream>,
    shared: Arc<Shared>,
}

impl Tx for P2pTx {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        self.line.send(&frame).await
    }
}

impl Drop for P2pTx {
    fn drop(&mut self) {
        self.shared.end_line(Arc::clone(&self.line));
    }
}

impl P2pRx {
    async fn number(&mut self) -> Result<u64, NetError> {
        if let Some(number) = self.number {
            return Ok(number);
        }
        let number = self.stream.read_u64().await.map_err(|_| NetError::Closed)?;
        self.shared.lines.receives(self.peer, number);
        self.number = Some(number);
        Ok(number)
    }
}

impl Rx for P2pRx {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        let number = self.number().await?;
        loop {
            if let Some(frame) = read_frame(&mut self.stream, self.shared.frame_bytes).await? {
                self.shared.received.count(&frame);
                return Ok(Some(frame));
            }
            match self.shared.successor(self.peer, number).await {
                Some(stream) => self.stream = stream,
                None => return Ok(None),
            }
        }
    }
}

impl Drop for P2pRx {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.lines.forget(self.peer, number);
        }
    }
}

impl Transport for P2p {
    type Tx = P2pTx;
    type Rx = P2pRx;

    fn local(&self) -> PeerId {
        self.shared.me
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<P2pTx, NetError> {
        let shared = &self.shared;
        let name = their_name(peer).filter(|_| shared.is_member(peer)).ok_or(NetError::Unreachable)?;
        let way = shared.used(peer).ok_or(NetError::Unreachable)?;
        let stream = shared.doors.open(name, way, protocol(lane)).await.ok_or(NetError::Unreachable)?;
        let line = shared.line(peer, way, stream.compat()).await?;
        Ok(P2pTx { line, shared: Arc::clone(shared) })
    }

    async fn accept(&self) -> Result<(PeerId, Lane, P2pRx), NetError> {
        let (peer, lane, stream) = self.incoming.lock().await.recv().await.ok_or(NetError::Closed)?;
        let (stream, shared) = (stream.compat(), Arc::clone(&self.shared));
        Ok((peer, lane, P2pRx { peer, number: None, stream, shared }))
    }

    async fn refused(&self) -> PeerId {
        match self.refused.lock().await.recv().await {
            Some(peer) => peer,
            None => std::future::pending().await,
        }
    }
}
