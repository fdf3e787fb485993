//! Whose request is answered next. So many answers run at once; more only make each of them slower. The others wait, and
//! when there is room whoever has the least of it comes first: somebody who asks a hundred times at once keeps nobody from
//! asking once. The queue is bounded, and a full one is shared likewise.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use tokio::sync::oneshot;

use super::entropy;
use super::routes::Caller;
use crate::clock::{Clock as _, Instant, TokioClock};

/// What the last duration counts in the mean one.
const NEWEST: f64 = 0.1;

/// The longest time after which somebody is told to come again, seconds.
const AGAIN_MAX_S: u32 = 60;

/// Who asks, as far as can be told: by where the connection comes from, and on this machine, where all come from one
/// address, by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    Caller(Caller),
    Key(u64),
}

impl Client {
    pub(super) fn of(caller: Caller, headers: &HeaderMap) -> Self {
        let is_here = matches!(caller, Caller::Address(address) if address.is_loopback());
        let key = headers.get(header::AUTHORIZATION).filter(|_| is_here);
        key.map_or(Client::Caller(caller), |key| Client::Key(entropy::digest(key.as_bytes())))
    }
}

/// There is no room to wait, either; there may be in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) again_s: u32,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    client: Client,
    answers: usize,
    call: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Answers that run, by who asked.
    running: BTreeMap<Client, usize>,
    waiting: VecDeque<Waiter>,
    number: u64,
    /// Mean time that a request runs, seconds.
    mean_s: f64,
}

impl State {
    fn answers(&self) -> usize {
        self.running.values().sum()
    }

    fn waiting_of(&self, client: Client) -> usize {
        self.waiting.iter().filter(|waiter| waiter.client == client).count()
    }

    /// Makes room for one who waits less often than somebody else does: that one's latest request is turned away.
    fn turn_one_away(&mut self, client: Client) -> bool {
        let most =
            self.waiting.iter().map(|waiter| waiter.client).max_by_key(|other| self.waiting_of(*other));
        let Some(most) = most.filter(|most| self.waiting_of(*most) > self.waiting_of(client) + 1) else {
            return false;
        };
        let latest = self.waiting.iter().rposition(|waiter| waiter.client == most);
        latest.and_then(|latest| self.waiting.remove(latest)).is_some()
    }

    /// Who comes next: of those with the least that runs, who came first.
    fn next(&self) -> Option<usize> {
        let running = |waiter: &Waiter| self.running.get(&waiter.client).copied().unwrap_or(0);
        let waiting = self.waiting.iter().enumerate();
        waiting.min_by_key(|(place, waiter)| (running(waiter), *place)).map(|(place, _)| place)
    }
}

/// The turns of all requests.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    clock: TokioClock,
    running_max: usize,
    waiting_max: usize,
}

/// A request's place in the queue, and then its leave to be answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    client: Client,
    answers: usize,
    number: u64,
    /// While it waits.
    called: Option<oneshot::Receiver<()>>,
    since: Instant,
}

