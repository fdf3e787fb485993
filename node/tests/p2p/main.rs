//! Real libp2p on loopback: members meet, strangers are turned away, frames arrive, garbage hurts nobody.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::disallowed_methods, reason = "real sockets live in real time")]

mod relay;
mod ways;

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Multiaddr, StreamProtocol};
use node::ids::{Attempt, PeerId, SessionId};
use node::membership::{Claim, Intent, Offer, Profile, State};
use node::real::p2p::identity::Key;
use node::real::p2p::invite::{Invite, MeshKey};
use node::real::p2p::streams::P2p;
use node::real::p2p::{Announce, Net, NetConfig, NetState, roster};
use node::switch::Branch;
use node::transport::{Lane, NetError, Rx as _, Transport as _, Tx as _};
use node::wire::{Control, Frame, Payload, Route, Step, StepInput};
use planner::plan::{Epoch, LayerRange};

const PATIENCE: Duration = Duration::from_secs(30);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not in {PATIENCE:?}"))
}

/// The model that members talk about.
const SMOL: [u8; 32] = [1; 32];

fn profile(name: &str) -> Profile {
    Profile {
        name: name.into(),
        devices: vec![planner::fleet::catalog::device("rtx-4090").unwrap()],
        models: vec![Offer { name: "smol".into(), fingerprint: SMOL, weight_bytes: 1, ..Offer::default() }],
        ..Profile::default()
    }
}

fn config(key: &Key, mesh: &MeshKey, listen: &str, join: Vec<Multiaddr>) -> NetConfig {
    NetConfig {
        key: key.clone(),
        mesh: mesh.clone(),
        listen: vec![listen.parse().unwrap()],
        join,
        remembered: Vec::new(),
        announce: Announce::Only(Vec::new()),
        mdns: false,
        only: None,
        frame_bytes: 1 << 20,
    }
}

struct Member {
    key: Key,
    net: Net,
    smol: Branch<P2p>,
}

impl Member {
    fn start(mesh: &MeshKey, name: &str, listen: &str, join: Vec<Multiaddr>) -> Self {
        let key = Key::generate();
        Self::of(config(&key, mesh, listen, join), name)
    }

    fn of(config: NetConfig, name: &str) -> Self {
        let key = config.key.clone();
        let net = Net::start(config, profile(name)).unwrap();
        let smol = net.branch(&SMOL).unwrap();
        Self { key, net, smol }
    }

    fn peer(&self) -> PeerId {
        self.key.peer()
    }

    async fn until(&self, what: &str, holds: impl Fn(&NetState) -> bool) {
        let mut state = self.net.state();
        assert!(soon(what, state.until(|state| holds(state))).await, "the network ended");
    }

    async fn address(&self) -> Multiaddr {
        self.until("it listens", |state| !state.listening.is_empty()).await;
        self.net.state().read(|state| state.listening[0].clone())
    }

    fn is_with(&self, other: &Member) -> bool {
        self.net.state().read(|state| state.members.contains(&other.peer()))
    }

    async fn until_met(&self, other: &Member) {
        let peer = other.peer();
        self.until("they meet", |state| state.members.contains(&peer)).await;
    }
}

fn mesh() -> MeshKey {
    MeshKey::new(Key::generate())
}

async fn pair(listen: &str) -> (Member, Member) {
    let mesh = mesh();
    let a = Member::start(&mesh, "a", listen, Vec::new());
    let b = Member::start(&mesh, "b", "/ip4/127.0.0.1/tcp/0", vec![a.address().await]);
    a.until_met(&b).await;
    b.until_met(&a).await;
    (a, b)
}

fn step(bytes: usize) -> Frame {
    let route = Route {
        epoch: Epoch(1),
        model: "smol".into(),
        head: PeerId([1; 32]),
        head_life: 1,
        stages: vec![(PeerId([2; 32]), LayerRange::new(0, 3))],
    };
    Frame::Steps(vec![Step {
        session: SessionId(1),
        attempt: Attempt(0),
        stage: 0,
        route: Some(route),
        start: 0,
        count: 1,
        input: StepInput::Hidden(Payload::Real(vec![7; bytes].into())),
        sample: None,
    }])
}

#[tokio::test]
async fn frames_arrive_in_order_over_tcp_and_quic_in_both_directions() {
    for listen in [TCP, QUIC] {
        let (a, b) = pair(listen).await;
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut tx = soon("open", from.smol.open(to.peer(), Lane::Decode)).await.unwrap();
            let sending = async {
                for bytes in [0, 1, 4_000, 900_000, 3] {
                    tx.send(step(bytes)).await.unwrap();
                }
                drop(tx);
            };
            let receiving = async {
                let (peer, lane, mut rx) = to.smol.accept().await.unwrap();
                assert_eq!((peer, lane), (from.peer(), Lane::Decode));
                for bytes in [0, 1, 4_000, 900_000, 3] {
                    assert_eq!(rx.recv().await.unwrap(), Some(step(bytes)), "{listen}");
                }
                assert_eq!(rx.recv().await, Ok(None), "the end was not in good order");
            };
            soon("frames", async { tokio::join!(sending, receiving) }).await;
            let received = to.net.received().by_kind();
            assert_eq!(received[0], ("activations", 904_004));
            assert_eq!(received[4], ("weights", 0));
        }
    }
}

