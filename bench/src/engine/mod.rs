//! `bench engine`: our engine and llama.cpp on the same models, turn by turn in one run, as ratios.
//!
//! * [`cases`]: the models, made where they are not there yet.
//! * [`ours`], [`theirs`]: the two sides; llama.cpp's is a process of its own, `bench/scripts/llama.py`.
//! * [`roofline`]: how fast the memory is read, which bounds decoding.
//! * [`rows`], [`figure`]: what was measured, as CSV, text and plot.

mod cases;
mod figure;
mod ours;
mod roofline;
mod rows;
mod theirs;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use node::real::kernels::{KernelError, Level};
use planner::model::gguf::GgufError;
use sim::report::manifest::Manifest;
use sim::report::{ReportError, write_text};

use self::cases::Case;
use self::ours::Ours;
use self::rows::{Row, Test};
use self::theirs::Theirs;
use crate::table::csv;

/// Longer than either side's threads stay awake for more work.
const REST: Duration = Duration::from_millis(20);

/// What `bench engine` takes.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Only models whose name contains this, such as `660m` or `q4_0`.
    #[arg(long, default_value = "")]
    pub only: String,
    /// Threads, each measured by itself.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub threads: Vec<usize>,
    /// Instructions that our kernels may use: avx512, avx2 or portable; the best there is unless given.
    #[arg(long)]
    pub level: Option<String>,
    /// Times each test is run on either side; the middle one counts.
    #[arg(long, default_value_t = 5)]
    pub repeats: u32,
    /// Tokens decoded each time, after 128 of context.
    #[arg(long, default_value_t = 16)]
    pub decode: u32,
    /// Where the models are and are made; `tests/scripts/fetch-models` fetches the real ones.
    #[arg(long, env = "MESHWRIGHT_MODELS", default_value = "target/models")]
    pub models: PathBuf,
    /// Only make the models, so that a measurement can start at once.
    #[arg(long)]
    pub prepare: bool,
    /// The Python that has llama.cpp; `bench/scripts/install-llama` makes it. Where it is not there, ours is measured alone.
    #[arg(long, default_value = "target/llama/bin/python")]
    pub python: PathBuf,
    /// Where CSV, figure and manifest go. Rows of models that this run leaves out stay.
    #[arg(long, default_value = "results/engine")]
    pub out: PathBuf,
}

/// Why `bench engine` stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A model is neither there nor can it be made.
    #[error("{} is not there: tests/scripts/fetch-models fetches it, or give its folder with --models", .0.display())]
    NoModel(PathBuf),
    /// No model has such a name.
    #[error("no model has `{only}` in its name; there are {known}")]
    NoCase {
        /// What was asked for.
        only: String,
        /// The names there are.
        known: String,
    },
    /// A level that is none, or that this machine lacks.
    #[error("--level {0} is none of avx512, avx2, portable, or this machine lacks it")]
    Level(String),
    /// No memory to read for the roofline.
    #[error(transparent)]
    Memory(#[from] KernelError),
    /// A model could not be made.
    #[error("cannot make a model: {0}")]
    Make(String),
    /// A model's header.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Our engine refused.
    #[error("{}: {why}", path.display())]
    Ours {
        /// Which model.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// llama.cpp's process failed.
    #[error("llama.cpp's side failed: {0}; its own words are above")]
    Theirs(io::Error),
    /// A result could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// An earlier result is no table of this bench's.
    #[error("{}: {cause}; move it away", path.display())]
    Earlier {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: csv::Error,
    },
}

/// Measures what was asked for and writes it under `args.out`; the table of this run is returned. `progress` is told
/// what comes next.
///
/// # Errors
/// [`EngineError`].
pub fn run(args: &EngineArgs, progress: &mut impl FnMut(&str)) -> Result<String, EngineError> {
    let level = level(args.level.as_deref())?;
    let chosen = cases::chosen(&args.only)?;
    let mut paths = Vec::new();
    for case in &chosen {
        progress(&format!("model {}", case.name));
        paths.push(case.path(&args.models)?);
    }
    if args.prepare {
        return Ok(String::new());
    }
    let mut theirs = if args.python.exists() { Some(Theirs::start(&args.python)?) } else { None };
    if theirs.is_none() {
        progress(&format!("{} is not there: ours alone", args.python.display()));
    }
    let mut measured = Vec::new();
    for (case, path) in chosen.iter().zip(&paths) {
        for &threads in &args.threads {
            progress(&format!("{}, threads: {threads}", case.name));
            let ours = Ours::load(path, threads, level)?;
            measured.extend(side_by_side(case, ours, path, theirs.as_mut(), args)?);
        }
    }
    save(args, &measured, &paths)?;
    Ok(rows::text(&measured))
}

fn level(named: Option<&str>) -> Result<Level, EngineError> {
    let level = match named {
        None => return Ok(Level::best()),
        Some("avx512") => Level::Avx512,
        Some("avx2") => Level::Avx2,
        Some("portable") => Level::Portable,
        Some(other) => return Err(EngineError::Level(other.into())),
    };
    if level <= Level::best() { Ok(level) } else { Err(EngineError::Level(named.unwrap_or_default().into())) }
}

/// Either side's times of a test.
#[derive(Clone, Default)]
struct Times {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

/// All tests of one model and number of threads: the two sides in turn, and the roofline with them, so that whatever
/// else the machine does meets all three.
fn side_by_side(
    case: &Case,
    mut ours: Ours,
    path: &std::path::Path,
    mut theirs: Option<&mut Theirs>,
    args: &EngineArgs,
) -> Result<Vec<Row>, EngineError> {
    if let Some(theirs) = &mut theirs {
        theirs.load(path, ours.threads())?;
    }
    let mut roofline = roofline::Passes::new(ours.bytes_a_token(), ours.threads())?;
    let tests = Test::all(args.decode);
    let mut times = vec![Times::default(); tests.len()];
    for _ in 0..args.repeats.max(1) {
        for (test, times) in tests.iter().zip(&mut times) {
            rest();
            times.ours.push(ours.time(test)?);
            if let Some(theirs) = &mut theirs {
                rest();
                times.theirs.push(theirs.time(test)?);
            }
            if test.is_decode {
                roofline.pass();
            }
        }
    }
    let read = roofline.bytes_per_second();
    Ok(tests.iter().zip(times).map(|(test, times)| Row::new(case, &ours, test, times, read)).collect())
}

/// Waits until the other side's threads, which stay awake for a while, are asleep.
fn rest() {
    std::thread::sleep(REST);
}

fn save(args: &EngineArgs, measured: &[Row], models: &[PathBuf]) -> Result<(), EngineError> {
    let table = args.out.join("engine.csv");
    let all = rows::merged(&table, measured)?;
    write_text(&table, &csv(&all))?;
    figure::ratios(&all).save(&args.out, "ratios")?;
    Manifest::of_files("engine", models).write(&args.out)?;
    Ok(())
}
