//! A stage: what waits becomes a batch, the batch is one engine step, each output goes to the next peer.
//!
//! Decode goes before prefill, and prefill goes in bounded portions, so that a long prompt delays other sessions' tokens
//! by at most one portion. Steps that come before their layers are loaded wait for the load.

use std::collections::BTreeMap;

use planner::plan::{Epoch, LayerRange};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{Pending, Queue};
use crate::clock::{Clock, Instant};
use crate::control::ControlInput;
use crate::engine::{Engine, EngineError, Input, Want, Work, WorkOut};
use crate::hub::Hub;
use crate::ids::{Attempt, PeerId, SessionId};
use crate::outbox::{Concerned, Outgoing};
use crate::probe::{Event, Probe};
use crate::transport::Lane;
use crate::wire::{Frame, Nack, Payload, Route, Step, StepInput};
use crate::world::World;

/// What a stage is told.
#[derive(Debug)]
pub(crate) enum StageInput {
    /// Work, and when it came.
    Steps { at: Instant, steps: Vec<Step> },
    /// Tries up to this one are over.
    Close { session: SessionId, attempt: Attempt },
    /// Hold these layers from now on.
    Assign { epoch: Epoch, layers: Option<LayerRange> },
    /// Nobody waits for this peer's sessions any more.
    HeadLost(PeerId),
    /// Which sessions have KV here?
    Held(oneshot::Sender<Vec<SessionId>>),
}

/// A session that passes here.
#[derive(Debug)]
struct Passing {
    attempt: Attempt,
    route: Route,
    index: usize,
    touched: Instant,
}

/// The stage of one node.
pub(crate) struct Stage<W: World> {
    hub: Hub<W>,
    engine: W::Engine,
    epoch: Epoch,
    layers: Option<LayerRange>,
    sessions: BTreeMap<SessionId, Passing>,
    /// Ended tries, the oldest first to be forgotten.
    closed: BTreeMap<SessionId, (Attempt, u64)>,
    closings: u64,
    queue: Queue,
    /// Steps of plans that this node has not adopted yet.
    early: Vec<(Instant, Step)>,
}

impl<W: World> Stage<W> {
    pub(crate) fn new(hub: Hub<W>, engine: W::Engine) -> Self {
        Self {
            queue: Queue::new(hub.limits.pending_steps),
            hub,
            engine,
            epoch: Epoch(0),
            layers: None,
            sessions: BTreeMap::new(),
            closed: BTreeMap::new(),
            closings: 0,
            early: Vec::new(),
        }
    }

