//! What comes in: streams that peers open, and where each of their frames belongs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::control::Report;
use crate::heads::Letter;
use crate::ids::PeerId;
use crate::interior::Interior;
use crate::stage::Arrival;
use crate::transport::{Lane, Rx, Transport};
use crate::wire::Frame;
use crate::world::World;

/// A peer that opens a new stream may still have frames under way on the one before, not on older ones.
const STREAMS_PER_LANE: usize = 2;

/// Accepts streams of known peers until the node ends.
pub(crate) async fn accept<W: World>(node: Arc<Interior<W>>) {
    let mut readers: BTreeMap<(PeerId, Lane), VecDeque<AbortHandle>> = BTreeMap::new();
    let mut failures = 0u32;
    loop {
        let (peer, lane, rx) = match node.transport.accept().await {
            Ok(stream) => stream,
            Err(_) => {
                failures = failures.saturating_add(1);
                node.clock.sleep(node.limits.reconnect_pause(failures)).await;
                continue;
            }
        };
        failures = 0;
        if node.views.current().id(peer).is_none() {
            continue;
        }
        if lane == Lane::Control {
            // It started again, or its own stream to here broke.
            node.doubt_all(peer);
        }
        let streams = readers.entry((peer, lane)).or_default();
        streams.retain(|s| !s.is_finished());
        while streams.len() >= STREAMS_PER_LANE {
            if let Some(oldest) = streams.pop_front() {
                oldest.abort();
            }
        }
        streams.extend(node.tasks.spawn(read(Arc::clone(&node), peer, lane, rx)));
    }
}

async fn read<W: World, R: Rx>(node: Arc<Interior<W>>, peer: PeerId, lane: Lane, mut rx: R) {
    loop {
        match rx.recv().await {
            Ok(Some(frame)) => dispatch(&node, peer, lane, frame).await,
            Ok(None) => return,
            Err(_) => {
                node.control.notice(Report::Unreachable(peer));
                node.stage.arrive(lane, Arrival::Broken { from: peer, lane }).await;
                return;
            }
        }
    }
}

/// Brings a frame where it belongs; waits while a stage has more than it can take.
pub(crate) async fn dispatch<W: World>(node: &Arc<Interior<W>>, from: PeerId, lane: Lane, frame: Frame) {
    let at = node.now();
    match frame {
        Frame::Steps(steps) => {
            for step in steps {
                node.stage.arrive(lane, Arrival::Step { from, lane, at, step: Box::new(step) }).await;
            }
        }
        Frame::Close { session, attempt, .. } => {
            node.stage.arrive(Lane::Decode, Arrival::Close { session, attempt }).await;
        }
        Frame::Token { session, attempt, position, sampled } => {
            node.heads.deliver(session, Letter::Token { attempt, position, sampled });
        }
        Frame::Nack { session, attempt, why } => {
            if !node.heads.deliver(session, Letter::Nack { from, attempt, why }) {
                node.stage.arrive(Lane::Decode, Arrival::Nack { session, attempt, why }).await;
            }
        }
        Frame::Abandon { session, attempt, silent } => {
            node.stage.arrive_now(Arrival::Abandon { session, attempt, silent });
        }
        Frame::Control(control) => node.control.heard(from, control).await,
        // Of other conversations: whoever sends them here errs.
        Frame::Gossip(_) | Frame::Branch(_) => {}
    }
}

/// The same for what this node sends itself without waiting: tokens and nacks of its stage to its heads.
pub(crate) fn dispatch_now<W: World>(node: &Arc<Interior<W>>, frame: Frame) {
    match frame {
        Frame::Token { session, attempt, position, sampled } => {
            node.heads.deliver(session, Letter::Token { attempt, position, sampled });
        }
        Frame::Nack { session, attempt, why } => {
            node.heads.deliver(session, Letter::Nack { from: node.me, attempt, why });
        }
        Frame::Close { session, attempt, .. } => {
            node.stage.arrive_now(Arrival::Close { session, attempt });
        }
        Frame::Abandon { session, attempt, silent } => {
            node.stage.arrive_now(Arrival::Abandon { session, attempt, silent });
        }
        Frame::Steps(_) | Frame::Control(_) | Frame::Gossip(_) | Frame::Branch(_) => {}
    }
}
