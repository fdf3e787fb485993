//! Who answers. Without input or output: `now` and pongs come in as calls, pings and verdicts go out as news.
//!
//! A watched peer has one timer. When it fires and the last ping was not answered, that ping was missed; so many misses
//! in a row and the peer is lost. A lost peer goes on being asked, less often, and is back with its first answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use planner::plan::NodeId;

use crate::clock::Instant;
use crate::limits::Limits;

/// Peers off the plan, and lost ones, are asked this many times less often.
const SELDOM: u32 = 4;
/// However limits are set, time passes between two pings.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// A round trip above this is taken for a lie or a pause, not for a property of the way.
const RTT_MAX: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Ask that peer; the nonce comes back.
    Ping(NodeId, u64),
    /// The stream to it may hang.
    Missed(NodeId),
    /// It no longer answers.
    Lost(NodeId),
    /// It answers again.
    Back(NodeId),
}

#[derive(Debug, Clone)]
struct Watch {
    due: Instant,
    /// The last ping was not answered yet.
    asked: bool,
    missed: u32,
    suspected: bool,
    /// Its process has ended, as far as the network can tell.
    refuses: bool,
    /// It has answered since it is watched, or is lost.
    known: bool,
    /// Pinged as often as nodes of the plan.
    often: bool,
}

/// The peers a node watches, and those it has lost.
#[derive(Debug)]
pub(crate) struct Liveness {
    limits: Limits,
    period: Duration,
    watched: BTreeMap<NodeId, Watch>,
    timers: BTreeSet<(Instant, NodeId)>,
    lost: BTreeSet<NodeId>,
    /// How many watched peers are not known yet.
    unknown: usize,
    /// Smoothed round trips, also of peers no longer watched.
    rtt: BTreeMap<NodeId, Duration>,
    news: Vec<News>,
}