    /// Works until the node ends.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<StageInput>) {
        let mut expiry = self.hub.clock.now().after(self.hub.limits.kv_idle);
        loop {
            while let Ok(input) = inputs.try_recv() {
                self.take(input).await;
            }
            if self.queue.is_empty() {
                match self.hub.clock.timeout_at(expiry, inputs.recv()).await {
                    Ok(Some(input)) => self.take(input).await,
                    Ok(None) => return,
                    Err(_) => {}
                }
            } else {
                self.step().await;
            }
            if self.hub.clock.now() >= expiry {
                self.expire();
                expiry = self.hub.clock.now().after(self.hub.limits.kv_idle);
            }
        }
    }

    async fn take(&mut self, input: StageInput) {
        match input {
            StageInput::Steps { at, steps } => {
                for step in steps {
                    self.admit(at, step);
                }
            }
            StageInput::Close { session, attempt } => self.close(session, attempt),
            StageInput::Assign { epoch, layers } => self.assign(epoch, layers).await,
            StageInput::HeadLost(peer) => self.lose_head(peer),
            StageInput::Held(reply) => {
                // Nobody may be listening any more.
                let _ = reply.send(self.engine.held());
            }
        }
    }

    /// Queues a step, or says why not.
    fn admit(&mut self, at: Instant, step: Step) {
        let (session, attempt) = (step.session, step.attempt);
        if self.closed.get(&session).is_some_and(|(closed, _)| *closed >= attempt) {
            return self.hub.tell(Event::Stale { session });
        }
        if step.route.as_ref().is_some_and(|r| r.epoch > self.epoch) {
            return self.hold_early(at, step);
        }
        let known = self.sessions.get(&session).filter(|known| {
            // Another head: the client has gone on elsewhere, and its tries count anew.
            step.route.as_ref().is_none_or(|route| route.head == known.route.head)
        });
        match known.map(|known| known.attempt) {
            Some(known) if known > attempt => return self.hub.tell(Event::Stale { session }),
            Some(known) if known == attempt => {}
            _ => match self.open(at, &step) {
                Ok(()) => {}
                Err(Some((head, why))) => return self.nack(head, session, attempt, why),
                // Without a route nobody knows whom to tell: the head's deadline will.
                Err(None) => return self.hub.tell(Event::Stale { session }),
            },
        }
        if let Err(step) = self.queue.push(Pending { at, step }) {
            self.refuse(step.session, Nack::NoRoom);
        }
    }

    /// Takes a new try of a session on. The error says whom to tell what.
    fn open(&mut self, at: Instant, step: &Step) -> Result<(), Option<(PeerId, Nack)>> {
        let Some(route) = &step.route else {
            return Err(None);
        };
        let index = usize::from(step.stage);
        let here = route.stages.get(index);
        if here.is_none_or(|(peer, _)| *peer != self.hub.local()) || route.model != self.hub.model.name {
            return Err(Some((route.head, Nack::Unknown)));
        }
        if here.map(|(_, layers)| *layers) != self.layers {
            return Err(Some((route.head, Nack::NotLoaded)));
        }
        self.forget(step.session);
        let passing = Passing { attempt: step.attempt, route: route.clone(), index, touched: at };
        self.sessions.insert(step.session, passing);
        Ok(())
    }

    /// A head may know a plan before this node does: its steps wait here, and one too many is refused.
    fn hold_early(&mut self, at: Instant, step: Step) {
        if self.early.len() < self.hub.limits.inbox_frames {
            self.early.push((at, step));
        } else if let Some(route) = &step.route {
            self.nack(route.head, step.session, step.attempt, Nack::NoRoom);
        }
    }

    async fn assign(&mut self, epoch: Epoch, layers: Option<LayerRange>) {
        self.epoch = epoch;
        let mut ok = true;
        if self.layers != layers {
            for session in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.refuse(session, Nack::NotLoaded);
            }
            self.hub.tell(Event::LoadBegan { epoch, layers });
            ok = self.engine.load(&self.hub.model.name, layers).await.is_ok();
            self.layers = if ok { layers } else { None };
            self.hub.tell(Event::LoadEnded { epoch, ok });
        }
        // The control core hears of it again by the next pong if its queue is full.
        let _ = self.hub.control.try_send(ControlInput::Loaded { epoch, ok });
        for (at, step) in std::mem::take(&mut self.early) {
            self.admit(at, step);
        }
    }

    /// One engine step over what waits.
    async fn step(&mut self) {
        let batch = self.queue.batch(self.hub.limits.batch_sessions, self.hub.limits.prefill_tokens);
        let now = self.hub.clock.now();
        let mut steps = Vec::with_capacity(batch.len());
        let mut works = Vec::with_capacity(batch.len());
        let mut told = Vec::with_capacity(batch.len());
        for Pending { at, step } in batch {
            let Some(passing) = self.sessions.get_mut(&step.session) else { continue };
            if passing.attempt != step.attempt {
                continue;
            }
            passing.touched = now;
            let last = passing.index + 1 == passing.route.stages.len();
            told.push((step.session, step.start + step.count, at));
            let (work, rest) = work_of(step, last);
            works.push(work);
            steps.push(rest);
        }
        if works.is_empty() {
            return;
        }
        let sessions = works.len() as u32;
        self.hub.probe.on(now, Event::StepBegan { batch: told });
        let outs = self.engine.step(works).await;
        self.hub.tell(Event::StepEnded { sessions });
        self.forward(steps.into_iter().zip(outs));
    }

    /// Sends each output on; outputs for the same peer and lane share a frame.
    fn forward(&mut self, outs: impl Iterator<Item = (Rest, Result<WorkOut, EngineError>)>) {
        let mut frames: BTreeMap<(PeerId, Lane), Outgoing> = BTreeMap::new();
        for (rest, out) in outs {
            let Some(passing) = self.sessions.get(&rest.session) else { continue };
            match out {
                Ok(WorkOut::Hidden(payload)) => {
                    let next = passing.index + 1;
                    let Some((peer, _)) = passing.route.stages.get(next) else { continue };
                    let lane = if rest.count == 1 { Lane::Decode } else { Lane::Prefill };
                    let concerned = (passing.route.head, rest.session, rest.attempt);
                    let step = rest.onward(next as u16, payload, &passing.route);
                    push_step(frames.entry((*peer, lane)), step, concerned);
                }
                Ok(WorkOut::Token(token)) => {
                    let position = rest.start + rest.count;
                    let frame =
                        Frame::Token { session: rest.session, attempt: rest.attempt, position, token };
                    self.hub.send(passing.route.head, Lane::Decode, frame);
                }
                Ok(WorkOut::Done) => {}
                Err(why) => self.refuse(rest.session, nack_of(&why)),
            }
        }
        for ((peer, lane), out) in frames {
            self.hub.outbox.send(&self.hub, peer, lane, out);
        }
    }

    /// Ends a session here and tells its head why.
    fn refuse(&mut self, session: SessionId, why: Nack) {
        if let Some(passing) = self.sessions.get(&session) {
            self.nack(passing.route.head, session, passing.attempt, why);
            self.forget(session);
        }
    }

    fn nack(&self, head: PeerId, session: SessionId, attempt: Attempt, why: Nack) {
        self.hub.send(head, Lane::Decode, Frame::Nack { session, attempt, why });
    }

    fn forget(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_some() {
            self.queue.drop_session(session);
            self.engine.release(session);
        }
    }

    fn close(&mut self, session: SessionId, attempt: Attempt) {
        if self.sessions.get(&session).is_some_and(|passing| passing.attempt <= attempt) {
            self.forget(session);
        }
        self.early.retain(|(_, step)| step.session != session || step.attempt > attempt);
        self.closings += 1;
        self.closed.insert(session, (attempt, self.closings));
        if self.closed.len() > self.hub.limits.closed_sessions {
            let oldest = self.closed.iter().min_by_key(|(_, (_, at))| *at).map(|(session, _)| *session);
            if let Some(oldest) = oldest {
                self.closed.remove(&oldest);
            }
        }
    }

    fn lose_head(&mut self, peer: PeerId) {
        let of_peer = self.sessions.iter().filter(|(_, p)| p.route.head == peer).map(|(s, _)| *s);
        for session in of_peer.collect::<Vec<_>>() {
            self.forget(session);
        }
        self.early.retain(|(_, step)| step.route.as_ref().is_none_or(|route| route.head != peer));
    }

    /// Releases sessions nobody has touched for long: their head is gone.
    fn expire(&mut self) {
        let now = self.hub.clock.now();
        let idle = self.hub.limits.kv_idle;
        let old: Vec<_> =
            self.sessions.iter().filter(|(_, p)| now.since(p.touched) >= idle).map(|(s, _)| *s).collect();
        for session in old {
            self.forget(session);
        }
    }
}

