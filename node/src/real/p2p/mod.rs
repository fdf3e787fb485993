//! The network of real machines: libp2p over TCP (noise, yamux) and QUIC.
//!
//! * [`identity`]: who a node is. [`invite`]: the secret of a mesh, and tokens.
//! * `company`: the membership. [`roster`]: what it knows of all members, and the fleet that makes.
//! * `meeting`: how members prove that they are. [`guest`]: who only asks. `headers`: what a machine without a model's files needs to speak for it.
//! * [`ways`]: TCP and QUIC. `probing`: how fast they are. `choosing`: the better one. `moving`: lanes change over to it.
//! * `swarm`: connections, on a thread of their own, and `calling`. `arriving`: who takes the streams that others open. [`streams`]: the node's transport. [`state`]: what both share, and `news`: how it is
//!   looked at.

mod arriving;
mod calling;
mod choosing;
mod company;
pub mod guest;
mod headers;
pub mod identity;
pub mod invite;
mod meeting;
mod moving;
mod news;
mod probing;
pub mod roster;
mod state;
pub mod streams;
mod swarm;
pub mod ways;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::compat::Compat;

pub use self::choosing::Figures;
pub use self::headers::HeaderError;
pub use self::news::News;
pub use self::state::{Connection, NetState};

use self::company::{Company, Own};
use self::headers::Files;
use self::identity::Key;
use self::invite::{Invite, MeshKey};
use self::moving::Lines;
use self::roster::Roster;
use self::state::Shared;
use self::streams::{INCOMING_MAX, P2p, REFUSED_MAX, Received};
use self::swarm::Driver;
use self::ways::Way;
use crate::clock::{Clock as _, TokioClock};
use crate::demand::DemandMap;
use crate::gossip::Said;
use crate::ids::PeerId;
use crate::membership::{ADDRESSES_MAX, Fingerprint, Profile, State};
use crate::switch::{Branch, Switch};
use crate::wire::Channel;

/// What a node tells others of where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announce {
    /// Where it listens, without loopback addresses.
    Listening,
    /// These addresses, and no others; none for a node that only calls.
    Only(Vec<Multiaddr>),
}

/// How the network of a node is set up.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Who this node is.
    pub key: Key,
    /// The mesh it belongs to.
    pub mesh: MeshKey,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Where members listen.
    pub join: Vec<Multiaddr>,
    /// Where members listened once: tried while nobody is connected, and not complained of.
    pub remembered: Vec<Multiaddr>,
    /// What to tell of where it listens.
    pub announce: Announce,
    /// Find members on this LAN.
    pub mdns: bool,
    /// The only way to call others; `None` for both, and the better one of them.
    pub only: Option<Way>,
    /// Largest frame accepted, bytes.
    pub frame_bytes: u32,
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// It cannot listen there.
    #[error("cannot listen on {address}: {why}; another program may use the port: choose one with --listen")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// Why.
        why: String,
    },
    /// Something in the system.
    #[error("cannot set up the network: {0}")]
    Setup(String),
}

/// A stream over which somebody asks the API, in HTTP.
pub type Question = (PeerId, Compat<libp2p::Stream>);

/// Opening a port takes no longer, unless the network is down.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Such streams that wait to be taken.
const QUESTIONS_MAX: usize = 64;

type Questions = std::sync::Mutex<Option<mpsc::Receiver<Question>>>;

/// The network of a node. It ends with this.
pub struct Net {
    transport: P2p,
    switch: Switch<P2p>,
    company: Arc<Company>,
    questions: Questions,
    announce: Announce,
    files: Files,
    thread: Option<std::thread::JoinHandle<()>>,
    end: mpsc::Sender<()>,
}