impl Turns {
    /// So many answers may run, and so many requests may wait.
    pub(super) fn new(clock: TokioClock, running_max: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), clock, running_max: running_max.max(1), waiting_max })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Waits for the turn of a request for so many answers, `patience` at most.
    ///
    /// # Errors
    /// [`Full`], at once or when others have the better right to wait, or it took too long.
    pub(super) async fn take(
        self: &Arc<Self>,
        client: Client,
        answers: usize,
        patience: Duration,
    ) -> Result<Turn, Full> {
        let mut turn = self.wait(client, answers)?;
        let Some(called) = &mut turn.called else { return Ok(turn) };
        let waited = self.clock.timeout_at(self.clock.now().after(patience), called).await;
        if !matches!(waited, Ok(Ok(()))) {
            return Err(self.full(&self.lock()));
        }
        (turn.called, turn.since) = (None, self.clock.now());
        Ok(turn)
    }

    fn wait(self: &Arc<Self>, client: Client, answers: usize) -> Result<Turn, Full> {
        let (call, called) = oneshot::channel();
        let mut state = self.lock();
        let must_wait = !state.waiting.is_empty() || !self.has_room(&state, answers);
        if must_wait && state.waiting.len() >= self.waiting_max && !state.turn_one_away(client) {
            return Err(self.full(&state));
        }
        state.number += 1;
        let number = state.number;
        state.waiting.push_back(Waiter { number, client, answers, call });
        self.call(&mut state);
        let (turns, since) = (Arc::clone(self), self.clock.now());
        Ok(Turn { turns, client, answers, number, called: Some(called), since })
    }

    fn full(&self, state: &State) -> Full {
        let ahead = state.waiting.len() as f64 / self.running_max as f64;
        let seconds = (state.mean_s * (1.0 + ahead)).ceil().clamp(1.0, f64::from(AGAIN_MAX_S));
        Full { again_s: seconds as u32 }
    }

    fn has_room(&self, state: &State, answers: usize) -> bool {
        let running = state.answers();
        running == 0 || running + answers <= self.running_max
    }

    /// Calls whoever may come now.
    fn call(&self, state: &mut State) {
        while let Some(next) = state.next() {
            if !self.has_room(state, state.waiting[next].answers) {
                return;
            }
            let Some(Waiter { client, answers, call, .. }) = state.waiting.remove(next) else { return };
            // Nobody is there any more who would give it back.
            if call.send(()).is_ok() {
                *state.running.entry(client).or_default() += answers;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let has_run = match &mut self.called {
            None => {
                let ran_s = self.turns.clock.now().since(self.since).as_secs_f64();
                let mean_s = if state.mean_s == 0.0 { ran_s } else { state.mean_s };
                state.mean_s = mean_s + NEWEST * (ran_s - mean_s);
                true
            }
            Some(called) => {
                called.close();
                called.try_recv().is_ok()
            }
        };
        if has_run {
            let left =
                state.running.get(&self.client).map_or(0, |running| running.saturating_sub(self.answers));
            if left == 0 {
                state.running.remove(&self.client);
            } else {
                state.running.insert(self.client, left);
            }
        } else {
            state.waiting.retain(|waiter| waiter.number != self.number);
        }
        self.turns.call(&mut state);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

    use std::net::Ipv4Addr;

    use axum::http::HeaderValue;
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn client(number: u8) -> Client {
        Client::Caller(Caller::Address(Ipv4Addr::new(10, 0, 0, number).into()))
    }

    fn turns(running: usize, waiting: usize) -> Arc<Turns> {
        #[expect(clippy::disallowed_methods, reason = "a clock needs a beginning")]
        let clock = TokioClock::new(tokio::time::Instant::now(), 1);
        Turns::new(clock, running, waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_least_comes_next_and_first_come_first_among_equals() {
        let turns = turns(2, 9);
        let first = turns.take(client(1), 1, LONG).await.unwrap();
        let second = turns.take(client(1), 1, LONG).await.unwrap();
        let mut waiting: Vec<_> = [1, 1, 2, 3, 2]
            .into_iter()
            .map(|one| Box::pin(turns.take(client(one), 1, LONG).map(move |turn| (one, turn.unwrap()))))
            .collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        assert_eq!(turns.waiting(), 5);
        let mut held = vec![first, second];
        let mut order = Vec::new();
        while !waiting.is_empty() {
            held.remove(0);
            let ready = waiting.iter_mut().enumerate().find_map(|(i, one)| Some((i, one.now_or_never()?)));
            let (place, (one, turn)) = ready.unwrap();
            drop(waiting.remove(place));
            order.push(one);
            held.push(turn);
        }
        assert_eq!(order, [2, 1, 3, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_turns_away_who_has_most_of_it() {
        let turns = turns(1, 2);
        let _running = turns.take(client(1), 1, LONG).await.unwrap();
        let mut mine = Box::pin(turns.take(client(1), 1, LONG));
        let mut also_mine = Box::pin(turns.take(client(1), 1, LONG));
        assert!(mine.as_mut().now_or_never().is_none() && also_mine.as_mut().now_or_never().is_none());
        assert!(turns.take(client(1), 1, LONG).await.is_err());
        let mut other = Box::pin(turns.take(client(2), 1, LONG));
        assert!(other.as_mut().now_or_never().is_none());
        assert!(also_mine.as_mut().now_or_never().unwrap().is_err(), "the latest of who has most goes");
        assert!(mine.as_mut().now_or_never().is_none());
        assert!(turns.take(client(2), 1, LONG).await.is_err());
        assert_eq!(turns.take(client(3), 1, Duration::from_secs(2)).await.unwrap_err().again_s, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_more_than_all_runs_alone() {
        let turns = turns(2, 9);
        let all = turns.take(client(1), 5, LONG).await.unwrap();
        turns.clock.sleep(Duration::from_secs(30)).await;
        assert!(turns.take(client(2), 1, Duration::from_secs(20)).await.is_err());
        assert_eq!(turns.waiting(), 0);
        drop(all);
        let _one = turns.take(client(2), 1, LONG).await.unwrap();
        let full = turns.take(client(2), 5, Duration::from_secs(20)).await;
        assert!(full.unwrap_err().again_s >= 50, "who comes again knows how long others take");
    }

    #[test]
    fn people_on_this_machine_differ_by_their_keys_and_others_by_their_addresses() {
        let with = |key| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(key))]);
        let here = Caller::Address([127, 0, 0, 1].into());
        assert_ne!(Client::of(here, &with("Bearer a")), Client::of(here, &with("Bearer b")));
        assert_eq!(Client::of(here, &HeaderMap::new()), Client::Caller(here));
        let there = Caller::Address([10, 0, 0, 9].into());
        assert_eq!(Client::of(there, &with("Bearer a")), Client::of(there, &with("Bearer b")));
    }

    async fn owned(turns: Arc<Turns>, client: Client, answers: usize) -> Result<Turn, Full> {
        turns.take(client, answers, LONG).await
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn whatever_comes_goes_and_gives_up_nothing_is_lost_or_run_twice(
            steps in prop::collection::vec((0u8..4, 1usize..4, 0u8..3), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let turns = turns(3, 4);
                let (mut held, mut waiting) = (Vec::new(), Vec::new());
                for (one, answers, what) in steps {
                    match what {
                        0 if !held.is_empty() => drop(held.remove(0)),
                        1 if !waiting.is_empty() => drop(waiting.remove(0)),
                        _ => waiting.push(Box::pin(owned(Arc::clone(&turns), client(one), answers))),
                    }
                    // Twice: who comes last may turn away who was looked at before.
                    for _ in 0..2 {
                        waiting.retain_mut(|one| match one.as_mut().now_or_never() {
                            None => true,
                            Some(done) => {
                                held.extend(done.ok());
                                false
                            }
                        });
                    }
                    let running = turns.lock().answers();
                    prop_assert_eq!(running, held.iter().map(|turn: &Turn| turn.answers).sum::<usize>());
                    prop_assert!(running <= 3 || held.len() == 1);
                    prop_assert_eq!(turns.waiting(), waiting.len());
                    prop_assert!(turns.waiting() <= 4);
                    prop_assert!(!held.is_empty() || waiting.is_empty(), "somebody waits for nobody");
                }
                Ok(())
            })?;
        }
    }
}
