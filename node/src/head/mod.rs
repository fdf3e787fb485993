//! The head of a session: it owns it from start to end.
//!
//! It finds a way, sends the prompt in chunks, then one token after the other, and gives each position to the client
//! once, in order; nobody else talks to the client. Where a token does not come it has the stages checked; where an
//! attempt is over it looks for another way and sends prompt and tokens so far again. Tokens are the whole state.

mod attempt;
mod pace;
mod request;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;

pub use self::request::{Refused, Replies, Reply, Request};

use self::pace::Pace;
use crate::clock::{Clock, Instant};
use crate::engine::Sampled;
use crate::heads::LetterBox;
use crate::ids::{Attempt, PeerId};
use crate::interior::Interior;
use crate::plans::Published;
use crate::probe::Event;
use crate::router::{self, Choice};
use crate::wire::Nack;
use crate::world::World;

/// How a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Complete,
    Cancelled,
    Refused(Refused),
    Failed(String),
}

/// Why an attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setback {
    /// A stage said so.
    Nack(PeerId, Nack),
    /// No token came, and nobody said why.
    Silence,
    /// Its replica no longer serves.
    Moved,
}

/// Why a wait was cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    End(End),
    Setback(Setback),
}

/// One session's owner.
pub(crate) struct Head<W: World> {
    node: Arc<Interior<W>>,
    request: Request,
    replies: mpsc::Sender<Reply>,
    letters: LetterBox,
    /// Who came first is served first where room is short.
    ticket: u64,
    attempt: Attempt,
    /// A token that came before the head waited for it.
    arrived: Option<Sampled>,
    /// Peers that may be the reason of past setbacks.
    doubted: BTreeSet<PeerId>,
    /// Attempts in a row that brought no token.
    fruitless: u32,
    /// How many attempts ended because nobody said anything; many tokens in time make it less.
    silences: u32,
    /// Tokens since the last silence, or since `silences` became less.
    timely: u32,
    /// The last attempt found no KV room.
    crowded: bool,
    accepted: bool,
    give_up_at: Instant,
    /// The plan under which the attempt was last found to stand.
    stands_in: Option<Arc<Published>>,
}

impl<W: World> Head<W> {
    pub(crate) fn new(node: Arc<Interior<W>>, request: Request, replies: mpsc::Sender<Reply>) -> Self {
        let letters = node.heads.open(request.session, node.limits.mailbox);
        let ticket = node.ledger.ticket();
        let give_up_at = node.now().after(node.limits.plan_wait);
        Self {
            node,
            request,
            replies,
            letters,
            ticket,
            attempt: Attempt(0),
            arrived: None,
            doubted: BTreeSet::new(),
            fruitless: 0,
            silences: 0,
            timely: 0,
            crowded: false,
            accepted: false,
            give_up_at,
            stands_in: None,
        }
    }