impl Liveness {
    pub(crate) fn new(limits: Limits, fleet: usize) -> Self {
        Self {
            limits,
            period: limits.period(fleet).max(SHORTEST_PAUSE),
            watched: BTreeMap::new(),
            timers: BTreeSet::new(),
            lost: BTreeSet::new(),
            unknown: 0,
            rtt: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    /// The fleet now has so many nodes.
    pub(crate) fn resize(&mut self, fleet: usize) {
        self.period = self.limits.period(fleet).max(SHORTEST_PAUSE);
    }

    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    /// How long the planning node takes between two pings of a peer that is not on the plan.
    pub(crate) fn seldom(&self) -> Duration {
        self.period * SELDOM
    }

    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    pub(crate) fn lost(&self) -> &BTreeSet<NodeId> {
        &self.lost
    }

    pub(crate) fn is_lost(&self, node: NodeId) -> bool {
        self.lost.contains(&node)
    }

    /// Whether every watched peer has answered, or is lost.
    pub(crate) fn all_known(&self) -> bool {
        self.unknown == 0
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Watches exactly `peers` from now on: `(peer, whether it is on the plan, when to ask first)`.
    pub(crate) fn watch(&mut self, peers: impl IntoIterator<Item = (NodeId, bool, Instant)>) {
        let mut before = std::mem::take(&mut self.watched);
        self.timers.clear();
        for (node, often, first) in peers {
            let lost = self.lost.contains(&node);
            let fresh = Watch {
                due: first,
                asked: false,
                missed: 0,
                suspected: false,
                refuses: false,
                known: lost,
                often,
            };
            let watch = before.remove(&node).map_or(fresh, |old| Watch { often, ..old });
            self.timers.insert((watch.due, node));
            self.watched.insert(node, watch);
        }
        self.unknown = self.watched.values().filter(|w| !w.known).count();
    }

    pub(crate) fn is_watched(&self, node: NodeId) -> bool {
        self.watched.contains_key(&node)
    }

    /// Asks whom it is time to ask.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((due, node)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, node));
            self.ask(node, now);
        }
    }

    fn ask(&mut self, node: NodeId, now: Instant) {
        let Some(watch) = self.watched.get_mut(&node) else { return };
        if std::mem::replace(&mut watch.asked, true) {
            watch.missed = watch.missed.saturating_add(1);
            self.news.push(News::Missed(node));
        }
        let newly_lost = watch.missed >= self.limits.ping_misses && self.lost.insert(node);
        if newly_lost {
            (watch.suspected, watch.refuses) = (false, false);
            if !std::mem::replace(&mut watch.known, true) {
                self.unknown -= 1;
            }
            self.news.push(News::Lost(node));
        }
        self.news.push(News::Ping(node, now.0));
        let pause = self.pause(node);
        self.set_due(node, now.after(pause));
    }

    fn set_due(&mut self, node: NodeId, due: Instant) {
        if let Some(watch) = self.watched.get_mut(&node) {
            self.timers.remove(&(watch.due, node));
            watch.due = due;
            self.timers.insert((due, node));
        }
    }

    /// Time from one ping to the next, and so until it counts as missed.
    fn pause(&self, node: NodeId) -> Duration {
        let Some(watch) = self.watched.get(&node) else { return self.period };
        let round_trips = self.rtt.get(&node).copied().unwrap_or_default() * self.limits.rtt_multiple;
        let base = if self.lost.contains(&node) {
            self.period * SELDOM
        } else if watch.refuses {
            self.limits.refused_patience.max(SHORTEST_PAUSE)
        } else if watch.suspected {
            self.limits.verify_period.max(SHORTEST_PAUSE)
        } else if watch.often || watch.missed > 0 {
            self.period
        } else {
            self.period * SELDOM
        };
        base.max(round_trips)
    }

    /// An answer: the nonce is when its ping was sent.
    pub(crate) fn pong(&mut self, node: NodeId, nonce: u64, now: Instant) {
        let sample = now.since(Instant(nonce));
        if nonce <= now.0 && sample <= RTT_MAX {
            // Quick to believe that the way has become fast again: while it is thought slow, a loss is noticed late.
            let smoothed =
                |old: &Duration| if sample < *old { (*old + sample) / 2 } else { (*old * 7 + sample) / 8 };
            let smoothed = self.rtt.get(&node).map_or(sample, smoothed);
            self.rtt.insert(node, smoothed.max(sample / 2));
        }
        self.alive(node, now);
        if let Some(watch) = self.watched.get_mut(&node)
            && !std::mem::replace(&mut watch.known, true)
        {
            self.unknown -= 1;
        }
        if self.lost.remove(&node) {
            self.news.push(News::Back(node));
            let pause = self.pause(node);
            self.set_due(node, now.after(pause));
        }
    }

    /// It spoke by itself. Of a lost peer that is a reason to ask it, not yet a proof: it may not hear us.
    pub(crate) fn spoke(&mut self, node: NodeId, now: Instant) {
        if self.lost.contains(&node) {
            if !self.watched.contains_key(&node) {
                self.news.push(News::Ping(node, now.0));
            } else {
                self.set_due(node, now);
            }
            return;
        }
        self.alive(node, now);
    }

    /// A planning node that pings need not be pinged back: the next own ping waits longer than its next one takes. Not
    /// the first one, which measures the way: without it a suspicion could not be looked into.
    pub(crate) fn postpone(&mut self, node: NodeId, now: Instant, by: Duration) {
        if self.watched.contains_key(&node) && self.rtt.contains_key(&node) && !self.lost.contains(&node) {
            self.set_due(node, now.after(by));
        }
    }

    fn alive(&mut self, node: NodeId, now: Instant) {
        let Some(watch) = self.watched.get_mut(&node) else { return };
        let was_suspected = std::mem::take(&mut watch.suspected) | std::mem::take(&mut watch.refuses);
        (watch.asked, watch.missed) = (false, 0);
        if was_suspected {
            let pause = self.pause(node);
            self.set_due(node, now.after(pause));
        }
    }

    /// Somebody has a reason to doubt it: asks at once, and more often until it answers.
    pub(crate) fn suspect(&mut self, node: NodeId, now: Instant) {
        let Some(watch) = self.watched.get_mut(&node) else { return };
        // Who has never answered may be starting still: its way is not known, so neither is what would be late.
        if watch.suspected || self.lost.contains(&node) || !self.rtt.contains_key(&node) {
            return;
        }
        watch.suspected = true;
        // A ping under way that is younger than the check's own pause is given that time.
        let pause = self.pause(node);
        let due =
            self.watched.get(&node).map_or(now, |w| if w.asked { w.due.min(now.after(pause)) } else { now });
        self.set_due(node, due);
    }

    /// Its connections ended and it refuses another. A process that has ended looks like that; so may a network that was
    /// interrupted for a moment: it is asked once more, and the answer waited for a little.
    pub(crate) fn refused(&mut self, node: NodeId, now: Instant) {
        let Some(watch) = self.watched.get_mut(&node) else { return };
        if watch.refuses || self.lost.contains(&node) || !self.rtt.contains_key(&node) {
            return;
        }
        (watch.refuses, watch.asked) = (true, false);
        watch.missed = watch.missed.max(self.limits.ping_misses.saturating_sub(1));
        self.set_due(node, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(1);

    fn watching() -> Liveness {
        let mut liveness = Liveness::new(Limits::default(), 3);
        liveness.watch([(PEER, true, Instant(0))]);
        liveness
    }

    /// Runs timers until `end`, answering pings `rtt` later where `answers` says so; collects the verdicts.
    fn play(
        liveness: &mut Liveness,
        mut now: Instant,
        end: Instant,
        rtt: Duration,
        answers: bool,
    ) -> Vec<(Instant, News)> {
        let mut verdicts = Vec::new();
        let mut pongs: Vec<(Instant, u64)> = Vec::new();
        while now < end {
            liveness.tick(now);
            for news in liveness.take_news() {
                match news {
                    News::Ping(_, nonce) if answers => pongs.push((now.after(rtt), nonce)),
                    News::Lost(_) | News::Back(_) => verdicts.push((now, news)),
                    _ => {}
                }
            }
            let next = liveness.next_due().unwrap_or(end);
            match pongs.first().copied().filter(|(at, _)| *at <= next) {
                Some((at, nonce)) => {
                    pongs.remove(0);
                    now = at;
                    liveness.pong(PEER, nonce, now);
                }
                None => now = next,
            }
        }
        verdicts.extend(liveness.take_news().into_iter().map(|n| (end, n)));
        verdicts
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn a_silent_peer_is_lost_after_the_bounded_misses_and_back_with_its_first_answer() {
        let mut liveness = watching();
        let limits = Limits::default();
        let verdicts = play(&mut liveness, at(0), at(3000), Duration::ZERO, false);
        let lost_at = Instant(0).after(limits.ping_period * limits.ping_misses);
        assert_eq!(verdicts.first(), Some(&(lost_at, News::Lost(PEER))));
        let verdicts = play(&mut liveness, at(3000), at(6000), Duration::from_millis(5), true);
        assert!(matches!(verdicts.first(), Some((_, News::Back(PEER)))), "{verdicts:?}");
        assert!(liveness.lost().is_empty());
    }

    #[test]
    fn a_peer_that_answers_is_never_lost_however_long_its_way() {
        for rtt in [0, 40, 249, 600, 700] {
            let mut liveness = watching();
            let verdicts = play(&mut liveness, at(0), at(60_000), Duration::from_millis(rtt), true);
            assert!(
                !verdicts.iter().any(|(_, n)| matches!(n, News::Lost(_))),
                "round trip of {rtt} ms: {verdicts:?}"
            );
        }
    }

    #[test]
    fn suspicion_finds_a_dead_peer_sooner() {
        let mut liveness = watching();
        play(&mut liveness, at(0), at(1010), Duration::from_millis(2), true);
        liveness.suspect(PEER, at(1010));
        let verdicts = play(&mut liveness, at(1010), at(3000), Duration::ZERO, false);
        let bound = at(1010).after(Limits::default().verify_period * 4);
        assert!(verdicts.first().is_some_and(|(t, n)| *n == News::Lost(PEER) && *t <= bound), "{verdicts:?}");
    }

    #[test]
    fn a_peer_that_refuses_is_asked_once_more_and_then_lost() {
        let mut liveness = watching();
        play(&mut liveness, at(0), at(1010), Duration::from_millis(2), true);
        // A ping is under way: that it is not answered yet must not be held against the peer.
        let now = liveness.next_due().unwrap_or_default();
        liveness.tick(now);
        liveness.take_news();
        liveness.refused(PEER, now);
        let patience = Limits::default().refused_patience;
        let verdicts = play(&mut liveness, now, at(3000), Duration::ZERO, false);
        assert_eq!(verdicts.first(), Some(&(now.after(patience), News::Lost(PEER))));
    }

    #[test]
    fn a_peer_that_refuses_and_answers_all_the_same_is_kept() {
        let mut liveness = watching();
        play(&mut liveness, at(0), at(1010), Duration::from_millis(2), true);
        liveness.refused(PEER, at(1010));
        let soon = Limits::default().refused_patience - Duration::from_millis(10);
        let verdicts = play(&mut liveness, at(1010), at(9000), soon, true);
        assert!(!verdicts.iter().any(|(_, n)| matches!(n, News::Lost(_))), "{verdicts:?}");
    }

    #[test]
    fn suspicion_of_a_peer_that_answers_is_dropped() {
        let mut liveness = watching();
        play(&mut liveness, at(0), at(1010), Duration::from_millis(2), true);
        liveness.suspect(PEER, at(1010));
        let verdicts = play(&mut liveness, at(1010), at(9000), Duration::from_millis(2), true);
        assert!(!verdicts.iter().any(|(_, n)| matches!(n, News::Lost(_))), "{verdicts:?}");
    }
}
