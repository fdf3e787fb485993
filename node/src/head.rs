//! The head of a session: it alone talks to the client. It sends the prompt through the stages in chunks, then one token
//! after the other, and emits each position once, in order.
//!
//! When a token is missing or a stage gives up, the head waits for a plan under which it can run, and sends prompt and
//! tokens so far as one prefill with the attempt counted up. Tokens are the whole recovery state.

use std::time::Duration;

use planner::cost::constants::{PREFILL_CHUNK, RING};
use planner::cost::memory::{load_us, weight_bytes};
use planner::cost::predict::{Load, predict};
use planner::plan::{Epoch, NodeId, Plan};
use tokio::sync::mpsc;

use crate::clock::{Clock, Instant};
use crate::control::ControlInput;
use crate::engine::Sampling;
use crate::hub::Hub;
use crate::ids::{Attempt, SessionId, Token};
use crate::outbox::Outgoing;
use crate::probe::Event;
use crate::router::{Choice, Need, NoRoute, route};
use crate::transport::Lane;
use crate::wire::{Frame, Nack, Route, Step, StepInput};
use crate::world::World;

/// A request to this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its name, unique in the mesh.
    pub session: SessionId,
    /// The prompt; at least one token.
    pub prompt: Vec<Token>,
    /// Tokens another node has already given for this session: the answer goes on after them.
    pub generated: Vec<Token>,
    /// Output tokens in all, those in `generated` included.
    pub max_tokens: u32,
    /// How to choose tokens.
    pub sampling: Sampling,
}

/// What the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The next token, and its place in the session, prompt included.
    Token {
        /// Place.
        position: u32,
        /// Token.
        token: Token,
    },
    /// All tokens have come.
    End,
    /// The request was turned away before its first token.
    Refused(String),
    /// The request could not be finished.
    Failed(String),
}

/// What a head is told.
#[derive(Debug)]
pub(crate) enum HeadInput {
    Token { attempt: Attempt, position: u32, token: Token },
    Nack { attempt: Attempt, why: Nack },
}

/// How an attempt ended.
enum Ended {
    Done,
    Cancelled,
    /// Try again; after a pause, because nothing new is known.
    Again {
        avoid: Option<NodeId>,
    },
}

/// A session under way.
pub(crate) struct Head<W: World> {
    hub: Hub<W>,
    request: Request,
    /// Prompt and output so far.
    tokens: Vec<Token>,
    attempt: Attempt,
    replies: mpsc::Sender<Reply>,
    inputs: mpsc::Receiver<HeadInput>,
    deadline: Instant,
}

impl<W: World> Head<W> {
    pub(crate) fn new(
        hub: Hub<W>,
        request: Request,
        replies: mpsc::Sender<Reply>,
        inputs: mpsc::Receiver<HeadInput>,
    ) -> Self {
        let deadline = hub.clock.now().after(hub.limits.session);
        let tokens = request.prompt.iter().chain(&request.generated).copied().collect();
        // A session that goes on from another node outranks most tries made there; a stage settles the rest.
        let attempt = Attempt(request.generated.len() as u32);
        Self { hub, request, tokens, attempt, replies, inputs, deadline }
    }

    /// Runs the session to its end.
    pub(crate) async fn run(mut self) {
        let session = self.request.session;
        let last = match self.serve().await {
            Ok(Ended::Cancelled) => None,
            Ok(_) => {
                self.hub.tell(Event::Completed { session });
                Some(Reply::End)
            }
            Err(Reply::Refused(why)) => {
                self.hub.tell(Event::Refused { session, why: why.clone() });
                Some(Reply::Refused(why))
            }
            Err(reply) => {
                if let Reply::Failed(why) = &reply {
                    self.hub.tell(Event::Failed { session, why: why.clone() });
                }
                Some(reply)
            }
        };
        self.hub.with_heads(|heads| heads.inputs.remove(&session));
        if let Some(reply) = last {
            // A client that has gone does not hear the end.
            let _ = self.hub.clock.timeout_at(self.deadline, self.replies.send(reply)).await;
        }
    }

    async fn serve(&mut self) -> Result<Ended, Reply> {
        if self.request.prompt.is_empty() {
            return Err(Reply::Refused("the prompt is empty".into()));
        }
        let mut avoid = None;
        let mut pause = self.hub.limits.retry;
        let mut accepted = false;
        loop {
            if self.missing() == 0 {
                return Ok(Ended::Done);
            }
            let (choice, version) = self.choose(avoid).await?;
            if !accepted {
                accepted = true;
                let prompt = self.request.prompt.len() as u32;
                self.hub.tell(Event::Accepted { session: self.request.session, prompt });
            }
            let before = self.tokens.len();
            let first = choice.pipeline.stages.first().map(|s| s.node);
            self.count(first, true);
            let ended = self.attempt(&choice).await;
            self.count(first, false);
            self.close(&choice);
            match ended {
                Ended::Again { avoid: refused } => avoid = refused,
                ended => return Ok(ended),
            }
            self.attempt = Attempt(self.attempt.0 + 1);
            pause = if self.tokens.len() > before { self.hub.limits.retry } else { pause * 2 };
            let until = self.hub.clock.now().after(pause.min(self.hub.limits.retry_max)).min(self.deadline);
            // A new plan ends the pause.
            let _ = self.hub.clock.timeout_at(until, self.hub.plans.changed_since(version)).await;
        }
    }

