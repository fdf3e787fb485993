//! What leaves a node: one bounded queue and one long-lived stream for each peer and lane.
//!
//! Streams are opened when first needed and again after they broke, with growing pauses. What is for this node itself
//! never touches the network. What cannot be delivered is answered at once: the heads concerned get a `Nack`, so that
//! recovery need not wait for a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::clock::{Clock, Instant};
use crate::control::Report;
use crate::heads::Letter;
use crate::ids::{Attempt, PeerId, SessionId};
use crate::intake;
use crate::interior::Interior;
use crate::transport::{Lane, NetError, Transport, Tx};
use crate::wire::{Frame, Nack};
use crate::world::World;

/// Who must know when a frame cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concern {
    pub(crate) session: SessionId,
    pub(crate) attempt: Attempt,
    pub(crate) head: PeerId,
}

/// A frame on its way out.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) frame: Frame,
    pub(crate) concerns: Vec<Concern>,
}

impl Parcel {
    /// A frame whose loss nobody is told about.
    pub(crate) fn plain(frame: Frame) -> Self {
        Self { frame, concerns: Vec::new() }
    }
}

/// A queue and the way to say that its stream may hang.
#[derive(Debug, Clone)]
struct Line {
    queue: mpsc::Sender<Parcel>,
    doubted: Arc<Notify>,
}

/// The lines of a node.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lines: Mutex<BTreeMap<(PeerId, Lane), Line>>,
}

impl<W: World> Interior<W> {
    fn line(self: &Arc<Self>, peer: PeerId, lane: Lane) -> Line {
        let mut lines = self.outbox.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let (queue, parcels) = mpsc::channel(self.limits.outbox_queue);
            let doubted = Arc::new(Notify::new());
            let writer = Writer {
                node: Arc::clone(self),
                peer,
                lane,
                parcels,
                doubted: Arc::clone(&doubted),
                stream: None,
                failures: 0,
                closed_until: Instant(0),
            };
            self.tasks.spawn(writer.run());
            Line { queue, doubted }
        };
        lines.entry((peer, lane)).or_insert_with(open).clone()
    }

    /// Sends, waiting for room in the queue, at most for `send_stall`.
    pub(crate) async fn send(self: &Arc<Self>, peer: PeerId, lane: Lane, parcel: Parcel) {
        if peer == self.me {
            return intake::dispatch(self, self.me, lane, parcel.frame).await;
        }
        let line = self.line(peer, lane);
        let deadline = self.now().after(self.limits.send_stall);
        match self.clock.timeout_at(deadline, line.queue.reserve()).await {
            Ok(Ok(place)) => place.send(parcel),
            Ok(Err(_)) | Err(_) => self.undelivered(peer, &parcel.concerns),
        }
    }

    /// Sends if there is room, for frames whose loss is made good by a deadline.
    pub(crate) fn send_now(self: &Arc<Self>, peer: PeerId, lane: Lane, frame: Frame) {
        if peer == self.me {
            return intake::dispatch_now(self, frame);
        }
        let _ = self.line(peer, lane).queue.try_send(Parcel::plain(frame));
    }

    /// Tells the head that its attempt cannot go on here.
    pub(crate) fn nack(self: &Arc<Self>, concern: Concern, why: Nack) {
        let Concern { session, attempt, head } = concern;
        if head == self.me {
            self.heads.deliver(session, Letter::Nack { from: self.me, attempt, why });
        } else {
            self.send_now(head, Lane::Decode, Frame::Nack { session, attempt, why });
        }
    }

    /// The stream to `peer` may hang: the next frame opens a new one.
    pub(crate) fn doubt(&self, peer: PeerId, lane: Lane) {
        let lines = self.outbox.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&(peer, lane)) {
            line.doubted.notify_one();
        }
    }

    /// Something new was heard of `peer`: no stream to it is trusted, and no failure held against it.
    pub(crate) fn doubt_all(&self, peer: PeerId) {
        for lane in Lane::ALL {
            self.doubt(peer, lane);
        }
    }

    fn undelivered(self: &Arc<Self>, peer: PeerId, concerns: &[Concern]) {
        self.control.notice(Report::Unreachable(peer));
        for concern in concerns {
            self.nack(*concern, Nack::NextUnreachable);
        }
    }
}

