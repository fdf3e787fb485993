//! Whatever happens to nodes and links, every answer is whole and right once it is over, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use node::clock::Clock;
use node::engine::Sampling;
use node::ids::{SessionId, Token};
use node::{Limits, Replies, Reply, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use world::device::reference;
use world::{LAYERS, Mesh, plan, prompt, run};

const NODES: u32 = 5;
const OUTPUT: u32 = 40;

#[derive(Debug, Clone)]
enum Blow {
    Kill(u32),
    Restart(u32),
    Part(u32, u32),
    /// Only what goes one way is lost.
    Deafen(u32, u32),
    /// The link takes so many milliseconds longer, one way.
    Stretch(u32, u32, u64),
    /// All streams between the two break.
    Break(u32, u32),
    /// The streams from one to the other hang.
    Hang(u32, u32),
    /// From now on nodes die of power cuts, and nobody is told.
    CutPower,
    Heal,
    Slow(u32),
    /// The device neither loads nor computes until the node starts again.
    Spoil(u32),
    Ask(u32, u32),
    Wait(u64),
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        2 => (0..NODES).prop_map(Blow::Kill),
        2 => (0..NODES).prop_map(Blow::Restart),
        2 => (0..NODES, 0..NODES).prop_map(|(a, b)| Blow::Part(a, b)),
        1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Blow::Deafen(a, b)),
        1 => (0..NODES, 0..NODES, 1..1000u64).prop_map(|(a, b, ms)| Blow::Stretch(a, b, ms)),
        1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Blow::Break(a, b)),
        1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Blow::Hang(a, b)),
        1 => Just(Blow::CutPower),
        2 => Just(Blow::Heal),
        1 => (0..NODES).prop_map(Blow::Slow),
        1 => (0..NODES).prop_map(Blow::Spoil),
        4 => (0..NODES, prop_oneof![1..40u32, 400..1500u32]).prop_map(|(n, len)| Blow::Ask(n, len)),
        5 => prop_oneof![1..60u64, 1..1500u64].prop_map(Blow::Wait),
    ]
}

/// A client: it keeps what it has got, and asks elsewhere when its entry node dies.
struct Client {
    session: u64,
    len: u32,
    entry: u32,
    got: Vec<Token>,
    replies: Option<Replies>,
    over: bool,
}

impl Client {
    fn ask(&mut self, mesh: &Mesh, entry: u32) {
        self.entry = entry;
        self.replies = Some(mesh.nodes[&entry].ask(Request {
            session: SessionId(self.session),
            prompt: prompt(self.session, self.len),
            generated: self.got.clone(),
            max_tokens: OUTPUT,
            ends: Default::default(),
            sampling: Sampling::drawn(0.0, 1),
        }));
    }

    /// Takes what has come. True when that was something.
    fn listen(&mut self) -> bool {
        use std::task::{Context, Poll, Waker};
        let Some(replies) = self.replies.as_mut() else { return false };
        let reply = std::pin::pin!(replies.next()).poll(&mut Context::from_waker(Waker::noop()));
        match reply {
            Poll::Pending => return false,
            Poll::Ready(Some(Reply::Token { position, token, .. })) => {
                assert_eq!(
                    position as usize,
                    self.len as usize + self.got.len(),
                    "positions are not gapless"
                );
                self.got.push(token);
            }
            Poll::Ready(Some(Reply::End)) => {
                self.over = true;
                self.replies = None;
            }
            Poll::Ready(Some(other)) => panic!("session {}: {other:?}", self.session),
            Poll::Ready(None) => self.replies = None,
        }
        true
    }
}

fn listen(mesh: &Mesh, clients: &mut [Client]) {
    for client in clients {
        while client.listen() {}
        let lost = client.replies.is_none() && !client.over;
        if let Some(entry) = mesh.nodes.keys().next().filter(|_| lost) {
            client.ask(mesh, *entry);
        }
    }
}

