//! `check`: many seeds, judged by the oracles. `replay`: one seed again, with everything that happened.

use std::path::Path;

use sim::calibrate::CalibrateError;
use sim::check::{CheckError, Failure as Broken, Verdict};
use sim::membership::spec::Spec;
use sim::outcome::{Outcome, Status};
use sim::recorded::Run;
use sim::report::perfetto;
use sim::scenario::Scenario;

use super::arguments::{Changes, Check, Replay};
use super::failure::Failure;
use super::{membership, session};

/// Seeds that break an oracle until a check is ended: the first is worth a look, a thousand are not worth the time.
const FAILURES_MOST: usize = 10;

/// Runs every seed of every scenario; fails when an oracle found something in one.
pub(crate) fn check(asked: &Check) -> Result<(), Failure> {
    let mut found = false;
    let mut objects = Vec::new();
    for path in &asked.scenarios {
        if Spec::is_in(path) {
            found |= membership::check(asked, path)?;
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let verdict = judge(asked, path, &name)?;
        found |= !verdict.failures.is_empty();
        if asked.json {
            objects.push(object(asked, &name, &verdict));
        } else {
            super::print(&text(&name, &verdict))?;
        }
    }
    if asked.json && !objects.is_empty() {
        let all =
            if objects.len() == 1 { objects.remove(0) } else { serde_json::json!({ "scenarios": objects }) };
        let text =
            serde_json::to_string_pretty(&all).expect("string keys and finite numbers always serialise");
        super::print(&(text + "\n"))?;
    }
    if found { Err(Failure::Found) } else { Ok(()) }
}

fn judge(asked: &Check, path: &Path, name: &str) -> Result<Verdict, Failure> {
    let check = sim::check::Check {
        path: path.to_owned(),
        overrides: settings(&asked.changes),
        seeds: asked.seeds.first..=asked.seeds.last,
        world: asked.changes.world,
        threads: session::threads(),
        failures_most: FAILURES_MOST,
    };
    let bar = session::progress(name, asked.seeds.all().len());
    let verdict = sim::check::check(&check, &|progress| bar.set_position(progress.done));
    bar.finish_and_clear();
    verdict.map_err(|error| failure(name, error))
}

fn settings(changes: &Changes) -> Vec<(String, String)> {
    changes.settings.iter().map(|s| (s.key.clone(), s.value.clone())).collect()
}

fn failure(name: &str, error: CheckError) -> Failure {
    match error {
        CheckError::Scenario(error) => Failure::from(error),
        CheckError::Run(error) => Failure::Run(name.to_owned(), Box::new(error)),
        baseline @ CheckError::Baseline { .. } => Failure::Usage(baseline.to_string()),
    }
}

fn object(asked: &Check, name: &str, verdict: &Verdict) -> serde_json::Value {
    let broken = |broken: &Broken| {
        serde_json::json!({
            "seed": broken.seed, "violations": broken.violations, "replay": broken.replay,
        })
    };
    serde_json::json!({
        "scenario": name,
        "seeds": asked.seeds.all().len(),
        "checked": verdict.checked,
        "requests": { "completed": verdict.completed, "resumed": verdict.resumed },
        "faults": verdict.faults,
        "failed": verdict.failures.iter().map(broken).collect::<Vec<_>>(),
    })
}

/// What was found; the last line of a failure is the command that replays the first of them.
fn text(name: &str, verdict: &Verdict) -> String {
    let Verdict { checked, completed, resumed, faults, failures } = verdict;
    let Some(first) = failures.first() else {
        return format!(
            "{name}: {checked} seeds, every oracle holds; {completed} requests complete, {resumed} of them resumed, \
             through {faults} faults\n"
        );
    };
    let mut text = format!("{name}: of {checked} seeds these broke an oracle\n");
    for broken in failures {
        for violation in &broken.violations {
            text.push_str(&format!("  seed {}: {violation}\n", broken.seed));
        }
    }
    text + &format!("{}\n", first.replay)
}

/// Runs one seed and prints everything that happened; fails when an oracle found something.
pub(crate) fn replay(asked: &Replay) -> Result<(), Failure> {
    let (path, changes) = (&asked.scenario, &asked.changes);
    if path.extension().is_some_and(|kind| kind == "jsonl") {
        let run = Run::read(path).map_err(CalibrateError::from)?;
        return super::print(&(run.log().join("\n") + "\n"));
    }
    if Spec::is_in(path) {
        return membership::replay(asked);
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let replayed = sim::check::replay(path, &settings(changes), asked.seed, changes.world)
        .map_err(|error| failure(&name, error))?;
    let outcome = &replayed.recording.outcome;
    if let Some(path) = &asked.trace {
        let names: Vec<String> = replayed.scenario.fleet.nodes.iter().map(|n| n.name.clone()).collect();
        perfetto::write(path, outcome, &names)?;
        eprintln!("timeline in {}; open it at https://ui.perfetto.dev", path.display());
    }
    if let Some(path) = &asked.record {
        let run = Run::of(&replayed.scenario, &replayed.recording, None);
        run.write(path).map_err(CalibrateError::from)?;
        eprintln!("record in {}; `sim calibrate` makes a scenario of it", path.display());
    }
    super::print(&(replayed.log.join("\n") + "\n\n"))?;
    super::print(&story(&replayed.scenario, outcome))?;
    if outcome.violations.is_empty() { Ok(()) } else { Err(Failure::Found) }
}

/// Everything that happened, by time.
fn story(scenario: &Scenario, outcome: &Outcome) -> String {
    let mut lines: Vec<(f64, String)> = Vec::new();
    for request in &outcome.requests {
        let id = request.session.0;
        let asks = format!(
            "request {id} asks {} for {} tokens after a prompt of {}",
            request.entry, request.output, request.prompt
        );
        lines.push((request.asked_us, asks));
        if let Some(first) = request.tokens_us.first() {
            lines.push((*first, format!("request {id} has its first token")));
        }
        let end = request.ended_us.unwrap_or(outcome.ended_us);
        lines.push((end, format!("request {id} {}", ending(request))));
    }
    for incident in &outcome.incidents {
        let pause = incident
            .pause_us
            .map_or_else(String::new, |us| format!("; tokens flow again after {:.3} ms", us / 1e3));
        lines.push((incident.at_us, format!("{}{pause}", incident.what)));
    }
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let world = outcome.world.as_str();
    let mut text = format!("{} from seed {} in the {world} world\n", scenario.name, outcome.seed);
    for (at_us, line) in lines {
        text.push_str(&format!("{:>14.3} ms  {line}\n", at_us / 1e3));
    }
    text.push_str(&format!(
        "{:>14.3} ms  the run ends in epoch {}\n",
        outcome.ended_us / 1e3,
        outcome.epoch.0
    ));
    for violation in &outcome.violations {
        text.push_str(&format!("broken: {violation}\n"));
    }
    if outcome.violations.is_empty() {
        text.push_str("every oracle holds\n");
    }
    text
}

fn ending(request: &sim::outcome::RequestRecord) -> String {
    let tokens = request.tokens_us.len();
    let resumed = match request.resumptions {
        0 => String::new(),
        n => format!(", resumed {n} times"),
    };
    match &request.status {
        Status::Completed => format!("is complete with {tokens} tokens{resumed}"),
        Status::Refused(why) => format!("is refused: {why}"),
        Status::Failed(why) => format!("failed after {tokens} tokens{resumed}: {why}"),
        Status::Unfinished => format!("is unfinished after {tokens} tokens{resumed}"),
    }
}