impl Net {
    /// Starts listening and calling, on a thread of its own. `profile` is what this node says of itself to begin with; its
    /// addresses and links are filled in.
    ///
    /// # Errors
    /// [`NetError`] when it cannot listen.
    pub fn start(config: NetConfig, profile: Profile) -> Result<Self, NetError> {
        let (end, ended) = mpsc::channel(1);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let announce = config.announce.clone();
        let files = Files::default();
        let shown = Arc::clone(&files);
        let body = move || run(config, profile, shown, &ready, ended);
        let thread = std::thread::Builder::new().name("network".into()).spawn(body);
        let thread = thread.map_err(|why| NetError::Setup(why.to_string()))?;
        let up = started.recv().map_err(|_| NetError::Setup("its thread ended".into()))??;
        let Up { transport, switch, company, questions } = up;
        Ok(Self { transport, switch, company, questions, announce, files, thread: Some(thread), end })
    }

    /// The network for what concerns one model, until that and its clones are dropped; `None` where somebody has it.
    pub fn branch(&self, model: &Fingerprint) -> Option<Branch<P2p>> {
        self.switch.branch(Channel(*model))
    }

    /// Streams over which guests and members ask the API. Whoever takes them first has them; dropped ones are closed.
    pub fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The runtime of the network's thread. What runs there hands frames over without waking another thread; it must not
    /// compute.
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.transport.shared.runtime.clone()
    }

    /// How the network is, now and as it changes.
    pub fn state(&self) -> News<NetState> {
        News::new(&self.transport.shared.state)
    }

    /// Waits until it is known where this node listens: before, an invitation names no address.
    pub async fn listens(&self) {
        let shared = &self.transport.shared;
        let mut state = self.state();
        let opened = state.until(|state| state.opening.is_empty());
        if shared.within(OPEN_WITHIN, opened).await.is_err() {
            tracing::warn!("it is not known yet where this node listens");
        }
    }

    /// Who is in the mesh, now and as it changes.
    pub fn roster(&self) -> News<Roster> {
        News::new(&self.transport.shared.roster)
    }

    /// Tells the mesh something else of this node.
    pub fn update(&self, change: impl FnOnce(&mut Profile)) {
        self.transport.shared.update(change);
    }

    /// Tells the mesh what this node does now. Its coordinate is filled in.
    pub fn report(&self, state: State) {
        self.transport.shared.own.send_if_modified(|own| {
            let is_news = own.state != state;
            own.state = state;
            is_news
        });
    }

    /// Somebody asked this node for a model, served or not.
    pub fn asked(&self, model: &str) {
        self.company.say(Said::Asked(model.into()));
    }

    /// What is asked for, over the whole mesh.
    pub fn demand(&self) -> DemandMap {
        self.company.read(|member| member.demand(self.transport.shared.clock.now()))
    }

    /// Tells the mesh that this node ends, and returns when that was said.
    pub async fn leave(&self) {
        self.company.leave().await;
    }

    /// Lets members without these files ask for their headers. What is offered is said in the profile.
    pub fn show(&self, files: BTreeMap<Fingerprint, Vec<PathBuf>>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Fetches everything but the weights of a model that `peer` offers into `folder`, unless it is there: files that say
    /// all of the model and hold none of it. Gives the first of them.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub async fn header(
        &self,
        peer: PeerId,
        wanted: Fingerprint,
        folder: &Path,
    ) -> Result<PathBuf, HeaderError> {
        headers::fetch(&self.transport.shared, peer, wanted, folder).await
    }

    /// Bytes received so far.
    pub fn received(&self) -> &Received {
        &self.transport.shared.received
    }

    /// A token that invites to this mesh, by the addresses that are announced now.
    pub fn invite(&self) -> Invite {
        let shared = &self.transport.shared;
        let addresses = match &self.announce {
            Announce::Listening => shared.state.borrow().listening.clone(),
            Announce::Only(addresses) => addresses.clone(),
        };
        Invite { mesh: shared.mesh.clone(), addresses: reachable(addresses) }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.end.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
fn run(
    config: NetConfig,
    profile: Profile,
    files: Files,
    ready: &std::sync::mpsc::SyncSender<Result<Up, NetError>>,
    mut ended: mpsc::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            let _ = ready.send(Err(NetError::Setup(why.to_string())));
            return;
        }
    };
    runtime.block_on(async {
        match set_up(config, profile, files) {
            Ok((up, driver, tasks)) => {
                let _ = ready.send(Ok(up));
                tokio::select! {
                    biased;
                    _ = ended.recv() => {}
                    () = driver.run() => {}
                }
                tasks.into_iter().for_each(|task| task.abort());
            }
            Err(why) => {
                let _ = ready.send(Err(why));
            }
        }
    });
}