/// An open stream.
struct Stream<T> {
    tx: T,
    since: Instant,
}

/// Empties one queue into streams.
struct Writer<W: World> {
    node: Arc<Interior<W>>,
    peer: PeerId,
    lane: Lane,
    parcels: mpsc::Receiver<Parcel>,
    doubted: Arc<Notify>,
    stream: Option<Stream<<W::Transport as Transport>::Tx>>,
    /// Deliveries in a row that failed.
    failures: u32,
    /// No connection is tried before this.
    closed_until: Instant,
}

impl<W: World> Writer<W> {
    async fn run(mut self) {
        loop {
            let parcel = tokio::select! {
                biased;
                () = self.doubted.notified() => {
                    self.begin_anew();
                    continue;
                }
                parcel = self.parcels.recv() => parcel,
            };
            match parcel {
                Some(parcel) => self.deliver(parcel).await,
                None => return,
            }
        }
    }

    /// Forgets past failures, and the stream unless it is so young that whoever doubts it means the one before.
    fn begin_anew(&mut self) {
        (self.failures, self.closed_until) = (0, Instant(0));
        if !self.is_young() {
            self.stream = None;
        }
    }

    fn is_young(&self) -> bool {
        let age = |s: &Stream<_>| self.node.now().since(s.since);
        self.stream.as_ref().is_some_and(|s| age(s) < self.node.limits.stream_trust)
    }

    async fn deliver(&mut self, parcel: Parcel) {
        let Parcel { frame, concerns } = parcel;
        let sent = match self.open().await {
            Ok(()) => self.write(frame).await,
            Err(error) => Err(error),
        };
        let Err(error) = sent else {
            self.failures = 0;
            return;
        };
        self.stream = None;
        self.failures = self.failures.saturating_add(1);
        // The first failure may be an old stream's: its successor is tried without a pause.
        let pause = self.node.limits.reconnect_pause(self.failures - 1);
        self.closed_until = self.node.now().after(pause);
        self.node.undelivered(self.peer, &concerns);
        if error == NetError::Unreachable {
            self.return_waiting();
        }
    }

    /// What waited behind a frame that found nobody would find nobody.
    fn return_waiting(&mut self) {
        while let Ok(parcel) = self.parcels.try_recv() {
            self.node.undelivered(self.peer, &parcel.concerns);
        }
    }

    async fn open(&mut self) -> Result<(), NetError> {
        if self.stream.is_some() {
            return Ok(());
        }
        if self.node.now() < self.closed_until {
            return Err(NetError::Unreachable);
        }
        let deadline = self.node.now().after(self.node.limits.connect);
        let tx = loop {
            let opening = self.node.transport.open(self.peer, self.lane);
            // Two nodes that hear of each other by streams must not keep each other from opening any.
            let trusted_until = self.node.now().after(self.node.limits.stream_trust);
            let doubted = async {
                self.doubted.notified().await;
                self.node.clock.sleep_until(trusted_until).await;
            };
            tokio::select! {
                biased;
                opened = self.node.clock.timeout_at(deadline, opening) => {
                    break opened.map_err(|_| NetError::Unreachable)??;
                }
                // Somebody heard of the peer: it may be another life of it that answers now.
                () = doubted => {}
            }
        };
        self.stream = Some(Stream { tx, since: self.node.now() });
        Ok(())
    }

    async fn write(&mut self, frame: Frame) -> Result<(), NetError> {
        let Some(stream) = self.stream.as_mut() else { return Err(NetError::Closed) };
        let deadline = self.node.now().after(self.node.limits.send_stall);
        let trusted_until = stream.since.after(self.node.limits.stream_trust);
        let doubted = async {
            self.doubted.notified().await;
            self.node.clock.sleep_until(trusted_until).await;
        };
        tokio::select! {
            biased;
            sent = self.node.clock.timeout_at(deadline, stream.tx.send(frame)) => {
                sent.map_err(|_| NetError::Unreachable)?
            }
            () = doubted => Err(NetError::Closed),
        }
    }
}