    /// Serves the session to its end.
    pub(crate) async fn run(mut self) {
        let session = self.request.session;
        let end = match self.serve().await {
            Ok(()) => End::Complete,
            Err(end) => end,
        };
        let (event, reply) = match end {
            End::Complete => (Event::Completed { session }, Some(Reply::End)),
            End::Cancelled => (Event::Failed { session, why: "cancelled by the client".into() }, None),
            End::Refused(why) => {
                (Event::Refused { session, why: why.to_string() }, Some(Reply::Refused(why)))
            }
            End::Failed(why) => (Event::Failed { session, why: why.clone() }, Some(Reply::Failed(why))),
        };
        self.node.tell(event);
        if let Some(reply) = reply {
            let deadline = self.node.now().after(self.node.limits.client_stall);
            let _ = self.node.clock.timeout_at(deadline, self.replies.send(reply)).await;
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        if self.request.prompt.is_empty() {
            let why = "the prompt is empty; send at least one token".into();
            return Err(End::Refused(Refused::Unsound(why)));
        }
        if let Err(why) = self.request.sampling.check() {
            return Err(End::Refused(Refused::Unsound(why.to_string())));
        }
        while self.wanted() > 0 {
            self.wait_for_room().await?;
            let choice = self.find_way().await?;
            self.accept();
            let running = self.node.ledger.begin(choice.route.stages[0].0);
            let outcome = self.attempt(&choice).await;
            match outcome {
                Ok(()) => self.close(&choice).await,
                Err(Stop::Setback(setback @ Setback::Nack(_, Nack::Unsound))) => {
                    self.abandon(&choice, setback);
                    return Err(End::Failed(self.words(setback)));
                }
                Err(Stop::End(end)) => {
                    self.close(&choice).await;
                    return Err(end);
                }
                Err(Stop::Setback(setback)) => {
                    drop(running);
                    self.abandon(&choice, setback);
                    self.learn(&choice, setback);
                    self.pause(&choice, setback).await?;
                }
            }
        }
        Ok(())
    }

    /// Tokens still to come, at most.
    fn wanted(&self) -> u32 {
        if self.request.generated.last().is_some_and(|token| self.request.ends.contains(token)) {
            return 0;
        }
        self.request.max_tokens.saturating_sub(self.request.generated.len() as u32)
    }

    /// Position of the next token.
    fn position(&self) -> u32 {
        (self.request.prompt.len() + self.request.generated.len()) as u32
    }

    fn accept(&mut self) {
        if !std::mem::replace(&mut self.accepted, true) {
            let (session, prompt) = (self.request.session, self.request.prompt.len() as u32);
            self.node.tell(Event::Accepted { session, prompt });
        }
    }

    fn ask(&self) -> router::Ask {
        router::Ask {
            head: self.node.me,
            head_life: self.node.incarnation,
            tokens: self.request.prompt.len() as u64
                + u64::from(self.request.max_tokens).max(self.request.generated.len() as u64),
            doubted: self.doubted.clone(),
        }
    }

    fn route(&self) -> Result<Choice, router::Refusal> {
        let load = self.node.ledger.load();
        router::route(&self.node.view, self.node.plans.current().as_deref(), &load, &self.ask())
    }

    /// Waits for a plan with a replica that serves.
    async fn find_way(&mut self) -> Result<Choice, End> {
        loop {
            let changed = self.node.plans.changed();
            let refusal = match self.route() {
                Ok(choice) => {
                    self.stands_in = self.node.plans.current();
                    return Ok(choice);
                }
                Err(refusal) => refusal,
            };
            if !refusal.may_pass() {
                return Err(self.turned_away(Refused::Unsound(refusal.to_string())));
            }
            tokio::select! {
                biased;
                () = self.replies.closed() => return Err(End::Cancelled),
                () = changed => {}
                () = self.node.clock.sleep_until(self.give_up_at) => {
                    return Err(self.turned_away(Refused::NotServing(refusal.to_string())));
                }
            }
        }
    }

    fn turned_away(&self, why: Refused) -> End {
        if self.accepted { End::Failed(why.to_string()) } else { End::Refused(why) }
    }

    /// Queues when the last attempt found no room, or others wait for some already.
    async fn wait_for_room(&mut self) -> Result<(), End> {
        let crowded = std::mem::take(&mut self.crowded);
        if !crowded && !self.node.ledger.must_queue(self.ticket) {
            return Ok(());
        }
        let place = self.node.ledger.queue(self.ticket);
        let pause = self.node.limits.retry_pause(self.fruitless.max(1));
        let until = self.node.now().after(pause).min(self.give_up_at);
        tokio::select! {
            biased;
            () = self.replies.closed() => return Err(End::Cancelled),
            () = place.called() => {}
            () = self.node.clock.sleep_until(until) => {}
        }
        if self.node.now() >= self.give_up_at {
            let why = "no node had KV room for the session in time; try later".into();
            return Err(self.turned_away(Refused::Full(why)));
        }
        Ok(())
    }

    /// What a setback teaches: whom to doubt, and which attempt number counts.
    fn learn(&mut self, choice: &Choice, setback: Setback) {
        self.attempt = Attempt(self.attempt.0.saturating_add(1));
        self.arrived = None;
        match setback {
            Setback::Moved => return,
            Setback::Nack(_, Nack::Superseded(known)) => {
                self.attempt = self.attempt.max(Attempt(known.0.saturating_add(1)));
                return;
            }
            Setback::Nack(_, Nack::NoRoom) => self.crowded = true,
            Setback::Nack(from, why) => self.doubt(choice, from, why),
            Setback::Silence => {
                (self.silences, self.timely) = (self.silences.saturating_add(1), 0);
                self.doubted.extend(choice.route.stages.iter().map(|(peer, _)| *peer));
            }
        }
        self.doubted.remove(&self.node.me);
        self.fruitless = self.fruitless.saturating_add(1);
    }

    fn doubt(&mut self, choice: &Choice, from: PeerId, why: Nack) {
        let stages = &choice.route.stages;
        let at = stages.iter().position(|(peer, _)| *peer == from);
        // The way into the first stage is the head's own, so a refusal of this node may speak of that one too.
        let entry = (from == self.node.me).then_some(0);
        let doubted = match why {
            Nack::NextUnreachable => [at.map(|i| i + 1), entry],
            Nack::PreviousLost => [at.and_then(|i| i.checked_sub(1)), None],
            _ => [at, None],
        };
        let peers = doubted.into_iter().flatten().filter_map(|i| stages.get(i));
        self.doubted.extend(peers.map(|(peer, _)| *peer));
    }

    /// Waits before the next attempt: for the plan to change, but not for long, and not at all after a first setback
    /// where another way is.
    async fn pause(&mut self, choice: &Choice, setback: Setback) -> Result<(), End> {
        let limits = &self.node.limits;
        let least = limits.retry_pause(self.fruitless.saturating_sub(1));
        let most = match setback {
            Setback::Nack(_, Nack::NoRoom | Nack::Superseded(_)) | Setback::Moved => return Ok(()),
            // Somebody may be dead: who replays at once replays into the same hole.
            Setback::Nack(_, Nack::NextUnreachable | Nack::PreviousLost) => limits.retry_last,
            _ => least,
        };
        let now = self.node.now();
        let (least, most) = (now.after(least), now.after(most).min(self.give_up_at));
        self.rest_until(least.min(most)).await?;
        loop {
            let changed = self.node.plans.changed();
            if !self.stands(choice) || self.other_way() || self.node.now() >= most {
                break;
            }
            tokio::select! {
                biased;
                () = self.replies.closed() => return Err(End::Cancelled),
                () = changed => {}
                () = self.node.clock.sleep_until(most) => {}
            }
        }
        if self.node.now() >= self.give_up_at {
            let why = self.words(setback);
            let why = format!("no token for too long; the last attempt ended because {why}");
            return Err(self.turned_away(Refused::NotServing(why)));
        }
        Ok(())
    }

    async fn rest_until(&self, until: Instant) -> Result<(), End> {
        if self.node.now() >= until {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.replies.closed() => Err(End::Cancelled),
            () = self.node.clock.sleep_until(until) => Ok(()),
        }
    }

    fn words(&self, setback: Setback) -> String {
        let name = |peer| self.node.view.name(peer);
        match setback {
            Setback::Moved => "its stages no longer serve".into(),
            Setback::Silence => "no token came although all stages answer".into(),
            Setback::Nack(from, Nack::NextUnreachable) => {
                format!("{} could not reach its next stage", name(from))
            }
            Setback::Nack(from, Nack::PreviousLost) => format!("{} lost its previous stage", name(from)),
            Setback::Nack(from, Nack::NoRoom) => format!("{} had no room in its KV cache", name(from)),
            Setback::Nack(from, Nack::NotLoaded) => format!("{} has not loaded its layers", name(from)),
            Setback::Nack(from, Nack::Unknown | Nack::Gap) => {
                format!("{} missed tokens of the session", name(from))
            }
            Setback::Nack(from, Nack::Superseded(_)) => format!("{} serves a newer attempt", name(from)),
            Setback::Nack(from, Nack::Unsound) => {
                format!(
                    "{} cannot compute the request: its model knows other tokens, or other rules",
                    name(from)
                )
            }
        }
    }

    /// Whether there is a way without anybody doubted.
    fn other_way(&self) -> bool {
        self.route().is_ok_and(|c| c.route.stages.iter().all(|(peer, _)| !self.doubted.contains(peer)))
    }

    /// Whether the replica still serves, in the life the attempt began in.
    fn stands(&mut self, choice: &Choice) -> bool {
        let current = self.node.plans.current();
        let same = match (&self.stands_in, &current) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if same {
            return true;
        }
        let stands =
            current.as_ref().is_some_and(|p| p.serving_replica(&choice.pipeline) == Some(choice.life));
        if stands {
            self.stands_in = current;
        }
        stands
    }

    fn pace(&self, choice: &Choice) -> Pace {
        let node = &self.node;
        Pace::predicted(&node.view, &node.model, &choice.pipeline, node.view.id(node.me), self.position())
    }
}
