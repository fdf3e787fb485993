//! What a node sends: one bounded queue and one long-lived stream per peer and lane, opened when first needed.
//!
//! A frame that cannot be delivered is not retried here: whoever has to know is told, and decides. What is sent to the
//! node itself never sees the network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::clock::{Clock, Instant};
use crate::hub::Hub;
use crate::ids::PeerId;
use crate::transport::{Lane, NetError, Transport, Tx};
use crate::wire::{Frame, Nack};
use crate::world::World;

/// A frame with the heads that must hear when it cannot be delivered: `(head, session, attempt)`.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) frame: Frame,
    pub(crate) concerned: Vec<Concerned>,
}

/// One session's head.
pub(crate) type Concerned = (PeerId, crate::ids::SessionId, crate::ids::Attempt);

/// The queues to other peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    queues: Arc<Mutex<BTreeMap<(PeerId, Lane), mpsc::Sender<Outgoing>>>>,
}

impl Outbox {
    /// Queues a frame; a full queue counts as undeliverable.
    pub(crate) fn send<W: World>(&self, hub: &Hub<W>, to: PeerId, lane: Lane, out: Outgoing) {
        if to == hub.local() {
            let from = to;
            if let Err(frame) = hub.try_deliver(from, out.frame) {
                refuse(hub, Outgoing { frame, concerned: out.concerned });
            }
            return;
        }
        let queue = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues
                .entry((to, lane))
                .or_insert_with(|| {
                    let (queue, waiting) = mpsc::channel(hub.limits.outbox_frames);
                    hub.tasks.spawn(deliver(hub.clone(), to, lane, waiting));
                    queue
                })
                .clone()
        };
        if let Err(mpsc::error::TrySendError::Full(out) | mpsc::error::TrySendError::Closed(out)) =
            queue.try_send(out)
        {
            refuse(hub, out);
        }
    }
}

/// Tells the heads concerned that their frame did not get through. Other frames are let go: pings are sent again anyway,
/// and a token that is lost is missed by its head.
fn refuse<W: World>(hub: &Hub<W>, out: Outgoing) {
    for (head, session, attempt) in out.concerned {
        let frame = Frame::Nack { session, attempt, why: Nack::NextUnreachable };
        if head == hub.local() {
            // A head whose queue is full learns by its own deadline.
            let _ = hub.try_deliver(head, frame);
        } else {
            hub.send(head, Lane::Decode, frame);
        }
    }
}

/// The life of one queue: its stream is opened when there is something to send, and again after it has failed.
async fn deliver<W: World>(hub: Hub<W>, to: PeerId, lane: Lane, mut waiting: mpsc::Receiver<Outgoing>) {
    let mut stream: Option<<W::Transport as Transport>::Tx> = None;
    let mut closed_until = Instant::default();
    while let Some(out) = waiting.recv().await {
        let now = hub.clock.now();
        if now < closed_until {
            refuse(&hub, out);
            continue;
        }
        let deadline = now.after(hub.limits.send);
        let sent = hub.clock.timeout_at(deadline, push(&hub, to, lane, &mut stream, &out.frame)).await;
        if sent.is_ok_and(|sent| sent.is_ok()) {
            continue;
        }
        stream = None;
        closed_until = hub.clock.now().after(hub.limits.reconnect);
        refuse(&hub, out);
    }
}

async fn push<W: World>(
    hub: &Hub<W>,
    to: PeerId,
    lane: Lane,
    stream: &mut Option<<W::Transport as Transport>::Tx>,
    frame: &Frame,
) -> Result<(), NetError> {
    if let Some(open) = stream {
        return open.send(frame.clone()).await;
    }
    let mut fresh = hub.transport.open(to, lane).await?;
    let sent = fresh.send(frame.clone()).await;
    *stream = Some(fresh);
    sent
}
