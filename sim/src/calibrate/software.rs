//! What a token takes beside computing and being on the way: wake-ups, queues, copies.

use std::collections::{BTreeMap, BTreeSet};

use node::ids::SessionId;
use node::probe::{Event, Share};
use planner::cost::constants::{RING, Software};
use planner::plan::LayerRange;

use super::Fitted;
use crate::recorded::Run;
use crate::report::stats::middle;

/// What the ring's software cost in this run, from tokens that were alone on their way; none where no token was.
pub(super) fn of(run: &Run, nodes: &[Fitted]) -> Option<Software> {
    let stages = nodes.iter().filter(|node| node.layers.is_some_and(|held| !held.is_empty())).count();
    let trips_us = trips_us(run, nodes);
    let mut watch = Watch::default();
    for line in &run.lines {
        match &line.event {
            Event::StepBegan { batch } => watch.began(&line.node, line.at_ns, batch),
            Event::StepEnded { .. } => watch.ended(&line.node, line.at_ns),
            Event::Emitted { session, .. } => watch.emitted(*session, line.at_ns, stages),
            _ => {}
        }
    }
    if watch.rests_us.is_empty() {
        return None;
    }
    let rest_us = (middle(watch.rests_us) - trips_us).max(0.0);
    Some(match stages {
        0 | 1 => Software { per_hop_us: 0.0, per_step_us: rest_us, ..RING },
        several => Software { per_hop_us: rest_us / several as f64, per_step_us: 0.0, ..RING },
    })
}

/// A token that is on its way.
#[derive(Debug, Default)]
struct Way {
    since_ns: u64,
    /// Something else was computed meanwhile, anywhere.
    is_disturbed: bool,
    steps: usize,
    computed_ns: u64,
}

#[derive(Debug, Default)]
struct Watch<'a> {
    /// Steps under way, by node: when each began, and for whom.
    open: BTreeMap<&'a str, Vec<(u64, BTreeSet<SessionId>)>>,
    ways: BTreeMap<SessionId, Way>,
    /// Of tokens that were alone, what they took beside computing, microseconds.
    rests_us: Vec<f64>,
}

impl<'a> Watch<'a> {
    fn began(&mut self, node: &'a str, at_ns: u64, batch: &[Share]) {
        let sessions: BTreeSet<SessionId> = batch.iter().map(|share| share.session).collect();
        for (session, way) in &mut self.ways {
            way.is_disturbed |= sessions.iter().any(|other| other != session);
        }
        self.open.entry(node).or_default().push((at_ns, sessions));
    }

    fn ended(&mut self, node: &str, at_ns: u64) {
        let Some((since_ns, sessions)) = self.open.get_mut(node).and_then(Vec::pop) else { return };
        for session in sessions {
            if let Some(way) = self.ways.get_mut(&session) {
                way.steps += 1;
                way.computed_ns += at_ns.saturating_sub(since_ns);
            }
        }
    }

    fn emitted(&mut self, session: SessionId, at_ns: u64, stages: usize) {
        let open = self.open.values().flatten();
        let is_disturbed = open.flat_map(|(_, sessions)| sessions).any(|other| *other != session);
        let next = Way { since_ns: at_ns, is_disturbed, ..Way::default() };
        let Some(way) = self.ways.insert(session, next) else { return };
        if !way.is_disturbed && way.steps == stages {
            let rest_ns = at_ns.saturating_sub(way.since_ns).saturating_sub(way.computed_ns);
            self.rests_us.push(rest_ns as f64 / 1e3);
        }
    }
}

/// What links take of a token's way around the ring, microseconds.
fn trips_us(run: &Run, nodes: &[Fitted]) -> f64 {
    let mut ring: Vec<(&str, LayerRange)> =
        nodes.iter().filter_map(|node| Some((node.node.as_str(), node.layers?))).collect();
    ring.sort_by_key(|(_, layers)| layers.first);
    let next = ring.iter().cycle().skip(1);
    let trip = |((a, _), (b, _)): (&(&str, LayerRange), &(&str, LayerRange))| {
        let is_theirs = |one: &str, other: &str| (one, other) == (*a, *b) || (one, other) == (*b, *a);
        let link = run.header.links.iter().find(|link| is_theirs(&link.between.0, &link.between.1));
        link.map_or(0.0, |link| link.round_trip_us / 2.0)
    };
    if ring.len() < 2 { 0.0 } else { ring.iter().zip(next).map(trip).sum() }
}
