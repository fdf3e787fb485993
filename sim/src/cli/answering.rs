//! The bare form: run scenarios, print what came of them, write tables and plots.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use sim::outcome::Answer as Outcomes;
use sim::report::json::{Report, SeedsFacts, SweepFacts};
use sim::report::{self, csv, manifest::Manifest, perfetto, summary};
use sim::scenario::{Loaded, Scenario};

use super::arguments::Answer;
use super::failure::Failure;
use super::session;

/// One run to do: with this value of the sweep, from this seed.
struct Job {
    value: Option<String>,
    seed: Option<u64>,
}

/// What came of one run; all but the report only of the first.
struct Done {
    report: Report,
    kept: Option<(Loaded, Outcomes)>,
}

/// A scenario's whole answer.
struct Answered {
    loaded: Loaded,
    outcomes: Outcomes,
    report: Report,
    wall_s: f64,
}

/// Runs the scenarios and prints their answers.
pub(crate) fn answer(asked: &Answer) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for (i, path) in asked.scenarios.iter().enumerate() {
        let answered = run(asked, path)?;
        if !asked.json {
            let gap = if i == 0 { "" } else { "\n" };
            super::print(&format!("{gap}{}", summary::text(&answered.report, style())))?;
        }
        write_files(asked, &answered)?;
        report_speed(&answered);
        reports.push(answered.report);
    }
    if asked.json {
        super::print(&object(&reports))?;
    }
    if reports.iter().any(|r| !violations(r).is_empty()) {
        return Err(Failure::Found);
    }
    Ok(())
}

fn style() -> summary::Style {
    if std::io::stdout().is_terminal() { summary::Style::Terminal } else { summary::Style::Plain }
}

/// One report as it is, several below one key.
fn object(reports: &[Report]) -> String {
    match reports {
        [one] => one.to_json(),
        several => {
            let all = serde_json::json!({ "scenarios": several });
            let text =
                serde_json::to_string_pretty(&all).expect("string keys and finite numbers always serialise");
            text + "\n"
        }
    }
}

/// What the oracles found, over all seeds and values.
fn violations(report: &Report) -> Vec<&String> {
    let seeds = report.seeds.iter().flat_map(|s| &s.violations);
    let points = report.sweep.iter().flat_map(|s| &s.points).flat_map(|p| &p.result.violations);
    report.violations.iter().chain(seeds).chain(points).collect()
}

fn run(asked: &Answer, path: &Path) -> Result<Answered, Failure> {
    let jobs = jobs(asked);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let clock = Stopwatch::start();
    let mut done = session::each(&name, &jobs, |i, job| one(asked, path, job, i == 0))?;
    let wall_s = clock.seconds();
    let kept = done.first_mut().and_then(|first| first.kept.take());
    let (loaded, outcomes) = kept.expect("there is at least one job, and the first keeps all");
    let reports: Vec<Report> = done.into_iter().map(|d| d.report).collect();
    Ok(Answered { loaded, outcomes, report: combined(asked, reports), wall_s })
}

/// Every value of the sweep with every seed, values outermost.
fn jobs(asked: &Answer) -> Vec<Job> {
    let values = match &asked.sweep {
        Some(sweep) => sweep.values.iter().map(|v| Some(v.clone())).collect(),
        None => vec![None],
    };
    let seeds = match asked.seeds {
        Some(seeds) => seeds.all().into_iter().map(Some).collect(),
        None => vec![asked.seed],
    };
    let of = |value: &Option<String>| {
        seeds.iter().map(|seed| Job { value: value.clone(), seed: *seed }).collect::<Vec<_>>()
    };
    values.iter().flat_map(of).collect()
}

fn one(asked: &Answer, path: &Path, job: &Job, first: bool) -> Result<Done, Failure> {
    let more = asked
        .sweep
        .as_ref()
        .zip(job.value.as_ref())
        .map(|(sweep, value)| (sweep.key.as_str(), value.as_str()));
    let loaded = session::load(path, &asked.changes, more, job.seed)?;
    let (outcomes, report) = outcomes(&loaded.scenario, first && asked.trace.is_some())?;
    Ok(Done { report, kept: first.then_some((loaded, outcomes)) })
}

fn outcomes(scenario: &Scenario, trace: bool) -> Result<(Outcomes, Report), Failure> {
    let answer = sim::run::answer(scenario, scenario.seed, scenario.world, trace)
        .map_err(|error| Failure::Run(scenario.name.clone(), Box::new(error)))?;
    let placement = planner::place::place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
    let advice = sim::advice::advise(scenario, &placement);
    let report = Report::new(scenario, &answer, &advice);
    Ok((answer, report))
}

/// The first report, with what all of them say together.
fn combined(asked: &Answer, mut reports: Vec<Report>) -> Report {
    let per_value = asked.seeds.map_or(1, |s| s.all().len());
    let mut first = reports[0].clone();
    if asked.seeds.is_some() {
        first.seeds = Some(SeedsFacts::of(&reports[..per_value]));
    }
    if let Some(sweep) = &asked.sweep {
        let mut points = Vec::with_capacity(sweep.values.len());
        for value in &sweep.values {
            let rest = reports.split_off(per_value.min(reports.len()));
            points.push((value.clone(), std::mem::replace(&mut reports, rest)));
        }
        first.sweep = Some(SweepFacts::of(&sweep.key, &points));
    }
    first
}

fn write_files(asked: &Answer, answered: &Answered) -> Result<(), Failure> {
    let Answered { loaded, outcomes, report, wall_s } = answered;
    if let Some(path) = &asked.trace {
        let names: Vec<String> = loaded.scenario.fleet.nodes.iter().map(|n| n.name.clone()).collect();
        perfetto::write(path, &outcomes.main, &names)?;
        eprintln!("timeline in {}; open it at https://ui.perfetto.dev", path.display());
    }
    if asked.no_files {
        return Ok(());
    }
    let folder = folder(asked, &loaded.scenario.name);
    let mut files = if asked.no_plots {
        csv::write(&folder, outcomes, report)?
    } else {
        report::write_all(&folder, &loaded.scenario, outcomes, report)?
    };
    files.push(Manifest::new(&loaded.scenario, &loaded.files, Some(*wall_s)).write(&folder)?);
    eprintln!("{} files in {}", files.len(), folder.display());
    Ok(())
}

fn folder(asked: &Answer, name: &str) -> PathBuf {
    match &asked.out {
        Some(out) if asked.scenarios.len() == 1 => out.clone(),
        Some(out) => out.join(name),
        None => Path::new("results").join(name),
    }
}

/// How fast the simulation was: about the machine it ran on, so to stderr.
fn report_speed(answered: &Answered) {
    let Answered { report, wall_s, .. } = answered;
    let runs = report.sweep.as_ref().map_or(1, |s| s.points.len())
        * report.seeds.as_ref().map_or(1, |s| s.seeds.len());
    let times = if runs == 1 && *wall_s > 0.0 {
        format!(", {:.0} times faster than what it simulated", report.simulated_s / wall_s)
    } else {
        String::new()
    };
    eprintln!("{}: {runs} run(s) in {wall_s:.2} s of wall time{times}", report.scenario);
}

/// Wall time, for stderr and the manifest alone.
struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing simulated sees it: it times the program, for stderr"
    )]
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
