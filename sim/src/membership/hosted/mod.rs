//! The same mesh with every member a task of its own behind a transport: what runs is [`node::gossip`], which carries
//! packets over streams of frames, in turmoil with real framing, partial reads, connections that break and runtimes that
//! end. The loop over events only directs: it makes members, tells them things, strikes them, plays machines and clients, and
//! judges.
//!
//! * `strait`: what lies between a member and its world: clocks that run fast or slow, processes that stand still or are
//!   late, packets that are lost one way.

mod strait;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use node::PeerId;
use node::clock::{Clock, Instant};
use node::gossip::{Gossip, Said};
use node::transport::{Lane, Transport, Tx};
use node::wire::Frame;
use node::world::{Doors, World as DoorsOf};
use planner::cost::constants::RING;
use planner::fleet::{Delay, Distance, Fleet, LinkClass, Network, NetworkId, Node, catalog as devices};
use planner::model::catalog as models;
use tokio::sync::mpsc;

use super::member::{Member, Process};
use super::network::Watchwork;
use super::spec::Spec;
use super::world::World;
use crate::mesh::{Mesh, MeshError, MeshSpec, Play};
use crate::record::Recorder;
use crate::seed::Seed;
use crate::wires::Life;

pub(super) use self::strait::Strait;

use self::strait::{Across, Ticks};
use super::world::Heard;

/// Simulated milliseconds to a step of turmoil, which costs the same whatever happens in it: membership waits for tenths of
/// seconds.
const STEP_MS: u32 = 4;
/// What a liar says and cannot be carried in this time is lost.
const SHOUT_WITHIN: Duration = Duration::from_secs(1);
/// Streams that a liar holds.
const SHOUTS_MAX: usize = 16;
/// Uplinks of homes, bytes per second: drawn between these, by their logarithm.
const UPLINKS: (f64, f64) = (1e6, 1e8);

/// What a member's task needs to begin.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) process: Process,
    pub(super) clock: Watchwork,
    pub(super) sayings: mpsc::Receiver<Said>,
    pub(super) shouts: mpsc::Receiver<(PeerId, Vec<u8>)>,
}

/// The play: members as they are launched, directed by a [`World`].
#[derive(Debug, Clone)]
struct Stage {
    world: Rc<RefCell<World>>,
    strait: Strait,
    end_ns: u64,
}

/// Runs `world` in turmoil.
pub(super) fn over_turmoil(world: World, seed: Seed) -> Result<World, MeshError> {
    on(world, seed, |mesh, stage| crate::over_turmoil::run_coarse(mesh, stage, STEP_MS))
}

/// Runs `world` with streams in memory.
#[cfg(test)]
pub(super) fn in_memory(world: World, seed: Seed) -> Result<World, MeshError> {
    on(world, seed, crate::memory::run)
}

fn on(
    world: World,
    seed: Seed,
    run: impl FnOnce(MeshSpec, &Stage) -> Result<(), MeshError>,
) -> Result<World, MeshError> {
    let mesh = mesh(&world.spec, &world.members, seed)?;
    let strait = Strait::new(world.members.len(), seed.fork("strait"));
    let end_ns = world.end_ns();
    let world = Rc::new(RefCell::new(world.directing(strait.clone())));
    let stage = Stage { world: Rc::clone(&world), strait, end_ns };
    run(mesh, &stage)?;
    drop(stage);
    let world =
        Rc::into_inner(world).ok_or_else(|| MeshError::Setup("a member outlived its world".into()))?;
    Ok(world.into_inner())
}

