//! The sessions that pass a stage: who may go on, who is told off, whose KV is free again.
//!
//! Without input or output: frames come in as calls, what must be sent and released is collected for the loop to do.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::plan::LayerRange;

use super::queue::{Queue, Waiting};
use crate::clock::Instant;
use crate::ids::{Attempt, PeerId, SessionId};
use crate::limits::Limits;
use crate::outbox::Concern;
use crate::transport::Lane;
use crate::wire::{Nack, Route, Step, StepInput};

/// An idle session is kept for this many times the longest pause between its own steps, if that is longer than the
/// limit: some machines need minutes for a token.
const IDLE_GAPS: u32 = 8;

/// One attempt of a session on this stage, or the memory of one.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) attempt: Attempt,
    pub(super) route: Route,
    /// Which stage of the route this is.
    pub(super) index: usize,
    /// KV may be held, and steps may come. Otherwise only the attempt is remembered.
    pub(super) alive: bool,
    fed_by: PeerId,
    lane: Lane,
    last: Instant,
    longest_gap: Duration,
}

impl Session {
    /// The peer of the next stage, `None` on the last.
    pub(super) fn next(&self) -> Option<PeerId> {
        self.route.stages.get(self.index + 1).map(|(peer, _)| *peer)
    }

    fn concern(&self, session: SessionId) -> Concern {
        Concern { session, attempt: self.attempt, head: self.route.head }
    }
}

/// What the loop must send.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Duty {
    /// Tell the head.
    Nack(Concern, Nack),
    /// Free the KV of the next stage, the route's `stage`.
    Close { to: PeerId, session: SessionId, attempt: Attempt, stage: u16 },
    /// Open a new stream to that peer.
    Doubt(PeerId, Lane),
    /// That peer has begun another life.
    Renew(PeerId),
    /// A frame of an old attempt was dropped.
    Stale(SessionId),
}

/// What the stage holds, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Loaded {
    pub(super) model: String,
    pub(super) layers: Option<LayerRange>,
}

/// The table of sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    me: PeerId,
    limits: Limits,
    table: BTreeMap<SessionId, Session>,
    /// The last life of each node that a head was seen of.
    heads: BTreeMap<PeerId, u64>,
    pub(super) loaded: Loaded,
    pub(super) queue: Queue,
    pub(super) duties: Vec<Duty>,
    /// Sessions whose KV the engine shall forget before its next step.
    pub(super) releases: Vec<SessionId>,
    next_check: Instant,
}

impl Sessions {
    pub(super) fn new(me: PeerId, limits: Limits) -> Self {
        Self {
            me,
            limits,
            table: BTreeMap::new(),
            heads: BTreeMap::new(),
            loaded: Loaded::default(),
            queue: Queue::default(),
            duties: Vec::new(),
            releases: Vec::new(),
            next_check: Instant(0),
        }
    }

    /// The session, if `attempt` of it is alive here.
    pub(super) fn alive(&self, session: SessionId, attempt: Attempt) -> Option<&Session> {
        self.table.get(&session).filter(|s| s.alive && s.attempt == attempt)
    }

    /// A step has come.
    pub(super) fn step(&mut self, from: PeerId, lane: Lane, at: Instant, step: Step) {
        let session = step.session;
        if let Some(route) = &step.route {
            self.meet(route.head, route.head_life);
        }
        match self.table.get_mut(&session) {
            Some(known)
                if step.attempt < known.attempt || (step.attempt == known.attempt && !known.alive) =>
            {
                self.outdated(&step);
            }
            // The first frame of an attempt comes once. Another one is another head's, or of its next life.
            Some(known) if step.attempt == known.attempt && step.route.is_some() => self.outdated(&step),
            Some(known) if step.attempt == known.attempt => {
                known.longest_gap = known.longest_gap.max(at.since(known.last));
                (known.last, known.fed_by, known.lane) = (at, from, lane);
                self.enqueue(lane, at, step);
            }
            _ if step.route.is_some() => self.begin(from, lane, at, step),
            _ => {
                let concern = Concern { session, attempt: step.attempt, head: from };
                self.duties.push(Duty::Nack(concern, Nack::Unknown));
            }
        }
    }

