//! A node that serves SmolLM2 alone, behind as many servers as a test wants.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use node::clock::{Clock as _, TokioClock};
use node::http::{
    Advice, Api, Bounds, Desk, Health, Meter, ModelHealth, Need, Observation, Served, Server, Unserved,
};
use node::ids::{PeerId, SessionId};
use node::membership::{Profile, State};
use node::probe::Silent;
use node::real::cpu::{CpuEngine, EngineOptions};
use node::real::text::{ChatTemplate, Tokenizer};
use node::routing::table::Table;
use node::transport::{Lane, NetError, Rx, Transport, Tx};
use node::wire::Frame;
use node::world::{Doors, World};
use node::{FleetView, Limits, NodeConfig, NodeHandle, Replies, Request, start};
use planner::cost::predict::Load;
use planner::fleet::Fleet;
use planner::model::gguf::GgufFile;
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::{Epoch, LayerRange, NodeId, Pipeline, Plan, Stage};
use tests::models;
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Tokens that a prompt and its answer may have together.
pub(crate) const CONTEXT: u32 = 1024;

/// What the model is called.
pub(crate) const MODEL: &str = "smollm2";

/// Reaches nobody.
#[derive(Clone)]
struct Lonely;

struct Never(Infallible);

impl Tx for Never {
    async fn send(&mut self, _frame: Frame) -> Result<(), NetError> {
        match self.0 {}
    }
}

impl Rx for Never {
    async fn recv(&mut self) -> Result<Option<Frame>, NetError> {
        match self.0 {}
    }
}

impl Transport for Lonely {
    type Tx = Never;
    type Rx = Never;

    fn local(&self) -> PeerId {
        PeerId::default()
    }

    async fn open(&self, _peer: PeerId, _lane: Lane) -> Result<Never, NetError> {
        Err(NetError::Unreachable)
    }

    async fn accept(&self) -> Result<(PeerId, Lane, Never), NetError> {
        std::future::pending().await
    }
}

struct Alone;

impl World for Alone {
    type Transport = Lonely;
    type Engine = CpuEngine;
    type Clock = TokioClock;
    type Probe = Silent;
}

/// What the node is called in its mesh.
pub(crate) const PEER: PeerId = PeerId([7; 32]);

/// A model that somebody has and nobody serves.
pub(crate) const UNSERVED: &str = "unserved";

/// The node, and the model it serves.
pub(crate) struct House {
    pub(crate) runtime: Runtime,
    pub(crate) clock: TokioClock,
    node: NodeHandle,
    pub(crate) served: Arc<Served>,
}

impl Desk for House {
    fn models(&self) -> Vec<Arc<Served>> {
        vec![Arc::clone(&self.served)]
    }

    fn ask(&self, model: &str, request: Request) -> Option<Replies> {
        (model == self.served.id).then(|| self.node.ask(request))
    }

    fn choose(&self, need: &Need) -> Option<Arc<Served>> {
        (need.bytes < CONTEXT as usize).then(|| Arc::clone(&self.served))
    }

    fn missed(&self, model: &str) -> Option<Unserved> {
        let why = format!("{model} is on the disk of a friend, and nobody serves it yet.");
        (model == UNSERVED).then_some(Unserved { why, retry_s: 7 })
    }

    fn health(&self) -> Health {
        let serving = self.node.published().is_some_and(|published| !published.serving.is_empty());
        let why = (!serving).then(|| "no plan serves".to_owned());
        let sessions = self.node.sessions();
        let epoch = self.node.epoch().0;
        let model =
            ModelHealth { id: self.served.id.clone(), serving, sessions, epoch, ..ModelHealth::default() };
        Health { serving, why, node: "house".into(), sessions, models: vec![model], ..Health::default() }
    }

    fn table(&self) -> Table {
        let profile = Profile { addresses: vec!["/ip4/127.0.0.1/tcp/1".into()], ..Profile::default() };
        let state = State { served: vec![self.served.id.clone()], ..State::default() };
        Table::of(PEER, [(PEER, &profile, &state)])
    }

    fn observe(&self, _model: Option<&str>) -> Option<Observation> {
        None
    }

    fn advice(&self) -> Vec<Advice> {
        vec![Advice { model: self.served.name.clone(), ..Advice::default() }]
    }
}

