//! Deterministic simulation testing: many seeds of a scenario, each judged by all oracles. A seed that fails is a bug with
//! its reproduction: the same seed fails in the same way, and `replay` shows how.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::record::Recorded;
use crate::report::json::engine_name;
use crate::run::{Recording, RunError, record};
use crate::scenario::{EngineKind, Scenario, ScenarioError, WorldKind, load};

/// What is to be checked.
#[derive(Debug, Clone)]
pub struct Check {
    /// The scenario's file; what it draws from ranges is drawn anew for each seed.
    pub path: PathBuf,
    /// Keys and values that go before the file's own.
    pub overrides: Vec<(String, String)>,
    /// Which seeds.
    pub seeds: RangeInclusive<u64>,
    /// In which world; `None`: the scenario's own.
    pub world: Option<WorldKind>,
    /// How many seeds run side by side. Runs share nothing: their number changes no result.
    pub threads: usize,
    /// The check ends after so many seeds have failed.
    pub failures_most: usize,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What the oracles found, or why it could not be run.
    pub violations: Vec<String>,
    /// The command that shows it again.
    pub replay: String,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Seeds that were run.
    pub checked: u64,
    /// Requests that were completed, over all seeds.
    pub completed: u64,
    /// Requests of these that had to begin again.
    pub resumed: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Seeds that failed, ascending.
    pub failures: Vec<Failure>,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Seeds done.
    pub done: u64,
    /// Seeds of these that failed.
    pub failed: u64,
    /// Seeds in all.
    pub total: u64,
}

/// Why a check or a replay cannot begin.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CheckError {
    /// The scenario is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Scenario(#[from] ScenarioError),
    /// It cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The oracles judge this project's ring, not what others built.
    #[error(
        "the engine of {scenario} is {engine}, a baseline that is played, not run; check it with --set run.engine=ring"
    )]
    Baseline {
        /// Which scenario.
        scenario: String,
        /// Which engine.
        engine: String,
    },
}

/// Runs the seeds. `watch` hears of each seed that is done; it is called from the threads that run them.
///
/// # Errors
/// When the scenario cannot be read with the first seed. A seed that cannot be run counts as a failure.
pub fn check(check: &Check, watch: &(dyn Fn(Progress) + Sync)) -> Result<Verdict, CheckError> {
    let (first, last) = (*check.seeds.start(), *check.seeds.end());
    runnable(&check.path, &check.overrides, check.world, first)?;
    let total = (last.saturating_add(1)).saturating_sub(first);
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let verdict = Mutex::new(Verdict::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > last {
                return;
            }
            let judged = judge(check, seed);
            let mut verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner);
            verdict.add(check, seed, judged);
            stop.fetch_or(verdict.failures.len() >= check.failures_most.max(1), Ordering::Relaxed);
            watch(Progress { done: verdict.checked, failed: verdict.failures.len() as u64, total });
        }
    };
    thread::scope(|scope| {
        for _ in 0..check.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut verdict = verdict.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Seeds are taken in order and every one that was taken is finished: the first failures are the same whoever found
    // them.
    verdict.failures.sort_by_key(|failure| failure.seed);
    verdict.failures.truncate(check.failures_most.max(1));
    Ok(verdict)
}

impl Verdict {
    fn add(&mut self, check: &Check, seed: u64, judged: Result<Recording, String>) {
        self.checked += 1;
        let violations = match judged {
            Ok(recording) => {
                let requests = &recording.outcome.requests;
                self.completed +=
                    requests.iter().filter(|r| r.tokens.len() as u32 == r.output).count() as u64;
                self.resumed += requests.iter().filter(|r| r.resumptions > 0).count() as u64;
                self.faults += recording.struck.len() as u64;
                recording.outcome.violations
            }
            Err(why) => vec![why],
        };
        if !violations.is_empty() {
            self.failures.push(Failure { seed, violations, replay: replay_command(check, seed) });
        }
    }
}

/// Runs one seed. A panic is a failure like any other, and not the end of the check.
fn judge(check: &Check, seed: u64) -> Result<Recording, String> {
    let run = || -> Result<Recording, CheckError> {
        let scenario = runnable(&check.path, &check.overrides, check.world, seed)?;
        Ok(record(&scenario, seed, scenario.world, false)?)
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ran) => ran.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("without a text")))
        }
    }
}

/// The scenario as the seed draws it, if it is one that nodes run.
fn runnable(
    path: &Path,
    overrides: &[(String, String)],
    world: Option<WorldKind>,
    seed: u64,
) -> Result<Scenario, CheckError> {
    let mut overrides = overrides.to_vec();
    overrides.extend(world.map(|world| ("run.world".to_owned(), world.as_str().to_owned())));
    let scenario = load(path, &overrides, Some(seed))?;
    if scenario.engine == EngineKind::Ring {
        return Ok(scenario);
    }
    Err(CheckError::Baseline { engine: engine_name(scenario.engine), scenario: scenario.name })
}

fn replay_command(check: &Check, seed: u64) -> String {
    let world = check.world.map_or_else(String::new, |world| format!(" --world {}", world.as_str()));
    let set = check.overrides.iter().map(|(key, value)| format!(" --set '{key}={value}'"));
    format!(
        "cargo run --release -p sim -- replay {} --seed {seed}{world}{}",
        check.path.display(),
        set.collect::<String>()
    )
}

/// One seed, run again.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The scenario as the seed draws it.
    pub scenario: Scenario,
    /// What came of it.
    pub recording: Recording,
    /// Everything that happened, a line an event, in order: `SECONDS NODE WHAT`, faults with a star for the node.
    pub log: Vec<String>,
}

/// Runs one seed (the scenario's own where none is given), and tells everything that happened.
///
/// # Errors
/// When the scenario cannot be read or run.
pub fn replay(
    path: &Path,
    overrides: &[(String, String)],
    seed: Option<u64>,
    world: Option<WorldKind>,
) -> Result<Replayed, CheckError> {
    let scenario = match seed {
        Some(seed) => runnable(path, overrides, world, seed)?,
        // Without a seed of its own the scenario has to be read to know which.
        None => runnable(path, overrides, world, load(path, overrides, None)?.seed)?,
    };
    let recording = record(&scenario, scenario.seed, scenario.world, true)?;
    let fault =
        |(at_ns, kind): &(u64, _)| (*at_ns, format!("* {}", crate::faults::describe(kind, &scenario.fleet)));
    let told = recording.events.iter().filter(|recorded| !recorded.event.is_step());
    let event = |recorded: &Recorded| {
        let node = &scenario.fleet.node(recorded.node).name;
        (recorded.at_ns, format!("{node} {:?}", recorded.event))
    };
    let mut lines: Vec<(u64, String)> = recording.struck.iter().map(fault).chain(told.map(event)).collect();
    lines.sort_by_key(|(at_ns, _)| *at_ns);
    let lines = lines.into_iter().map(|(at_ns, what)| format!("{:12.6} {what}", at_ns as f64 / 1e9));
    Ok(Replayed { log: lines.collect(), scenario, recording })
}