#[tokio::test]
async fn everybody_hears_of_everybody_and_of_what_changes() {
    let mesh = mesh();
    let a = Member::start(&mesh, "a", TCP, Vec::new());
    let at = a.address().await;
    let b = Member::start(&mesh, "b", TCP, vec![at.clone()]);
    let c = Member::start(&mesh, "c", TCP, vec![at]);
    let mut roster = b.net.roster();
    assert!(soon("b hears of c", roster.until(|roster| roster.member(c.peer()).is_some())).await);
    c.net.update(|profile| profile.name = "another name".into());
    let named = |member: &roster::Member| member.profile.name == "another name";
    let heard = roster.until(|roster| roster.member(c.peer()).is_some_and(named));
    assert!(soon("b hears of c's news", heard).await);
    let lower = a.peer().min(b.peer());
    let has_links = |member: &roster::Member| !member.profile.links.is_empty();
    let measured = roster.until(|roster| roster.member(lower).is_some_and(has_links));
    assert!(soon("the way is measured", measured).await);
    let view = |roster: &roster::Roster| roster.view(&SMOL, "smol");
    let first = roster.read(view);
    assert_eq!(first.len(), 3);
    assert_eq!(first.fleet.nodes[0].name, "b");
    assert!(!first.fleet.nodes.iter().any(|node| node.has_model), "nobody has said that it hosts the model");
    let pins = Claim { model: "smol".into(), intent: Intent::Pins, ready_s: 0 };
    c.net.report(State { claims: vec![pins], ..State::default() });
    let hosts = roster.until(|roster| roster.member(c.peer()).is_some_and(|member| member.hosts("smol")));
    assert!(soon("b hears that c hosts it", hosts).await);
    let second = roster.read(view);
    assert!(second.continues(&first));
    let hosting: Vec<_> = second.fleet.nodes.iter().filter(|node| node.has_model).collect();
    assert_eq!(hosting.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["another name"]);
}

#[tokio::test]
async fn who_was_not_invited_is_told_so_and_gets_no_stream() {
    let (a, b) = pair(TCP).await;
    let at = a.address().await;
    let stranger = Member::start(&mesh(), "stranger", TCP, vec![at]);
    let refused = |state: &NetState| state.troubles.values().any(|why| why.contains("no invite"));
    stranger.until("it is told", refused).await;
    let opened = stranger.smol.open(a.peer(), Lane::Control).await;
    assert_eq!(opened.err(), Some(NetError::Unreachable));
    assert!(!a.is_with(&stranger));
    assert!(a.net.roster().read(|roster| roster.member(stranger.peer()).is_none()));
    assert!(a.is_with(&b), "a member was disturbed");
}

#[tokio::test]
async fn a_member_that_ends_is_missed_and_one_that_comes_back_is_met_again() {
    let mesh = mesh();
    let a = Member::start(&mesh, "a", TCP, Vec::new());
    let at = a.address().await;
    let b = Member::start(&mesh, "b", TCP, vec![at.clone()]);
    a.until_met(&b).await;
    let (key, peer) = (b.key.clone(), b.peer());
    drop(b);
    a.until("b is missed", |state| !state.members.contains(&peer)).await;
    assert!(matches!(a.smol.open(peer, Lane::Decode).await, Err(NetError::Unreachable)));
    let net = Net::start(config(&key, &mesh, TCP, vec![at]), profile("b")).unwrap();
    a.until("b is back", |state| state.members.contains(&peer)).await;
    drop(net);
}

#[tokio::test]
async fn a_token_is_all_that_is_needed() {
    let mesh = mesh();
    let a = Member::start(&mesh, "a", TCP, Vec::new());
    let invite = Invite { addresses: vec![a.address().await], ..a.net.invite() };
    let read: Invite = invite.to_string().parse().unwrap();
    let b = Member::start(&read.mesh, "b", TCP, read.addresses);
    a.until_met(&b).await;
}

/// A peer that speaks libp2p and nothing of ours.
struct Rude {
    control: libp2p_stream::Control,
    peer: libp2p::PeerId,
}

