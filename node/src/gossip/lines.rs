//! What goes out: a short queue and a stream for each peer that something was said to lately.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ids::PeerId;
use crate::transport::{Lane, NetError, Transport, Tx};
use crate::wire::Frame;

/// Packets that wait for one peer. What comes beyond is lost, as packets may be.
const WAITING_MAX: usize = 16;
/// Peers that packets wait for at once.
const LINES_MAX: usize = 8192;
/// A peer that nothing is said to for so long needs no stream.
const IDLE: Duration = Duration::from_secs(60);
/// How long a stream may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// How long a packet may take to be taken.
const SEND_WITHIN: Duration = Duration::from_secs(3);
/// A peer that cannot be reached is left alone for so long: what is said to it meanwhile is lost.
const PAUSE: Duration = Duration::from_millis(500);

/// The peers that something is said to.
pub(super) struct Lines<N, C> {
    transport: N,
    clock: C,
    lines: BTreeMap<PeerId, mpsc::Sender<Bytes>>,
    writers: JoinSet<()>,
}

impl<N: Transport, C: Clock> Lines<N, C> {
    pub(super) fn new(transport: N, clock: C) -> Self {
        Self { transport, clock, lines: BTreeMap::new(), writers: JoinSet::new() }
    }

    /// Sends it if there is room.
    pub(super) fn send(&mut self, to: PeerId, packet: Bytes) {
        if self.lines.get(&to).is_none_or(mpsc::Sender::is_closed) && !self.open(to) {
            return;
        }
        if let Some(line) = self.lines.get(&to) {
            let _ = line.try_send(packet);
        }
    }

    fn open(&mut self, to: PeerId) -> bool {
        while self.writers.try_join_next().is_some() {}
        if self.lines.len() >= LINES_MAX {
            self.lines.retain(|_, line| !line.is_closed());
        }
        if self.lines.len() >= LINES_MAX {
            return false;
        }
        let (line, packets) = mpsc::channel(WAITING_MAX);
        self.writers.spawn(write(self.transport.clone(), self.clock.clone(), to, packets));
        self.lines.insert(to, line);
        true
    }
}

/// Writes what is said to one peer, until nothing was for a while.
async fn write<N: Transport, C: Clock>(
    transport: N,
    clock: C,
    to: PeerId,
    mut packets: mpsc::Receiver<Bytes>,
) {
    let mut stream: Option<N::Tx> = None;
    loop {
        let idle = clock.now().after(IDLE);
        let Ok(Some(packet)) = clock.timeout_at(idle, packets.recv()).await else { return };
        if deliver(&transport, &clock, to, &mut stream, packet).await.is_err() {
            stream = None;
            clock.sleep(PAUSE).await;
            while packets.try_recv().is_ok() {}
        }
    }
}

/// Over the stream that is there, or over a new one: that one broke may be all that is wrong.
async fn deliver<N: Transport, C: Clock>(
    transport: &N,
    clock: &C,
    to: PeerId,
    stream: &mut Option<N::Tx>,
    packet: Bytes,
) -> Result<(), NetError> {
    if let Some(tx) = stream
        && send(clock, tx, packet.clone()).await.is_ok()
    {
        return Ok(());
    }
    *stream = None;
    let opening = clock.timeout_at(clock.now().after(OPEN_WITHIN), transport.open(to, Lane::Control)).await;
    let mut tx = opening.map_err(|_| NetError::Unreachable)??;
    send(clock, &mut tx, packet).await?;
    *stream = Some(tx);
    Ok(())
}

async fn send<C: Clock>(clock: &C, tx: &mut impl Tx, packet: Bytes) -> Result<(), NetError> {
    let deadline = clock.now().after(SEND_WITHIN);
    clock.timeout_at(deadline, tx.send(Frame::Gossip(packet))).await.map_err(|_| NetError::Unreachable)?
}
