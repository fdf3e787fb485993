//! The node's [`Transport`] over libp2p: one-way streams of frames, one protocol for each lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::AsyncWriteExt as _;
use libp2p::StreamProtocol;
use libp2p_stream::Control;
use tokio::sync::{Mutex, mpsc};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, FuturesAsyncWriteCompatExt as _};

use super::identity::their_name;
use super::state::Shared;
use crate::framed::{read_frame, write_frame};
use crate::ids::PeerId;
use crate::transport::{Lane, NetError, Rx, Transport, Tx};
use crate::wire::{Frame, StepInput};

/// Streams of peers that wait to be taken by the node. What comes beyond is dropped, and opened again by its peer.
pub(super) const INCOMING_MAX: usize = 256;

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
    pub(super) control: Control,
    pub(super) incoming: Arc<Mutex<mpsc::Receiver<Incoming>>>,
}

/// Sends frames to a peer. Dropped, it ends the stream in good order.
pub struct P2pTx {
    stream: Option<Compat<libp2p::Stream>>,
    shared: Arc<Shared>,
}

/// Receives frames of a peer.
pub struct P2pRx {
    stream: Compat<libp2p::Stream>,
    shared: Arc<Shared>,
}

impl Tx for P2pTx {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        let Some(stream) = self.stream.as_mut() else { return Err(NetError::Closed) };
        write_frame(stream, &frame).await
    }
}

impl Drop for P2pTx {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        // A stream that is only dropped is reset, and what it carried last may be lost.
        let mut stream = stream.into_inner();
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move {
            let _ = shared.within(super::state::CLOSING, stream.close()).await;
        });
    }
}

impl Rx for P2pRx {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        let frame = read_frame(&mut self.stream, self.shared.frame_bytes).await?;
        if let Some(frame) = &frame {
            self.shared.received.count(frame);
        }
        Ok(frame)
    }
}

impl Transport for P2p {
    type Tx = P2pTx;
    type Rx = P2pRx;

    fn local(&self) -> PeerId {
        self.shared.me
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<P2pTx, NetError> {
        let name = their_name(peer).filter(|_| self.shared.is_member(peer)).ok_or(NetError::Unreachable)?;
        let opened = self.control.clone().open_stream(name, protocol(lane)).await;
        let stream = opened.map_err(|_| NetError::Unreachable)?.compat_write();
        Ok(P2pTx { stream: Some(stream), shared: Arc::clone(&self.shared) })
    }

    async fn accept(&self) -> Result<(PeerId, Lane, P2pRx), NetError> {
        let (peer, lane, stream) = self.incoming.lock().await.recv().await.ok_or(NetError::Closed)?;
        Ok((peer, lane, P2pRx { stream: stream.compat(), shared: Arc::clone(&self.shared) }))
    }
}
