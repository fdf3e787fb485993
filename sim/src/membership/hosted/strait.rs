//! What lies between a member and its world, and what is wrong with it just now.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use node::PeerId;
use node::clock::{Clock, Instant};
use node::transport::{Lane, NetError, Rx, Transport, Tx};
use node::wire::Frame;
use tokio::sync::Notify;

use crate::membership::faults::Ways;
use crate::membership::network::Watchwork;
use crate::membership::world::{Ears, Heard};
use crate::seed::{Draws, Seed};

#[derive(Debug)]
struct Straits {
    ways: Ways,
    draws: Draws,
    /// Whether it stands still, and how late it is.
    members: Vec<(bool, u64)>,
}

/// All of them. A handle.
#[derive(Debug, Clone)]
pub(in crate::membership) struct Strait {
    state: Arc<Mutex<Straits>>,
    ears: Ears,
    /// By member: it may begin, or go on.
    begun: Arc<[Notify]>,
    goes_on: Arc<[Notify]>,
}

impl Strait {
    pub(super) fn new(members: usize, seed: Seed) -> Self {
        let notices = || (0..members).map(|_| Notify::new()).collect();
        let state =
            Straits { ways: Ways::default(), draws: seed.draws(), members: vec![(false, 0); members] };
        Self {
            state: Arc::new(Mutex::new(state)),
            ears: Ears::default(),
            begun: notices(),
            goes_on: notices(),
        }
    }

    fn state(&self) -> MutexGuard<'_, Straits> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::membership) fn ears(&self) -> Ears {
        self.ears.clone()
    }

    /// What is wrong from now on.
    pub(in crate::membership) fn set(&self, ways: &Ways, members: impl Iterator<Item = (bool, u64)>) {
        let mut state = self.state();
        state.ways = ways.clone();
        state.members = members.collect();
        let go_on = self.goes_on.iter().zip(&state.members).filter(|(_, (stands, _))| !stands);
        go_on.for_each(|(notice, _)| notice.notify_waiters());
    }

    pub(in crate::membership) fn begin(&self, i: u32) {
        self.begun[i as usize].notify_one();
    }

    pub(super) async fn begun(&self, i: u32) {
        self.begun[i as usize].notified().await;
    }

    /// Returns when the member does not stand still.
    async fn stirs(&self, i: u32) {
        loop {
            let notice = self.goes_on[i as usize].notified();
            if !self.state().members[i as usize].0 {
                return;
            }
            notice.await;
        }
    }

    fn late(&self, i: u32) -> Duration {
        Duration::from_nanos(self.state().members[i as usize].1)
    }

    /// Whether a packet is lost that goes from the one to the other.
    fn loses(&self, from: u32, to: u32) -> bool {
        let mut state = self.state();
        let loss = state.ways.loss(from, to);
        state.ways.is_muted(from, to) || (loss > 0.0 && state.draws.unit() < loss)
    }
}

/// A member's own clock. It stands still with its process, in so far as nothing that waits goes on.
#[derive(Debug, Clone)]
pub(super) struct Ticks<C> {
    inner: C,
    own: Watchwork,
    strait: Strait,
    me: u32,
}

impl<C: Clock> Ticks<C> {
    pub(super) fn new(inner: C, own: Watchwork, strait: Strait, me: u32) -> Self {
        Self { inner, own, strait, me }
    }
}

impl<C: Clock> Clock for Ticks<C> {
    fn now(&self) -> Instant {
        self.own.local(self.inner.now().0)
    }

    async fn sleep_until(&self, deadline: Instant) {
        self.inner.sleep_until(Instant(self.own.global(deadline))).await;
        let late = self.strait.late(self.me);
        if !late.is_zero() {
            self.inner.sleep(late).await;
        }
        self.strait.stirs(self.me).await;
    }
}

/// A member's network.
#[derive(Debug, Clone)]
pub(super) struct Across<N, C> {
    inner: N,
    clock: C,
    strait: Strait,
    me: u32,
}

impl<N: Transport, C: Clock> Across<N, C> {
    pub(super) fn new(inner: N, clock: C, strait: Strait, me: u32) -> Self {
        Self { inner, clock, strait, me }
    }
}

impl<N: Transport, C: Clock> Transport for Across<N, C> {
    type Tx = AcrossTx<N::Tx, C>;
    type Rx = AcrossRx<N::Rx, C>;

    fn local(&self) -> PeerId {
        self.inner.local()
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<Self::Tx, NetError> {
        let inner = self.inner.open(peer, lane).await?;
        Ok(AcrossTx {
            inner,
            clock: self.clock.clone(),
            strait: self.strait.clone(),
            me: self.me,
            to: peer.index(),
        })
    }

    async fn accept(&self) -> Result<(PeerId, Lane, Self::Rx), NetError> {
        let (peer, lane, inner) = self.inner.accept().await?;
        let rx = AcrossRx { inner, clock: self.clock.clone(), strait: self.strait.clone(), me: self.me };
        Ok((peer, lane, rx))
    }

    async fn refused(&self) -> PeerId {
        self.inner.refused().await
    }
}

/// Its end of a stream to another.
#[derive(Debug)]
pub(super) struct AcrossTx<T, C> {
    inner: T,
    clock: C,
    strait: Strait,
    me: u32,
    to: u32,
}

impl<T: Tx, C: Clock> Tx for AcrossTx<T, C> {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        self.strait.stirs(self.me).await;
        if let Frame::Gossip(packet) = &frame {
            self.strait.ears.hear(Heard::Sent(self.clock.now().0, self.me, packet.len()));
        }
        if self.strait.loses(self.me, self.to) { Ok(()) } else { self.inner.send(frame).await }
    }
}

/// Its end of a stream from another.
#[derive(Debug)]
pub(super) struct AcrossRx<R, C> {
    inner: R,
    clock: C,
    strait: Strait,
    me: u32,
}

impl<R: Rx, C: Clock> Rx for AcrossRx<R, C> {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        let mut has_waited = false;
        let frame = {
            let mut receiving = pin!(self.inner.recv());
            let poll = |context: &mut Context<'_>| {
                let poll = receiving.as_mut().poll(context);
                has_waited |= poll.is_pending();
                poll
            };
            poll_fn(poll).await
        };
        // Who is late finds at once what has come meanwhile.
        let late = self.strait.late(self.me);
        if has_waited && !late.is_zero() {
            self.clock.sleep(late).await;
        }
        self.strait.stirs(self.me).await;
        frame
    }
}
