//! Scenarios loaded and run: over values of a sweep and over seeds, several at once where the machine has the threads.
//! Each run is deterministic and alone in its thread; results are kept in the order of the asking.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sim::scenario::{Loaded, load_with_files};

use super::arguments::Changes;
use super::failure::Failure;

/// How often the bar is drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// The overrides that `--set` and `--world` come to.
pub(crate) fn overrides(changes: &Changes) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> =
        changes.settings.iter().map(|s| (s.key.clone(), s.value.clone())).collect();
    if let Some(world) = changes.world {
        found.push(("run.world".into(), world.as_str().into()));
    }
    found
}

/// Runs that are worth doing at once: one for each processor.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Loads a scenario with the changes of the command line and one more.
pub(crate) fn load(
    path: &Path,
    changes: &Changes,
    more: Option<(&str, &str)>,
    seed: Option<u64>,
) -> Result<Loaded, Failure> {
    let mut overrides = overrides(changes);
    overrides.extend(more.map(|(key, value)| (key.to_owned(), value.to_owned())));
    Ok(load_with_files(path, &overrides, seed)?)
}

/// Does `work` for every job, on all processors, and gives the results in the order of the jobs; the first failure in
/// that order is the failure of all.
pub(crate) fn each<J: Sync, T: Send>(
    label: &str,
    jobs: &[J],
    work: impl Fn(usize, &J) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    let bar = progress(label, jobs.len());
    let threads = threads().min(jobs.len());
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<T, Failure>)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, job)) = take(&next, jobs) {
                    let result = work(i, job);
                    if result.is_err() {
                        // Jobs are taken in order, so that all before this one are under way; later ones are not needed.
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    bar.inc(1);
                    done.lock().expect("no job panics while it holds the lock").push((i, result));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("all threads have ended");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, J>(next: &AtomicUsize, jobs: &'a [J]) -> Option<(usize, &'a J)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(i).map(|job| (i, job))
}

/// On stderr, where a person looks: a bar over several runs, a sign of life for a single one.
pub(crate) fn progress(label: &str, jobs: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template =
        if jobs > 1 { "{msg} {wide_bar} {pos}/{len}, {eta} left" } else { "{spinner} {msg}, {elapsed}" };
    let bar = ProgressBar::with_draw_target(Some(jobs as u64), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("both templates are right"));
    bar.set_message(label.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}