impl Rude {
    fn call(at: Multiaddr, peer: PeerId) -> Self {
        let mut swarm = libp2p::SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                libp2p::tcp::Config::default(),
                libp2p::noise::Config::new,
                libp2p::yamux::Config::default,
            )
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .build();
        swarm.dial(at).unwrap();
        let control = swarm.behaviour().new_control();
        tokio::spawn(async move {
            use futures::StreamExt as _;
            loop {
                swarm.select_next_some().await;
            }
        });
        let public = libp2p::identity::ed25519::PublicKey::try_from_bytes(&peer.0).unwrap();
        Self { control, peer: libp2p::identity::PublicKey::from(public).to_peer_id() }
    }

    async fn open(&mut self, protocol: &'static str) -> Option<libp2p::Stream> {
        for _ in 0..100 {
            match self.control.open_stream(self.peer, StreamProtocol::new(protocol)).await {
                Ok(stream) => return Some(stream),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        None
    }
}

#[tokio::test]
async fn garbage_floods_and_promises_end_with_whoever_sends_them() {
    let (a, b) = pair(TCP).await;
    let at = a.address().await;
    let protocols = ["/meshwright/meeting/2", "/meshwright/decode/1", "/meshwright/probe/1"];
    let mut rudes: Vec<Rude> = (0..4).map(|_| Rude::call(at.clone(), a.peer())).collect();
    for (i, rude) in rudes.iter_mut().enumerate() {
        let Some(mut stream) = soon("it may call", rude.open(protocols[i % 3])).await else { continue };
        // A length of four gigabytes, then what is nothing at all.
        let _ = stream.write_all(&[0xff; 4]).await;
        let _ = stream.write_all(&[0xa5; 100_000]).await;
        let _ = stream.flush().await;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await;
    }
    // Meanwhile members talk as ever.
    let mut tx = soon("open", b.smol.open(a.peer(), Lane::Control)).await.unwrap();
    tx.send(Frame::Control(Control::Ping { nonce: 5 })).await.unwrap();
    let (peer, _, mut rx) = soon("accept", a.smol.accept()).await.unwrap();
    assert_eq!(peer, b.peer(), "a stranger's stream reached the node");
    assert_eq!(soon("frame", rx.recv()).await.unwrap(), Some(Frame::Control(Control::Ping { nonce: 5 })));
    assert_eq!(a.net.state().read(|state| state.members.len()), 1);
}

#[tokio::test]
async fn a_member_that_announces_too_much_ends_its_stream_only() {
    let (a, b) = pair(TCP).await;
    let mut tx = soon("open", b.smol.open(a.peer(), Lane::Prefill)).await.unwrap();
    let receiving = async {
        let (_, _, mut rx) = a.smol.accept().await.unwrap();
        rx.recv().await
    };
    let (_, received) = soon("an answer", async { tokio::join!(tx.send(step(2 << 20)), receiving) }).await;
    assert!(matches!(received, Err(NetError::BadFrame(_))), "{received:?}");
    let mut tx = soon("open", b.smol.open(a.peer(), Lane::Prefill)).await.unwrap();
    tx.send(step(10)).await.unwrap();
    let (_, _, mut rx) = soon("accept", a.smol.accept()).await.unwrap();
    assert_eq!(soon("a frame", rx.recv()).await.unwrap(), Some(step(10)));
}

#[test]
fn a_port_that_is_taken_is_an_error_with_a_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let key = Key::generate();
    let config = config(&key, &mesh(), &format!("/ip4/127.0.0.1/tcp/{port}"), Vec::new());
    let error = Net::start(config, profile("late")).err().unwrap().to_string();
    assert!(error.contains("--listen") && error.contains(&port.to_string()), "{error}");
    assert!(error.to_lowercase().contains("in use"), "{error}");
}

#[tokio::test]
async fn a_member_without_the_file_gets_everything_but_the_weights() {
    use node::real::gguf::{
        fingerprint,
        random::{Architecture, RandomModel},
        split,
    };
    use planner::model::gguf::GgufFile;
    let (a, b) = pair(TCP).await;
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("model.gguf");
    RandomModel::tiny(Architecture::Llama).write(&whole).unwrap();
    let parts = split(&GgufFile::open(&whole).unwrap(), &folder.path().join("part"), 3).unwrap();
    for first in [whole, parts[0].clone()] {
        let file = GgufFile::open(&first).unwrap();
        let print = fingerprint(&file).unwrap();
        a.net.show([(print, vec![first])].into());
        let kept = folder.path().join("kept");
        let header = soon("the header", b.net.header(a.peer(), print, &kept)).await.unwrap();
        let theirs = GgufFile::open(&header).unwrap();
        assert_eq!((&theirs.tensors, &theirs.metadata), (&file.tensors, &file.metadata));
        a.net.show([].into());
        let again = soon("from the disk", b.net.header(a.peer(), print, &kept)).await.unwrap();
        assert_eq!(again, header);
    }
    let unknown = soon("a refusal", b.net.header(a.peer(), [9; 32], folder.path())).await;
    assert!(matches!(unknown, Err(node::real::p2p::HeaderError::Gone)), "{unknown:?}");
}
