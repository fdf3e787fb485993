//! Who only asks: it calls members, proves that it may, and opens streams to ask over. It listens nowhere, joins nothing,
//! and no member remembers it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::NetError;
use super::calling::brief;
use super::identity::{Key, our_name, their_name};
use super::invite::MeshKey;
use super::meeting::{self, Ended, MEETING};
use super::swarm;
use super::ways::{Arrivals, Behaviour, Doors, Way};
use crate::clock::{Clock as _, TokioClock};
use crate::ids::PeerId;

/// The protocol of questions: HTTP/1.1, a request for each stream.
pub(super) const ASKING: StreamProtocol = StreamProtocol::new("/meshwright/ask/1");

/// How long it may take to reach a member, prove and be proved to, and open a stream.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Calls under way at once, each of them bounded by [`CALL_WITHIN`].
const CALLS_MAX: usize = 256;

/// Why a member cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answers, or not in time.
    #[error("nobody answers: {0}")]
    Unreachable(String),
    /// It turned this guest away.
    #[error("{0}")]
    Refused(String),
    /// It is no member of this mesh.
    #[error("who answers does not belong to this mesh")]
    Stranger,
}

/// Asks members of a mesh without belonging to it. Its name is another one each time.
pub struct Guest {
    calls: mpsc::Sender<Call>,
    doors: Doors,
    clock: TokioClock,
    task: JoinHandle<()>,
}

type Reply = oneshot::Sender<Result<(PeerId, Way), CallError>>;

struct Call {
    /// Who is meant, where that is known.
    peer: Option<PeerId>,
    addresses: Vec<Multiaddr>,
    reply: Reply,
}

impl Guest {
    /// A guest of that mesh, on the current runtime.
    ///
    /// # Errors
    /// [`NetError`] where the system has no network.
    pub fn start(mesh: MeshKey, clock: TokioClock) -> Result<Self, NetError> {
        let key = Key::generate();
        let swarm = swarm::built(&key, |_| Behaviour::new()).map_err(NetError::Setup)?;
        let doors = swarm.behaviour().doors();
        let hellos = doors.accept(&MEETING).map_err(|why| NetError::Setup(why.to_string()))?;
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let visits = JoinSet::new();
        let (doors_of, me) = (doors.clone(), key.peer());
        let driver = Driver {
            swarm,
            doors: doors_of,
            mesh,
            me,
            clock,
            calls: called,
            hellos,
            visits,
            hosts: BTreeMap::new(),
            dialing: BTreeMap::new(),
        };
        Ok(Self { calls, doors, clock, task: tokio::spawn(driver.run()) })
    }

