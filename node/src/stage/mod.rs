//! A node's stage: a short loop. What waits becomes a batch, the batch is one engine step, each output goes to the next
//! peer, and the last stage's token to the head in one hop.

mod long;
mod pace;
mod queue;
mod returning;
mod sessions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use planner::plan::LayerRange;
use tokio::sync::{Notify, mpsc};

use self::pace::Pace;
use self::queue::Waiting;
use self::returning::Returning;
use self::sessions::{Duty, Loaded, Sessions};
use crate::asides::Results;
use crate::clock::{Clock, Instant};
use crate::control::Report;
use crate::engine::{Engine, EngineError, Input, Want, Work, WorkOut};
use crate::ids::{Attempt, PeerId, PlanId, SessionId};
use crate::interior::Interior;
use crate::outbox::{Concern, Parcel};
use crate::probe::{Event, Share};
use crate::transport::Lane;
use crate::wire::{Frame, Nack, Step, StepInput};
use crate::world::World;

/// What reaches a stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arrival {
    /// Tokens on their way.
    Step { from: PeerId, lane: Lane, at: Instant, step: Box<Step> },
    /// The session has ended.
    Close { session: SessionId, attempt: Attempt },
    /// The head has given the attempt up.
    Abandon { session: SessionId, attempt: Attempt, silent: bool },
    /// The next stage could not tell the head.
    Nack { session: SessionId, attempt: Attempt, why: Nack },
    /// A stream to this node broke.
    Broken { from: PeerId, lane: Lane },
}

/// What the control plane wants the stage to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadOrder {
    pub(crate) plan: PlanId,
    pub(crate) model: String,
    pub(crate) layers: Option<LayerRange>,
}

/// How others reach the stage: a bounded queue for each lane, and the latest order.
#[derive(Debug, Clone)]
pub(crate) struct StageDoor {
    decode: mpsc::Sender<Arrival>,
    prefill: mpsc::Sender<Arrival>,
    order: Arc<Mutex<Option<LoadOrder>>>,
    ordered: Arc<Notify>,
    held: Arc<Mutex<Vec<SessionId>>>,
}

/// The other side of the door.
#[derive(Debug)]
pub(crate) struct StageIntake {
    decode: mpsc::Receiver<Arrival>,
    prefill: mpsc::Receiver<Arrival>,
}

impl StageDoor {
    pub(crate) fn new(room: usize) -> (Self, StageIntake) {
        let (decode, from_decode) = mpsc::channel(room);
        let (prefill, from_prefill) = mpsc::channel(room);
        let door = Self {
            decode,
            prefill,
            order: Arc::default(),
            ordered: Arc::new(Notify::new()),
            held: Arc::default(),
        };
        (door, StageIntake { decode: from_decode, prefill: from_prefill })
    }

    fn queue(&self, lane: Lane) -> &mpsc::Sender<Arrival> {
        if lane == Lane::Prefill { &self.prefill } else { &self.decode }
    }

    /// Waits while the stage has more than it can take.
    pub(crate) async fn arrive(&self, lane: Lane, arrival: Arrival) {
        let _ = self.queue(lane).send(arrival).await;
    }

    /// Loses the arrival when the queue is full; an idle session is forgotten anyway.
    pub(crate) fn arrive_now(&self, arrival: Arrival) {
        let _ = self.decode.try_send(arrival);
    }

    /// Replaces an order that was not begun yet.
    pub(crate) fn order(&self, order: LoadOrder) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
        self.ordered.notify_one();
    }

    fn take_order(&self) -> Option<LoadOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sessions with KV after the last step, ascending.
    pub(crate) fn held(&self) -> Vec<SessionId> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs the stage until the node ends.
