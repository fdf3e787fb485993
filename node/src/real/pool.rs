//! The engine's own threads: they spin briefly between pieces of work, then park.
//!
//! A decode step forks and joins some hundred times, so a fork must cost about a microsecond, which only threads that
//! are awake can give. A node that waits for requests must use no processor at all, so they do not stay awake.
//!
//! Each thread has parts of its own, the same ones whenever the same work comes again, so that what they read lies in its
//! caches; who has done its own takes what others have not begun.
//!
//! Nobody waits for a thread that is not there: who is late (parked, or descheduled) finds the work done, and the
//! caller, who works too, has waited only for those that had begun.

use std::any::Any;
use std::cell::Cell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::kernels::erased::Borrowed;

/// Turns of a waiting loop before a worker parks: some 100 us, longer than what a step does between two forks.
const SPINS_BEFORE_PARKING: u32 = 4_000;

/// Turns of the caller's waiting loop before it lets others run: who it waits for may have no core.
const SPINS_BEFORE_YIELDING: u32 = 500;

/// The work of one [`Pool::run`].
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// A generation's number is above these bits; below it, whether workers may still enter, and how many are inside.
const GENERATION: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
/// No generation is this: the threads shall end.
const CLOSED_DOWN: u64 = !(OPEN | INSIDE);

thread_local! {
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Threads that share out the parts of one piece of work after the other.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by whoever runs work, so that two callers come one after the other.
    turn: Mutex<()>,
}

struct Shared {
    /// Generation, open, inside: see [`GENERATION`].
    state: Apart<AtomicU64>,
    work: Borrowed<Work<'static>>,
    /// One for each thread, the caller's first.
    hands: Vec<Apart<Hand>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Workers that are parked, or about to be.
    parked: Mutex<usize>,
    parked_hint: AtomicUsize,
    wake: Condvar,
}

/// The parts of one thread that nobody has begun.
#[derive(Default)]
struct Hand {
    /// The first of them; beyond `end` when there are none.
    next: AtomicUsize,
    end: AtomicUsize,
}

