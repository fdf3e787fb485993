//! What lies between two members and takes its time: what comes is passed on later, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Passes connections or datagrams on to one address. It ends with this.
pub(crate) struct Relay {
    pub(crate) at: SocketAddr,
    passed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Bytes so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    pub(crate) async fn tcp(to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, passed) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&passed);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((a, b), (c, d)) = (near.into_split(), far.into_split());
                connections.spawn(later(a, d, delay, Arc::clone(&counter)));
                connections.spawn(later(c, b, delay, Arc::clone(&counter)));
            }
        });
        Self { at, passed, _tasks: tasks }
    }

    pub(crate) async fn udp(to: SocketAddr, delay: Duration) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (at, passed) = (near.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let (from, caller) = tokio::sync::watch::channel(None);
        let (n, f, counter) = (Arc::clone(&near), Arc::clone(&far), Arc::clone(&passed));
        tasks.spawn(async move {
            let mut bytes = vec![0; 65_536];
            while let Ok((length, whom)) = n.recv_from(&mut bytes).await {
                from.send_replace(Some(whom));
                counter.fetch_add(length as u64, Ordering::Relaxed);
                send_later(&f, to, &bytes[..length], delay);
            }
        });
        tasks.spawn(async move {
            let mut bytes = vec![0; 65_536];
            while let Ok((length, _)) = far.recv_from(&mut bytes).await {
                let whom = *caller.borrow();
                if let Some(whom) = whom {
                    send_later(&near, whom, &bytes[..length], delay);
                }
            }
        });
        Self { at, passed, _tasks: tasks }
    }
}

fn send_later(socket: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8], delay: Duration) {
    let (socket, bytes, at) = (Arc::clone(socket), bytes.to_vec(), Instant::now() + delay);
    tokio::spawn(async move {
        sleep_until(at).await;
        let _ = socket.send_to(&bytes, to).await;
    });
}

async fn later(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
    passed: Arc<AtomicU64>,
) {
    let (queue, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut bytes = vec![0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            passed.fetch_add(length as u64, Ordering::Relaxed);
            if queue.send((Instant::now() + delay, bytes[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = waiting.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
