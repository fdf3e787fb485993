//! Takes connections, as many as there may be, and lets them finish when it ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures::stream::{self, BoxStream, StreamExt as _};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bounds::Bounds;
use super::routes::{Api, Caller};
use super::stall::Impatient;
use crate::clock::{Clock as _, TokioClock};
use crate::ids::PeerId;

/// After a connection could not be taken, for want of file descriptors, the next is tried for this much later.
const PAUSE: Duration = Duration::from_millis(100);

/// Most bytes of a request's head, and of what is read of a body at once.
const BUFFER: usize = 64 << 10;

/// What HTTP runs over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// An address that is listened at.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    /// Connections through the mesh's own network.
    guests: BoxStream<'static, (PeerId, Box<dyn Wire>)>,
}

/// How a connection is served.
#[derive(Clone)]
struct Service {
    router: Router,
    protocol: hyper::server::conn::http1::Builder,
    bounds: Bounds,
    clock: TokioClock,
    ended: watch::Receiver<bool>,
}

impl Server {
    /// Listens at `address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// What the system says: the port is taken, or not ours to take.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, guests: stream::pending().boxed() })
    }

    /// The same, which takes these connections, too: of guests who have the mesh's secret.
    #[must_use]
    pub fn with_guests<S: Wire + 'static>(self, guests: mpsc::Receiver<(PeerId, S)>) -> Self {
        let next = |mut guests: mpsc::Receiver<(PeerId, S)>| async {
            let (peer, stream) = guests.recv().await?;
            Some(((peer, Box::new(stream) as Box<dyn Wire>), guests))
        };
        Self { guests: stream::unfold(guests, next).chain(stream::pending()).boxed(), ..self }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` completes; then no request is taken any more, and those that run may finish, for as long as
    /// the bounds say.
    pub async fn run(self, api: Api, stop: impl Future<Output = ()>) {
        let (bounds, clock) = (*api.bounds(), api.clock());
        let router = api.router(self.is_local());
        self.answer(router, bounds, clock, stop).await;
    }

    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }

    pub(super) async fn answer(
        self,
        router: Router,
        bounds: Bounds,
        clock: TokioClock,
        stop: impl Future<Output = ()>,
    ) {
        let Self { listener, mut guests, .. } = self;
        let mut protocol = hyper::server::conn::http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(bounds.head_time).max_buf_size(BUFFER);
        let slots = Arc::new(Semaphore::new(bounds.connections.max(1)));
        let (ending, ended) = watch::channel(false);
        let service = Service { router, protocol, bounds, clock, ended };
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let arrived = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes the slots");
                (arrival(&listener, &mut guests).await, slot)
            };
            let (arrived, slot) = tokio::select! {
                biased;
                () = &mut stop => break,
                arrived = arrived => arrived,
            };
            match arrived {
                Ok((stream, caller)) => {
                    connections.spawn(service.clone().serve(stream, caller, slot));
                }
                Err(why) => {
                    tracing::warn!(%why, "a connection could not be taken");
                    clock.sleep(PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        ending.send_replace(true);
        let finished =
            timeout(bounds.grace, async { while connections.join_next().await.is_some() {} }).await;
        if finished.is_err() {
            tracing::warn!(left = connections.len(), "answers that were still being given are cut off");
        }
    }
}

/// The next connection, and from where it comes.
async fn arrival(
    listener: &TcpListener,
    guests: &mut BoxStream<'static, (PeerId, Box<dyn Wire>)>,
) -> io::Result<(Box<dyn Wire>, Caller)> {
    tokio::select! {
        biased;
        accepted = listener.accept() => {
            let (stream, address) = accepted?;
            // Each token leaves at once.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), Caller::Address(address.ip())))
        }
        Some((peer, stream)) = guests.next() => Ok((stream, Caller::Guest(peer))),
    }
}

impl Service {
    /// Serves one connection; its place is free again afterwards.
    async fn serve(mut self, stream: Box<dyn Wire>, caller: Caller, slot: OwnedSemaphorePermit) {
        let stream = TokioIo::new(Impatient::new(stream, self.clock, self.bounds.stall_time));
        let service = TowerToHyperService::new(self.router.layer(Extension(caller)));
        let mut serving = pin!(self.protocol.serve_connection(stream, service));
        let done = tokio::select! {
            biased;
            done = &mut serving => Some(done),
            () = async { drop(self.ended.wait_for(|ended| *ended).await) } => None,
        };
        let done = match done {
            Some(done) => done,
            None => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(why) = done {
            tracing::debug!(%why, "a connection broke");
        }
        drop(slot);
    }
}
