//! A run in which everything is in order, made by hand, for tests that then put something out of order.

use node::ids::SessionId;
use node::probe::Event;
use planner::fleet::NodeId;

use super::Evidence;
use crate::outcome::{Outcome, RequestRecord, Status};
use crate::record::Recorded;
use crate::report::sample;
use crate::run::expected_tokens;
use crate::scenario::{EngineKind, FaultKind, Scenario};

/// The run's parts, each to be doctored.
#[derive(Debug, Clone)]
pub(super) struct Sound {
    pub(super) scenario: Scenario,
    pub(super) outcome: Outcome,
    pub(super) events: Vec<Recorded>,
    pub(super) probes: Option<Vec<RequestRecord>>,
    pub(super) starts: Vec<(NodeId, u64)>,
    pub(super) struck: Vec<(u64, FaultKind)>,
    pub(super) memory_peak_bytes: Vec<u64>,
    pub(super) kv_left: Vec<u32>,
    pub(super) servable: bool,
    pub(super) recovery_us: f64,
    pub(super) work_us: f64,
}

impl Sound {
    /// Two requests and a probe, of four tokens each.
    pub(super) fn new() -> Self {
        let scenario = sample::scenario();
        let seed = 7;
        let record = |session: u64| {
            let mut record = RequestRecord {
                session: SessionId(session),
                entry: "max".into(),
                prompt: 12,
                output: 4,
                asked_us: 1e6 * session as f64,
                tokens_us: (1..=4u32).map(|i| 1e6 * session as f64 + 50e3 * f64::from(i)).collect(),
                tokens: Vec::new(),
                ended_us: Some(1e6 * session as f64 + 201e3),
                status: Status::Completed,
                resumptions: 0,
            };
            record.tokens = expected_tokens(&scenario.model, seed, &record);
            record
        };
        let accepted = |session: u64| Recorded {
            at_ns: session * 1_000_000_000,
            node: NodeId(0),
            event: Event::Accepted { session: SessionId(session), prompt: 12 },
        };
        let nodes = scenario.fleet.nodes.len();
        let outcome = Outcome {
            requests: vec![record(0), record(1)],
            ended_us: 1.3e6,
            incidents: Vec::new(),
            ..sample::outcome(EngineKind::Ring, 62.0, None)
        };
        Self {
            outcome,
            events: vec![accepted(0), accepted(1)],
            probes: Some(vec![record(2)]),
            starts: scenario.fleet.ids().map(|id| (id, 0)).collect(),
            struck: Vec::new(),
            memory_peak_bytes: vec![1; nodes],
            kv_left: vec![0; nodes],
            servable: true,
            recovery_us: 30e6,
            work_us: 10e6,
            scenario,
        }
    }

    /// What the oracles get to see.
    pub(super) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            scenario: &self.scenario,
            outcome: &self.outcome,
            events: &self.events,
            probes: self.probes.as_deref(),
            starts: &self.starts,
            struck: &self.struck,
            memory_peak_bytes: &self.memory_peak_bytes,
            kv_left: &self.kv_left,
            servable: self.servable,
            recovery_us: self.recovery_us,
            work_us: self.work_us,
        }
    }
}
