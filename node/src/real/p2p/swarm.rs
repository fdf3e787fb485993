//! The network's own thread: connections come and go here, and nothing else is done here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, identify, mdns, noise, tcp, yamux};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::calling::{Door, REDIAL_FIRST, Redial, brief, is_refusal};
use super::identity::{Key, our_name, their_name};
use super::meeting::{self, Ended, HELLO_WITHIN};
use super::state::Shared;
use super::ways::{self, Way};
use crate::clock::{Clock as _, Instant};
use crate::ids::PeerId;

/// Of two members that both know where the other is, the higher one waits this long for the lower one to call.
const COURTESY: Duration = Duration::from_secs(3);
/// A connection on which nothing is open is kept this long.
const IDLE: Duration = Duration::from_secs(60);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    ways: ways::Behaviour,
    identify: identify::Behaviour,
    limits: connection_limits::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// A meeting with that peer is over.
    Met(PeerId, Ended),
    /// Lanes to that peer use the other way from now on: so shall the meeting.
    Moved(PeerId),
    /// That peer does not belong here.
    CutOff(PeerId),
}

/// A swarm with everything this node speaks.
pub(super) fn build(key: &Key, mdns: bool) -> Result<Swarm<Behaviour>, String> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(128))
        .with_max_pending_outgoing(Some(128))
        .with_max_established_incoming(Some(4096))
        .with_max_established_per_peer(Some(4));
    built(key, |pair| {
        let config = identify::Config::new("/meshwright/1".into(), pair.public())
            .with_agent_version(concat!("meshwright/", env!("CARGO_PKG_VERSION")).into());
        let found =
            mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), pair.public().to_peer_id()));
        if let Some(Err(why)) = &found {
            tracing::warn!("machines on this LAN are not found by themselves: {why}");
        }
        Behaviour {
            ways: ways::Behaviour::new(),
            identify: identify::Behaviour::new(config),
            limits: connection_limits::Behaviour::new(limits),
            mdns: Toggle::from(found.and_then(Result::ok)),
        }
    })
}

/// A swarm over TCP and QUIC that behaves so.
pub(super) fn built<B: NetworkBehaviour>(
    key: &Key,
    behaviour: impl FnOnce(&libp2p::identity::Keypair) -> B,
) -> Result<Swarm<B>, String> {
    let builder = libp2p::SwarmBuilder::with_existing_identity(key.pair())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|why| why.to_string())?
        .with_quic();
    let builder = builder.with_behaviour(behaviour).map_err(|why| why.to_string())?;
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(IDLE)).build())
}

impl Behaviour {
    pub(super) fn doors(&self) -> ways::Doors {
        self.ways.doors()
    }
}

struct Connected {
    connections: BTreeMap<ConnectionId, Way>,
    /// This node called first: it knows that the peer can be called, and tries the other way as well, once.
    tries_other: bool,
    greeting: JoinHandle<()>,
    /// Cut off then unless it has proved by then that it belongs here.
    prove_until: Option<Instant>,
}

/// The thread's state.
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    order: mpsc::Sender<Order>,
    doors: Vec<Door>,
    connected: BTreeMap<PeerId, Connected>,
    redials: BTreeMap<PeerId, Redial>,
    /// Found on this LAN, once, whoever they are.
    found: BTreeMap<PeerId, Vec<Multiaddr>>,
    only: Option<Way>,
    /// Members whose last connection has just ended, called back at once to see whether they are there.
    called_back: BTreeMap<ConnectionId, PeerId>,
}