impl House {
    /// A node with these bounds; it serves unless `idle`.
    pub(crate) fn new(limits: Limits, idle: bool) -> Arc<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let path = models::smollm2();
        let file = GgufFile::open(&path).unwrap();
        let tokenizer = Tokenizer::from_gguf(&file).unwrap();
        let template = ChatTemplate::from_gguf(&file, &tokenizer).unwrap();
        let model = Arc::new(file.model().unwrap());
        let options = EngineOptions { threads: 2, context_max: CONTEXT, ..EngineOptions::default() };
        let engine = CpuEngine::new(BTreeMap::from([(model.name.clone(), path)]), options);
        let whole = Stage { node: NodeId(0), layers: LayerRange::new(0, model.layer_count()) };
        let plan = Plan {
            model: model.name.clone(),
            replicas: vec![Pipeline { stages: vec![whole] }],
            experts: Vec::new(),
            context: CONTEXT,
            sessions: 4,
        };
        let served = Served::new(MODEL.into(), model.name.clone(), tokenizer, template, CONTEXT);
        let inside = runtime.enter();
        #[expect(clippy::disallowed_methods, reason = "the clock of a node in real time")]
        let clock = TokioClock::new(tokio::time::Instant::now(), 1);
        let doors = Doors::<Alone> { transport: Lonely, engine, clock, probe: Silent, seed: 0 };
        let config = NodeConfig {
            view: Arc::new(FleetView::indexed(fleet(idle))),
            model,
            ask: ask(),
            initial: (!idle).then_some((Epoch(1), plan)),
            cut: Vec::new(),
            least: None,
            copies: false,
            limits,
            incarnation: 0,
        };
        let node = start(doors, config);
        if !idle {
            runtime.block_on(node.until_serving());
        }
        drop(inside);
        Arc::new(Self { runtime, clock, node, served: Arc::new(served) })
    }

    /// A server of this node; the sender ends it, and the receiver hears when it has ended.
    pub(crate) fn serve(
        self: &Arc<Self>,
        bounds: Bounds,
    ) -> (SocketAddr, oneshot::Sender<()>, oneshot::Receiver<()>) {
        let api = Api::new(Arc::clone(self) as Arc<dyn Desk>, bounds, Arc::new(Meter::new()), self.clock);
        let server = self.runtime.block_on(Server::bind(([127, 0, 0, 1], 0).into())).unwrap();
        let address = server.address();
        let (end, ending) = oneshot::channel::<()>();
        let (ended, over) = oneshot::channel();
        self.runtime.spawn(async move {
            // A sender that is dropped ends nothing.
            let stop = async {
                if ending.await.is_err() {
                    std::future::pending().await
                }
            };
            server.run(api, stop).await;
            let _ = ended.send(());
        });
        (address, end, over)
    }

    /// A server for guests that runs as long as what they send their connections by.
    pub(crate) fn guests(self: &Arc<Self>) -> mpsc::Sender<(PeerId, DuplexStream)> {
        let (sender, receiver) = mpsc::channel(16);
        let meter = Arc::new(Meter::new());
        let api = Api::new(Arc::clone(self) as Arc<dyn Desk>, Bounds::default(), meter, self.clock);
        let server = self.runtime.block_on(Server::bind(([127, 0, 0, 1], 0).into())).unwrap();
        self.runtime.spawn(server.with_guests(receiver).run(api, std::future::pending()));
        sender
    }

    /// A server that runs as long as the test.
    pub(crate) fn at(self: &Arc<Self>, bounds: Bounds) -> SocketAddr {
        self.serve(bounds).0
    }

    /// Sessions whose keys and values are held.
    pub(crate) fn held(&self) -> Vec<SessionId> {
        self.node.held()
    }

    /// Returns when the engine holds a session.
    pub(crate) async fn held_by_somebody(&self) {
        while self.node.held().is_empty() {
            self.clock.sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until nobody is served any more; what is left after `patience` fails the test.
    #[track_caller]
    pub(crate) fn drained(&self, patience: Duration) {
        let deadline = self.clock.now().after(patience);
        loop {
            let (held, heads) = (self.held(), self.node.sessions());
            if held.is_empty() && heads == 0 {
                return;
            }
            assert!(self.clock.now() < deadline, "{held:?} are held, {heads} heads run");
            self.runtime.block_on(self.clock.sleep(Duration::from_millis(5)));
        }
    }
}

/// The house that most tests share.
pub(crate) fn house() -> &'static Arc<House> {
    static HOUSE: OnceLock<Arc<House>> = OnceLock::new();
    HOUSE.get_or_init(|| House::new(Limits::default(), false))
}

/// Its address.
pub(crate) fn address() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| house().at(Bounds::default()))
}

fn fleet(idle: bool) -> Fleet {
    let device = planner::fleet::catalog::devices().remove(0);
    let node = planner::fleet::Node {
        name: "house".into(),
        device,
        machine: "house".into(),
        network: planner::fleet::NetworkId(0),
        up_bytes_per_s: None,
        down_bytes_per_s: None,
        has_model: !idle,
    };
    Fleet { nodes: vec![node], ..Fleet::default() }
}

fn ask() -> Ask {
    Ask {
        objective: Objective::Tpot,
        load: Load { prompt: 64, context: 128, concurrency: 1, head: None },
        constraints: Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 4,
            context: CONTEXT,
            shape: Shape::Auto,
        },
    }
}
