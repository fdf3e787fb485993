//! A world for the tests of this crate: nodes on a virtual clock, a network that can be hurt, a device that betrays
//! every mistake.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

pub(crate) mod device;
pub(crate) mod fixture;
pub(crate) mod net;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node::clock::{Clock, Instant, TokioClock};
use node::engine::Sampling;
use node::ids::{PeerId, SessionId, Token};
use node::probe::{Event, Probe};
use node::world::{Doors, World};
use node::{FleetView, Limits, NodeConfig, NodeHandle, Replies, Reply, Request, start};
use planner::cost::predict::Load;
use planner::fleet::NodeId;
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::{Epoch, LayerRange, Pipeline, Plan, Stage};

use self::device::{Condition, TinyEngine, reference};
pub(crate) use self::fixture::{LAYERS, fleet, model};
use self::net::{Net, NetTransport};

/// One of tokio's milliseconds is a microsecond.
const SCALE: u32 = 1000;

pub(crate) struct TestWorld;

impl World for TestWorld {
    type Transport = NetTransport;
    type Engine = TinyEngine;
    type Clock = TokioClock;
    type Probe = Log;
}

/// What a node told.
#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) events: Arc<Mutex<Vec<(Instant, u32, Event)>>>,
    node: u32,
}

impl Probe for Log {
    fn on(&self, at: Instant, event: Event) {
        self.events.lock().unwrap().push((at, self.node, event));
    }
}

/// Nodes, and what is done to them.
pub(crate) struct Mesh {
    pub(crate) net: Net,
    pub(crate) clock: TokioClock,
    pub(crate) log: Log,
    pub(crate) limits: Limits,
    pub(crate) conditions: Vec<Arc<Mutex<Condition>>>,
    pub(crate) nodes: BTreeMap<u32, NodeHandle>,
    view: Arc<FleetView>,
    ask: Ask,
    lives: BTreeMap<u32, u64>,
}

/// Stages on these nodes, as even as can be.
pub(crate) fn pipeline(nodes: &[u32]) -> Pipeline {
    let count = nodes.len() as u32;
    let cut = |i: u32| i * LAYERS / count;
    let stage = |(i, n): (usize, &u32)| Stage {
        node: NodeId(*n),
        layers: LayerRange::new(cut(i as u32), cut(i as u32 + 1)),
    };
    Pipeline { stages: nodes.iter().enumerate().map(stage).collect() }
}

pub(crate) fn plan(replicas: &[&[u32]]) -> Plan {
    Plan {
        model: model().name,
        replicas: replicas.iter().map(|nodes| pipeline(nodes)).collect(),
        experts: Vec::new(),
        context: 8192,
        sessions: 4,
    }
}

impl Mesh {
    /// `count` nodes that begin with `initial`. Each holds half of the model, so two are needed.
    pub(crate) fn new(count: u32, initial: Option<Plan>) -> Self {
        Self::with(count, initial, Limits::default())
    }

