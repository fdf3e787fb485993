//! How fast the ways to a member are: a few echoes for the round trip, frames as large as a token's activations there and
//! back, one long transfer for the bandwidth. Of two members the lower one measures, when they meet, when another way has
//! opened, and again from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::StreamProtocol;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::arriving::for_members;
use super::choosing::{self, Both, Figures};
use super::identity::their_name;
use super::state::{Connection, Shared};
use super::swarm::Order;
use super::ways::{Arrivals, Way};
use crate::clock::{Clock as _, Instant};
use crate::ids::PeerId;
use crate::membership::{LINKS_MAX, Link};

/// The protocol of probes.
pub(super) const PROBING: StreamProtocol = StreamProtocol::new("/meshwright/probe/1");

/// Echoes of which the fastest counts.
const ECHOES: usize = 8;
/// Bytes of an echo.
const ECHO: u32 = 64;
/// Frames there and back, of which the middle one counts. Ways take turns, so that each meets the same machine.
const FRAMES: usize = 15;
/// Bytes of one: the activations of a token in 16 bits, of a model of 4,096 channels.
const FRAME: u32 = 8 << 10;
/// Set in a length: so many bytes are wanted back, not one.
const BACK: u32 = 1 << 31;
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
const NEWS: f32 = 0.1;
/// Members that may be probing this node at once.
const PROBES_MAX: usize = 16;

