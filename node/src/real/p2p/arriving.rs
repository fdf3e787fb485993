//! Streams that others open here: those of every protocol go to who takes them, if the peer may open them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::headers::{self, Files};
use super::identity::our_name;
use super::meeting::{self, Ended};
use super::state::{NetState, Shared};
use super::streams::{self, Incoming};
use super::swarm::Order;
use super::ways::Arrivals;
use super::{Question, Tasks, choosing, guest, moving, probing};
use crate::ids::PeerId;
use crate::transport::Lane;

/// Takes the streams of every protocol.
pub(super) fn take(
    shared: &Arc<Shared>,
    order: &mpsc::Sender<Order>,
    queue: &mpsc::Sender<Incoming>,
    asked: &mpsc::Sender<Question>,
    files: Files,
) -> Result<Tasks, libp2p_stream::AlreadyRegistered> {
    let (mut tasks, doors) = (Tasks::new(), &shared.doors);
    for lane in Lane::ALL {
        let streams = doors.accept(&streams::protocol(lane))?;
        let made = move |peer, stream| (peer, lane, stream);
        tasks.push(tokio::spawn(sort(Arc::clone(shared), streams, queue.clone(), is_member, made)));
    }
    let questions = doors.accept(&guest::ASKING)?;
    let made = |peer, stream: libp2p::Stream| (peer, stream.compat());
    tasks.push(tokio::spawn(sort(Arc::clone(shared), questions, asked.clone(), may_ask, made)));
    let meetings = doors.accept(&meeting::MEETING)?;
    tasks.push(tokio::spawn(meet(Arc::clone(shared), meetings, order.clone())));
    let probes = doors.accept(&probing::PROBING)?;
    tasks.push(tokio::spawn(probing::answer(Arc::clone(shared), probes)));
    let decisions = doors.accept(&choosing::CHOOSING)?;
    tasks.push(tokio::spawn(choosing::agree(Arc::clone(shared), decisions, order.clone())));
    let moving = doors.accept(&moving::MOVING)?;
    tasks.push(tokio::spawn(moving::take(Arc::clone(shared), moving)));
    let wanted = doors.accept(&headers::HEADERS)?;
    tasks.push(tokio::spawn(headers::answer(Arc::clone(shared), wanted, files)));
    Ok(tasks)
}

/// Streams of peers that have not proved yet that they are members: they may be doing so just now.
const UNPROVED_MAX: usize = 64;

/// Hands streams of those that `may` open them to the node, as `made` makes them. Others' are dropped.
async fn sort<T: Send + 'static>(
    shared: Arc<Shared>,
    mut streams: Arrivals,
    queue: mpsc::Sender<T>,
    may: fn(&NetState, &PeerId) -> bool,
    made: impl Fn(PeerId, libp2p::Stream) -> T + Copy + Send + 'static,
) {
    let mut unproved = tokio::task::JoinSet::new();
    while let Some((peer, _, stream)) = streams.next().await {
        let Some(peer) = our_name(&peer) else { continue };
        while unproved.try_join_next().is_some() {}
        if may(&shared.state.borrow(), &peer) {
            hand_over(&queue, peer, made(peer, stream));
        } else if unproved.len() < UNPROVED_MAX {
            let (shared, queue) = (Arc::clone(&shared), queue.clone());
            unproved.spawn(async move {
                let mut state = shared.state.subscribe();
                let proved = async { state.wait_for(|state| may(state, &peer)).await.is_ok() };
                if shared.within(meeting::HELLO_WITHIN, proved).await == Ok(true) {
                    hand_over(&queue, peer, made(peer, stream));
                }
            });
        }
    }
}

fn hand_over<T>(queue: &mpsc::Sender<T>, peer: PeerId, stream: T) {
    if queue.try_send(stream).is_err() {
        tracing::warn!(?peer, "more streams than this node takes at once");
    }
}

fn is_member(state: &NetState, peer: &PeerId) -> bool {
    state.members.contains(peer)
}

fn may_ask(state: &NetState, peer: &PeerId) -> bool {
    state.members.contains(peer) || state.guests.contains(peer)
}

/// Works on members' streams, `most` of them at once and each for so long at most. Others' are dropped.
pub(super) async fn for_members<F>(
    shared: Arc<Shared>,
    mut streams: Arrivals,
    most: usize,
    within: Duration,
    work: impl Fn(Compat<libp2p::Stream>) -> F,
) where
    F: Future + Send + 'static,
{
    let mut working = tokio::task::JoinSet::new();
    while let Some((peer, _, stream)) = streams.next().await {
        while working.try_join_next().is_some() {}
        let is_member = our_name(&peer).is_some_and(|peer| shared.is_member(peer));
        if is_member && working.len() < most {
            let (shared, work) = (Arc::clone(&shared), work(stream.compat()));
            working.spawn(async move {
                let _ = shared.within(within, work).await;
            });
        }
    }
}

/// Meetings that may be under way at once.
const MEETINGS_MAX: usize = 8192;

async fn meet(shared: Arc<Shared>, mut streams: Arrivals, order: mpsc::Sender<Order>) {
    let mut meetings = tokio::task::JoinSet::new();
    while let Some((peer, _, stream)) = streams.next().await {
        while meetings.try_join_next().is_some() {}
        let Some(peer) = our_name(&peer).filter(|_| meetings.len() < MEETINGS_MAX) else { continue };
        let (shared, order) = (Arc::clone(&shared), order.clone());
        meetings.spawn(async move {
            let ended = meeting::hear(shared, peer, stream).await;
            if let Ended::Refused(_) | Ended::Garbage(_) = ended {
                tracing::warn!(?peer, "{ended}");
                let _ = order.send(Order::CutOff(peer)).await;
            }
        });
    }
}