/// Peers found on the LAN that are remembered.
const FOUND_MAX: usize = 1024;

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        (order, orders): (mpsc::Sender<Order>, mpsc::Receiver<Order>),
        doors: Vec<Door>,
        only: Option<Way>,
    ) -> Self {
        Self {
            swarm,
            shared,
            orders,
            order,
            doors,
            connected: BTreeMap::new(),
            redials: BTreeMap::new(),
            found: BTreeMap::new(),
            only,
            called_back: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut roster = self.shared.roster.subscribe();
        let clock = self.shared.clock;
        loop {
            let due = self.dial_due();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                changed = roster.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    roster.borrow_and_update();
                }
                () = clock.sleep_until(due.unwrap_or_default()), if due.is_some() => {}
            }
        }
    }

    fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::CutOff(peer) => self.cut_off(peer),
            // A guest's meeting is over when both have said their word.
            Order::Met(peer, _) if self.shared.is_guest(peer) => {}
            Order::Met(peer, ended) => {
                if let Ended::Refused(why) = &ended {
                    self.shared.refused(why);
                    self.shared.trouble(self.address_of(peer), why.clone());
                } else if ended != Ended::Gone {
                    self.shared.trouble(self.address_of(peer), ended.to_string());
                }
                let may_go_on = ended == Ended::Gone || self.shared.is_member(peer);
                if may_go_on {
                    // The stream ended and the connection did not: again. A peer that many call at once drops streams that
                    // it cannot take, before it has heard the first word.
                    self.greet_again(peer, REDIAL_FIRST);
                }
            }
            Order::Moved(peer) => self.greet_again(peer, Duration::ZERO),
        }
    }

    fn cut_off(&mut self, peer: PeerId) {
        if let Some(name) = their_name(peer) {
            let _ = self.swarm.disconnect_peer_id(name);
        }
    }

    /// What people know that peer by.
    fn address_of(&self, peer: PeerId) -> String {
        let name = self.shared.roster.borrow().member(peer).map(|member| member.profile.name.clone());
        name.unwrap_or_else(|| format!("{peer:?}"))
    }

    fn greet(&self, peer: PeerId, after: Duration) -> JoinHandle<()> {
        let (shared, order) = (Arc::clone(&self.shared), self.order.clone());
        tokio::spawn(async move {
            shared.clock.sleep(after).await;
            let ended = meeting::greet(Arc::clone(&shared), peer).await;
            let _ = order.send(Order::Met(peer, ended)).await;
        })
    }

    fn greet_again(&mut self, peer: PeerId, after: Duration) {
        if self.connected.contains_key(&peer) {
            let greeting = self.greet(peer, after);
            if let Some(connected) = self.connected.get_mut(&peer) {
                std::mem::replace(&mut connected.greeting, greeting).abort();
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(&peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, endpoint, .. } => {
                self.on_closed(&peer_id, connection_id, num_established, Way::between(&endpoint));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error, .. } => {
                if let Some(peer) = self.called_back.remove(&connection_id)
                    && is_refusal(&error)
                {
                    tracing::debug!(?peer, "refuses to be called back");
                    let _ = self.shared.refused.try_send(peer);
                }
                self.on_failed(connection_id, peer_id, &error.to_string());
            }
            SwarmEvent::NewListenAddr { listener_id, .. }
            | SwarmEvent::ExpiredListenAddr { listener_id, .. } => self.on_listening(listener_id),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listening(listener_id);
                if let Err(why) = reason {
                    self.shared.trouble(format!("{addresses:?}"), format!("no longer listening: {why}"));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.on_found(&peer, address);
                }
            }
            _ => {}
        }
    }

    /// It is known where that listener listens, or that it never will.
    fn on_listening(&self, listener: ListenerId) {
        let listening: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        self.shared.state.send_modify(|state| {
            state.listening = listening;
            state.opening.retain(|opening| *opening != listener);
        });
    }

    fn on_found(&mut self, peer: &libp2p::PeerId, address: Multiaddr) {
        let Some(peer) = our_name(peer) else { return };
        if self.found.len() >= FOUND_MAX && !self.found.contains_key(&peer) {
            return;
        }
        let addresses = self.found.entry(peer).or_default();
        if !addresses.contains(&address) && addresses.len() < super::invite::ADDRESSES_MAX {
            addresses.push(address);
        }
    }

    fn on_connected(&mut self, peer: &libp2p::PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(name) = our_name(peer) else {
            let _ = self.swarm.disconnect_peer_id(*peer);
            return;
        };
        let now = self.now();
        if let ConnectedPoint::Dialer { .. } = endpoint {
            for door in self.doors.iter_mut().filter(|door| door.through == Some(id)) {
                door.leads_to = Some(name);
                door.redial = Redial::at(now);
                self.shared.fine(&door.address.to_string());
            }
        }
        self.redials.remove(&name);
        self.called_back.remove(&id);
        let way = Way::between(endpoint);
        self.shared.opened(name, way);
        match self.connected.get_mut(&name) {
            Some(connected) => {
                let is_second = !connected.connections.values().any(|other| *other == way);
                connected.connections.insert(id, way);
                // One of each way is enough. Of two ends that called each other at once, only the lower one hangs up.
                if !is_second && endpoint.is_dialer() && self.shared.me < name {
                    self.swarm.close_connection(id);
                }
            }
            None => {
                let greeting = self.greet(name, Duration::ZERO);
                let prove_until = Some(now.after(HELLO_WITHIN));
                let connections = BTreeMap::from([(id, way)]);
                let tries_other = endpoint.is_dialer() && self.only.is_none();
                self.connected.insert(name, Connected { connections, tries_other, greeting, prove_until });
            }
        }
    }

    fn on_closed(&mut self, peer: &libp2p::PeerId, id: ConnectionId, left: u32, way: Way) {
        let now = self.now();
        let name = our_name(peer);
        let is_shut =
            |door: &&mut Door| door.through == Some(id) || (name.is_some() && door.leads_to == name);
        let mut led_there = Vec::new();
        for door in self.doors.iter_mut().filter(|door| left == 0 && is_shut(door)) {
            led_there.push(door.address.clone());
            (door.through, door.leads_to) = (None, None);
            door.redial.failed(now);
        }
        let Some(name) = name else { return };
        if left == 0 {
            if let Some(connected) = self.connected.remove(&name) {
                connected.greeting.abort();
            }
            self.redials.insert(name, Redial::at(now));
            if self.shared.dismiss(name) {
                self.call_back(name, led_there);
            }
        } else if let Some(connected) = self.connected.get_mut(&name) {
            connected.connections.remove(&id);
            if !connected.connections.values().any(|other| *other == way) {
                self.shared.closed(name, way);
            }
        }
    }

    /// Calls a member that is gone, over TCP: who is told at once that nobody is there need not wait for pings. Where only
    /// QUIC is spoken nobody tells.
    fn call_back(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        if let Some(member) = self.shared.roster.borrow().member(peer) {
            addresses.extend(member.addresses.iter().cloned());
        }
        addresses.retain(|address| Way::of(address) == Some(Way::Tcp));
        let Some(name) = their_name(peer).filter(|_| !addresses.is_empty()) else { return };
        let options = DialOpts::peer_id(name).condition(PeerCondition::DisconnectedAndNotDialing);
        let options = options.addresses(addresses).build();
        let id = options.connection_id();
        if self.swarm.dial(options).is_ok() {
            self.called_back.insert(id, peer);
        }
    }

    fn on_failed(&mut self, id: ConnectionId, peer: Option<libp2p::PeerId>, why: &str) {
        let now = self.now();
        for door in self.doors.iter_mut().filter(|door| door.through == Some(id)) {
            door.through = None;
            door.redial.failed(now);
            if door.is_remembered {
                continue;
            }
            let why = format!(
                "nobody answers there ({}); is that node running, and this the right address?",
                brief(why)
            );
            self.shared.trouble(door.address.to_string(), why);
        }
        if let Some(redial) = peer.as_ref().and_then(our_name).and_then(|name| self.redials.get_mut(&name)) {
            redial.failed(now);
        }
    }

    /// Dials whom it is time to dial, cuts off who has proved nothing, and gives when there is something to do again.
    fn dial_due(&mut self) -> Option<Instant> {
        let now = self.now();
        let mut next = self.prove(now);
        let mut soonest = |at: Instant| next = Some(next.map_or(at, |next: Instant| next.min(at)));
        let is_alone = self.connected.is_empty();
        for door in self.doors.iter_mut().filter(|door| door.through.is_none()) {
            if door.is_remembered && !is_alone {
                continue;
            }
            if door.redial.due > now {
                soonest(door.redial.due);
                continue;
            }
            let options = DialOpts::from(door.address.clone());
            let id = options.connection_id();
            door.redial.failed(now);
            match self.swarm.dial(options) {
                Ok(()) => door.through = Some(id),
                Err(why) => {
                    if !door.is_remembered {
                        self.shared.trouble(door.address.to_string(), brief(&why.to_string()));
                    }
                    soonest(door.redial.due);
                }
            }
        }
        for (peer, addresses) in self.unconnected() {
            let courtesy = if self.shared.me < peer { Duration::ZERO } else { COURTESY };
            let redial = self.redials.entry(peer).or_insert(Redial::at(now.after(courtesy)));
            if redial.due > now {
                soonest(redial.due);
                continue;
            }
            redial.failed(now);
            soonest(redial.due);
            let Some(name) = their_name(peer) else { continue };
            let options = DialOpts::peer_id(name).condition(PeerCondition::DisconnectedAndNotDialing);
            let _ = self.swarm.dial(options.addresses(addresses).build());
        }
        self.try_other_ways();
        next
    }

    /// Calls members that this node has called, and that listen both ways, the other way as well: the better one is then
    /// measured.
    fn try_other_ways(&mut self) {
        for (peer, connected) in self.connected.iter_mut().filter(|(_, connected)| connected.tries_other) {
            let Some(used) = connected.connections.values().next() else { continue };
            let is_other = |address: &&Multiaddr| Way::of(address) == Some(used.other());
            let addresses: Vec<Multiaddr> = match self.shared.roster.borrow().member(*peer) {
                Some(member) => member.addresses.iter().filter(is_other).cloned().collect(),
                None => continue,
            };
            connected.tries_other = false;
            let has_both = connected.connections.values().any(|way| way != used);
            if let Some(name) = their_name(*peer).filter(|_| !has_both && !addresses.is_empty()) {
                let options = DialOpts::peer_id(name).condition(PeerCondition::NotDialing);
                let _ = self.swarm.dial(options.addresses(addresses).build());
            }
        }
    }

    /// Members and machines found on the LAN that are not connected, and where they listen.
    fn unconnected(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let roster = self.shared.roster.borrow();
        let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = self.found.clone();
        for member in roster.others() {
            peers.entry(member.peer).or_default().extend(member.addresses.iter().cloned());
        }
        let may_call = |address: &Multiaddr| self.only.is_none_or(|only| Way::of(address) == Some(only));
        peers.retain(|peer, addresses| {
            addresses.retain(&may_call);
            *peer != self.shared.me && !addresses.is_empty() && !self.connected.contains_key(peer)
        });
        peers.into_iter().collect()
    }

    /// Cuts off whoever had time to prove that it belongs here, and gives when the next one's time is over.
    fn prove(&mut self, now: Instant) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        let mut strangers = Vec::new();
        let mut next: Option<Instant> = None;
        for (peer, connected) in &mut self.connected {
            let Some(until) = connected.prove_until else { continue };
            if shared.is_member(*peer) || shared.is_guest(*peer) {
                connected.prove_until = None;
            } else if until <= now {
                strangers.push(*peer);
            } else {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        for peer in strangers {
            // Not to be called again soon, should it have been found on the LAN.
            self.found.remove(&peer);
            self.cut_off(peer);
        }
        next
    }
}