    /// Output tokens still to come.
    fn missing(&self) -> u32 {
        let given = (self.tokens.len() - self.request.prompt.len()) as u32;
        self.request.max_tokens.saturating_sub(given)
    }

    fn count(&self, first: Option<NodeId>, up: bool) {
        let Some(first) = first else { return };
        self.hub.with_heads(|heads| {
            let n = heads.outstanding.entry(first).or_insert(0);
            *n = if up { *n + 1 } else { n.saturating_sub(1) };
        });
    }

    /// A route, waiting for one while one may come.
    async fn choose(&self, avoid: Option<NodeId>) -> Result<(Choice, u64), Reply> {
        let context = self.request.prompt.len() as u32 + self.request.max_tokens;
        let need = Need { context, entry: self.hub.node(), avoid };
        loop {
            let view = self.hub.plans.view();
            let chosen = self.hub.with_heads(|heads| route(&view, &heads.outstanding, &need));
            let why = match chosen {
                Ok(choice) => return Ok((choice, view.version)),
                Err(why) => why,
            };
            if !why.may_pass() {
                return Err(self.give_up(&why));
            }
            let changed = self.hub.plans.changed_since(view.version);
            if self.hub.clock.timeout_at(self.deadline, changed).await.is_err() {
                return Err(self.give_up(&why));
            }
        }
    }

    fn give_up(&self, why: &NoRoute) -> Reply {
        let begun = self.attempt.0 > 0 || self.tokens.len() > self.request.prompt.len();
        if begun { Reply::Failed(why.to_string()) } else { Reply::Refused(why.to_string()) }
    }

    /// One try along a route.
    async fn attempt(&mut self, choice: &Choice) -> Ended {
        let Some(route) = self.route_of(choice) else {
            return Ended::Again { avoid: None };
        };
        self.hub.tell(Event::Attempted {
            session: self.request.session,
            attempt: self.attempt,
            epoch: choice.epoch,
            tokens: self.tokens.len() as u32,
        });
        let waits = Waits::of(&self.hub, choice, self.tokens.len() as u32);
        self.prefill(&route);
        let mut deadline = self.hub.clock.now().after(waits.first);
        loop {
            let (position, token) = match self.next_input(choice, deadline).await {
                Ok(Some(HeadInput::Token { attempt, position, token })) if attempt == self.attempt => {
                    (position, token)
                }
                Ok(Some(HeadInput::Nack { attempt, why })) if attempt == self.attempt => {
                    let first = choice.pipeline.stages.first().map(|s| s.node);
                    return Ended::Again { avoid: first.filter(|_| why == Nack::NoRoom) };
                }
                Ok(Some(_)) => {
                    self.hub.tell(Event::Stale { session: self.request.session });
                    continue;
                }
                Ok(None) => return Ended::Cancelled,
                Err(()) => {
                    self.suspect(&route);
                    return Ended::Again { avoid: None };
                }
            };
            if position as usize != self.tokens.len() {
                continue;
            }
            if !self.emit(position, token).await {
                return Ended::Cancelled;
            }
            if self.missing() == 0 {
                return Ended::Done;
            }
            self.decode(&route, token);
            deadline = self.hub.clock.now().after(waits.next);
        }
    }

    /// The next thing said to this head. `Ok(None)`: the client has gone. `Err`: the deadline passed, or the route is
    /// no longer part of the plan.
    async fn next_input(&mut self, choice: &Choice, deadline: Instant) -> Result<Option<HeadInput>, ()> {
        let deadline = deadline.min(self.deadline);
        loop {
            let view = self.hub.plans.view();
            if !view.holds(&choice.pipeline) {
                return Err(());
            }
            let changed = self.hub.plans.changed_since(view.version);
            tokio::select! {
                biased;
                input = self.inputs.recv() => return Ok(input),
                () = self.replies.closed() => return Ok(None),
                () = changed => {}
                () = self.hub.clock.sleep_until(deadline) => return Err(()),
            }
        }
    }

    /// Gives a token to the client; false when nobody takes it any more.
    async fn emit(&mut self, position: u32, token: Token) -> bool {
        self.tokens.push(token);
        self.hub.tell(Event::Emitted { session: self.request.session, position, token });
        let reply = Reply::Token { position, token };
        matches!(self.hub.clock.timeout_at(self.deadline, self.replies.send(reply)).await, Ok(Ok(())))
    }

    fn route_of(&self, choice: &Choice) -> Option<Route> {
        let stages = choice.pipeline.stages.iter();
        let stages = stages.map(|s| Some((self.hub.view.peer(s.node)?, s.layers))).collect::<Option<_>>()?;
        let model = self.hub.model.name.clone();
        Some(Route { epoch: choice.epoch, model, head: self.hub.local(), stages })
    }

