//! The membership over a transport, in both worlds, beside another conversation of the same nodes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use node::clock::{Clock, Instant};
use node::gossip::{Gossip, Said};
use node::ids::{Attempt, PeerId, SessionId, Token};
use node::membership::{Config, Life as Lifetime, Membership, Profile, State, Trust};
use node::switch::{Branch, Switch};
use node::transport::{Lane, Rx as _, Transport as _, Tx as _};
use node::wire::{Channel, Frame};
use node::world::{Doors, World};
use planner::fleet::NodeId;
use sim::mesh::{Mesh, Play};
use sim::scenario::FaultKind;
use sim::wires::Life;

use crate::fixture;

const NODES: u32 = 5;
const SECOND: u64 = 1_000_000_000;
/// The other conversation, and one in which nobody takes part.
const OTHER: Channel = Channel([1; 32]);
const NOBODYS: Channel = Channel([2; 32]);

/// Signatures that a simulation can afford: nobody here forges any.
struct Honest;

impl Trust for Honest {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        std::array::from_fn(|i| {
            message.iter().fold(i as u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
        })
    }

    fn is_signed(&self, _by: PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        self.sign(message) == *signature
    }
}

/// What each node knew at the times that were asked for: second, who, whom it took for members, what they are called.
type Log = BTreeMap<(u64, u32), BTreeMap<u32, String>>;

#[derive(Clone)]
struct Script {
    faults: Vec<(u64, FaultKind)>,
    looks: Vec<u64>,
    known: Arc<Mutex<Log>>,
    /// Tokens of the other conversation that came, by receiver.
    tokens: Arc<Mutex<BTreeMap<u32, Vec<u32>>>>,
}

fn token(position: u32) -> Frame {
    Frame::Token { session: SessionId(1), attempt: Attempt(0), position, sampled: Token(position).into() }
}