/// A step without its input: what is needed to send its output on.
struct Rest {
    session: SessionId,
    attempt: Attempt,
    start: u32,
    count: u32,
    first: bool,
    sample: Option<crate::engine::Sampling>,
}

impl Rest {
    fn onward(self, stage: u16, payload: Payload, route: &Route) -> Step {
        Step {
            session: self.session,
            attempt: self.attempt,
            stage,
            route: self.first.then(|| route.clone()),
            start: self.start,
            count: self.count,
            input: StepInput::Hidden(payload),
            sample: self.sample,
        }
    }
}

fn work_of(step: Step, last: bool) -> (Work, Rest) {
    let want = match (last, step.sample) {
        (false, _) => Want::Hidden,
        (true, Some(sampling)) => Want::Sample(sampling),
        (true, None) => Want::Nothing,
    };
    let input = match step.input {
        StepInput::Tokens(tokens) => Input::Tokens(tokens),
        StepInput::Hidden(payload) => Input::Hidden(payload),
    };
    let work = Work { session: step.session, start: step.start, count: step.count, input, want };
    let rest = Rest {
        session: step.session,
        attempt: step.attempt,
        start: step.start,
        count: step.count,
        first: step.route.is_some(),
        sample: step.sample,
    };
    (work, rest)
}

fn push_step(
    slot: std::collections::btree_map::Entry<'_, (PeerId, Lane), Outgoing>,
    step: Step,
    concerned: Concerned,
) {
    let out = slot.or_insert_with(|| Outgoing { frame: Frame::Steps(Vec::new()), concerned: Vec::new() });
    out.concerned.push(concerned);
    if let Frame::Steps(steps) = &mut out.frame {
        steps.push(step);
    }
}

fn nack_of(error: &EngineError) -> Nack {
    match error {
        EngineError::NoRoom => Nack::NoRoom,
        EngineError::Gap { .. } => Nack::Gap,
        EngineError::NotLoaded | EngineError::Device(_) => Nack::NotLoaded,
    }
}
