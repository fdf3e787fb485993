//! The two ways to a peer, TCP and QUIC, each with streams of its own: who opens a stream says over which.

use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::stream::{BoxStream, select};
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, StreamProtocol};
use libp2p_stream::{AlreadyRegistered, Control};
use serde::{Deserialize, Serialize};

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Way {
    /// TCP, noise, yamux.
    Tcp,
    /// QUIC over UDP.
    Quic,
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Tcp, Way::Quic];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Tcp => "tcp",
            Way::Quic => "quic",
        }
    }

    /// What is spoken at that address, if it is one of the two.
    pub fn of(address: &Multiaddr) -> Option<Self> {
        let is_quic = address.iter().any(|part| matches!(part, Part::QuicV1));
        let is_tcp = address.iter().any(|part| matches!(part, Part::Tcp(_)));
        match (is_quic, is_tcp) {
            (true, _) => Some(Way::Quic),
            (false, true) => Some(Way::Tcp),
            (false, false) => None,
        }
    }

    /// What that connection speaks.
    pub(super) fn between(endpoint: &ConnectedPoint) -> Self {
        Self::of(endpoint.get_remote_address()).unwrap_or(Way::Tcp)
    }

    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Way::Tcp => Way::Quic,
            Way::Quic => Way::Tcp,
        }
    }
}

type Streams = libp2p_stream::Behaviour;

/// The streams of both ways, apart.
pub(super) struct Behaviour {
    tcp: Streams,
    quic: Streams,
}

impl Behaviour {
    pub(super) fn new() -> Self {
        Self { tcp: Streams::new(), quic: Streams::new() }
    }

    pub(super) fn doors(&self) -> Doors {
        Doors { tcp: self.tcp.new_control(), quic: self.quic.new_control() }
    }

    fn of(&mut self, way: Way) -> &mut Streams {
        match way {
            Way::Tcp => &mut self.tcp,
            Way::Quic => &mut self.quic,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Streams as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let way = Way::of(remote).unwrap_or(Way::Tcp);
        self.of(way).handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: libp2p::PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let way = Way::of(address).unwrap_or(Way::Tcp);
        self.of(way).handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(of) => {
                self.of(Way::between(of.endpoint)).on_swarm_event(event);
            }
            FromSwarm::ConnectionClosed(of) => self.of(Way::between(of.endpoint)).on_swarm_event(event),
            _ => Way::ALL.into_iter().for_each(|way| self.of(way).on_swarm_event(event)),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: libp2p::PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.tcp.poll(cx) {
            Poll::Ready(wish) => Poll::Ready(wish),
            Poll::Pending => self.quic.poll(cx),
        }
    }
}

/// Opens streams, and takes those that are opened.
#[derive(Clone)]
pub(super) struct Doors {
    tcp: Control,
    quic: Control,
}

/// Streams that peers open, and over which way.
pub(super) type Arrivals = BoxStream<'static, (libp2p::PeerId, Way, libp2p::Stream)>;

impl Doors {
    /// A stream to a peer that is connected that way; `None` when it cannot be had.
    pub(super) async fn open(
        &self,
        peer: libp2p::PeerId,
        way: Way,
        protocol: StreamProtocol,
    ) -> Option<libp2p::Stream> {
        let control = match way {
            Way::Tcp => &self.tcp,
            Way::Quic => &self.quic,
        };
        control.clone().open_stream(peer, protocol).await.ok()
    }

    /// The streams of a protocol from now on.
    pub(super) fn accept(&self, protocol: &StreamProtocol) -> Result<Arrivals, AlreadyRegistered> {
        let over = |control: &Control, way: Way| {
            let streams = control.clone().accept(protocol.clone())?;
            Ok::<_, AlreadyRegistered>(streams.map(move |(peer, stream)| (peer, way, stream)))
        };
        Ok(select(over(&self.tcp, Way::Tcp)?, over(&self.quic, Way::Quic)?).boxed())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    #[test]
    fn an_address_says_what_is_spoken_there() {
        let of = |text: &str| Way::of(&text.parse().unwrap());
        assert_eq!(of("/ip4/10.0.0.1/tcp/9338"), Some(Way::Tcp));
        assert_eq!(of("/ip6/::1/udp/9338/quic-v1"), Some(Way::Quic));
        assert_eq!(of("/ip4/10.0.0.1/udp/9338"), None);
    }
}
