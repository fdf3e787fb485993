//! What leaves a node: one bounded queue and one long-lived stream for each peer and lane.
//!
//! Streams are opened when first needed and again after they broke, with growing pauses. What is for this node itself
//! never touches the network. What cannot be delivered is answered at once: the heads concerned get a `Nack`, so that
//! recovery need not wait for a deadline.
//!
//! A stream may lead to a life of the peer that is over, and take what is written to it for a while all the same. Who has
//! a reason to think so says up to when streams are not to be trusted; older ones are opened anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
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
    doubt: Arc<Doubt>,
}

/// What others think of a line's stream.
#[derive(Debug, Default)]
struct Doubt {
    raised: Notify,
    /// A stream opened before this is not trusted, nanoseconds.
    before: AtomicU64,
    /// How often something new was heard of the peer: another life of it may answer since.
    heard: AtomicU64,
}

impl Doubt {
    fn raise(&self, before: Instant) {
        self.before.fetch_max(before.0, Ordering::Relaxed);
        self.raised.notify_one();
    }

    fn hear(&self, before: Instant) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.raise(before);
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn concerns(&self, since: Instant) -> bool {
        since.0 < self.before.load(Ordering::Relaxed)
    }
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
            let doubt = Arc::new(Doubt::default());
            let writer = Writer {
                node: Arc::clone(self),
                peer,
                lane,
                parcels,
                doubt: Arc::clone(&doubt),
                stream: None,
                failures: 0,
                closed_until: Instant(0),
            };
            self.tasks.spawn(writer.run());
            Line { queue, doubt }
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

    /// The stream to `peer` may hang: the next frame opens a new one. Not where it is so young that whoever doubts it
    /// means the one before: two nodes that hear of each other by new streams would open them for ever.
    pub(crate) fn doubt(&self, peer: PeerId, lane: Lane) {
        self.on_line(peer, lane, |doubt| doubt.raise(self.trusted_since()));
    }

    /// Something new was heard of `peer`: no stream to it is trusted, and no failure held against it.
    pub(crate) fn doubt_all(&self, peer: PeerId) {
        for lane in Lane::ALL {
            self.on_line(peer, lane, |doubt| doubt.hear(self.trusted_since()));
        }
    }

    /// `peer` may have begun another life: what goes to it goes over streams opened from now on.
    pub(crate) fn renew(&self, peer: PeerId, lanes: &[Lane]) {
        for lane in lanes {
            self.on_line(peer, *lane, |doubt| doubt.hear(self.now()));
        }
    }

    fn trusted_since(&self) -> Instant {
        let trust_ns = u64::try_from(self.limits.stream_trust.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.now().0.saturating_sub(trust_ns))
    }

    fn on_line(&self, peer: PeerId, lane: Lane, tell: impl FnOnce(&Doubt)) {
        let lines = self.outbox.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&(peer, lane)) {
            tell(&line.doubt);
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
    doubt: Arc<Doubt>,
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
                () = self.doubt.raised.notified() => {
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

    /// Forgets past failures, and a stream that is not trusted.
    fn begin_anew(&mut self) {
        (self.failures, self.closed_until) = (0, Instant(0));
        self.stream.take_if(|stream| self.doubt.concerns(stream.since));
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
        let opening = connect(&self.node.transport, self.peer, self.lane, &self.doubt);
        let opened = self.node.clock.timeout_at(deadline, opening).await;
        let tx = opened.map_err(|_| NetError::Unreachable)??;
        self.stream = Some(Stream { tx, since: self.node.now() });
        Ok(())
    }

    async fn write(&mut self, frame: Frame) -> Result<(), NetError> {
        let Some(stream) = self.stream.as_mut() else { return Err(NetError::Closed) };
        let deadline = self.node.now().after(self.node.limits.send_stall);
        let trusted_until = stream.since.after(self.node.limits.stream_trust);
        let doubted = async {
            self.doubt.raised.notified().await;
            if !self.doubt.concerns(stream.since) {
                self.node.clock.sleep_until(trusted_until).await;
            }
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

/// A new stream. When something new is heard of the peer meanwhile, the life that was asked may be over and another one
/// answer: that is asked as well. Not instead: two nodes that hear of each other by new streams must not keep each other
/// from opening any.
async fn connect<T: Transport>(
    transport: &T,
    peer: PeerId,
    lane: Lane,
    doubt: &Doubt,
) -> Result<T::Tx, NetError> {
    let open = || Box::pin(transport.open(peer, lane));
    let (mut older, mut newest, mut heard) = (None, open(), doubt.heard());
    loop {
        let elder = async {
            match older.as_mut() {
                Some(attempt) => attempt.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            opened = elder => match opened {
                Ok(tx) => return Ok(tx),
                Err(_) => older = None,
            },
            opened = &mut newest => match (opened, older.take()) {
                (Err(_), Some(attempt)) => newest = attempt,
                (opened, _) => return opened,
            },
            () = doubt.raised.notified() => {
                if doubt.heard() != heard {
                    heard = doubt.heard();
                    older = Some(std::mem::replace(&mut newest, open()));
                }
            }
        }
    }
}
