//! The server that all played engines share: requests wait for a slot, a step takes the next token of every stream in
//! progress and the next chunk of one prompt, and faults strike between and within steps.

use std::collections::{BTreeSet, VecDeque};

use node::ids::SessionId;
use node::transport::Lane;
use planner::cost::constants::PREFILL_CHUNK;
use planner::cost::memory::{stage_bytes, weight_bytes};
use planner::cost::step::Sequence;
use planner::fleet::NodeId;
use planner::plan::{Breakdown, Epoch, Plan};

use super::course::Course;
use super::machine::Machines;
use super::{PlayError, Played};
use crate::link::Net;
use crate::outcome::{Dilation, Incident, NodeUse, Outcome, RequestRecord, Status};
use crate::scenario::{Fault, FaultKind, Scenario, WorldKind};
use crate::seed::Seed;
use crate::workload::{Arrival, ArrivalStream};

/// A stream in progress.
#[derive(Debug)]
struct Stream {
    /// Its place in [`Serving::requests`].
    request: usize,
    /// Prompt tokens that are not in the KV cache yet.
    prompt_left: u32,
    /// Tokens in the KV cache.
    context: u32,
}

/// One engine at work.
#[derive(Debug)]
pub(super) struct Serving<'a> {
    scenario: &'a Scenario,
    engine: Played,
    plan: Plan,
    seed: u64,
    net: Net,
    machines: Machines,
    arrivals: ArrivalStream,
    faults: VecDeque<Fault>,
    now_ns: u64,
    down: BTreeSet<NodeId>,
    partitioned: bool,
    /// The group serves from then on.
    ready_ns: u64,
    requests: Vec<RequestRecord>,
    waiting: VecDeque<usize>,
    active: Vec<Stream>,
    incidents: Vec<Incident>,
    spent: Breakdown,
    decoded: u64,
}

impl<'a> Serving<'a> {
    pub(super) fn new(scenario: &'a Scenario, engine: Played, plan: Plan, seed: u64) -> Self {
        let root = Seed::new(seed);
        Self {
            net: Net::with_software(scenario.fleet.clone(), seed, engine.software()),
            machines: Machines::new(&scenario.fleet, scenario.compute_error, root),
            arrivals: ArrivalStream::new(&scenario.workload, root),
            faults: scenario.faults.iter().cloned().collect(),
            scenario,
            engine,
            plan,
            seed,
            now_ns: 0,
            down: BTreeSet::new(),
            partitioned: false,
            ready_ns: 0,
            requests: Vec::new(),
            waiting: VecDeque::new(),
            active: Vec::new(),
            incidents: Vec::new(),
            spent: Breakdown::default(),
            decoded: 0,
        }
    }

    /// Serves until all requests are over or time is.
    pub(super) fn run(mut self) -> Result<Outcome, PlayError> {
        let limit_ns = nanoseconds(self.scenario.limit_us);
        while self.now_ns < limit_ns {
            self.strike();
            self.admit();
            if self.active.is_empty() {
                let Some(next_ns) = self.next_event_ns() else { break };
                self.now_ns = next_ns.max(self.now_ns + 1).min(limit_ns);
                continue;
            }
            self.step()?;
        }
        Ok(self.outcome())
    }

    /// What happens next while nothing runs. Faults alone do not keep a run going.
    fn next_event_ns(&self) -> Option<u64> {
        let arrival = self.arrivals.next_ns();
        let ready = (!self.waiting.is_empty() && self.is_up()).then_some(self.ready_ns);
        let fault = self.faults.front().map(|f| nanoseconds(f.at_us));
        let wanted = arrival.is_some() || !self.waiting.is_empty();
        [arrival, ready, fault.filter(|_| wanted)].into_iter().flatten().min()
    }

    fn is_up(&self) -> bool {
        self.down.is_empty()
    }

    /// Lets in who has come, and gives free slots to those who wait longest.
    fn admit(&mut self) {
        while let Some(arrival) = self.arrivals.take(self.now_ns) {
            self.receive(arrival);
        }
        let slots = self.plan.sessions.max(1) as usize;
        while self.is_up() && self.now_ns >= self.ready_ns && self.active.len() < slots {
            let Some(request) = self.waiting.pop_front() else { break };
            let prompt_left = self.requests[request].prompt;
            self.active.push(Stream { request, prompt_left, context: 0 });
        }
    }