pub(crate) async fn run<W: World>(node: Arc<Interior<W>>, engine: W::Engine, intake: StageIntake) {
    let sessions = Sessions::new(node.me, node.limits);
    let (plan, returning) = (PlanId::default(), Returning::default());
    let desk = Desk { sessions, intake, node, plan, returning };
    Stage { desk, engine, pace: Pace::default() }.run().await;
}

/// Everything but the device, so that frames are read while that loads.
struct Desk<W: World> {
    node: Arc<Interior<W>>,
    sessions: Sessions,
    intake: StageIntake,
    plan: PlanId,
    returning: Returning,
}

struct Stage<W: World> {
    desk: Desk<W>,
    engine: W::Engine,
    pace: Pace,
}

impl<W: World> Stage<W> {
    async fn run(mut self) {
        loop {
            if let Some(order) = self.desk.node.stage.take_order() {
                self.load(order).await;
            }
            self.desk.gather().await;
            self.settle();
            self.desk.do_duties();
            let limits = &self.desk.node.limits;
            let (sessions, tokens) = (limits.batch, limits.prefill_tokens);
            let queue = &mut self.desk.sessions.queue;
            let apart = self.engine.takes_asides() && self.pace.is_long(queue.prompt_tokens(tokens), limits);
            let batch = if apart { queue.pick_apart(sessions, tokens) } else { queue.pick(sessions, tokens) };
            if batch.is_empty() {
                self.desk.wait().await;
            } else if apart {
                self.long_step(batch).await;
            } else {
                self.step(batch).await;
            }
            self.desk.sessions.expire(self.desk.node.now());
        }
    }

    /// Lets the engine forget what the table has forgotten.
    fn settle(&mut self) {
        if self.desk.sessions.releases.is_empty() {
            return;
        }
        for session in std::mem::take(&mut self.desk.sessions.releases) {
            self.engine.release(session);
        }
        self.publish_held();
    }

    fn publish_held(&self) {
        let held = self.engine.held();
        *self.desk.node.stage.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    async fn load(&mut self, order: LoadOrder) {
        let LoadOrder { plan, model, layers } = order;
        let epoch = plan.epoch;
        let desk = &mut self.desk;
        desk.plan = plan;
        let wanted = layers.map_or_else(Loaded::default, |_| Loaded { model: model.clone(), layers });
        let same = desk.sessions.loaded == wanted;
        if !same {
            desk.node.tell(Event::LoadBegan { epoch, layers });
            desk.sessions.reload(wanted);
            desk.do_duties();
        }
        let loaded = {
            let loading = self.engine.load(&model, layers);
            tokio::pin!(loading);
            loop {
                tokio::select! {
                    biased;
                    loaded = &mut loading => break loaded,
                    () = desk.serve_meanwhile(None) => {}
                }
            }
        };
        let ok = loaded.is_ok();
        if !same {
            desk.node.tell(Event::LoadEnded { epoch, ok });
        }
        if !ok {
            desk.sessions.reload(Loaded::default());
        }
        desk.node.control.report(Report::Loaded { plan, ok }).await;
        self.settle();
        self.publish_held();
    }

    async fn step(&mut self, batch: Vec<Waiting>) {
        let (works, batch) = self.desk.works(batch);
        if works.is_empty() {
            return;
        }
        let began = self.desk.began(&batch);
        let tokens = works.iter().map(|work| work.count).sum();
        let results = self.engine.step(works).await;
        self.pace.took(tokens, self.desk.node.now().since(began));
        self.ended(batch, began, results).await;
    }

    async fn ended(&mut self, batch: Vec<Waiting>, began: Instant, results: Results) {
        let ended = self.desk.node.now();
        self.desk.returning = Returning::after(&batch, |w| self.desk.is_whole(w), began, ended);
        let is_new = batch.iter().any(|w| w.step.start == 0);
        self.desk.hand_on(batch, results).await;
        if is_new {
            self.publish_held();
        }
    }
}

impl<W: World> Desk<W> {
    /// Takes in what has come, as far as there is room, without waiting.
    fn take_waiting(&mut self) {
        for lane in [Lane::Decode, Lane::Prefill] {
            while self.has_room(lane) {
                let queue =
                    if lane == Lane::Prefill { &mut self.intake.prefill } else { &mut self.intake.decode };
                let Ok(arrival) = queue.try_recv() else { break };
                self.take(arrival);
            }
        }
    }

