//! A chunk of a prompt on an engine that lets other steps in between its layers: tokens that are being decoded and short
//! prompts do not wait for its end. It gives way to decoding for a quarter of the time, and to prompts for half of it.
//!
//! Why not more to decoding: beside a prompt fewer sessions decode at once, and each of their steps reads the weights for
//! fewer tokens. Simulated, an M4 Pro with eight users whose prompts have 2,000 tokens gives a sixth less in all at one half.

use std::collections::BTreeSet;
use std::time::Duration;

use super::queue::Waiting;
use super::{Desk, Stage};
use crate::asides::{Aside, Asker, Left, Results, asides};
use crate::clock::Instant;
use crate::engine::{Engine as _, EngineError};
use crate::ids::SessionId;
use crate::transport::Lane;
use crate::world::World;

/// A chunk this many times smaller than the long step may go between its layers.
const SMALLER: u32 = 2;

/// After decode steps the long step has so many times their time for itself, as far as decoding goes.
const PEACE: u32 = 3;

/// What goes on beside a long step.
struct Beside {
    /// Sessions with a part in the long step.
    inside: BTreeSet<SessionId>,
    /// Largest chunks of prompts that may come between, tokens.
    chunk_tokens: u32,
    /// What was asked for and is not answered yet, and since when.
    asked: Option<(Vec<Waiting>, Instant)>,
    /// Until when no decode step is asked for, and no chunk of a prompt.
    peace: (Instant, Instant),
    /// Time that it gave way.
    away: Duration,
}

impl<W: World> Stage<W> {
    pub(super) async fn long_step(&mut self, batch: Vec<Waiting>) {
        let (works, batch) = self.desk.works(batch);
        if works.is_empty() {
            return;
        }
        let began = self.desk.began(&batch);
        let tokens: u32 = works.iter().map(|work| work.count).sum();
        let mut beside = Beside {
            inside: works.iter().map(|work| work.session).collect(),
            chunk_tokens: tokens / SMALLER,
            asked: None,
            peace: (began, began),
            away: Duration::ZERO,
        };
        let (asker, asked) = asides();
        let results = {
            let desk = &mut self.desk;
            let stepping = self.engine.step_between(works, asked);
            tokio::pin!(stepping);
            loop {
                let look_again = desk.ask_beside(&mut beside, &asker);
                tokio::select! {
                    biased;
                    results = &mut stepping => break results,
                    results = asker.answered(), if beside.asked.is_some() => {
                        desk.answered_beside(&mut beside, results).await;
                    }
                    () = desk.serve_meanwhile(look_again) => {}
                }
            }
        };
        self.pace.took(tokens, self.desk.node.now().since(began).saturating_sub(beside.away));
        self.ended(batch, began, results).await;
        self.finish_beside(beside, &asker).await;
    }

    /// Does what was asked for when the long step ended before it let that in.
    async fn finish_beside(&mut self, beside: Beside, asker: &Asker) {
        let (Some((batch, began)), Some(left)) = (beside.asked, asker.take_back()) else { return };
        let results = match left {
            Left::Done(results) => results,
            Left::Lost => {
                let lost = || Err(EngineError::Device("a step between layers was lost".into()));
                batch.iter().map(|_| lost()).collect()
            }
            Left::Waiting(Aside { forget, batch: works }) => {
                self.desk.sessions.releases.splice(0..0, forget);
                self.settle();
                self.engine.step(works).await
            }
        };
        self.ended(batch, began, results).await;
    }
}

impl<W: World> Desk<W> {
    /// Asks for the next step between the layers, if it is time and there is one. Gives when to look again.
    fn ask_beside(&mut self, beside: &mut Beside, asker: &Asker) -> Option<Instant> {
        if beside.asked.is_some() {
            return None;
        }
        let now = self.node.now();
        let (decode, prompts) = (now >= beside.peace.0, now >= beside.peace.1);
        let sessions = if decode { self.node.limits.batch } else { 0 };
        let tokens = if prompts { beside.chunk_tokens } else { 0 };
        let picked = self.sessions.queue.pick_aside(beside.inside.clone(), sessions, tokens);
        let (batch, picked) = self.works(picked);
        if !batch.is_empty() {
            let releases = &mut self.sessions.releases;
            let forget = releases.extract_if(.., |session| !beside.inside.contains(session)).collect();
            let began = self.began(&picked);
            beside.asked = Some((picked, began));
            asker.ask(Aside { forget, batch });
            return None;
        }
        [beside.peace.0, beside.peace.1].into_iter().filter(|until| now < *until).min()
    }

    /// Hands on what came of it; the long step then has its time.
    async fn answered_beside(&mut self, beside: &mut Beside, results: Results) {
        let Some((batch, asked_at)) = beside.asked.take() else { return };
        let now = self.node.now();
        let took = now.since(asked_at);
        let has_prompts = batch.iter().any(|waiting| waiting.lane == Lane::Prefill);
        beside.peace = if has_prompts {
            (now.after(took), now.after(took))
        } else {
            (now.after(took * PEACE), beside.peace.1)
        };
        beside.away += took;
        self.hand_on(batch, results).await;
    }
}
