//! One attempt of a session: the prompt in chunks, then a token a round.

use std::time::Duration;

use planner::cost::constants::PREFILL_CHUNK;

use super::pace::Pace;
use super::{End, Head, Reply, Setback, Stop};
use crate::clock::{Clock, Instant};
use crate::control::Report;
use crate::engine::{Sampled, Sampling};
use crate::heads::Letter;
use crate::ids::Token;
use crate::outbox::{Concern, Parcel};
use crate::probe::Event;
use crate::router::Choice;
use crate::transport::Lane;
use crate::wire::{Frame, Nack, Step, StepInput};
use crate::world::World;

/// So many tokens in time make a head that had to wait for silence half as patient again.
const TIMELY_TOKENS: u32 = 16;

/// Until when a token is waited for.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    /// Then the stages are checked.
    soft: Option<Instant>,
    /// Then the attempt is over.
    hard: Instant,
}

impl<W: World> Head<W> {
    /// Runs the session along `choice` until all tokens have come or something stops it.
    pub(super) async fn attempt(&mut self, choice: &Choice) -> Result<(), Stop> {
        let (session, attempt) = (self.request.session, self.attempt);
        let event = Event::Attempted { session, attempt, epoch: choice.route.epoch, tokens: self.position() };
        self.node.tell(event);
        let mut pace = self.pace(choice);
        let began = self.node.now();
        if self.fruitless == 0 {
            self.give_up_at = began.after(pace.give_up(&self.node.limits));
        }
        let crowd = self.node.ledger.load().outstanding.get(&choice.route.stages[0].0).map_or(0, |n| n - 1);
        let mut deadlines = self.deadlines(&pace, pace.first_deadline(&self.node.limits, crowd));
        self.prefill(choice, &mut deadlines).await?;
        loop {
            let asked = if self.arrived.is_some() { began } else { self.node.now() };
            let sampled = self.token(choice, &mut deadlines).await?;
            let token = sampled.token;
            // Not what the client takes to read it.
            let took = self.node.now().since(asked);
            self.emit(sampled).await?;
            if self.wanted() == 0 {
                return Ok(());
            }
            if asked != began {
                pace.observe(took);
            }
            self.progressed(&pace);
            deadlines = self.deadlines(&pace, pace.token_deadline(&self.node.limits));
            let mut step = self.step(choice, self.position() - 1, vec![token], false);
            step.sample = Some(Sampling { past: None, ..self.request.sampling.clone() });
            self.push(choice, Lane::Decode, step, &mut deadlines).await?;
        }
    }

    fn progressed(&mut self, pace: &Pace) {
        self.fruitless = 0;
        self.doubted.clear();
        self.give_up_at = self.node.now().after(pace.give_up(&self.node.limits));
        self.timely += 1;
        if self.timely >= TIMELY_TOKENS {
            (self.silences, self.timely) = (self.silences.saturating_sub(1), 0);
        }
    }

    /// The more attempts were given up for silence, the longer this one may take: the mesh may just be slow, and a
    /// replay makes it slower. Attempts that were refused say nothing about that.
    fn deadlines(&self, pace: &Pace, wait: Duration) -> Deadlines {
        let patience = 1 << self.silences.min(4);
        let wait = wait.saturating_mul(patience);
        let now = self.node.now();
        let crowded = pace.crowded().saturating_mul(patience);
        let hard = now.after(wait.saturating_mul(self.node.limits.patience.max(1)).max(crowded));
        Deadlines { soft: Some(now.after(wait)), hard: hard.min(self.give_up_at) }
    }

