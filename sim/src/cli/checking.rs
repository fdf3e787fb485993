//! `check`: many seeds, judged by the oracles. `replay`: one seed again, with everything that happened.

use std::path::Path;

use sim::outcome::{Outcome, Status};
use sim::report::perfetto;
use sim::scenario::Scenario;

use super::arguments::{Changes, Check, Replay};
use super::failure::Failure;
use super::session::{self, world_word};

/// What the oracles found in one seed.
struct Finding {
    seed: u64,
    violations: Vec<String>,
    world: sim::scenario::WorldKind,
}

/// Runs every seed of every scenario; fails when an oracle found something in one.
pub(crate) fn check(asked: &Check) -> Result<(), Failure> {
    let mut found = false;
    let mut objects = Vec::new();
    for path in &asked.scenarios {
        let seeds = asked.seeds.all();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let all = session::each(&name, &seeds, |_, seed| judge(path, &asked.changes, *seed))?;
        let bad: Vec<Finding> = all.into_iter().filter(|f| !f.violations.is_empty()).collect();
        found |= !bad.is_empty();
        if asked.json {
            objects.push(object(asked, path, &name, &bad));
        } else {
            super::print(&text(asked, path, &name, &bad))?;
        }
    }
    if asked.json {
        let all =
            if objects.len() == 1 { objects.remove(0) } else { serde_json::json!({ "scenarios": objects }) };
        let text =
            serde_json::to_string_pretty(&all).expect("string keys and finite numbers always serialise");
        super::print(&(text + "\n"))?;
    }
    if found { Err(Failure::Found) } else { Ok(()) }
}

fn judge(path: &Path, changes: &Changes, seed: u64) -> Result<Finding, Failure> {
    let scenario = session::load(path, changes, None, Some(seed))?.scenario;
    let outcome = outcome(&scenario, false)?;
    Ok(Finding { seed, violations: outcome.violations, world: scenario.world })
}

fn outcome(scenario: &Scenario, trace: bool) -> Result<Outcome, Failure> {
    sim::run::run(scenario, scenario.seed, scenario.world, trace)
        .map_err(|error| Failure::Run(scenario.name.clone(), Box::new(error)))
}

fn object(asked: &Check, path: &Path, name: &str, bad: &[Finding]) -> serde_json::Value {
    let failed: Vec<serde_json::Value> = bad
        .iter()
        .map(|f| {
            let replay = replay_command(path, &asked.changes, f);
            serde_json::json!({ "seed": f.seed, "violations": f.violations, "replay": replay })
        })
        .collect();
    let seeds = asked.seeds.all().len();
    serde_json::json!({ "scenario": name, "seeds": seeds, "passed": seeds - bad.len(), "failed": failed })
}

/// What was found; the last line of a failure is the command that replays the first of them.
fn text(asked: &Check, path: &Path, name: &str, bad: &[Finding]) -> String {
    let seeds = asked.seeds.all().len();
    let Some(first) = bad.first() else {
        return format!("{name}: {seeds} seeds, every oracle holds\n");
    };
    let mut text = format!("{name}: {} of {seeds} seeds broke an oracle\n", bad.len());
    for finding in bad {
        for violation in &finding.violations {
            text.push_str(&format!("  seed {}: {violation}\n", finding.seed));
        }
    }
    text + &format!("{}\n", replay_command(path, &asked.changes, first))
}

fn replay_command(path: &Path, changes: &Changes, finding: &Finding) -> String {
    let settings: String =
        changes.settings.iter().map(|s| format!(" --set '{}={}'", s.key, s.value)).collect();
    let world = world_word(finding.world);
    format!("sim replay {} --seed {} --world {world}{settings}", path.display(), finding.seed)
}

/// Runs one seed and prints everything that happened; fails when an oracle found something.
pub(crate) fn replay(asked: &Replay) -> Result<(), Failure> {
    let scenario = session::load(&asked.scenario, &asked.changes, None, asked.seed)?.scenario;
    let outcome = outcome(&scenario, asked.trace.is_some())?;
    if let Some(path) = &asked.trace {
        let names: Vec<String> = scenario.fleet.nodes.iter().map(|n| n.name.clone()).collect();
        perfetto::write(path, &outcome, &names)?;
        eprintln!("timeline in {}; open it at https://ui.perfetto.dev", path.display());
    }
    super::print(&story(&scenario, &outcome))?;
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
    let world = world_word(outcome.world);
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