    /// Drops a frame of an attempt that is over. Who begins one is told which number would count.
    fn outdated(&mut self, step: &Step) {
        self.duties.push(Duty::Stale(step.session));
        if let (Some(route), Some(known)) = (&step.route, self.table.get(&step.session)) {
            let concern = Concern { session: step.session, attempt: step.attempt, head: route.head };
            self.duties.push(Duty::Nack(concern, Nack::Superseded(known.attempt)));
        }
    }

    fn begin(&mut self, from: PeerId, lane: Lane, at: Instant, step: Step) {
        let Some(route) = step.route.clone() else { return };
        let (session, attempt) = (step.session, step.attempt);
        if self.table.contains_key(&session) {
            self.forget_kv(session);
        } else {
            self.make_room();
        }
        let fault = self.fault(&route, &step);
        let opened = Session {
            attempt,
            route,
            index: usize::from(step.stage),
            alive: fault.is_none(),
            fed_by: from,
            lane,
            last: at,
            longest_gap: Duration::ZERO,
        };
        if let Some(why) = fault {
            self.duties.push(Duty::Nack(opened.concern(session), why));
        }
        self.table.insert(session, opened);
        if fault.is_none() {
            self.enqueue(lane, at, step);
        }
    }

    /// A head begins an attempt. Where its node has begun another life, nothing may be told to the one before: neither
    /// tokens nor a refusal.
    fn meet(&mut self, head: PeerId, life: u64) {
        if self.heads.len() >= self.limits.stage_sessions {
            self.heads.clear();
        }
        if head != self.me && self.heads.insert(head, life) != Some(life) {
            self.duties.push(Duty::Renew(head));
        }
    }

    /// Why a route cannot begin here.
    fn fault(&self, route: &Route, step: &Step) -> Option<Nack> {
        let here = route.stages.get(usize::from(step.stage));
        let fits = route.stages.len() <= self.limits.route_stages
            && route.model == self.loaded.model
            && here.is_some_and(|(peer, layers)| *peer == self.me && Some(*layers) == self.loaded.layers);
        if !fits {
            return Some(Nack::NotLoaded);
        }
        (step.start != 0).then_some(Nack::Gap)
    }

    fn enqueue(&mut self, lane: Lane, at: Instant, step: Step) {
        let is_first = self.table.get(&step.session).is_some_and(|s| s.index == 0);
        let sound = match &step.input {
            StepInput::Tokens(tokens) => is_first && tokens.len() == step.count as usize,
            StepInput::Hidden(_) => !is_first,
        };
        if sound && step.count > 0 && step.start.checked_add(step.count).is_some() {
            self.queue.push(Waiting { lane, at, step });
        } else {
            self.fail(step.session, step.attempt, Nack::Gap);
        }
    }

    /// The attempt cannot go on here: its head is told, its KV freed.
    pub(super) fn fail(&mut self, session: SessionId, attempt: Attempt, why: Nack) {
        if let Some(known) = self.alive(session, attempt) {
            self.duties.push(Duty::Nack(known.concern(session), why));
            self.end(session);
        }
    }

    fn end(&mut self, session: SessionId) {
        if let Some(known) = self.table.get_mut(&session) {
            known.alive = false;
        }
        self.forget_kv(session);
    }

    fn forget_kv(&mut self, session: SessionId) {
        if let Some(known) = self.table.get(&session) {
            self.queue.purge(session, known.attempt);
            self.releases.push(session);
        }
    }

    /// The session has ended: frees its KV, and that of the stages after this one.
    pub(super) fn close(&mut self, session: SessionId, attempt: Attempt, at: Instant) {
        if self.table.get(&session).is_some_and(|s| s.alive && s.attempt <= attempt) {
            self.close_next(session);
            self.end(session);
        }
        self.remember(session, attempt, at);
    }