/// Answers members' probes: each is a length, so many bytes, and gets one byte back, or as many.
pub(super) async fn answer(shared: Arc<Shared>, streams: Arrivals) {
    let echo = |mut stream| async move { echo(&mut stream).await };
    for_members(shared, streams, PROBES_MAX, PROBE_WITHIN, echo).await;
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<()> {
    loop {
        let word = stream.read_u32().await?;
        let length = word & !BACK;
        let is_frame = word & BACK != 0;
        if length > if is_frame { FRAME } else { TRANSFER_LAST } {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        tokio::io::copy(&mut (&mut *stream).take(u64::from(length)), &mut tokio::io::sink()).await?;
        let back = if is_frame { vec![0; length as usize] } else { vec![1] };
        stream.write_all(&back).await?;
        stream.flush().await?;
    }
}

/// What was measured when, and of which connection.
struct Done {
    due: Instant,
    number: u64,
    open: BTreeSet<Way>,
}

impl Done {
    fn holds(&self, now: Instant, connection: &Connection) -> bool {
        now < self.due && self.number == connection.number && connection.open.is_subset(&self.open)
    }
}

/// Measures the ways to members as they open, and again from time to time.
pub(super) async fn measure(shared: Arc<Shared>, order: mpsc::Sender<Order>) {
    let mut state = shared.state.subscribe();
    let mut done: BTreeMap<PeerId, Done> = BTreeMap::new();
    loop {
        let mut connections = {
            let state = state.borrow_and_update();
            let mut connections = state.connections.clone();
            connections.retain(|peer, _| shared.me < *peer && state.members.contains(peer));
            connections
        };
        done.retain(|peer, _| connections.contains_key(peer));
        let now = shared.clock.now();
        connections
            .retain(|peer, connection| !done.get(peer).is_some_and(|done| done.holds(now, connection)));
        for (peer, connection) in connections {
            let is_settled = settle(&shared, peer, &connection, &order).await;
            let due = shared.clock.now().after(if is_settled { AGAIN } else { RETRY });
            done.insert(peer, Done { due, number: connection.number, open: connection.open });
        }
        let again = done.values().map(|done| done.due).min();
        let again = again.unwrap_or_else(|| shared.clock.now().after(AGAIN));
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            () = shared.clock.sleep_until(again) => {}
        }
    }
}

/// Measures the ways to one member, chooses where there are two, and tells the mesh. Gives whether all of that was done.
async fn settle(
    shared: &Arc<Shared>,
    peer: PeerId,
    connection: &Connection,
    order: &mpsc::Sender<Order>,
) -> bool {
    let measuring = probe(shared, peer, &connection.open);
    let Ok(Some(measured)) = shared.within(PROBE_WITHIN, measuring).await else { return false };
    let way = choosing::better(connection.used, &measured);
    let Some(figures) = measured.get(&way).copied() else { return false };
    tell(shared, peer, figures);
    let is_news = measured.len() > 1 || way != connection.used;
    let agreed = !is_news || choosing::tell(shared, peer, way, &measured).await;
    if agreed {
        shared.use_way(peer, way, measured, order).await;
    }
    agreed
}

/// Measures these ways in turn. One that cannot be measured is left out.
async fn probe(shared: &Shared, peer: PeerId, ways: &BTreeSet<Way>) -> Option<Both> {
    let mut probes = Vec::new();
    for way in ways {
        if let Some(stream) = shared.doors.open(their_name(peer)?, *way, PROBING).await {
            probes.push(Probe {
                way: *way,
                stream: stream.compat(),
                frames: Vec::new(),
                least: f64::INFINITY,
            });
        }
    }
    let mut failed = BTreeSet::new();
    for turn in 0..ECHOES + FRAMES {
        for probe in &mut probes {
            if failed.contains(&probe.way) {
                continue;
            }
            let took = if turn < ECHOES { probe.echo(shared).await } else { probe.frame(shared).await };
            if took.is_err() {
                failed.insert(probe.way);
            }
        }
    }
    let mut measured = Both::new();
    for mut probe in probes.into_iter().filter(|probe| !failed.contains(&probe.way)) {
        if let Ok(figures) = probe.finish(shared).await {
            measured.insert(probe.way, figures);
        }
    }
    Some(measured)
}

struct Probe {
    way: Way,
    stream: Compat<libp2p::Stream>,
    /// Microseconds.
    frames: Vec<f64>,
    /// The least round trip, seconds.
    least: f64,
}

impl Probe {
    async fn echo(&mut self, shared: &Shared) -> std::io::Result<()> {
        let took = send(shared, &mut self.stream, ECHO).await?;
        self.least = self.least.min(took.as_secs_f64());
        Ok(())
    }

    async fn frame(&mut self, shared: &Shared) -> std::io::Result<()> {
        let took = send(shared, &mut self.stream, FRAME | BACK).await?;
        self.frames.push(took.as_secs_f64() * 1e6);
        Ok(())
    }

    async fn finish(&mut self, shared: &Shared) -> std::io::Result<Figures> {
        let mut length = TRANSFER_FIRST;
        let bytes_per_s = loop {
            let took = send(shared, &mut self.stream, length).await?;
            if took >= TELLING || length >= TRANSFER_LAST {
                break f64::from(length) / (took.as_secs_f64() - self.least).max(1e-6);
            }
            length *= 4;
        };
        self.frames.sort_by(f64::total_cmp);
        let frame_us = self.frames.get(self.frames.len() / 2).copied().unwrap_or_default();
        Ok(Figures { round_trip_us: self.least * 1e6, frame_us, bytes_per_s })
    }
}

/// Sends so many bytes and waits for what comes back.
async fn send<S: AsyncRead + AsyncWrite + Unpin + Send>(
    shared: &Shared,
    stream: &mut S,
    word: u32,
) -> std::io::Result<Duration> {
    let length = (word & !BACK) as usize;
    let mut bytes = vec![0; length + 4];
    bytes[..4].copy_from_slice(&word.to_be_bytes());
    let mut back = vec![0; if word & BACK == 0 { 1 } else { length }];
    let began = shared.clock.now();
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    stream.read_exact(&mut back).await?;
    Ok(shared.clock.now().since(began))
}

/// Tells the mesh, if it is news.
fn tell(shared: &Shared, peer: PeerId, figures: Figures) {
    let Figures { round_trip_us, bytes_per_s, .. } = figures;
    let link = Link { peer, round_trip_us: round_trip_us as f32, bytes_per_s: bytes_per_s.max(1.0) as f32 };
    let is_near = |a: f32, b: f32| (a - b).abs() <= NEWS * a.max(b);
    let same = |old: &Link| {
        is_near(old.round_trip_us, link.round_trip_us) && is_near(old.bytes_per_s, link.bytes_per_s)
    };
    shared.update(|profile| {
        if !profile.links.iter().any(|old| old.peer == link.peer && same(old)) {
            profile.links.retain(|old| old.peer != link.peer);
            profile.links.push(link);
            // The nearest are those that a model may be split with.
            profile.links.sort_by(|a, b| a.round_trip_us.total_cmp(&b.round_trip_us));
            profile.links.truncate(LINKS_MAX);
        }
    });
}