/// Each node sends the next one a hundred tokens, and tries to speak in a conversation in which nobody takes part.
async fn talk<W: World>(
    script: Script,
    me: u32,
    clock: W::Clock,
    other: Branch<W::Transport>,
    stray: Branch<W::Transport>,
) {
    clock.sleep_until(Instant(SECOND / 2)).await;
    let next = PeerId::from_index((me + 1) % NODES);
    tokio::spawn(async move {
        if let Ok(mut tx) = stray.open(next, Lane::Decode).await {
            let _ = tx.send(token(9_999)).await;
        }
        std::future::pending::<()>().await;
    });
    let sender = other.clone();
    tokio::spawn(async move {
        let Ok(mut tx) = sender.open(next, Lane::Decode).await else { return };
        for position in 0..100 {
            if tx.send(token(position)).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    while let Ok((_, _, mut rx)) = other.accept().await {
        while let Ok(Some(frame)) = rx.recv().await {
            let position = frame.sessions().next().unwrap().1;
            script.tokens.lock().unwrap().entry(me).or_default().push(position);
        }
    }
}

impl Play for Script {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let script = self.clone();
        async move {
            let (me, clock) = (life.node.0, doors.clock.clone());
            let switch = Switch::new(doors.transport.clone());
            tokio::spawn(switch.clone().run(clock.clone()));
            let mesh = switch.branch(Channel::default()).unwrap();
            assert!(switch.branch(Channel::default()).is_none(), "a conversation was given away twice");
            if life.incarnation == 0 {
                let stray = switch.branch(if me == 0 { NOBODYS } else { Channel([3; 32]) }).unwrap();
                let other = switch.branch(OTHER).unwrap();
                tokio::spawn(talk::<W>(script.clone(), me, clock.clone(), other, stray));
            }
            let peer = PeerId::from_index(me);
            let started = Lifetime::new(1 + life.incarnation);
            let member = Membership::new(peer, started, Honest, Config::default(), doors.seed, clock.now());
            let gossip = Gossip::start(mesh, clock.clone(), member, |_, _| {});
            let name = format!("{me} in life {}", life.incarnation);
            gossip.tell(Said::Profile(Profile { name, ..Profile::default() })).await;
            gossip.tell(Said::State(State::default())).await;
            // All know the first one; it is told of nobody.
            if me != 0 {
                gossip.tell(Said::Join(vec![PeerId::from_index(0)])).await;
            }
            for second in script.looks {
                if second * SECOND < clock.now().0 {
                    continue;
                }
                clock.sleep_until(Instant(second * SECOND)).await;
                let known = gossip.read(|member| {
                    let name =
                        |peer| member.profile(peer).map_or_else(String::new, |known| known.name.clone());
                    member.members().map(|peer| (peer.index(), name(peer))).collect()
                });
                script.known.lock().unwrap().insert((second, me), known);
            }
            std::future::pending().await
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let script = self.clone();
        async move {
            for (at_ns, fault) in &script.faults {
                mesh.clock().sleep_until(Instant(*at_ns)).await;
                mesh.apply(fault);
            }
            let last = script.looks.iter().max().copied().unwrap_or_default();
            mesh.clock().sleep_until(Instant(last * SECOND + SECOND)).await;
        }
    }
}

fn play(world: &str, faults: &[(u64, FaultKind)], looks: &[u64]) -> Script {
    let script = Script {
        faults: faults.to_vec(),
        looks: looks.to_vec(),
        known: Arc::default(),
        tokens: Arc::default(),
    };
    fixture::play(world, fixture::mesh(&fixture::lan(NODES)), &script);
    script
}

fn names(lives: &[(u32, u32)]) -> BTreeMap<u32, String> {
    lives.iter().map(|(node, life)| (*node, format!("{node} in life {life}"))).collect()
}

#[test]
fn all_know_all_and_the_dead_are_missed_and_come_back_in_another_life() {
    let faults = [(6 * SECOND, FaultKind::Crash(NodeId(3))), (14 * SECOND, FaultKind::Restart(NodeId(3)))];
    for world in ["memory", "turmoil"] {
        let script = play(world, &faults, &[5, 13, 19]);
        let known = script.known.lock().unwrap();
        let everybody = names(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
        let again = names(&[(0, 0), (1, 0), (2, 0), (3, 1), (4, 0)]);
        let without = names(&[(0, 0), (1, 0), (2, 0), (4, 0)]);
        for me in 0..NODES {
            assert_eq!(known[&(5, me)], everybody, "{world}: {me} after 5 s");
            assert_eq!(known[&(19, me)], again, "{world}: {me} after 19 s");
            if me != 3 {
                assert_eq!(known[&(13, me)], without, "{world}: {me} after 13 s");
            }
        }
    }
}

#[test]
fn conversations_do_not_hear_each_other() {
    for world in ["memory", "turmoil"] {
        let script = play(world, &[], &[4]);
        let tokens = script.tokens.lock().unwrap();
        for me in 0..NODES {
            assert_eq!(tokens[&me], (0..100).collect::<Vec<u32>>(), "{world}: what {me} heard");
        }
    }
}

#[test]
fn a_partition_heals() {
    let ids = |ids: &[u32]| ids.iter().map(|i| NodeId(*i)).collect::<Vec<_>>();
    let cut = FaultKind::Partition(ids(&[0, 1]), ids(&[2, 3, 4]));
    let faults = [(5 * SECOND, cut), (15 * SECOND, FaultKind::Heal)];
    let everybody = names(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    for world in ["memory", "turmoil"] {
        let script = play(world, &faults, &[14, 28]);
        let known = script.known.lock().unwrap();
        for me in 0..NODES {
            let side = if me < 2 { names(&[(0, 0), (1, 0)]) } else { names(&[(2, 0), (3, 0), (4, 0)]) };
            assert_eq!(known[&(14, me)], side, "{world}: {me} behind the cut");
            assert_eq!(known[&(28, me)], everybody, "{world}: {me} after it");
        }
    }
}