    /// The head has given the attempt up, and tells every stage itself.
    pub(super) fn abandon(&mut self, session: SessionId, attempt: Attempt, silent: bool, at: Instant) {
        if let Some(known) = self.table.get(&session).filter(|s| s.alive && s.attempt <= attempt) {
            // Tokens go back on the decode lane, whatever lane the prompt came on.
            let (to, lane) = known.next().map_or((known.route.head, Lane::Decode), |next| (next, known.lane));
            if silent && to != self.me {
                self.duties.push(Duty::Doubt(to, lane));
            }
            self.end(session);
        }
        self.remember(session, attempt, at);
    }

    /// Frames of the attempt may still be under way, on another lane: they shall find it ended.
    fn remember(&mut self, session: SessionId, attempt: Attempt, at: Instant) {
        if let Some(known) = self.table.get_mut(&session) {
            if !known.alive {
                known.attempt = known.attempt.max(attempt);
            }
            return;
        }
        self.make_room();
        let nowhere = Route {
            epoch: Default::default(),
            model: String::new(),
            head: self.me,
            head_life: 0,
            stages: Vec::new(),
        };
        let ended = Session {
            attempt,
            route: nowhere,
            index: 0,
            alive: false,
            fed_by: self.me,
            lane: Lane::Decode,
            last: at,
            longest_gap: Duration::ZERO,
        };
        self.table.insert(session, ended);
    }

    /// A stream from `from` broke: what was on it may be lost, so its sessions cannot go on. It may have been the
    /// head's, so the stages after this one are told too.
    pub(super) fn broken(&mut self, from: PeerId, lane: Lane) {
        let hit = |s: &Session| s.alive && s.fed_by == from && s.lane == lane;
        for (session, attempt) in self.select(hit) {
            self.fail(session, attempt, Nack::PreviousLost);
            self.close_next(session);
        }
    }

    fn close_next(&mut self, session: SessionId) {
        let Some(known) = self.table.get(&session) else { return };
        if let Some(to) = known.next() {
            let stage = (known.index + 1) as u16;
            self.duties.push(Duty::Close { to, session, attempt: known.attempt, stage });
        }
    }

    /// The engine is about to hold something else: no session survives that.
    pub(super) fn reload(&mut self, loaded: Loaded) {
        self.loaded = loaded;
        for (session, attempt) in self.select(|s| s.alive) {
            self.fail(session, attempt, Nack::NotLoaded);
        }
    }

    fn select(&self, which: impl Fn(&Session) -> bool) -> Vec<(SessionId, Attempt)> {
        self.table.iter().filter(|(_, s)| which(s)).map(|(id, s)| (*id, s.attempt)).collect()
    }

    /// When [`expire`](Self::expire) has work again, if ever.
    pub(super) fn next_check(&self) -> Option<Instant> {
        (!self.table.is_empty()).then_some(self.next_check)
    }

    /// Forgets who was idle for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        if now < self.next_check {
            return;
        }
        self.next_check = now.after(self.limits.kv_idle / 4);
        let idle = |s: &Session| now.since(s.last) >= self.limits.kv_idle.max(s.longest_gap * IDLE_GAPS);
        for (session, _) in self.select(idle) {
            self.remove(session);
        }
    }

    fn remove(&mut self, session: SessionId) {
        if self.table.get(&session).is_some_and(|s| s.alive) {
            self.end(session);
        }
        self.table.remove(&session);
    }

    /// Forgets the session idle longest, ended ones first, when the table is full.
    fn make_room(&mut self) {
        if self.table.len() < self.limits.stage_sessions.max(1) {
            return;
        }
        let oldest = self.table.iter().min_by_key(|(id, s)| (s.alive, s.last, **id)).map(|(id, _)| *id);
        if let Some(session) = oldest {
            self.remove(session);
        }
    }
}
