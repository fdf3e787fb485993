//! How fast the way to a member is: a few echoes for the round trip, one long transfer for the bandwidth. Of two members
//! the lower one measures, when they meet and again from time to time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use libp2p::StreamProtocol;
use libp2p_stream::{Control, IncomingStreams};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::ad::Measured;
use super::for_members;
use super::identity::their_name;
use super::state::Shared;
use crate::clock::Clock as _;
use crate::ids::PeerId;

/// The protocol of probes.
pub(super) const PROBING: StreamProtocol = StreamProtocol::new("/meshwright/probe/1");

/// Echoes of which the fastest counts.
const ECHOES: usize = 8;
/// Bytes of an echo.
const ECHO: u32 = 64;
/// The long transfer grows from this ...
const TRANSFER_FIRST: u32 = 256 << 10;
/// ... to this, until it takes long enough to tell: bytes.
const TRANSFER_LAST: u32 = 16 << 20;
/// A transfer this long tells.
const TELLING: Duration = Duration::from_millis(100);
/// A probe that takes longer has failed.
const PROBE_WITHIN: Duration = Duration::from_secs(30);
/// Ways are measured again after so long.
const AGAIN: Duration = Duration::from_secs(600);
/// One that could not be measured is tried again after so long: the other end may not know yet that this one is a member.
const RETRY: Duration = Duration::from_secs(2);
/// A new figure that differs from the last one by less than this share is not told.
const NEWS: f64 = 0.1;
/// Members that may be probing this node at once.
const PROBES_MAX: usize = 16;

/// Answers members' probes: each is a length, so many bytes, and gets one byte back.
pub(super) async fn answer(shared: Arc<Shared>, streams: IncomingStreams) {
    let echo = |mut stream| async move { echo(&mut stream).await };
    for_members(shared, streams, PROBES_MAX, PROBE_WITHIN, echo).await;
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32().await?;
        if length > TRANSFER_LAST {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        tokio::io::copy(&mut (&mut *stream).take(u64::from(length)), &mut tokio::io::sink()).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
    }
}

/// Measures the ways to members as they come, and again from time to time.
pub(super) async fn measure(shared: Arc<Shared>, control: Control) {
    let mut state = shared.state.subscribe();
    let mut due = BTreeMap::new();
    loop {
        let members: Vec<PeerId> = state.borrow_and_update().members.iter().copied().collect();
        due.retain(|peer, _| members.contains(peer));
        for peer in members.into_iter().filter(|peer| shared.me < *peer) {
            let now = shared.clock.now();
            if due.get(&peer).is_some_and(|due| now < *due) {
                continue;
            }
            let link = shared.within(PROBE_WITHIN, probe(&shared, control.clone(), peer)).await;
            let pause = match link {
                Ok(Some(link)) => {
                    tell(&shared, link);
                    AGAIN
                }
                Ok(None) | Err(_) => RETRY,
            };
            due.insert(peer, shared.clock.now().after(pause));
        }
        let again = due.values().min().copied().unwrap_or_else(|| shared.clock.now().after(AGAIN));
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            () = shared.clock.sleep_until(again) => {}
        }
    }
}

async fn probe(shared: &Shared, mut control: Control, peer: PeerId) -> Option<Measured> {
    let stream = control.open_stream(their_name(peer)?, PROBING).await.ok()?;
    let mut stream = stream.compat();
    let mut least = f64::INFINITY;
    for _ in 0..ECHOES {
        least = least.min(send(shared, &mut stream, ECHO).await.ok()?.as_secs_f64());
    }
    let mut length = TRANSFER_FIRST;
    let bytes_per_s = loop {
        let took = send(shared, &mut stream, length).await.ok()?;
        if took >= TELLING || length >= TRANSFER_LAST {
            break f64::from(length) / (took.as_secs_f64() - least).max(1e-6);
        }
        length *= 4;
    };
    Some(Measured { peer, round_trip_us: least * 1e6, bytes_per_s })
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send>(
    shared: &Shared,
    stream: &mut S,
    length: u32,
) -> std::io::Result<Duration> {
    let mut bytes = vec![0; length as usize + 4];
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    let began = shared.clock.now();
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    stream.read_u8().await?;
    Ok(shared.clock.now().since(began))
}

/// Tells the mesh, if it is news.
fn tell(shared: &Shared, link: Measured) {
    let is_near = |a: f64, b: f64| (a - b).abs() <= NEWS * a.max(b);
    let same = |old: &Measured| {
        is_near(old.round_trip_us, link.round_trip_us) && is_near(old.bytes_per_s, link.bytes_per_s)
    };
    shared.roster.send_if_modified(|roster| {
        roster.update(|ad| {
            if !ad.links.iter().any(|old| old.peer == link.peer && same(old)) {
                ad.links.retain(|old| old.peer != link.peer);
                ad.links.push(link);
            }
        })
    });
}