async fn wait(mesh: &Mesh, clients: &mut [Client], d: Duration) {
    let end = mesh.clock.now().after(d);
    while mesh.clock.now() < end {
        listen(mesh, clients);
        mesh.clock.sleep_until(mesh.clock.now().after(Duration::from_millis(5)).min(end)).await;
    }
}

/// Starts the node again, on a sound device.
fn renew(mesh: &mut Mesh, node: u32) {
    mesh.conditions[node as usize].lock().unwrap().spoilt = false;
    mesh.restart(node);
}

async fn storm(blows: Vec<Blow>, told: Rc<RefCell<Vec<String>>>) {
    let limits = Limits { kv_idle: Duration::from_secs(20), ..Limits::default() };
    let mut mesh = Mesh::with(NODES, Some(plan(&[&[0, 1, 2]])), limits);
    let mut clients: Vec<Client> = Vec::new();
    mesh.serving(0).await;
    for blow in blows {
        match blow {
            Blow::Kill(node) => mesh.kill(node),
            Blow::Restart(node) => renew(&mut mesh, node),
            Blow::Part(a, b) => mesh.net.part(a, b),
            Blow::Deafen(a, b) => mesh.net.deafen(a, b),
            Blow::Stretch(a, b, ms) => mesh.net.slow(a, b, Duration::from_millis(ms)),
            Blow::Break(a, b) => mesh.net.break_streams(a, b),
            Blow::Hang(a, b) => mesh.net.hang_streams(a, b),
            Blow::CutPower => mesh.net.silence_the_dead(),
            Blow::Heal => mesh.net.heal(),
            Blow::Spoil(node) => mesh.conditions[node as usize].lock().unwrap().spoilt = true,
            Blow::Slow(node) => {
                let mut condition = mesh.conditions[node as usize].lock().unwrap();
                condition.per_step = (condition.per_step * 20).min(Duration::from_millis(400));
            }
            Blow::Ask(entry, len) if mesh.nodes.contains_key(&entry) => {
                let session = clients.len() as u64;
                let mut client = Client { session, len, entry, got: Vec::new(), replies: None, over: false };
                client.ask(&mesh, entry);
                clients.push(client);
            }
            Blow::Ask(..) => {}
            Blow::Wait(ms) => wait(&mesh, &mut clients, Duration::from_millis(ms)).await,
        }
    }
    mesh.net.heal();
    for node in 0..NODES {
        let spoilt = mesh.conditions[node as usize].lock().unwrap().spoilt;
        if spoilt || !mesh.nodes.contains_key(&node) {
            renew(&mut mesh, node);
        }
    }
    for _ in 0..120 {
        wait(&mesh, &mut clients, Duration::from_secs(1)).await;
        if clients.iter().all(|c| c.over) {
            break;
        }
    }
    for client in &clients {
        assert!(
            client.over,
            "session {} at {} has {} tokens",
            client.session,
            client.entry,
            client.got.len()
        );
        let right = reference(LAYERS, &prompt(client.session, client.len), OUTPUT as usize);
        assert_eq!(client.got, right, "session {}", client.session);
    }
    mesh.sleep(limits.kv_idle * 2).await;
    mesh.drained().await;
    let events = mesh.log.events.lock().unwrap();
    told.borrow_mut().extend(events.iter().map(|e| format!("{e:?}")));
}

/// `default`, or as many as the environment asks of every property.
fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(600), max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_answer_is_whole_and_right_after_any_storm(blows in vec(blow(), 1..45)) {
        let _unless_it_holds = Again(&blows);
        run(|| storm(blows.clone(), Rc::default()));
    }
}

/// Says how to run a storm again, as soon as it fails: shrinking it may take longer than anybody waits.
struct Again<'a>(&'a [Blow]);

impl Drop for Again<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to see it again: `use Blow::*; run(|| storm(vec!{:?}, Rc::default()));`", self.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_same_storm_twice_tells_the_same_story(blows in vec(blow(), 10..25)) {
        let story = || {
            let told = Rc::new(RefCell::new(Vec::new()));
            run(|| storm(blows.clone(), told.clone()));
            told.take()
        };
        prop_assert_eq!(story(), story());
    }
}
