//! Requests at node 0 of a ring over all nodes of a fleet, all at once, while faults strike: what suites over rings of real
//! nodes share, whatever the devices compute with.

use std::sync::{Arc, Mutex};

use node::clock::{Clock, Instant};
use node::engine::{Chances, Sampling};
use node::head::{Reply, Request};
use node::ids::{PeerId, SessionId, Token};
use node::limits::Limits;
use node::router::FleetView;
use node::{NodeConfig, NodeHandle};
use planner::cost::predict::Load;
use planner::fleet::{Fleet, NodeId};
use planner::model::Model;
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::{Epoch, LayerRange, Pipeline, Plan, Stage};
use sim::mesh::{Mesh, MeshSpec, Play};
use sim::record::Recorder;
use sim::scenario::FaultKind;
use sim::wires::Life;

use crate::fixture;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// When the requests are asked.
pub(crate) const ASKED: Instant = Instant(5 * SECOND);

/// A token with what was told about it.
pub(crate) type Told = (Token, Option<Box<Chances>>);

/// What is asked of whom.
#[derive(Clone)]
pub(crate) struct Asking {
    pub(crate) fleet: Fleet,
    pub(crate) model: Arc<Model>,
    /// What the planner is told of it.
    load: Load,
    requests: Vec<(Vec<Token>, Sampling)>,
    tokens: u32,
    faults: Vec<(u64, FaultKind)>,
    answers: Arc<Mutex<Vec<Vec<Told>>>>,
    open: Arc<Mutex<usize>>,
}

impl Asking {
    /// `tokens` tokens for each of `requests`, while `faults` strike at their nanosecond.
    pub(crate) fn new(
        fleet: &Fleet,
        model: Arc<Model>,
        load: Load,
        requests: Vec<(Vec<Token>, Sampling)>,
        tokens: u32,
        faults: &[(u64, FaultKind)],
    ) -> Self {
        Self {
            fleet: fleet.clone(),
            model,
            load,
            tokens,
            faults: faults.to_vec(),
            answers: Arc::new(Mutex::new(vec![Vec::new(); requests.len()])),
            open: Arc::new(Mutex::new(requests.len())),
            requests,
        }
    }

    fn plan(&self) -> Plan {
        let (nodes, layers) = (self.fleet.nodes.len() as u32, self.model.layer_count());
        let cut = |index: u32| layers * index / nodes;
        let stage = |node: NodeId| Stage { node, layers: LayerRange::new(cut(node.0), cut(node.0 + 1)) };
        Plan {
            model: self.model.name.clone(),
            replicas: vec![Pipeline { stages: self.fleet.ids().map(stage).collect() }],
            experts: Vec::new(),
            context: 1_024,
            sessions: 8,
        }
    }

    pub(crate) fn config(&self, incarnation: u64) -> NodeConfig {
        let constraints = Constraints {
            min_layers: 1,
            latency_cap_us: None,
            pinned: Vec::new(),
            excluded: Vec::new(),
            sessions: 8,
            context: 1_024,
            shape: Shape::Pipeline,
        };
        let peers = self.fleet.ids().map(|node| PeerId::from_index(node.0)).collect();
        NodeConfig {
            view: Arc::new(FleetView::new(self.fleet.clone(), peers)),
            model: Arc::clone(&self.model),
            ask: Ask { objective: Objective::Tpot, load: self.load, constraints },
            initial: Some((Epoch(1), self.plan())),
            cut: Vec::new(),
            least: None,
            copies: false,
            limits: Limits::default(),
            incarnation,
        }
    }

    fn request(&self, index: usize) -> Request {
        let (prompt, sampling) = self.requests[index].clone();
        let session = SessionId(index as u64);
        let ends = Default::default();
        Request { session, prompt, generated: Vec::new(), max_tokens: self.tokens, ends, sampling }
    }

    /// One life of a node: node 0 asks and listens, and all live until they are ended.
    pub(crate) async fn live<C: Clock>(&self, life: Life, clock: C, node: NodeHandle) {
        if life.node == NodeId(0) {
            clock.sleep_until(ASKED).await;
            let asked: Vec<_> = (0..self.requests.len()).map(|index| node.ask(self.request(index))).collect();
            for (index, mut replies) in asked.into_iter().enumerate() {
                while let Some(reply) = replies.next().await {
                    match reply {
                        Reply::Token { token, chances, .. } => {
                            self.answers.lock().unwrap()[index].push((token, chances));
                        }
                        Reply::End => *self.open.lock().unwrap() -= 1,
                        other => panic!("session {index}: {other:?}"),
                    }
                }
            }
        }
        std::future::pending::<()>().await;
    }

    /// Lets the faults strike, and waits until all answers are whole.
    pub(crate) async fn direct<C: Clock>(&self, mesh: Mesh<C>) {
        for (at_ns, fault) in &self.faults {
            mesh.clock().sleep_until(Instant(*at_ns)).await;
            mesh.apply(fault);
        }
        for tick in 0..2_000 {
            mesh.clock().sleep_until(Instant(ASKED.0 + tick * SECOND / 20)).await;
            if *self.open.lock().unwrap() == 0 {
                return;
            }
        }
        panic!("not over in 100 s");
    }

    /// Runs `play` over this fleet in `world`, and hands out what was recorded and answered.
    pub(crate) fn run<P: Play>(
        &self,
        world: &str,
        play: &P,
        compute_error: (f64, f64),
    ) -> (Recorder, Vec<Vec<Told>>) {
        let recorder = Recorder::new(self.fleet.nodes.iter().map(|n| n.name.clone()).collect(), true);
        let spec = MeshSpec {
            model: Arc::clone(&self.model),
            compute_error,
            recorder: recorder.clone(),
            ..fixture::mesh(&self.fleet)
        };
        fixture::play(world, spec, play);
        let answers = self.answers.lock().unwrap().clone();
        (recorder, answers)
    }
}
