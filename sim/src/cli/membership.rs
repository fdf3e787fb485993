//! `membership`: meshes of members alone, over one seed or many.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use sim::membership::spec::Spec;
use sim::membership::{Outcome, Way, report, run_so};

use super::arguments::{Check, Membership, Replay};
use super::failure::Failure;
use super::session;

/// Seeds that break a promise until the rest are not run: the first is worth a look.
const FAILURES_MOST: usize = 10;

/// Runs every file; fails when an oracle found something.
pub(crate) fn run_all(asked: &Membership) -> Result<(), Failure> {
    let mut found = false;
    for path in &asked.files {
        let mut spec = Spec::load(path).map_err(|error| Failure::Usage(error.to_string()))?;
        spec.nodes = asked.nodes.unwrap_or(spec.nodes);
        let spec = spec.checked().map_err(|error| Failure::Usage(error.to_string()))?;
        found |= match asked.seeds {
            Some(seeds) => many(asked, path, &spec, &seeds.all())?,
            None => one(asked, path, &spec, asked.seed.unwrap_or(spec.seed))?,
        };
    }
    if found { Err(Failure::Found) } else { Ok(()) }
}

/// `check`, of a mesh of members; gives whether an oracle found something.
pub(crate) fn check(asked: &Check, path: &Path) -> Result<bool, Failure> {
    let spec = Spec::load(path).map_err(|error| Failure::Usage(error.to_string()))?;
    settled(&asked.changes)?;
    let seeds = asked.seeds.all();
    let asked = Membership {
        files: vec![path.to_owned()],
        seed: None,
        seeds: Some(asked.seeds),
        world: asked.changes.world,
        log: false,
        nodes: None,
        json: asked.json,
    };
    many(&asked, path, &spec, &seeds)
}

/// `replay`, of a mesh of members.
pub(crate) fn replay(asked: &Replay) -> Result<(), Failure> {
    settled(&asked.changes)?;
    run_all(&Membership {
        files: vec![asked.scenario.clone()],
        seed: asked.seed,
        seeds: None,
        world: asked.changes.world,
        log: true,
        nodes: None,
        json: false,
    })
}

fn settled(changes: &super::arguments::Changes) -> Result<(), Failure> {
    match changes.settings.first() {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(
            "`--set` is for scenarios of requests; change the file of a mesh of members".into(),
        )),
    }
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn again(asked: &Membership, path: &Path, seed: u64) -> String {
    let nodes = asked.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    let world = asked.world.map_or_else(String::new, |world| format!(" --world {}", world.as_str()));
    format!("cargo run --release -p sim -- membership {} --seed {seed}{nodes}{world}\n", path.display())
}

fn one(asked: &Membership, path: &Path, spec: &Spec, seed: u64) -> Result<bool, Failure> {
    let way = Way { world: asked.world, is_logged: asked.log, ..Way::default() };
    let (outcome, log) = run_so(spec, seed, way);
    for line in log {
        super::print(&(line + "\n"))?;
    }
    if asked.json {
        let text =
            serde_json::to_string_pretty(&outcome).expect("string keys and finite numbers always serialise");
        super::print(&(text + "\n"))?;
    } else {
        super::print(&report::text(&name(path), &outcome))?;
    }
    Ok(!outcome.violations.is_empty())
}

/// All that is told of many runs.
#[derive(Default)]
struct Sum {
    checked: usize,
    faults: usize,
    false_downs: u64,
    refused: u64,
    broken: Vec<Outcome>,
}

/// Runs the seeds on all processors, until so many have failed that the rest are not worth the time.
fn sum(asked: &Membership, spec: &Spec, seeds: &[u64], watch: &(dyn Fn() + Sync)) -> Sum {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let (outcome, _) = run_so(spec, *seed, Way { world: asked.world, ..Way::default() });
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            (sum.checked, sum.faults) = (sum.checked + 1, sum.faults + outcome.faults);
            sum.false_downs += outcome.false_downs;
            sum.refused += outcome.refused;
            if !outcome.violations.is_empty() {
                sum.broken.push(outcome);
            }
            stop.fetch_or(sum.broken.len() >= FAILURES_MOST, Ordering::Relaxed);
            watch();
        }
    };
    thread::scope(|scope| {
        for _ in 0..session::threads().max(1) {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.broken.sort_by_key(|outcome| outcome.seed);
    sum.broken.truncate(FAILURES_MOST);
    sum
}

fn many(asked: &Membership, path: &Path, spec: &Spec, seeds: &[u64]) -> Result<bool, Failure> {
    let bar = session::progress(&name(path), seeds.len());
    let Sum { checked, faults, false_downs, refused, broken } = sum(asked, spec, seeds, &|| bar.inc(1));
    bar.finish_and_clear();
    let name = name(path);
    if asked.json {
        let object = serde_json::json!({ "file": name, "checked": checked, "faults": faults,
            "false_downs": false_downs, "refused": refused, "broken": broken });
        let text =
            serde_json::to_string_pretty(&object).expect("string keys and finite numbers always serialise");
        super::print(&(text + "\n"))?;
    } else if broken.is_empty() {
        super::print(&format!(
            "{name}: {checked} seeds, every oracle holds; {faults} faults, {false_downs} members taken for dead without \
             a reason, {refused} items refused\n"
        ))?;
    } else {
        super::print(&format!("{name}: of {checked} seeds these broke a promise\n"))?;
        for outcome in &broken {
            for violation in &outcome.violations {
                super::print(&format!("  seed {}: {violation}\n", outcome.seed))?;
            }
        }
        super::print(&again(asked, path, broken[0].seed))?;
    }
    Ok(!broken.is_empty())
}
