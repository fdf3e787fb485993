//! Several conversations between the same nodes over one transport: the mesh's own, and one for each model.
//!
//! The first frame of every stream names the one that it belongs to; after that it is that conversation's alone. Each
//! [`Branch`] is a [`Transport`] like the one beneath it, so that what runs in it knows nothing of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ids::PeerId;
use crate::transport::{Lane, NetError, Rx, Transport, Tx};
use crate::wire::{Channel, Frame};

/// Streams of one conversation that wait to be taken. What comes beyond is dropped, and opened again by its peer.
const STREAMS_MAX: usize = 256;
/// Peers that refuse, and were not asked for yet.
const REFUSED_MAX: usize = 64;
/// Streams whose first frame is awaited at once.
const UNSORTED_MAX: usize = 1024;
/// How long the first frame of a stream may take.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// A transport that takes no streams is asked again after so long.
const AGAIN: Duration = Duration::from_millis(100);

type Incoming<R> = (PeerId, Lane, R);
type Queue<T> = Arc<tokio::sync::Mutex<mpsc::Receiver<T>>>;

/// Where a conversation's streams go.
struct Ends<R> {
    streams: mpsc::Sender<Incoming<R>>,
    refused: mpsc::Sender<PeerId>,
}

type Branches<R> = Mutex<BTreeMap<Channel, Ends<R>>>;

fn lock<R>(branches: &Branches<R>) -> MutexGuard<'_, BTreeMap<Channel, Ends<R>>> {
    branches.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The conversations of a node.
pub struct Switch<T: Transport> {
    transport: T,
    branches: Arc<Branches<T::Rx>>,
}

impl<T: Transport> Clone for Switch<T> {
    fn clone(&self) -> Self {
        Self { transport: self.transport.clone(), branches: Arc::clone(&self.branches) }
    }
}

impl<T: Transport> Switch<T> {
    /// None yet. [`run`](Self::run) takes the streams that peers open.
    pub fn new(transport: T) -> Self {
        Self { transport, branches: Arc::default() }
    }

    /// A conversation from now on, until what this gives and its clones are dropped; `None` where there is one already.
    pub fn branch(&self, channel: Channel) -> Option<Branch<T>> {
        let mut branches = lock(&self.branches);
        if branches.contains_key(&channel) {
            return None;
        }
        let (streams, incoming) = mpsc::channel(STREAMS_MAX);
        let (told, refused) = mpsc::channel(REFUSED_MAX);
        branches.insert(channel, Ends { streams, refused: told });
        let place = Place { channel, branches: Arc::clone(&self.branches) };
        Some(Branch {
            transport: self.transport.clone(),
            place: Arc::new(place),
            incoming: Arc::new(tokio::sync::Mutex::new(incoming)),
            refused: Arc::new(tokio::sync::Mutex::new(refused)),
        })
    }

    /// Sorts the streams that peers open, until it is dropped.
    pub async fn run<C: Clock>(self, clock: C) {
        let mut unsorted: JoinSet<()> = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                peer = self.transport.refused() => {
                    for ends in lock(&self.branches).values() {
                        let _ = ends.refused.try_send(peer);
                    }
                }
                stream = self.transport.accept() => {
                    while unsorted.try_join_next().is_some() {}
                    match stream {
                        Ok(stream) if unsorted.len() < UNSORTED_MAX => {
                            unsorted.spawn(sort::<T, C>(Arc::clone(&self.branches), clock.clone(), stream));
                        }
                        // More streams than this node sorts at once: who opened it opens another.
                        Ok(_) => {}
                        Err(_) => clock.sleep(AGAIN).await,
                    }
                }
            }
        }
    }
}

/// Brings a stream to its conversation. One of none ends here.
async fn sort<T: Transport, C: Clock>(
    branches: Arc<Branches<T::Rx>>,
    clock: C,
    (peer, lane, mut rx): Incoming<T::Rx>,
) {
    let deadline = clock.now().after(FIRST_WITHIN);
    if let Ok(Ok(Some(Frame::Branch(channel)))) = clock.timeout_at(deadline, rx.recv()).await
        && let Some(ends) = lock(&branches).get(&channel)
    {
        let _ = ends.streams.try_send((peer, lane, rx));
    }
}

/// A conversation's place in the switch, given up with its last holder.
struct Place<R> {
    channel: Channel,
    branches: Arc<Branches<R>>,
}

impl<R> Drop for Place<R> {
    fn drop(&mut self) {
        lock(&self.branches).remove(&self.channel);
    }
}

/// One conversation.
pub struct Branch<T: Transport> {
    transport: T,
    place: Arc<Place<T::Rx>>,
    incoming: Queue<Incoming<T::Rx>>,
    refused: Queue<PeerId>,
}

impl<T: Transport> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            place: Arc::clone(&self.place),
            incoming: Arc::clone(&self.incoming),
            refused: Arc::clone(&self.refused),
        }
    }
}

impl<T: Transport> Transport for Branch<T> {
    type Tx = T::Tx;
    type Rx = T::Rx;

    fn local(&self) -> PeerId {
        self.transport.local()
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<T::Tx, NetError> {
        let mut tx = self.transport.open(peer, lane).await?;
        tx.send(Frame::Branch(self.place.channel)).await?;
        Ok(tx)
    }

    async fn accept(&self) -> Result<Incoming<T::Rx>, NetError> {
        self.incoming.lock().await.recv().await.ok_or(NetError::Closed)
    }

    async fn refused(&self) -> PeerId {
        match self.refused.lock().await.recv().await {
            Some(peer) => peer,
            None => std::future::pending().await,
        }
    }
}