    /// A stream to ask over, to the member `peer` that listens at one of these addresses, or to whoever listens there.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ask(
        &self,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<(PeerId, Compat<libp2p::Stream>), CallError> {
        let lost = |why: &str| CallError::Unreachable(why.into());
        let asking = async {
            let (reply, answer) = oneshot::channel();
            let call = Call { peer, addresses: addresses.to_vec(), reply };
            self.calls.send(call).await.map_err(|_| lost("the network has ended"))?;
            let (peer, way) = answer.await.map_err(|_| lost("the connection broke"))??;
            let name = their_name(peer).ok_or(CallError::Stranger)?;
            let stream = self.doors.open(name, way, ASKING).await;
            Ok((peer, stream.ok_or_else(|| lost("the connection broke"))?.compat()))
        };
        let until = self.clock.now().after(CALL_WITHIN);
        self.clock.timeout_at(until, asking).await.unwrap_or_else(|_| Err(lost("not in time")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connected peer.
struct Host {
    way: Way,
    /// It has let this guest in.
    lets_in: bool,
    /// It has proved that it belongs to the mesh.
    is_proved: bool,
    /// Its connection ended while it was not known yet whether it lets this guest in: what it said of that may still come.
    is_gone: bool,
    waiting: Vec<Reply>,
}

impl Host {
    fn settle(&mut self, peer: PeerId) {
        if self.lets_in && self.is_proved && !self.is_gone {
            for reply in self.waiting.drain(..) {
                let _ = reply.send(Ok((peer, self.way)));
            }
        }
    }
}

/// What came of one half of a meeting.
enum Met {
    Visited(PeerId, Result<(), Ended>),
    Heard(PeerId, bool),
}

struct Driver {
    swarm: Swarm<Behaviour>,
    doors: Doors,
    mesh: MeshKey,
    me: PeerId,
    clock: TokioClock,
    calls: mpsc::Receiver<Call>,
    hellos: Arrivals,
    visits: JoinSet<Met>,
    hosts: BTreeMap<PeerId, Host>,
    dialing: BTreeMap<ConnectionId, Vec<Reply>>,
}

impl Driver {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                call = self.calls.recv() => match call {
                    Some(call) => self.call(call),
                    None => return,
                },
                Some(met) = self.visits.join_next() => if let Ok(met) = met { self.on_met(met) },
                Some((peer, _, stream)) = self.hellos.next() => self.on_hello(&peer, stream),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn call(&mut self, call: Call) {
        let Call { peer, addresses, reply } = call;
        if let Some(host) = peer.and_then(|peer| self.hosts.get_mut(&peer)) {
            host.waiting.retain(|reply| !reply.is_closed());
            host.waiting.push(reply);
            peer.into_iter().for_each(|peer| host.settle(peer));
            return;
        }
        let mut addresses = addresses.into_iter();
        let options = match peer.and_then(their_name) {
            Some(name) => DialOpts::peer_id(name).addresses(addresses.collect()).build(),
            None => match addresses.next() {
                Some(address) => DialOpts::from(address),
                None => return drop(reply.send(Err(CallError::Unreachable("no address is known".into())))),
            },
        };
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.dialing.entry(id).or_default().push(reply),
            Err(why) => drop(reply.send(Err(CallError::Unreachable(brief(&why.to_string()))))),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<()>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let waiting = self.dialing.remove(&connection_id).unwrap_or_default();
                let Some(peer) = our_name(&peer_id) else {
                    let _ = self.swarm.disconnect_peer_id(peer_id);
                    return;
                };
                if self.hosts.get(&peer).is_none_or(|host| host.is_gone) {
                    self.visit(peer, Way::between(&endpoint));
                }
                if let Some(host) = self.hosts.get_mut(&peer) {
                    host.waiting.extend(waiting);
                    host.settle(peer);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                if let Some(peer) = our_name(&peer_id) {
                    self.on_gone(peer);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                let why = CallError::Unreachable(brief(&error.to_string()));
                for reply in self.dialing.remove(&connection_id).unwrap_or_default() {
                    let _ = reply.send(Err(why.clone()));
                }
            }
            _ => {}
        }
    }

    /// The last connection to it ended.
    fn on_gone(&mut self, peer: PeerId) {
        match self.hosts.get_mut(&peer) {
            Some(host) if !host.lets_in => host.is_gone = true,
            _ => drop(self.hosts.remove(&peer)),
        }
    }

    /// Tells a member who has just been connected that it is asked by a guest.
    fn visit(&mut self, peer: PeerId, way: Way) {
        let waiting = self.hosts.remove(&peer).map(|gone| gone.waiting).unwrap_or_default();
        self.hosts.insert(peer, Host { way, lets_in: false, is_proved: false, is_gone: false, waiting });
        let (doors, clock, proof) = (self.doors.clone(), self.clock, self.mesh.proof(self.me, peer));
        self.visits.spawn(async move {
            let opened = match their_name(peer) {
                Some(name) => doors.open(name, way, MEETING).await,
                None => None,
            };
            let visited = match opened {
                Some(stream) => meeting::visit(&clock, proof, stream).await,
                None => Err(Ended::Garbage("it has no meeting protocol")),
            };
            Met::Visited(peer, visited)
        });
    }

    fn on_hello(&mut self, peer: &libp2p::PeerId, stream: libp2p::Stream) {
        let Some(peer) = our_name(peer).filter(|peer| self.hosts.contains_key(peer)) else { return };
        let (clock, mesh, me) = (self.clock, self.mesh.clone(), self.me);
        self.visits.spawn(async move {
            let proof = meeting::proof_of(&clock, stream).await;
            Met::Heard(peer, proof.is_some_and(|proof| mesh.is_proof(peer, me, &proof)))
        });
    }

    fn on_met(&mut self, met: Met) {
        let (peer, fault) = match met {
            Met::Visited(peer, Ok(())) => {
                self.hosts.entry(peer).and_modify(|host| host.lets_in = true);
                (peer, None)
            }
            Met::Visited(peer, Err(Ended::Refused(why))) => (peer, Some(CallError::Refused(why))),
            Met::Visited(peer, Err(why)) => (peer, Some(CallError::Unreachable(why.to_string()))),
            Met::Heard(peer, true) => {
                self.hosts.entry(peer).and_modify(|host| host.is_proved = true);
                (peer, None)
            }
            Met::Heard(peer, false) => (peer, Some(CallError::Stranger)),
        };
        let Some(host) = self.hosts.get_mut(&peer) else { return };
        if host.is_gone && fault.is_none() {
            // Whoever waits hears that the connection broke.
            self.hosts.remove(&peer);
            return;
        }
        let Some(fault) = fault else { return host.settle(peer) };
        for reply in host.waiting.drain(..) {
            let _ = reply.send(Err(fault.clone()));
        }
        if host.is_gone {
            self.hosts.remove(&peer);
        } else if let Some(name) = their_name(peer) {
            let _ = self.swarm.disconnect_peer_id(name);
        }
    }
}
