//! Takes connections, as many as there may be, and lets them finish when it ends.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::routes::{Api, Caller};
use super::stall::Impatient;
use crate::clock::Clock as _;

/// After a connection could not be taken, for want of file descriptors, the next is tried for this much later.
const PAUSE: Duration = Duration::from_millis(100);

/// Most bytes of a request's head, and of what is read of a body at once.
const BUFFER: usize = 64 << 10;

/// An address that is listened at.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens at `address`; port 0 takes any that is free.
    ///
    /// # Errors
    /// What the system says: the port is taken, or not ours to take.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` completes; then no request is taken any more, and those that run may finish, for as long as
    /// the bounds say.
    pub async fn run(self, api: Api, stop: impl Future<Output = ()>) {
        let (bounds, clock) = (*api.bounds(), api.clock());
        let router = api.router(self.address.ip().is_loopback());
        let mut protocol = hyper::server::conn::http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(bounds.head_time).max_buf_size(BUFFER);
        let slots = Arc::new(Semaphore::new(bounds.connections.max(1)));
        let (ending, ended) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes the slots");
                (self.listener.accept().await, slot)
            };
            let (accepted, slot) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, caller)) => {
                    // Each token leaves at once.
                    let _ = stream.set_nodelay(true);
                    let stream = Impatient::new(stream, clock, bounds.stall_time);
                    let service = router.clone().layer(Extension(Caller(caller.ip())));
                    let (protocol, ended) = (protocol.clone(), ended.clone());
                    connections.spawn(async move {
                        connection(stream, &protocol, TowerToHyperService::new(service), ended).await;
                        drop(slot);
                    });
                }
                Err(why) => {
                    tracing::warn!(%why, "a connection could not be taken");
                    clock.sleep(PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        drop(self.listener);
        ending.send_replace(true);
        let finished =
            timeout(bounds.grace, async { while connections.join_next().await.is_some() {} }).await;
        if finished.is_err() {
            tracing::warn!(left = connections.len(), "answers that were still being given are cut off");
        }
    }
}

async fn connection(
    stream: Impatient,
    protocol: &hyper::server::conn::http1::Builder,
    service: TowerToHyperService<axum::Router>,
    mut ended: watch::Receiver<bool>,
) {
    let mut serving = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    let done = tokio::select! {
        biased;
        done = &mut serving => Some(done),
        () = async { drop(ended.wait_for(|ended| *ended).await) } => None,
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
}