    /// Takes in what has come, and waits a little for tokens that will be back at once.
    async fn gather(&mut self) {
        self.take_waiting();
        while let Some(until) = self.returning.wait_until(self.node.now()) {
            let node = Arc::clone(&self.node);
            let arrival = tokio::select! {
                biased;
                arrival = self.intake.decode.recv(), if self.has_room(Lane::Decode) => arrival,
                () = node.clock.sleep_until(until) => None,
            };
            match arrival {
                Some(arrival) => self.take(arrival),
                None => self.returning.clear(),
            }
        }
    }

    fn has_room(&self, lane: Lane) -> bool {
        self.sessions.queue.len(lane) < self.node.limits.stage_queue
    }

    /// Waits for an arrival and takes it, for an order, or for the next idle session.
    async fn wait(&mut self) {
        let (decode, prefill) = (self.has_room(Lane::Decode), self.has_room(Lane::Prefill));
        let check = self.sessions.next_check();
        let node = Arc::clone(&self.node);
        let arrival = tokio::select! {
            biased;
            () = node.stage.ordered.notified() => None,
            arrival = self.intake.decode.recv(), if decode => arrival,
            arrival = self.intake.prefill.recv(), if prefill => arrival,
            () = node.clock.sleep_until(check.unwrap_or_default()), if check.is_some() => None,
        };
        if let Some(arrival) = arrival {
            self.take(arrival);
        }
    }

    /// What can be done without the device: taking in, turning away. Returns after an arrival, or at `until`.
    async fn serve_meanwhile(&mut self, until: Option<Instant>) {
        let (decode, prefill) = (self.has_room(Lane::Decode), self.has_room(Lane::Prefill));
        let node = Arc::clone(&self.node);
        let arrival = tokio::select! {
            biased;
            arrival = self.intake.decode.recv(), if decode => arrival,
            arrival = self.intake.prefill.recv(), if prefill => arrival,
            () = node.clock.sleep_until(until.unwrap_or_default()), if until.is_some() => None,
            () = std::future::pending() => None,
        };
        if let Some(arrival) = arrival {
            self.take(arrival);
        }
        self.do_duties();
    }

    fn take(&mut self, arrival: Arrival) {
        let now = self.node.now();
        self.returning.came(&arrival);
        match arrival {
            Arrival::Step { from, lane, at, step } => self.sessions.step(from, lane, at, *step),
            Arrival::Close { session, attempt } => self.sessions.close(session, attempt, now),
            Arrival::Abandon { session, attempt, silent } => {
                self.sessions.abandon(session, attempt, silent, now);
            }
            Arrival::Nack { session, attempt, why } => self.sessions.fail(session, attempt, why),
            Arrival::Broken { from, lane } => self.sessions.broken(from, lane),
        }
    }

    fn do_duties(&mut self) {
        for duty in std::mem::take(&mut self.sessions.duties) {
            match duty {
                Duty::Nack(concern, why) => self.node.nack(concern, why),
                Duty::Close { to, session, attempt, stage } => {
                    self.node.send_now(to, Lane::Decode, Frame::Close { session, attempt, stage });
                }
                Duty::Doubt(peer, lane) => self.node.doubt(peer, lane),
                Duty::Renew(peer) => self.node.renew(peer, &Lane::ALL),
                Duty::Stale(session) => self.node.tell(Event::Stale { session }),
            }
        }
    }