    pub(crate) fn with(count: u32, initial: Option<Plan>, limits: Limits) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the clock of this world begins here")]
        let clock = TokioClock::new(tokio::time::Instant::now(), SCALE);
        let constraints = Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 4,
            context: 8192,
            shape: Shape::Auto,
        };
        let load = Load { prompt: 64, context: 128, concurrency: 1, head: None };
        let mut mesh = Self {
            net: Net::new(clock),
            clock,
            log: Log::default(),
            limits,
            conditions: (0..count).map(|_| Arc::default()).collect(),
            nodes: BTreeMap::new(),
            view: Arc::new(FleetView::indexed(fleet(count))),
            ask: Ask { objective: Objective::Tpot, load, constraints },
            lives: BTreeMap::new(),
        };
        for node in 0..count {
            mesh.begin(node, initial.clone());
        }
        mesh
    }

    fn begin(&mut self, node: u32, initial: Option<Plan>) {
        let life = self.lives.entry(node).and_modify(|l| *l += 1).or_insert(0);
        let doors = Doors::<TestWorld> {
            transport: self.net.join(node, *life),
            engine: TinyEngine::new(self.clock, self.conditions[node as usize].clone()),
            clock: self.clock,
            probe: Log { events: self.log.events.clone(), node },
            seed: 0,
        };
        let config = NodeConfig {
            view: self.view.clone(),
            model: Arc::new(model()),
            ask: self.ask.clone(),
            initial: initial.map(|plan| (Epoch(1), plan)),
            cut: Vec::new(),
            least: None,
            copies: false,
            limits: self.limits,
            incarnation: *life,
        };
        self.nodes.insert(node, start(doors, config));
    }

    /// The node's process dies.
    pub(crate) fn kill(&mut self, node: u32) {
        self.net.leave(node);
        self.nodes.remove(&node);
    }

    /// It starts again and knows nothing.
    pub(crate) fn restart(&mut self, node: u32) {
        self.kill(node);
        self.begin(node, None);
    }

    pub(crate) fn ask(&self, entry: u32, session: u64, prompt: u32, max_tokens: u32) -> Replies {
        self.nodes[&entry].ask(Request {
            session: SessionId(session),
            prompt: self::prompt(session, prompt),
            generated: Vec::new(),
            max_tokens,
            ends: Default::default(),
            sampling: Sampling::drawn(0.0, 1),
        })
    }

    pub(crate) async fn sleep(&self, d: Duration) {
        self.clock.sleep(d).await;
    }

    /// Until a replica serves, as `entry` sees it.
    pub(crate) async fn serving(&self, entry: u32) {
        let deadline = self.clock.now().after(Duration::from_secs(30));
        let serving = self.nodes[&entry].until_serving();
        self.clock.timeout_at(deadline, serving).await.expect("no replica serves within 30 s");
    }

    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.log.events.lock().unwrap().iter().filter(|(_, _, e)| which(e)).count()
    }

    /// How often sessions were taken up again.
    pub(crate) fn resumed(&self) -> usize {
        self.count(|e| matches!(e, Event::Attempted { attempt, .. } if attempt.0 > 0))
    }

    /// Nobody holds KV or runs a head any more.
    pub(crate) async fn drained(&self) {
        for _ in 0..200 {
            if self.nodes.values().all(|n| n.held().is_empty() && n.sessions() == 0) {
                return;
            }
            self.sleep(Duration::from_millis(10)).await;
        }
        let held: Vec<_> = self.nodes.iter().map(|(i, n)| (i, n.held(), n.sessions())).collect();
        panic!("left after the last answer: {held:?}");
    }
}

pub(crate) fn prompt(session: u64, len: u32) -> Vec<Token> {
    (0..len).map(|i| Token((session as u32 * 7919 + i * 31) % 40_000)).collect()
}

/// The tokens of an answer that must be complete, in order and right.
pub(crate) async fn whole(clock: &TokioClock, replies: Replies, session: u64, len: u32, tokens: u32) {
    let got = tokens_of(clock, replies, len).await;
    let got = got.unwrap_or_else(|e| panic!("session {session}: {e}"));
    assert_eq!(got, reference(LAYERS, &prompt(session, len), tokens as usize), "session {session}");
}

/// The tokens of an answer, or how it ended otherwise. Positions must rise one by one.
pub(crate) async fn tokens_of(
    clock: &TokioClock,
    mut replies: Replies,
    len: u32,
) -> Result<Vec<Token>, String> {
    let mut got = Vec::new();
    let deadline = clock.now().after(Duration::from_secs(600));
    loop {
        let reply = clock.timeout_at(deadline, replies.next()).await.map_err(|_| "no end within 600 s")?;
        match reply {
            Some(Reply::Token { position, token, .. }) => {
                assert_eq!(position as usize, len as usize + got.len(), "positions are not gapless");
                got.push(token);
            }
            Some(Reply::End) => return Ok(got),
            Some(other) => return Err(format!("{other:?} after {} tokens", got.len())),
            None => return Err(format!("the node ended after {} tokens", got.len())),
        }
    }
}

/// Runs a test on a virtual clock.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async { test().await });
}

/// The name of a node.
pub(crate) fn peer(node: u32) -> PeerId {
    PeerId::from_index(node)
}
