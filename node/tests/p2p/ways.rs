//! Two members that can reach each other both ways use the better one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use libp2p::multiaddr::Protocol;
use node::real::p2p::ways::Way;
use node::real::p2p::{Connection, Figures};

use super::relay::Relay;
use super::*;

/// Slow enough to be the worse way, whatever else the machine does.
const SLOW: Duration = Duration::from_millis(15);

fn at(way: Way, address: SocketAddr) -> Multiaddr {
    let ip = Multiaddr::from(address.ip());
    match way {
        Way::Tcp => ip.with(Protocol::Tcp(address.port())),
        Way::Quic => ip.with(Protocol::Udp(address.port())).with(Protocol::QuicV1),
    }
}

/// Where nobody listens, TCP and UDP.
fn free() -> [SocketAddr; 2] {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let tcp = TcpListener::bind(any).unwrap().local_addr().unwrap();
    [tcp, UdpSocket::bind(any).unwrap().local_addr().unwrap()]
}

/// A member that listens both ways and tells these addresses.
fn listener(mesh: &MeshKey, listen: [SocketAddr; 2], told: Vec<Multiaddr>) -> Member {
    let key = Key::generate();
    let mut config = config(&key, mesh, TCP, Vec::new());
    config.listen = vec![at(Way::Tcp, listen[0]), at(Way::Quic, listen[1])];
    config.announce = Announce::Only(told);
    Member::of(config, "listener")
}

impl Member {
    fn connection(&self, other: &Member) -> Option<Connection> {
        self.net.state().read(|state| state.connections.get(&other.peer()).cloned())
    }

    async fn until_it_uses(&self, way: Way, other: &Member) {
        let peer = other.peer();
        let uses = |connection: &Connection| connection.used == way && connection.measured.len() == 2;
        self.until("the better way", |state| state.connections.get(&peer).is_some_and(uses)).await;
    }
}

fn ping(nonce: u64) -> Frame {
    Frame::Control(Control::Ping { nonce })
}

/// Sends numbered frames until `relay` passes nothing any more, cuts it, and sends some more. Gives how many.
async fn send_across(from: &Member, to: &Member, way: Way, relay: Relay) -> u64 {
    let mut tx = soon("open", from.smol.open(to.peer(), Lane::Decode)).await.unwrap();
    let mut sent = 0;
    let mut moved = None;
    let mut passed = relay.passed();
    let mut relay = Some(relay);
    while moved.is_none_or(|at| sent < at + 50) {
        tx.send(ping(sent)).await.unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let Some(open) = relay.as_ref().filter(|_| sent.is_multiple_of(100)) else { continue };
        let uses = from.connection(to).is_some_and(|connection| connection.used == way);
        // Forty of a hundred frames would not fit into this.
        let is_still = open.passed() - passed < 500;
        passed = open.passed();
        if uses && is_still {
            relay = None;
            moved = Some(sent);
        }
    }
    sent
}

/// One stream, each frame once and in order, and then its end.
async fn receive_all(at: &Member) -> u64 {
    let (_, lane, mut rx) = at.smol.accept().await.unwrap();
    assert_eq!(lane, Lane::Decode);
    let mut next = 0;
    while let Some(frame) = rx.recv().await.unwrap() {
        assert_eq!(frame, ping(next), "lost, doubled or overtaken");
        next += 1;
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_move_to_the_better_way_and_no_frame_is_lost_doubled_or_overtaken() {
    for slow in Way::ALL {
        for calls_lower in [true, false] {
            let mesh = mesh();
            let listen = free();
            let [tcp, quic] = listen;
            let (relay, told) = match slow {
                Way::Tcp => {
                    let relay = Relay::tcp(tcp, SLOW).await;
                    let told = vec![at(Way::Tcp, relay.at), at(Way::Quic, quic)];
                    (relay, told)
                }
                Way::Quic => {
                    let relay = Relay::udp(quic, SLOW).await;
                    let told = vec![at(Way::Quic, relay.at), at(Way::Tcp, tcp)];
                    (relay, told)
                }
            };
            let a = listener(&mesh, listen, told);
            a.until("it listens", |state| state.listening.len() == 2).await;
            let b = caller(&mesh, &a, calls_lower, at(slow, relay.at));
            a.until_met(&b).await;
            b.until_met(&a).await;
            let better = if slow == Way::Tcp { Way::Quic } else { Way::Tcp };
            let (sent, received) = soon("frames", async {
                let sending = send_across(&b, &a, better, relay);
                tokio::join!(sending, receive_all(&a))
            })
            .await;
            assert_eq!(sent, received);
            a.until_it_uses(better, &b).await;
            b.until_it_uses(better, &a).await;
            let figures = |member: &Member, other| member.connection(other).unwrap().measured;
            assert_eq!(figures(&a, &b), figures(&b, &a), "they do not know the same");
            let Figures { frame_us, .. } = figures(&a, &b)[&slow];
            assert!(frame_us > 2e6 * SLOW.as_secs_f64(), "{frame_us} us over the slow way");
        }
    }
}

/// A member that calls, of a lower or higher name.
fn caller(mesh: &MeshKey, other: &Member, is_lower: bool, join: Multiaddr) -> Member {
    let key =
        std::iter::repeat_with(Key::generate).find(|key| (key.peer() < other.peer()) == is_lower).unwrap();
    Member::of(config(&key, mesh, TCP, vec![join]), "caller")
}

#[tokio::test]
async fn a_member_that_ends_is_found_to_refuse() {
    let (a, b) = pair(TCP).await;
    let (peer, transport) = (a.peer(), b.smol.clone());
    drop(a);
    assert_eq!(soon("a refusal", transport.refused()).await, peer);
    assert!(!b.net.state().read(|state| state.members.contains(&peer)));
}

#[tokio::test]
async fn who_speaks_one_protocol_only_calls_no_other() {
    let mesh = mesh();
    let listen = free();
    let [tcp, quic] = listen;
    let a = listener(&mesh, listen, vec![at(Way::Tcp, tcp), at(Way::Quic, quic)]);
    a.until("it listens", |state| state.listening.len() == 2).await;
    let key = Key::generate();
    let config = NetConfig { only: Some(Way::Tcp), ..config(&key, &mesh, TCP, vec![at(Way::Tcp, tcp)]) };
    let b = Member::of(config, "b");
    b.until_met(&a).await;
    let c = caller(&mesh, &a, true, at(Way::Tcp, tcp));
    // By the time that two who speak both have measured both, it would have called as well.
    c.until("both ways", |state| state.connections.values().any(|known| known.open.len() == 2)).await;
    let open = b.connection(&a).unwrap().open;
    assert!(open.contains(&Way::Tcp) && open.len() == 1, "{open:?}");
}
