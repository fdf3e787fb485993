//! `bench plots`: every shipped scenario and a few sweeps, in the memory world, as CSV and figures under `results/`.

mod sweeps;

use std::path::{Path, PathBuf};

use clap::Args;
use planner::place::place;
use sim::advice::advise;
use sim::outcome::Answer;
use sim::report::json::{Report, SweepFacts};
use sim::report::manifest::Manifest;
use sim::report::{Advice, ReportError, csv, plots, write_text};
use sim::scenario::{self, Loaded, Scenario, ScenarioError, WorldKind};

pub use sweeps::{SWEEPS, SweepSpec};

/// What `bench plots` takes.
#[derive(Debug, Clone, Args)]
pub struct PlotsArgs {
    /// Directory of the scenarios to run.
    #[arg(long, default_value = "scenarios")]
    pub scenarios: PathBuf,
    /// Directory of the scenarios to sweep.
    #[arg(long, default_value = "bench/sweeps")]
    pub sweeps: PathBuf,
    /// Where CSVs, figures and manifests go.
    #[arg(long, default_value = "results/plots")]
    pub out: PathBuf,
    /// Seeds at each point of a sweep, from 1 on: the figures show the 95 % interval of their mean.
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
}

/// Why `bench plots` stopped.
#[derive(Debug, thiserror::Error)]
pub enum PlotsError {
    /// A scenario is not right.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A scenario could not be run.
    #[error("cannot run {}: {cause}", path.display())]
    Run {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: sim::run::RunError,
    },
    /// A directory could not be read.
    #[error("cannot list {}: {cause}; give the directory with --scenarios", path.display())]
    List {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A result could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Runs everything and writes it under `args.out`. `progress` is told what comes next, and which scenario could not
/// be run.
///
/// # Errors
/// The first scenario that could not be read or run, after all others; or the first file that could not be written.
pub fn run(args: &PlotsArgs, progress: &mut impl FnMut(&str)) -> Result<(), PlotsError> {
    let failed = all_scenarios(args, progress)?;
    for spec in &SWEEPS {
        one_sweep(spec, args, progress)?;
    }
    failed.map_or(Ok(()), Err)
}

/// Every scenario and the figure that holds them all. Returns why the first failed that could not be run.
fn all_scenarios(
    args: &PlotsArgs,
    progress: &mut impl FnMut(&str),
) -> Result<Option<PlotsError>, PlotsError> {
    let (mut reports, mut failed) = (Vec::new(), None);
    for path in scenario_files(&args.scenarios)? {
        progress(&format!("scenario {}", path.display()));
        match one_scenario(&path, &args.out) {
            Ok(report) => reports.push(report),
            Err(error @ PlotsError::Report(_)) => return Err(error),
            Err(error) => {
                progress(&error.to_string());
                failed = failed.or(Some(error));
            }
        }
    }
    plots::overview("What would each of the shipped scenarios give?", &reports)
        .save(&args.out, "scenarios")?;
    Ok(failed)
}

/// The TOML files directly in `directory`, by name.
fn scenario_files(directory: &Path) -> Result<Vec<PathBuf>, PlotsError> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect()
    };
    let mut paths = list().map_err(|cause| PlotsError::List { path: directory.to_owned(), cause })?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    Ok(paths)
}

fn load(path: &Path, more: &[(&str, &str)], seed: Option<u64>) -> Result<Loaded, PlotsError> {
    let overrides: Vec<(String, String)> =
        more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Ok(scenario::load_with_files(path, &overrides, seed)?)
}

/// The scenario's answer in the memory world.
fn answer(path: &Path, scenario: &Scenario) -> Result<Answer, PlotsError> {
    let failed = |cause| PlotsError::Run { path: path.to_owned(), cause };
    sim::run::answer(scenario, scenario.seed, WorldKind::Memory, false).map_err(failed)
}

fn one_scenario(path: &Path, out: &Path) -> Result<Report, PlotsError> {
    let Loaded { scenario, files } = load(path, &[], None)?;
    let directory = out.join(&scenario.name);
    let answer = answer(path, &scenario)?;
    let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
    let report = Report::new(&scenario, &answer, &advise(&scenario, &placement));
    sim::report::write_all(&directory, &scenario, &answer, &report)?;
    Manifest::new(&scenario, &files, None).write(&directory)?;
    Ok(report)
}

fn one_sweep(spec: &SweepSpec, args: &PlotsArgs, progress: &mut impl FnMut(&str)) -> Result<(), PlotsError> {
    let path = args.sweeps.join(spec.name).with_extension("toml");
    let mut points = Vec::new();
    for value in spec.values {
        progress(&format!("sweep {}: {} = {value}", spec.name, spec.key));
        let reports: Result<Vec<Report>, PlotsError> =
            (1..=args.seeds.max(1)).map(|seed| one_point(&path, spec.key, value, seed)).collect();
        points.push(((*value).to_owned(), reports?));
    }
    let Loaded { scenario, files } = load(&path, &[], None)?;
    let facts = SweepFacts::of(spec.key, &points);
    let directory = args.out.join(spec.name);
    write_text(&directory.join("sweep.csv"), &csv::sweep_text(&facts))?;
    for metric in spec.metrics {
        plots::sweep(&scenario.question, spec.x_name, &facts, *metric).save(&directory, metric.stem())?;
    }
    Manifest::new(&scenario, &files, None).write(&directory)?;
    Ok(())
}

fn one_point(path: &Path, key: &str, value: &str, seed: u64) -> Result<Report, PlotsError> {
    let loaded = load(path, &[(key, value)], Some(seed))?;
    let answer = answer(path, &loaded.scenario)?;
    // Curves show no advice, and asking for it costs more than the run.
    Ok(Report::new(&loaded.scenario, &answer, &Advice::default()))
}

#[cfg(test)]
mod tests;