    fn receive(&mut self, arrival: Arrival) {
        let host = &self.scenario.fleet.node(self.engine.group.host).name;
        let status = if self.is_up() {
            Status::Unfinished
        } else {
            Status::Refused("one of the group is down, and it serves only when complete".into())
        };
        let refused = status != Status::Unfinished;
        self.requests.push(RequestRecord {
            session: SessionId(u64::from(arrival.number)),
            entry: host.clone(),
            prompt: arrival.prompt,
            output: arrival.output,
            asked_us: microseconds(arrival.at_ns),
            tokens_us: Vec::new(),
            tokens: Vec::new(),
            ended_us: refused.then(|| microseconds(self.now_ns)),
            status,
            resumptions: 0,
        });
        if refused {
            self.arrivals.ended(self.now_ns);
        } else {
            self.waiting.push_back(self.requests.len() - 1);
        }
    }

    /// What the next step computes: one token of every stream that has its prompt behind it, and a chunk of the first
    /// that has not.
    fn batch(&self) -> (Vec<Sequence>, Vec<usize>) {
        let mut batch = Vec::with_capacity(self.active.len());
        let mut members = Vec::with_capacity(self.active.len());
        let mut chunked = false;
        for (i, stream) in self.active.iter().enumerate() {
            if stream.prompt_left == 0 {
                batch.push(Sequence::decode(stream.context));
            } else if !chunked {
                chunked = true;
                let new_tokens = stream.prompt_left.min(PREFILL_CHUNK);
                let logits = u32::from(new_tokens == stream.prompt_left);
                batch.push(Sequence { new_tokens, context: stream.context, logits });
            } else {
                continue;
            }
            members.push(i);
        }
        (batch, members)
    }

