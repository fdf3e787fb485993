//! Lanes go from one way to the other, and no frame is lost, doubled or overtaken.
//!
//! Every stream of a lane begins with a number that its opener gave it. To move it, the opener opens another stream over the
//! other way and says which one that continues; the receiver keeps it and says that it has it. Then the opener ends the old
//! stream in good order and goes on on the new one, which the receiver reads when the old one has come to its end. The
//! node above sees one stream all the while. Where anything fails the lane stays where it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::StreamProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::identity::{our_name, their_name};
use super::state::{CLOSING, Shared};
use super::ways::{Arrivals, Way};
use crate::clock::Clock as _;
use crate::framed::write_frame;
use crate::ids::PeerId;
use crate::transport::NetError;
use crate::wire::Frame;

/// The protocol of streams that continue others.
pub(super) const MOVING: StreamProtocol = StreamProtocol::new("/meshwright/moving/1");

/// How long the other side may take to have the new stream.
const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// A lane that could not move tries so often, ...
const TRIES: u32 = 3;
/// ... with this pause: its first stream may not be read yet.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Streams that may be on their way to their receivers at once.
const MOVING_MAX: usize = 256;

type Stream = Compat<libp2p::Stream>;

/// What continues a stream, once somebody has said that there is something.
type Successor = Option<oneshot::Receiver<Stream>>;

/// The sending end of a lane.
pub(super) struct Line {
    number: u64,
    peer: PeerId,
    current: tokio::sync::Mutex<Option<(Way, Stream)>>,
}

impl Line {
    pub(super) async fn send(&self, frame: &Frame) -> Result<(), NetError> {
        match self.current.lock().await.as_mut() {
            Some((_, stream)) => write_frame(stream, frame).await,
            None => Err(NetError::Closed),
        }
    }

    async fn is_on(&self, way: Way) -> bool {
        self.current.lock().await.as_ref().is_none_or(|(on, _)| *on == way)
    }
}

/// The lanes of a node: those it sends on, and those it receives on with the streams that continue them.
#[derive(Default)]
pub(super) struct Lines {
    next: AtomicU64,
    sending: Mutex<BTreeMap<u64, Weak<Line>>>,
    receiving: Mutex<BTreeMap<(PeerId, u64), Successor>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    fn of(&self, peer: PeerId) -> Vec<Arc<Line>> {
        let lines = lock(&self.sending);
        lines.values().filter_map(Weak::upgrade).filter(|line| line.peer == peer).collect()
    }

    pub(super) fn receives(&self, peer: PeerId, number: u64) {
        lock(&self.receiving).insert((peer, number), None);
    }

    pub(super) fn forget(&self, peer: PeerId, number: u64) {
        lock(&self.receiving).remove(&(peer, number));
    }

    fn successor(&self, peer: PeerId, number: u64) -> Successor {
        lock(&self.receiving).get_mut(&(peer, number))?.take()
    }

    /// Keeps a place for the stream that continues that one; `None` where nobody receives on it.
    fn place(&self, peer: PeerId, number: u64) -> Option<oneshot::Sender<Stream>> {
        let (put, taken) = oneshot::channel();
        lock(&self.receiving).get_mut(&(peer, number))?.replace(taken);
        Some(put)
    }
}

impl Shared {
    /// Gives a new stream its number, and says it to the other side.
    pub(super) async fn line(
        self: &Arc<Self>,
        peer: PeerId,
        way: Way,
        mut stream: Stream,
    ) -> Result<Arc<Line>, NetError> {
        let number = self.lines.next.fetch_add(1, Ordering::Relaxed);
        stream.write_u64(number).await.map_err(|_| NetError::Closed)?;
        stream.flush().await.map_err(|_| NetError::Closed)?;
        let line = Arc::new(Line { number, peer, current: tokio::sync::Mutex::new(Some((way, stream))) });
        lock(&self.lines.sending).insert(number, Arc::downgrade(&line));
        if self.used(peer).is_some_and(|used| used != way) {
            self.move_lines(peer);
        }
        Ok(line)
    }

    /// The line is not used any more: its stream is ended in good order. One that is only dropped would be reset, and what
    /// it carried last might be lost.
    pub(super) fn end_line(self: &Arc<Self>, line: Arc<Line>) {
        lock(&self.lines.sending).remove(&line.number);
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            if let Some((_, stream)) = line.current.lock().await.take() {
                shared.end(stream).await;
            }
        });
    }

    async fn end(&self, mut stream: Stream) {
        let _ = self.within(CLOSING, stream.shutdown()).await;
    }

    /// Moves the lanes to that peer to the way that is used now.
    pub(super) fn move_lines(self: &Arc<Self>, peer: PeerId) {
        for line in self.lines.of(peer) {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move {
                for _ in 0..TRIES {
                    let Some(way) = shared.used(peer) else { return };
                    if line.is_on(way).await || shared.move_line(&line, way).await.is_some() {
                        return;
                    }
                    shared.clock.sleep(TRY_AGAIN).await;
                }
            });
        }
    }

    async fn move_line(&self, line: &Line, way: Way) -> Option<()> {
        let new = self.within(MOVE_WITHIN, self.continued(line, way)).await.ok()??;
        let old = {
            let mut current = line.current.lock().await;
            // Ended meanwhile: then there is nothing to go on with.
            current.as_ref()?;
            current.replace((way, new))
        };
        if let Some((_, old)) = old {
            self.end(old).await;
        }
        Some(())
    }

    /// A stream that the other side knows to continue `line`.
    async fn continued(&self, line: &Line, way: Way) -> Option<Stream> {
        let mut stream = self.doors.open(their_name(line.peer)?, way, MOVING).await?.compat();
        stream.write_u64(line.number).await.ok()?;
        stream.flush().await.ok()?;
        stream.read_u8().await.ok()?;
        Some(stream)
    }

    /// What continues a stream of `peer` that has come to its end.
    pub(super) async fn successor(&self, peer: PeerId, number: u64) -> Option<Stream> {
        let coming = self.lines.successor(peer, number)?;
        self.within(MOVE_WITHIN, coming).await.ok()?.ok()
    }
}

/// Keeps streams that continue others for their receivers.
pub(super) async fn take(shared: Arc<Shared>, mut streams: Arrivals) {
    let mut coming = tokio::task::JoinSet::new();
    while let Some((peer, _, stream)) = streams.next().await {
        while coming.try_join_next().is_some() {}
        if let Some(peer) = our_name(&peer).filter(|peer| shared.is_member(*peer))
            && coming.len() < MOVING_MAX
        {
            let shared = Arc::clone(&shared);
            coming.spawn(async move {
                let _ = shared.within(MOVE_WITHIN, keep(&shared, peer, stream.compat())).await;
            });
        }
    }
}

/// The place is there before the opener hears of it: else it might end the old stream and nobody would wait.
async fn keep(shared: &Shared, peer: PeerId, mut stream: Stream) -> Option<()> {
    let number = stream.read_u64().await.ok()?;
    let place = shared.lines.place(peer, number)?;
    stream.write_u8(1).await.ok()?;
    stream.flush().await.ok()?;
    place.send(stream).ok()
}