/// On cache lines of its own: what one thread waits on, and what others write meanwhile, must not share one.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Pool {
    /// A pool of `threads`, the caller's counted: `threads - 1` are started. Zero reads as one.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::new(threads.max(1)));
        let workers = (1..threads).map_while(|number| Shared::start(&shared, number)).collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// As many threads as the machine lets us have physical cores: a second thread on a core only shares its
    /// memory bandwidth.
    pub fn default_threads() -> usize {
        let allowed = thread::available_parallelism().map_or(1, usize::from);
        allowed.min(num_cpus::get_physical()).max(1)
    }

    /// How many threads work, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(part)` for every part of `0..parts`, on all threads, the caller's included; returns when all are done.
    ///
    /// Called from within a part it runs everything on the thread that asks.
    ///
    /// # Panics
    /// Where a part panics: no further parts are begun, and the panic goes on in the caller.
    pub fn run(&self, parts: usize, f: &Work<'_>) {
        if self.workers.is_empty() || parts < 2 || AT_WORK.get() {
            (0..parts).for_each(f);
            return;
        }
        let _turn = locked(&self.turn);
        self.shared.open(parts, f);
        self.shared.take_parts(0, f);
        self.shared.close();
        if let Some(panic) = locked(&self.shared.panic).take() {
            resume_unwind(panic);
        }
    }

    /// Runs `work` over each item, on all threads.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub(super) fn each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync) {
        if items.len() < 2 || self.threads() == 1 {
            items.into_iter().for_each(work);
            return;
        }
        let slots: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        self.run(slots.len(), &|part| {
            let item = locked(&slots[part]).take();
            if let Some(item) = item {
                work(item);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.store(CLOSED_DOWN, Ordering::SeqCst);
        self.shared.wake_all();
        for worker in self.workers.drain(..) {
            // A worker catches what its parts throw, so there is nothing to hear from it.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            state: Apart(AtomicU64::new(0)),
            work: Borrowed::none(),
            hands: (0..threads).map(|_| Apart(Hand::default())).collect(),
            panic: Mutex::new(None),
            parked: Mutex::new(0),
            parked_hint: AtomicUsize::new(0),
            wake: Condvar::new(),
        }
    }

    /// Starts a worker, or gives none where the system has no thread left: the pool is then smaller.
    fn start(shared: &Arc<Self>, number: usize) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(shared);
        thread::Builder::new().name(format!("engine-{number}")).spawn(move || shared.serve(number)).ok()
    }

    fn open(&self, parts: usize, f: &Work<'_>) {
        self.work.lend(f);
        for (number, hand) in self.hands.iter().enumerate() {
            hand.next.store(number * parts / self.hands.len(), Ordering::Relaxed);
            hand.end.store((number + 1) * parts / self.hands.len(), Ordering::Relaxed);
        }
        let generation = self.state.load(Ordering::Relaxed) & !(OPEN | INSIDE);
        self.state.store(generation.wrapping_add(GENERATION) | OPEN, Ordering::SeqCst);
        if self.parked_hint.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }

    /// Lets nobody enter any more and waits for those inside.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELDING { std::hint::spin_loop() } else { thread::yield_now() }
        }
        self.work.take_back();
    }

    /// Takes part after part until none is left, its own first. A panic is kept for the caller, and ends the work.
    fn take_parts(&self, thread: usize, f: &Work<'_>) {
        AT_WORK.set(true);
        let (before, own_and_after) = self.hands.split_at(thread);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for hand in own_and_after.iter().chain(before) {
                loop {
                    let part = hand.next.fetch_add(1, Ordering::Relaxed);
                    if part >= hand.end.load(Ordering::Relaxed) {
                        break;
                    }
                    f(part);
                }
            }
        }));
        AT_WORK.set(false);
        if let Err(panic) = outcome {
            for hand in &self.hands {
                hand.end.store(0, Ordering::Relaxed);
            }
            locked(&self.panic).get_or_insert(panic);
        }
    }

    fn serve(&self, thread: usize) {
        let mut seen = 0;
        while let Some(state) = self.wait_for_work(seen) {
            seen = state & !(OPEN | INSIDE);
            if self.enter(seen) {
                self.work.with(|f| self.take_parts(thread, f));
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Enters the generation, unless it is over.
    fn enter(&self, generation: u64) -> bool {
        let inside_one_more =
            |state| (state & OPEN != 0 && state & !(OPEN | INSIDE) == generation).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, inside_one_more).is_ok()
    }

    /// The state, once it is open and of a generation that was not seen; none when the threads shall end.
    fn wait_for_work(&self, seen: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if state == CLOSED_DOWN {
                return None;
            }
            if is_news(state, seen) {
                return Some(state);
            }
            spins += 1;
            if spins < SPINS_BEFORE_PARKING {
                std::hint::spin_loop();
            } else {
                self.park(seen);
                spins = 0;
            }
        }
    }

    fn park(&self, seen: u64) {
        let mut parked = locked(&self.parked);
        *parked += 1;
        self.parked_hint.store(*parked, Ordering::SeqCst);
        // Who opens work after this look finds `parked_hint` above zero, and must get the lock to wake us.
        while !is_news(self.state.load(Ordering::SeqCst), seen) {
            parked = self.wake.wait(parked).unwrap_or_else(PoisonError::into_inner);
        }
        *parked -= 1;
        self.parked_hint.store(*parked, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        let _parked = locked(&self.parked);
        self.wake.notify_all();
    }
}

/// Whether there is something to do for who has seen `seen`: to enter, or to end.
fn is_news(state: u64, seen: u64) -> bool {
    state == CLOSED_DOWN || (state & OPEN != 0 && state & !(OPEN | INSIDE) != seen)
}

/// The lock, whatever became of its last holder: what it guards is valid at any moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parts_seen(pool: &Pool, parts: usize) -> Vec<usize> {
        let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        pool.run(parts, &|part| {
            counts[part].fetch_add(1, Ordering::Relaxed);
        });
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn every_part_runs_once_for_any_number_of_threads() {
        for threads in [0, 1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for parts in [0, 1, 2, 7, 100] {
                assert_eq!(parts_seen(&pool, parts), vec![1; parts], "{threads} threads");
            }
        }
    }

    #[test]
    fn many_short_pieces_of_work_are_all_done() {
        let pool = Pool::new(3);
        let done = AtomicUsize::new(0);
        for _ in 0..20_000 {
            pool.run(3, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(done.into_inner(), 60_000);
    }

    #[test]
    fn parked_threads_wake_for_new_work() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            while *locked(&pool.shared.parked) == 0 {
                thread::yield_now();
            }
            // Two parts that wait for each other: the worker must come.
            let met = std::sync::Barrier::new(2);
            pool.run(2, &|_| {
                met.wait();
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for guilty in 0..8 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, &|part| {
                    thread::sleep(Duration::from_micros(50));
                    assert_ne!(part, guilty, "the guilty part");
                });
            }));
            assert!(outcome.is_err());
            assert_eq!(parts_seen(&pool, 5), vec![1; 5]);
        }
    }

    #[test]
    fn work_within_work_runs_where_it_is_asked_for() {
        let pool = Pool::new(2);
        let inner = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(4, &|_| {
                inner.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(inner.into_inner(), 16);
    }

    #[test]
    fn two_callers_take_turns() {
        let pool = Pool::new(2);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        assert_eq!(parts_seen(&pool, 3), vec![1; 3]);
                    }
                });
            }
        });
    }
}