    /// The engine's view of a batch. Steps whose session ended while they waited are left out.
    fn works(&self, batch: Vec<Waiting>) -> (Vec<Work>, Vec<Waiting>) {
        let mut works = Vec::with_capacity(batch.len());
        let mut kept = Vec::with_capacity(batch.len());
        for mut waiting in batch {
            let step = &mut waiting.step;
            let Some(known) = self.sessions.alive(step.session, step.attempt) else { continue };
            let want = match (known.next(), &step.sample) {
                (Some(_), _) => Want::Hidden,
                (None, Some(sampling)) => Want::Sample(sampling.clone()),
                (None, None) => Want::Nothing,
            };
            let input = match std::mem::replace(&mut step.input, StepInput::Tokens(Vec::new())) {
                StepInput::Tokens(tokens) => Input::Tokens(tokens),
                StepInput::Hidden(payload) => Input::Hidden(payload),
            };
            works.push(Work { session: step.session, start: step.start, count: step.count, input, want });
            kept.push(waiting);
        }
        (works, kept)
    }

    /// A step begins, now.
    fn began(&self, batch: &[Waiting]) -> Instant {
        let share = |waiting: &Waiting| {
            let Step { session, count, .. } = waiting.step;
            Share { session, tokens: count, end: waiting.step.end(), arrived: waiting.at }
        };
        self.node.tell(Event::StepBegan { batch: batch.iter().map(share).collect() });
        self.node.now()
    }

    /// Sends what a step gave: tokens and refusals at once, activations of one next peer in one frame.
    async fn hand_on(&mut self, batch: Vec<Waiting>, results: Results) {
        self.node.tell(Event::StepEnded { sessions: batch.len() as u32 });
        let mut onward: BTreeMap<(PeerId, Lane), (Vec<Step>, Vec<Concern>)> = BTreeMap::new();
        let mut results = VecDeque::from(results);
        for waiting in batch {
            let result = results.pop_front().unwrap_or(Err(EngineError::NotLoaded));
            let (session, attempt) = (waiting.step.session, waiting.step.attempt);
            let Some(known) = self.sessions.alive(session, attempt) else { continue };
            match (result, known.next()) {
                (Ok(WorkOut::Token(sampled)), _) => {
                    let position = waiting.step.end();
                    let frame = Frame::Token { session, attempt, position, sampled };
                    self.node.send_now(known.route.head, Lane::Decode, frame);
                }
                (Ok(WorkOut::Hidden(payload)), Some(next)) => {
                    let concern = Concern { session, attempt, head: known.route.head };
                    let stage = waiting.step.stage + 1;
                    let input = StepInput::Hidden(payload);
                    let entry = onward.entry((next, waiting.lane)).or_default();
                    entry.0.push(Step { stage, input, ..waiting.step });
                    entry.1.push(concern);
                }
                (Ok(_), _) => {}
                (Err(error), _) => self.refuse(session, attempt, error),
            }
        }
        self.do_duties();
        for ((peer, lane), (steps, concerns)) in onward {
            self.node.send(peer, lane, Parcel { frame: Frame::Steps(steps), concerns }).await;
        }
    }

    /// Whether a step comes from its head and its token goes there: no other stage is in its way.
    fn is_whole(&self, waiting: &Waiting) -> bool {
        let step = &waiting.step;
        step.stage == 0
            && self.sessions.alive(step.session, step.attempt).is_some_and(|known| known.next().is_none())
    }

    fn refuse(&mut self, session: SessionId, attempt: Attempt, error: EngineError) {
        let why = match error {
            EngineError::NoRoom => Nack::NoRoom,
            EngineError::Gap { .. } => Nack::Gap,
            EngineError::Unsound(_) => Nack::Unsound,
            EngineError::NotLoaded => Nack::NotLoaded,
            EngineError::Device(_) => {
                self.node.control.notice(Report::Loaded { plan: self.plan, ok: false });
                Nack::NotLoaded
            }
        };
        self.sessions.fail(session, attempt, why);
    }
}