type Tasks = Vec<tokio::task::JoinHandle<()>>;

/// What the network's thread hands out once it is up.
struct Up {
    transport: P2p,
    switch: Switch<P2p>,
    company: Arc<Company>,
    questions: Questions,
}

fn set_up(config: NetConfig, profile: Profile, files: Files) -> Result<(Up, Driver, Tasks), NetError> {
    let NetConfig { key, mesh, listen, join, remembered, announce, mdns, only, frame_bytes } = config;
    let mut swarm = swarm::build(&key, mdns).map_err(NetError::Setup)?;
    let mut opening = Vec::new();
    for address in listen {
        let listening = swarm.listen_on(address.clone());
        opening.push(listening.map_err(|why| NetError::Listen { address, why: root(&why) })?);
    }
    #[expect(clippy::disallowed_methods, reason = "the network's own clock begins here")]
    let clock = TokioClock::new(tokio::time::Instant::now(), 1);
    let (refusals, refused) = mpsc::channel(REFUSED_MAX);
    let shared = Arc::new(Shared {
        me: key.peer(),
        mesh,
        frame_bytes,
        clock,
        runtime: tokio::runtime::Handle::current(),
        doors: swarm.behaviour().doors(),
        connections: AtomicU64::new(0),
        lines: Lines::default(),
        roster: watch::Sender::new(Roster::new(key.peer(), profile.clone())),
        own: watch::Sender::new(Own { profile, state: State::default() }),
        state: watch::Sender::new(NetState { opening, ..NetState::default() }),
        received: Received::default(),
        refused: refusals,
    });
    let (order, orders) = mpsc::channel(64);
    let (queue, incoming) = mpsc::channel(INCOMING_MAX);
    let (asked, questions) = mpsc::channel(QUESTIONS_MAX);
    let tasks = arriving::take(&shared, &order, &queue, &asked, files)
        .map_err(|_| NetError::Setup("a protocol is spoken twice".into()))?
        .into_iter()
        .chain([
            tokio::spawn(probing::measure(Arc::clone(&shared), order.clone())),
            tokio::spawn(tell_addresses(Arc::clone(&shared), announce)),
        ]);
    let mut tasks: Tasks = tasks.collect();
    let (incoming, refused) = (Arc::new(Mutex::new(incoming)), Arc::new(Mutex::new(refused)));
    let transport = P2p { shared: Arc::clone(&shared), incoming, refused };
    let switch = Switch::new(transport.clone());
    let mesh = switch.branch(Channel::default()).expect("it is the first");
    let company = Arc::new(company::start(&shared, key, mesh));
    tasks.push(tokio::spawn(switch.clone().run(clock)));
    tasks.push(tokio::spawn(company::tell(Arc::clone(&shared), Arc::clone(&company))));
    let doors = calling::doors(join, remembered);
    let questions = std::sync::Mutex::new(Some(questions));
    Ok((
        Up { transport, switch, company, questions },
        Driver::new(swarm, shared, (order, orders), doors, only),
        tasks,
    ))
}

/// What is behind an error: those around it only say that there was one.
fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let said = last.to_string();
    if said.trim().is_empty() { "the system does not say why".into() } else { said }
}

/// Keeps the addresses in this node's profile up to date.
async fn tell_addresses(shared: Arc<Shared>, announce: Announce) {
    let mut state = shared.state.subscribe();
    loop {
        let addresses = match &announce {
            Announce::Only(addresses) => addresses.clone(),
            Announce::Listening => {
                let listening = state.borrow_and_update().listening.clone();
                reachable(listening)
            }
        };
        shared.update(|profile| {
            profile.addresses = addresses.iter().map(ToString::to_string).take(ADDRESSES_MAX).collect();
        });
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Those that others can reach, as many as are told.
fn reachable(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    addresses.retain(|address| !is_loopback(address));
    addresses.truncate(invite::ADDRESSES_MAX);
    addresses
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}