    /// Sends prompt and tokens so far, in chunks.
    async fn prefill(&mut self, choice: &Choice, deadlines: &mut Deadlines) -> Result<(), Stop> {
        let tokens: Vec<Token> = self.request.prompt.iter().chain(&self.request.generated).copied().collect();
        let is_small = tokens.len() <= self.node.limits.small_prefill as usize;
        let lane = if is_small { Lane::Decode } else { Lane::Prefill };
        let chunks = tokens.chunks(PREFILL_CHUNK as usize);
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let start = i as u32 * PREFILL_CHUNK;
            let mut step = self.step(choice, start, chunk.to_vec(), i == 0);
            step.sample = (i == last).then(|| self.request.sampling.after(&tokens));
            self.push(choice, lane, step, deadlines).await?;
        }
        Ok(())
    }

    fn step(&self, choice: &Choice, start: u32, tokens: Vec<Token>, is_first: bool) -> Step {
        Step {
            session: self.request.session,
            attempt: self.attempt,
            stage: 0,
            route: is_first.then(|| choice.route.clone()),
            start,
            count: tokens.len() as u32,
            input: StepInput::Tokens(tokens),
            sample: None,
        }
    }

    /// Hands a step to the first stage; while that pushes back, everything else is still noticed.
    async fn push(
        &mut self,
        choice: &Choice,
        lane: Lane,
        step: Step,
        deadlines: &mut Deadlines,
    ) -> Result<(), Stop> {
        let node = self.node.clone();
        let concern = Concern { session: step.session, attempt: step.attempt, head: node.me };
        let parcel = Parcel { frame: Frame::Steps(vec![step]), concerns: vec![concern] };
        let sending = node.send(choice.route.stages[0].0, lane, parcel);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                biased;
                () = &mut sending => return Ok(()),
                noticed = self.notice(choice, deadlines) => noticed?,
            }
        }
    }

    /// Waits for the token of the next position.
    async fn token(&mut self, choice: &Choice, deadlines: &mut Deadlines) -> Result<Sampled, Stop> {
        loop {
            if let Some(sampled) = self.arrived.take() {
                return Ok(sampled);
            }
            self.notice(choice, deadlines).await?;
        }
    }

    /// Waits for the next thing that concerns the attempt.
    async fn notice(&mut self, choice: &Choice, deadlines: &mut Deadlines) -> Result<(), Stop> {
        let changed = self.node.plans.changed();
        if !self.stands(choice) {
            return Err(Stop::Setback(Setback::Moved));
        }
        let node = self.node.clone();
        let deadline = deadlines.soft.unwrap_or(deadlines.hard).min(deadlines.hard);
        tokio::select! {
            biased;
            () = self.replies.closed() => Err(Stop::End(End::Cancelled)),
            letter = self.letters.next() => match letter {
                Some(letter) => self.read(letter),
                None => Err(Stop::End(End::Failed("another request of this session took its place".into()))),
            },
            () = changed => Ok(()),
            () = node.clock.sleep_until(deadline) => self.late(choice, deadlines),
        }
    }

    fn read(&mut self, letter: Letter) -> Result<(), Stop> {
        match letter {
            Letter::Token { attempt, position, sampled }
                if attempt == self.attempt && position == self.position() && self.arrived.is_none() =>
            {
                self.arrived = Some(sampled);
                Ok(())
            }
            Letter::Nack { from, attempt, why } if attempt == self.attempt => {
                Err(Stop::Setback(Setback::Nack(from, why)))
            }
            Letter::Token { .. } | Letter::Nack { .. } => {
                self.node.tell(Event::Stale { session: self.request.session });
                Ok(())
            }
        }
    }

    /// A deadline has passed: first the stages are checked, then the attempt is over, at last the session.
    fn late(&mut self, choice: &Choice, deadlines: &mut Deadlines) -> Result<(), Stop> {
        let now = self.node.now();
        if now < deadlines.hard {
            deadlines.soft = None;
            for (peer, _) in choice.route.stages.iter().filter(|(peer, _)| *peer != self.node.me) {
                self.node.control.notice(Report::Unreachable(*peer));
            }
            return Ok(());
        }
        if now >= self.give_up_at {
            let why = format!(
                "no token for too long in attempt {} along epoch {}; see which node is slow or lost",
                self.attempt.0, choice.route.epoch.0
            );
            return Err(Stop::End(End::Failed(why)));
        }
        Err(Stop::Setback(Setback::Silence))
    }

    /// Gives the token to the client; waits while that is behind.
    async fn emit(&mut self, sampled: Sampled) -> Result<(), Stop> {
        let (session, position) = (self.request.session, self.position());
        let Sampled { token, chances } = sampled;
        self.request.generated.push(token);
        self.node.tell(Event::Emitted { session, position, token });
        let deadline = self.node.now().after(self.node.limits.client_stall);
        let sent = self.replies.send(Reply::Token { position, token, chances });
        match self.node.clock.timeout_at(deadline, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::End(End::Cancelled)),
            Err(_) => Err(Stop::End(End::Failed("the client stopped reading".into()))),
        }
    }

    /// The session needs no KV any more.
    pub(super) async fn close(&mut self, choice: &Choice) {
        let frame = Frame::Close { session: self.request.session, attempt: self.attempt, stage: 0 };
        self.node.send(choice.route.stages[0].0, Lane::Decode, Parcel::plain(frame)).await;
    }

    /// The attempt needs no KV any more. Every stage is told by itself: the way between them may be broken.
    pub(super) fn abandon(&self, choice: &Choice, setback: Setback) {
        let (session, attempt) = (self.request.session, self.attempt);
        if matches!(setback, Setback::Nack(_, Nack::Superseded(_))) {
            return;
        }
        let silent = setback == Setback::Silence;
        for (peer, _) in &choice.route.stages {
            self.node.send_now(*peer, Lane::Control, Frame::Abandon { session, attempt, silent });
        }
        let first = choice.route.stages[0].0;
        if silent && first != self.node.me {
            self.node.doubt(first, Lane::Decode);
            self.node.doubt(first, Lane::Prefill);
        }
    }
}
