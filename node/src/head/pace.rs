//! How long a head waits: from what the plan predicts, and what the session has seen so far.

use std::time::Duration;

use planner::cost::constants::{PREFILL_CHUNK, RING};
use planner::cost::predict::{Load, predict};
use planner::model::Model;
use planner::plan::{NodeId, Pipeline, Plan};

use crate::limits::Limits;
use crate::view::FleetView;

/// The expected times of one attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    first: Duration,
    token: Duration,
    /// A token's time when every stage is in the middle of another session's chunk and takes the next one with it.
    crowded: Duration,
}

impl Pace {
    /// What the cost model expects of `pipeline` for a session of `tokens` tokens whose head is on `head`. Zero where
    /// it knows no way: the floors of the limits hold then.
    pub(super) fn predicted(
        view: &FleetView,
        model: &Model,
        pipeline: &Pipeline,
        head: Option<NodeId>,
        tokens: u32,
    ) -> Self {
        let plan = Plan {
            model: model.name.clone(),
            replicas: vec![pipeline.clone()],
            experts: Vec::new(),
            context: tokens,
            sessions: 1,
        };
        let of = |prompt| {
            let load = Load { prompt, context: tokens, concurrency: 1, head };
            predict(&view.fleet, model, &plan, &load, &RING)
        };
        let own = of(tokens).map(|p| (from_ms(p.ttft_ms), from_ms(p.tpot_ms)));
        let (first, token) = own.unwrap_or_default();
        let chunk = of(PREFILL_CHUNK).map_or(Duration::ZERO, |p| from_ms(p.ttft_ms));
        Self { first, token, crowded: chunk.saturating_mul(2) }
    }

    /// A token took this long.
    pub(super) fn observe(&mut self, took: Duration) {
        self.token = self.token.max(took / 8).saturating_mul(7) / 8 + took / 8;
    }

    /// When the first token is late, with so many sessions before this one.
    pub(super) fn first_deadline(&self, limits: &Limits, crowd: u32) -> Duration {
        let all = self.first.saturating_mul(crowd.saturating_add(1));
        all.saturating_mul(limits.token_multiple).max(limits.first_token_floor)
    }

    /// When any further token is late.
    pub(super) fn token_deadline(&self, limits: &Limits) -> Duration {
        self.token.saturating_mul(limits.token_multiple).max(limits.token_floor)
    }

    /// Nothing need be lost before: a token that waits for others' prompts takes this long.
    pub(super) fn crowded(&self) -> Duration {
        self.crowded
    }

    /// When a session without a new token has failed.
    pub(super) fn give_up(&self, limits: &Limits) -> Duration {
        limits.give_up.max(self.first.saturating_mul(4))
    }
}

fn from_ms(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms.max(0.0) / 1e3).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_what_is_seen_but_not_below_their_floors() {
        let limits = Limits::default();
        let mut pace = Pace { first: Duration::ZERO, token: Duration::ZERO, crowded: Duration::ZERO };
        assert_eq!(pace.token_deadline(&limits), limits.token_floor);
        assert_eq!(pace.first_deadline(&limits, 5), limits.first_token_floor);
        for _ in 0..100 {
            pace.observe(Duration::from_secs(2));
        }
        let slow = pace.token_deadline(&limits);
        assert!(slow > Duration::from_secs(14) && slow < Duration::from_secs(17), "{slow:?}");
    }

    #[test]
    fn a_crowd_before_a_session_gives_it_more_time() {
        let pace = Pace { first: Duration::from_secs(1), token: Duration::ZERO, crowded: Duration::ZERO };
        let limits = Limits::default();
        assert_eq!(pace.first_deadline(&limits, 3), pace.first_deadline(&limits, 0) * 4);
    }
}
