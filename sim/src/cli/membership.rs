//! `membership`: meshes of members alone, over one seed or many.

use std::path::Path;

use sim::membership::spec::Spec;
use sim::membership::{Outcome, report, run};

use super::arguments::Membership;
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

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn replay(asked: &Membership, path: &Path, seed: u64) -> String {
    let nodes = asked.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    format!("cargo run --release -p sim -- membership {} --seed {seed}{nodes}\n", path.display())
}

fn one(asked: &Membership, path: &Path, spec: &Spec, seed: u64) -> Result<bool, Failure> {
    let outcome = run(spec, seed);
    if asked.json {
        let text =
            serde_json::to_string_pretty(&outcome).expect("string keys and finite numbers always serialise");
        super::print(&(text + "\n"))?;
    } else {
        super::print(&report::text(&name(path), &outcome))?;
    }
    Ok(!outcome.violations.is_empty())
}

fn many(asked: &Membership, path: &Path, spec: &Spec, seeds: &[u64]) -> Result<bool, Failure> {
    let bar = session::progress(&name(path), seeds.len());
    let mut broken: Vec<Outcome> = Vec::new();
    let (mut checked, mut faults, mut false_downs, mut refused) = (0, 0, 0, 0);
    for seeds in seeds.chunks(session::threads().max(1)) {
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let runs: Vec<_> = seeds.iter().map(|seed| scope.spawn(move || run(spec, *seed))).collect();
            runs.into_iter().map(|run| run.join().expect("a run that panics has said why")).collect()
        });
        for outcome in outcomes {
            bar.inc(1);
            (checked, faults) = (checked + 1, faults + outcome.faults);
            (false_downs, refused) = (false_downs + outcome.false_downs, refused + outcome.refused);
            if !outcome.violations.is_empty() {
                broken.push(outcome);
            }
        }
        if broken.len() >= FAILURES_MOST {
            break;
        }
    }
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
        super::print(&replay(asked, path, broken[0].seed))?;
    }
    Ok(!broken.is_empty())
}