    fn step(&mut self) -> Result<(), PlayError> {
        let (batch, members) = self.batch();
        let prefills = members.iter().any(|i| self.active[*i].prompt_left > 0);
        let lane = if prefills { Lane::Prefill } else { Lane::Decode };
        let mut course =
            Course::new(&self.scenario.model, &mut self.net, &mut self.machines, lane, self.now_ns);
        match self.engine.step(&mut course, &batch) {
            Ok(()) => {
                let (end_ns, spent) = course.end();
                self.finish(end_ns, spent, &batch, &members);
                Ok(())
            }
            Err(PlayError::Unreachable { .. }) if self.partitioned => {
                self.fail_all("a partition cut the group");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Books a step that ended at `end_ns`, unless somebody it needed died meanwhile.
    fn finish(&mut self, end_ns: u64, spent: Breakdown, batch: &[Sequence], members: &[usize]) {
        let crash_ns = self.first_crash_ns().filter(|at_ns| *at_ns < end_ns);
        if let Some(at_ns) = crash_ns {
            self.now_ns = at_ns.max(self.now_ns);
            self.fail_all("a machine of the group died");
            return;
        }
        self.now_ns = end_ns;
        for (sequence, member) in batch.iter().zip(members) {
            self.advance(*member, sequence, spent);
        }
        let (requests, arrivals) = (&self.requests, &mut self.arrivals);
        self.active.retain(|stream| {
            let going = requests[stream.request].status == Status::Unfinished;
            if !going {
                arrivals.ended(end_ns);
            }
            going
        });
    }

    fn advance(&mut self, member: usize, sequence: &Sequence, spent: Breakdown) {
        let stream = &mut self.active[member];
        let decodes = stream.prompt_left == 0;
        stream.context += sequence.new_tokens;
        stream.prompt_left = stream.prompt_left.saturating_sub(sequence.new_tokens);
        if sequence.logits == 0 {
            return;
        }
        let request = &mut self.requests[stream.request];
        request.tokens_us.push(microseconds(self.now_ns));
        if decodes {
            self.decoded += 1;
            add(&mut self.spent, &spent);
        }
        if request.tokens_us.len() >= request.output as usize {
            request.status = Status::Completed;
            request.ended_us = Some(microseconds(self.now_ns));
        }
    }

    fn first_crash_ns(&self) -> Option<u64> {
        let needed = |f: &&Fault| matches!(f.kind, FaultKind::Crash(node) if self.engine.group.needs(node));
        self.faults.iter().find(needed).map(|f| nanoseconds(f.at_us))
    }

    fn fail_all(&mut self, why: &str) {
        for stream in std::mem::take(&mut self.active) {
            let request = &mut self.requests[stream.request];
            request.status = Status::Failed(why.into());
            request.ended_us = Some(microseconds(self.now_ns));
            self.arrivals.ended(self.now_ns);
        }
    }

    /// Applies the faults whose time has come.
    fn strike(&mut self) {
        while self.faults.front().is_some_and(|f| nanoseconds(f.at_us) <= self.now_ns) {
            let Some(fault) = self.faults.pop_front() else { break };
            self.apply(&fault);
        }
    }

    fn apply(&mut self, fault: &Fault) {
        let name = |node: &NodeId| self.scenario.fleet.node(*node).name.clone();
        let what = match &fault.kind {
            FaultKind::Crash(node) => {
                let what = format!("crash of {}", name(node));
                if self.engine.group.needs(*node) {
                    self.down.insert(*node);
                    self.fail_all("a machine of the group died");
                }
                what
            }
            FaultKind::Restart(node) => {
                let what = format!("restart of {}", name(node));
                if self.down.remove(node) && self.is_up() {
                    self.ready_ns = self.now_ns + nanoseconds(self.load_us());
                }
                what
            }
            FaultKind::SlowDown(node, times) => {
                let what = format!("{} computes {times} times slower", name(node));
                self.machines.slow_down(*node, *times);
                what
            }
            FaultKind::MemoryLoss(node, share) => {
                format!("{} loses {share} of its memory for KV", name(node))
            }
            FaultKind::Partition(a, b) => {
                self.net.cut(a, b);
                self.partitioned = true;
                "partition".into()
            }
            FaultKind::Heal => {
                self.net.heal();
                self.partitioned = false;
                "partitions end".into()
            }
            FaultKind::LinkChange { a, b, delay, bytes_per_s } => {
                let what = format!("link between {} and {} changes", name(a), name(b));
                self.net.change_link(*a, *b, *delay, *bytes_per_s);
                what
            }
        };
        self.incidents.push(Incident { at_us: fault.at_us, what, pause_us: None });
    }

    /// A group that was broken loads all of its weights again; the slowest disk decides.
    fn load_us(&self) -> f64 {
        let stages = self.engine.group.stages.iter();
        stages
            .map(|s| self.machines.load_us(s.node, weight_bytes(&self.scenario.model, s.layers)))
            .fold(0.0, f64::max)
    }

    fn outcome(self) -> Outcome {
        let decoded = self.decoded.max(1) as f64;
        let mean = |total_ms: f64| total_ms / decoded;
        Outcome {
            engine: self.engine.kind,
            world: WorldKind::Memory,
            dilation: Dilation::default(),
            seed: self.seed,
            breakdown: Breakdown {
                compute_ms: mean(self.spent.compute_ms),
                latency_ms: mean(self.spent.latency_ms),
                bandwidth_ms: mean(self.spent.bandwidth_ms),
                queueing_ms: mean(self.spent.queueing_ms),
                software_ms: mean(self.spent.software_ms),
            },
            nodes: self.node_uses(),
            plan: self.plan,
            requests: self.requests,
            incidents: self.incidents,
            epoch: Epoch::default(),
            ended_us: microseconds(self.now_ns),
            spans: Vec::new(),
            violations: Vec::new(),
        }
    }

    fn node_uses(&self) -> Vec<NodeUse> {
        let whole_us = microseconds(self.now_ns).max(1e-3);
        let constraints = &self.scenario.plan.ask.constraints;
        let of = |stage: &planner::plan::Stage| {
            let (busy_us, steps) = self.machines.used(stage.node);
            NodeUse {
                node: self.scenario.fleet.node(stage.node).name.clone(),
                busy: busy_us / whole_us,
                memory_bytes: stage_bytes(
                    &self.scenario.model,
                    stage.layers,
                    constraints.context,
                    constraints.sessions,
                ),
                steps,
                sent_bytes: self.net.sent_bytes(stage.node),
                kv_left: self.active.len() as u32,
            }
        };
        self.engine.group.stages.iter().map(of).collect()
    }
}

fn add(total: &mut Breakdown, part: &Breakdown) {
    total.compute_ms += part.compute_ms;
    total.latency_ms += part.latency_ms;
    total.bandwidth_ms += part.bandwidth_ms;
    total.queueing_ms += part.queueing_ms;
    total.software_ms += part.software_ms;
}

fn nanoseconds(us: f64) -> u64 {
    (us * 1e3).round() as u64
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}
