//! `bench live`: real processes behind an emulated network, and what they give next to what the simulator says.
//!
//! * [`emulator`]: the simulator's link model between processes of this machine, in real time.
//! * [`cells`]: what is measured, as scenarios. [`prediction`]: what the simulator says of them.
//! * [`mesh`]: the processes. [`client`]: who asks them.
//! * [`checks`]: the emulator alone, with plain sockets.
//! * [`speeds`]: one stream over each number of nodes and each network. [`streams`]: many. [`killing`]: a process that dies.
//!   [`faults`]: several that die, stand still and are cut off, under load.
//! * `profiling`: this machine alone. `software`: what hops and steps cost on this machine.
//! * `rows`, `figure`: what was measured, as CSV, text and plot.

pub mod cells;
pub mod checks;
pub mod client;
pub mod emulator;
pub mod faults;
mod figure;
pub mod killing;
pub mod mesh;
pub mod prediction;
mod profiling;
mod rows;
mod software;
pub mod speeds;
pub mod streams;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use node::real::profile::{Profile, ProfileError};
use planner::cost::constants::{RING, Software};
use planner::model::Model;
use planner::model::gguf::{GgufError, GgufFile};
use sim::report::ReportError;
use sim::scenario::ScenarioError;

use self::client::ClientError;
use self::mesh::{MeshError, MeshSpec, Protocol};
use self::prediction::PredictionError;
use self::profiling::EngineName;

/// What `bench live` takes.
#[derive(Debug, Clone, Args)]
pub struct LiveArgs {
    /// What is measured; the speeds of one stream unless given.
    #[command(subcommand)]
    pub what: Option<What>,
    /// How.
    #[command(flatten)]
    pub common: Common,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum What {
    /// One stream over 1, 2, 3 nodes and each network, next to the simulator.
    Speeds,
    /// 1, 4 and 16 streams at once, and a short prompt while a long one is read.
    Streams,
    /// A stage's process is killed while it answers.
    Kill,
    /// Five processes, two models, a load: processes are killed, started again, halted and cut off.
    Faults,
    /// The emulator alone, with plain sockets.
    Emulator,
}

/// What every measurement takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Folder of the models; `tests/scripts/fetch-models` fetches them.
    #[arg(long, global = true, env = "MESHWRIGHT_MODELS", default_value = "target/models")]
    pub models: PathBuf,
    /// The model's file in it.
    #[arg(long, global = true, default_value = "smollm2-135m-instruct-q4_1.gguf")]
    pub model: PathBuf,
    /// The model of the other processes, where two are served.
    #[arg(long, global = true, default_value = "gemma3-270m-q4_k_m.gguf")]
    pub other: PathBuf,
    /// The program that is measured.
    #[arg(long, global = true, default_value = "target/release/meshwright")]
    pub meshwright: PathBuf,
    /// Numbers of nodes.
    #[arg(long, global = true, value_delimiter = ',', default_value = "1,2,3")]
    pub nodes: Vec<u32>,
    /// Only networks whose name begins so, such as `2ms` or `wifi`; the rows of others stay.
    #[arg(long, global = true, default_value = "")]
    pub only: String,
    /// Threads of each process. Stages of one stream compute in turn, so that each has the machine for itself.
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    /// What the nodes speak with each other.
    #[arg(long, global = true, value_enum, default_value = "tcp")]
    pub protocol: Protocol,
    /// Answers measured in each cell; the middle one counts.
    #[arg(long, global = true, default_value_t = 3)]
    pub repeats: u32,
    /// Tokens of each answer.
    #[arg(long, global = true, default_value_t = 128)]
    pub tokens: u32,
    /// What the processes compute with.
    #[arg(long, global = true, value_enum, default_value = "cpu")]
    pub engine: EngineName,
    /// Where libtorch computes, as `meshwright` takes it.
    #[arg(long, global = true, default_value = "auto")]
    pub device: String,
    /// More arguments for every process.
    #[arg(long, global = true, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub more: Vec<String>,
    /// Measure this machine again instead of taking its profile from the results.
    #[arg(long, global = true)]
    pub fresh: bool,
    /// Where tables, figures and manifest go.
    #[arg(long, global = true, default_value = "results/live")]
    pub out: PathBuf,
}

impl Common {
    /// A model's file.
    fn file(&self, name: &Path) -> Result<PathBuf, LiveError> {
        let path = self.models.join(name);
        if path.exists() { Ok(path) } else { Err(LiveError::NoModel(path)) }
    }

    /// So many processes that serve one model together, cut by the planner, without a network between them.
    fn mesh<'a>(&'a self, model: &'a Path, nodes: u32) -> MeshSpec<'a> {
        MeshSpec {
            binary: &self.meshwright,
            model,
            roles: &[],
            nodes,
            cut: None,
            threads: self.threads,
            fleet: None,
            profiles: &self.out,
            protocol: self.protocol,
            engine: profiling::arguments(self),
            more: &self.more,
        }
    }
}

/// Why `bench live` stopped.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The model is not there.
    #[error("{} is not there: tests/scripts/fetch-models fetches it, or give its folder with --models", .0.display())]
    NoModel(PathBuf),
    /// No network has such a name.
    #[error("no network's name begins with `{only}`; there are {known}")]
    NoNet {
        /// What was asked for.
        only: String,
        /// The names there are.
        known: String,
    },
    /// The emulator alone.
    #[error(transparent)]
    Check(#[from] checks::CheckError),
    /// The model's header.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// This machine could not be measured.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The scenario made of a cell is wrong: a fault of this program.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// No mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No prediction.
    #[error(transparent)]
    Prediction(#[from] PredictionError),
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
    /// The program that is measured could not say how fast the machine is.
    #[error("no profile: {0}")]
    NoProfile(String),
    /// Its profile could not be had or kept.
    #[error("no profile: {0}")]
    Home(std::io::Error),
    /// A process could not be killed.
    #[error("cannot kill a process: {0}")]
    Kill(std::io::Error),
}

/// A model on disk, its shape, and how fast this machine runs it alone.
pub struct Subject {
    /// Its file.
    pub path: PathBuf,
    /// Its shape.
    pub shape: Model,
    /// This machine with it.
    pub profile: Profile,
    /// What the ring's software costs here.
    pub software: Software,
}

impl Subject {
    /// Opens the model and measures the machine, or takes what was measured before.
    ///
    /// # Errors
    /// [`LiveError`].
    pub fn new(common: &Common, progress: &mut impl FnMut(&str)) -> Result<Self, LiveError> {
        let path = common.file(&common.model)?;
        let file = GgufFile::open(&path)?;
        progress("profile of this machine alone");
        let profile = profiling::profile(common, &file)?;
        let mut subject = Self { shape: file.model()?, path, profile, software: RING };
        subject.software = software::measured(common, &subject, progress)?;
        Ok(subject)
    }
}

/// Measures what was asked for, writes it under `args.common.out` and returns the table. `progress` is told what comes next.
///
/// # Errors
/// [`LiveError`].
pub fn run(args: &LiveArgs, progress: &mut impl FnMut(&str)) -> Result<String, LiveError> {
    let (common, what) = (&args.common, args.what.unwrap_or(What::Speeds));
    match what {
        What::Emulator => Ok(checks::run(&common.out, progress)?),
        What::Speeds => speeds::run(common, &Subject::new(common, progress)?, progress),
        What::Streams => streams::run(common, &Subject::new(common, progress)?, progress),
        What::Kill => killing::run(common, &Subject::new(common, progress)?, progress),
        What::Faults => faults::run(common, &Subject::new(common, progress)?, progress),
    }
}