/// Each member in a home of its own, as far apart as their places are.
fn mesh(spec: &Spec, members: &[Member], seed: Seed) -> Result<MeshSpec, MeshError> {
    let unknown = |error: &dyn std::fmt::Display| MeshError::Setup(error.to_string());
    let device = devices::device("rtx-4090").map_err(|error| unknown(&error))?;
    let model = models::find("Llama-3.1-8B").map_err(|error| unknown(&error))?;
    let mut draws = seed.fork("uplinks").draws();
    let network = |i: usize| Network {
        name: format!("home-{i}"),
        class: LinkClass::Lan,
        delay: Delay { base_us: 200.0, jitter_us: 0.0 },
        bytes_per_s: 1.17e8,
        shared: false,
        air_crossings: 1.0,
        access_us: 0.0,
        loss: 0.0,
        up_bytes_per_s: Some(UPLINKS.0 * (UPLINKS.1 / UPLINKS.0).powf(draws.unit())),
        down_bytes_per_s: None,
    };
    let networks: Vec<Network> = (0..members.len()).map(network).collect();
    let node = |i: usize| Node {
        name: format!("member-{i}"),
        device: device.clone(),
        machine: format!("machine-{i}"),
        network: NetworkId(i as u32),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: false,
    };
    let nodes: Vec<Node> = (0..members.len()).map(node).collect();
    let pairs = (0..members.len()).flat_map(|a| (a + 1..members.len()).map(move |b| (a, b)));
    let distance = |(a, b): (usize, usize)| Distance {
        a: NetworkId(a as u32),
        b: NetworkId(b as u32),
        delay: Delay {
            base_us: members[a].place.round_trip_ms(&members[b].place) * 500.0,
            jitter_us: spec.network.jitter_ms * 1e3,
        },
        class: LinkClass::Wan,
        loss: spec.network.loss,
    };
    let names = nodes.iter().map(|node| node.name.clone()).collect();
    Ok(MeshSpec {
        fleet: Fleet { distances: pairs.map(distance).collect(), nodes, networks, overrides: Vec::new() },
        model: Arc::new(model),
        seed,
        compute_error: (0.0, 0.0),
        software: RING,
        loaded: BTreeMap::new(),
        recorder: Recorder::new(names, false),
    })
}

impl Play for Stage {
    fn live<W: DoorsOf>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let stage = self.clone();
        async move {
            let i = life.node.0;
            let launch = loop {
                let launch = stage.world.borrow_mut().take_launch(i);
                match launch {
                    Some(launch) => break launch,
                    None => stage.strait.begun(i).await,
                }
            };
            member::<W>(i, doors, stage.strait.clone(), launch).await;
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let stage = self.clone();
        async move {
            let ears = stage.strait.ears();
            loop {
                let now = mesh.clock().now();
                let (orders, due_ns) = stage.world.borrow_mut().direct(now.0.min(stage.end_ns));
                orders.iter().for_each(|order| mesh.apply(order));
                if now.0 >= stage.end_ns {
                    return;
                }
                let due = Instant(due_ns.min(stage.end_ns));
                let _ = mesh.clock().timeout_at(due, ears.news()).await;
            }
        }
    }
}

/// One life of a member, as a real node's is wired: the driver, and what its network sees of others' ends.
async fn member<W: DoorsOf>(i: u32, doors: Doors<W>, strait: Strait, launch: Launch) {
    let Launch { process, clock, mut sayings, shouts } = launch;
    let (world, ears) = (doors.clock.clone(), strait.ears());
    let clock = Ticks::new(doors.clock, clock, strait.clone(), i);
    let transport = Across::new(doors.transport, world.clone(), strait, i);
    let at = world.clone();
    let hear = move |_: &_, events: Vec<_>| {
        let at_ns = at.now().0;
        events.into_iter().for_each(|event| ears.hear(Heard::Event(at_ns, i, event)));
    };
    let gossip = Gossip::shared(transport.clone(), clock, process.shared(), hear);
    drop(process);
    let tell = async {
        while let Some(said) = sayings.recv().await {
            gossip.tell(said).await;
        }
        std::future::pending::<()>().await;
    };
    let refused = async {
        loop {
            let peer = transport.refused().await;
            gossip.say(Said::Unreachable(peer));
        }
    };
    tokio::join!(tell, refused, shout(transport.clone(), world, shouts));
}

/// Sends what a liar has made up.
async fn shout<N: Transport, C: Clock>(
    transport: N,
    clock: C,
    mut shouts: mpsc::Receiver<(PeerId, Vec<u8>)>,
) {
    let mut streams: BTreeMap<PeerId, N::Tx> = BTreeMap::new();
    while let Some((to, bytes)) = shouts.recv().await {
        let deadline = clock.now().after(SHOUT_WITHIN);
        let stream = match streams.remove(&to) {
            Some(stream) => Some(stream),
            None => match clock.timeout_at(deadline, transport.open(to, Lane::Control)).await {
                Ok(Ok(stream)) => Some(stream),
                _ => None,
            },
        };
        let Some(mut stream) = stream else { continue };
        let sent = clock.timeout_at(deadline, stream.send(Frame::Gossip(bytes.into()))).await;
        if matches!(sent, Ok(Ok(()))) && streams.len() < SHOUTS_MAX {
            streams.insert(to, stream);
        }
    }
}