    /// Sends all tokens so far, in chunks. No chunk of several has one token: a single token travels on the decode
    /// lane, where it would overtake the chunks before it.
    fn prefill(&self, route: &Route) {
        let count = self.tokens.len();
        let mut start = 0;
        while start < count {
            let left = count - start;
            let mut take = left.min(PREFILL_CHUNK as usize);
            if left - take == 1 {
                take -= 1;
            }
            let ends = start + take == count;
            let first = (start == 0).then(|| route.clone());
            self.send(route, first, start as u32, self.tokens[start..start + take].to_vec(), ends);
            start += take;
        }
    }

    fn decode(&self, route: &Route, token: Token) {
        self.send(route, None, self.tokens.len() as u32 - 1, vec![token], true);
    }

    fn send(&self, route: &Route, first: Option<Route>, start: u32, tokens: Vec<Token>, sample: bool) {
        let Some((peer, _)) = route.stages.first() else { return };
        let lane = if tokens.len() == 1 { Lane::Decode } else { Lane::Prefill };
        let step = Step {
            session: self.request.session,
            attempt: self.attempt,
            stage: 0,
            route: first,
            start,
            count: tokens.len() as u32,
            input: StepInput::Tokens(tokens),
            sample: sample.then_some(self.request.sampling),
        };
        let concerned = vec![(self.hub.local(), self.request.session, self.attempt)];
        let out = Outgoing { frame: Frame::Steps(vec![step]), concerned };
        self.hub.outbox.send(&self.hub, *peer, lane, out);
    }

    /// Frees what the attempt left at the stages.
    fn close(&self, choice: &Choice) {
        let frame = Frame::Close { session: self.request.session, attempt: self.attempt };
        for stage in &choice.pipeline.stages {
            if let Some(peer) = self.hub.view.peer(stage.node) {
                self.hub.send(peer, Lane::Decode, frame.clone());
            }
        }
    }

    fn suspect(&self, route: &Route) {
        for (peer, _) in route.stages.iter().filter(|(peer, _)| *peer != self.hub.local()) {
            // A busy control core finds out by its own pings.
            let _ = self.hub.control.try_send(ControlInput::Suspect(*peer));
        }
    }
}

/// How long a head waits for tokens along one route.
struct Waits {
    first: Duration,
    next: Duration,
}

impl Waits {
    /// Several times what the plan predicts for this route, and the time its layers take to load.
    fn of<W: World>(hub: &Hub<W>, choice: &Choice, tokens: u32) -> Self {
        let limits = &hub.limits;
        let plan = Plan {
            model: hub.model.name.clone(),
            replicas: vec![choice.pipeline.clone()],
            experts: Vec::new(),
            context: tokens,
            sessions: 1,
        };
        let load = Load { prompt: tokens, context: tokens, concurrency: 1, head: hub.node() };
        let expected = predict(&hub.view.fleet, &hub.model, &plan, &load, &RING);
        let several =
            |ms: f64| Duration::from_secs_f64((ms / 1e3 * limits.token_wait_factor).clamp(0.0, 1e6));
        let (ttft, tpot) = expected.map_or((0.0, 0.0), |p| (p.ttft_ms, p.tpot_ms));
        let loading = choice
            .pipeline
            .stages
            .iter()
            .map(|s| load_us(&hub.view.fleet.node(s.node).device, weight_bytes(&hub.model, s.layers)));
        let loading = Duration::from_secs_f64((loading.fold(0.0, f64::max) / 1e6 * 2.0).clamp(0.0, 1e6));
        let fresh = choice.epoch > Epoch(1);
        Self {
            first: limits.token_wait + several(ttft) + if fresh { loading } else { Duration::ZERO },
            next: limits.token_wait + several(tpot),
        }
    }
}

/// Where a request's replies come from. Dropping it cancels the request.
#[derive(Debug)]
pub struct Replies {
    pub(crate) queue: mpsc::Receiver<Reply>,
}

impl Replies {
    /// The next reply; `None` after the last, or when the node has ended.
    pub async fn next(&mut self) -> Option<Reply> {
        self.queue.recv().await
    }
}

/// Takes a request on, or refuses it at once.
pub(crate) fn take_on<W: World>(hub: &Hub<W>, request: Request) -> Replies {
    let (replies, queue) = mpsc::channel(hub.limits.replies);
    let (input, inputs) = mpsc::channel(hub.limits.replies);
    let session = request.session;
    let refused = hub.with_heads(|heads| {
        if heads.inputs.contains_key(&session) {
            return Some("a request of that id is already under way here");
        }
        if heads.inputs.len() >= hub.limits.sessions {
            return Some("this node has as many requests as it can take");
        }
        heads.inputs.insert(session, input);
        None
    });
    if let Some(why) = refused {
        hub.tell(Event::Refused { session, why: why.into() });
        // The queue is empty and holds at least one.
        let _ = replies.try_send(Reply::Refused(why.into()));
    } else {
        hub.tasks.spawn(Head::new(hub.clone(), request, replies, inputs).run());
    }
    Replies { queue }
}
