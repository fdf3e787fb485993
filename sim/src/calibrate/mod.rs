//! From a recorded run to device entries and a scenario, and how near the simulator comes with them.
//!
//! * `steps`: the engine steps of a record, timed. `software`: what tokens take beside them. `requests`: who asked for what, and when tokens came.
//! * `written`: the scenario as text. [`calibrate`]: all of it.

mod requests;
mod software;
mod steps;
#[cfg(test)]
mod tests;
mod written;

use std::path::{Path, PathBuf};

use planner::cost::constants::Software;
use planner::cost::fit::{Rates, Timed, fit};
use planner::fleet::Device;
use planner::model::gguf::GgufFile;
use planner::model::{Model, catalog};
use planner::plan::LayerRange;
use serde::Serialize;

use crate::recorded::{RecordError, Run};
use crate::report::stats::{ascending, middle, quantile};
use crate::run::{self, RunError};
use crate::scenario::{Scenario, ScenarioError, WorldKind, load_text};
use requests::Requests;

/// The file of requests beside the scenario.
pub const REQUESTS: &str = "requests.csv";

/// Why a record says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The model is not known.
    #[error(
        "the model {0} is neither in the catalog nor where the record says; give its file with --model FILE.gguf"
    )]
    Model(String),
    /// Nobody was answered.
    #[error("no request in the record has a second token: observe for longer, while somebody asks")]
    Nobody,
    /// The scenario that was made is wrong: a fault of this program, or a name that cannot be written.
    #[error("the scenario made of the record cannot be read: {0}")]
    Scenario(Box<ScenarioError>),
    /// It cannot be run.
    #[error("the scenario made of the record cannot be run: {0}")]
    Run(#[from] RunError),
    /// A file.
    #[error("{}: {cause}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// One machine of the record.
#[derive(Debug, Clone, Serialize)]
pub struct Fitted {
    /// What people call it.
    pub node: String,
    /// The layers it held longest.
    pub layers: Option<LayerRange>,
    /// Engine steps that were timed.
    pub steps: usize,
    /// Kinds of step among them: so many sessions and tokens behind about such a context.
    pub kinds: usize,
    /// How far the formula is off by these kinds, per cent: the middle, and nine of ten.
    pub off_median_percent: f64,
    /// Nine in ten kinds are nearer.
    pub off_p90_percent: f64,
    /// The device with the rates that were found. Rates that no step says anything of are as they were.
    pub device: Device,
}

/// What requests saw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seen {
    /// Requests that were answered whole.
    pub requests: usize,
    /// Time per output token of a request, the middle one, milliseconds.
    pub tpot_ms: f64,
    /// Nine in ten requests were faster.
    pub tpot_p90_ms: f64,
    /// From asking to the first token, the middle one, milliseconds.
    pub ttft_ms: f64,
}

/// What a record comes to.
#[derive(Debug, Clone, Serialize)]
pub struct Calibration {
    /// The record's machines.
    pub nodes: Vec<Fitted>,
    /// What tokens take beside computing and their way, where some were alone.
    pub software: Option<Software>,
    /// What requests saw in the record.
    pub measured: Seen,
    /// And in the simulator, on the scenario made of it.
    pub simulated: Seen,
}

/// Fits the devices of a record, makes a scenario of it, writes both into `out`, and runs it. `model` is the model's file where
/// the record does not lead to it.
///
/// # Errors
/// [`CalibrateError`].
pub fn calibrate(path: &Path, model: Option<&Path>, out: &Path) -> Result<Calibration, CalibrateError> {
    let run = Run::read(path)?;
    let gguf = model.map(Path::to_owned).or_else(|| run.header.gguf.clone()).filter(|file| file.exists());
    let shape = shape(&run, gguf.as_deref())?;
    let requests = Requests::of(&run);
    let measured = requests.seen().ok_or(CalibrateError::Nobody)?;
    let nodes: Vec<Fitted> = run.header.nodes.iter().map(|node| fitted(&run, node, &shape)).collect();
    let software = software::of(&run, &nodes);
    let found = written::Found { nodes: &nodes, software, requests: &requests };
    let scenario = written::scenario(&run, gguf.as_deref(), &shape, &found);
    let texts = [("scenario.toml", scenario.as_str()), (REQUESTS, &requests.trace())];
    let failed = |path: PathBuf| move |cause| CalibrateError::Write { path, cause };
    std::fs::create_dir_all(out).map_err(failed(out.into()))?;
    for (name, text) in texts {
        std::fs::write(out.join(name), text).map_err(failed(out.join(name)))?;
    }
    let read = load_text(&out.join("scenario.toml"), &scenario, &[], None);
    let simulated = simulated(&read.map_err(|why| CalibrateError::Scenario(Box::new(why)))?)?;
    let calibration = Calibration { nodes, software, measured, simulated };
    let text =
        serde_json::to_string_pretty(&calibration).expect("string keys and finite numbers always serialise");
    std::fs::write(out.join("fit.json"), text + "\n").map_err(failed(out.join("fit.json")))?;
    Ok(calibration)
}

fn shape(run: &Run, gguf: Option<&Path>) -> Result<Model, CalibrateError> {
    let read = |file: &Path| GgufFile::open(file).ok()?.model().ok();
    let found = gguf.and_then(read).or_else(|| catalog::find(&run.header.model).ok());
    found.ok_or_else(|| CalibrateError::Model(run.header.model.clone()))
}

fn fitted(run: &Run, node: &node::record::Node, shape: &Model) -> Fitted {
    let timed = steps::of(run, node, shape);
    let count = timed.len();
    let kinds = steps::kinds(timed);
    let rates =
        if kinds.is_empty() { Rates::of(&node.device) } else { fit(shape, &kinds, Rates::of(&node.device)) };
    let percent = |step: &Timed| (rates.off(shape, step).exp() - 1.0).abs() * 100.0;
    let off = ascending(&kinds.iter().map(percent).collect::<Vec<f64>>());
    let found = rates.device(node.device.bandwidth_bytes_per_s);
    let Device { bandwidth_bytes_per_s, bandwidth_efficiency, flops, flops_efficiency, .. } = found;
    let device = Device {
        bandwidth_bytes_per_s,
        bandwidth_efficiency,
        flops,
        flops_efficiency,
        layer_overhead_us: found.layer_overhead_us,
        measured: found.measured,
        ..node.device.clone()
    };
    let longest = kinds.iter().max_by(|a, b| a.weight.total_cmp(&b.weight)).map(|step| step.layers);
    Fitted {
        node: node.name.clone(),
        layers: longest.or(node.layers),
        steps: count,
        kinds: kinds.len(),
        off_median_percent: quantile(&off, 0.5).unwrap_or_default(),
        off_p90_percent: quantile(&off, 0.9).unwrap_or_default(),
        device: if kinds.is_empty() { node.device.clone() } else { device },
    }
}

fn simulated(scenario: &Scenario) -> Result<Seen, CalibrateError> {
    let outcome = run::run(scenario, scenario.seed, WorldKind::Memory, false)?;
    let requests = outcome.requests.iter();
    let times = requests.map(|request| (request.asked_us, request.tokens_us.as_slice()));
    seen(times).ok_or(CalibrateError::Nobody)
}

/// What requests saw: of each when it asked and when its tokens came, microseconds.
fn seen<'a>(requests: impl Iterator<Item = (f64, &'a [f64])>) -> Option<Seen> {
    let (mut tpot, mut ttft) = (Vec::new(), Vec::new());
    for (asked_us, tokens_us) in requests {
        let [first, .., last] = tokens_us else { continue };
        tpot.push((last - first) / (tokens_us.len() - 1) as f64 / 1e3);
        ttft.push((first - asked_us) / 1e3);
    }
    let tpot = ascending(&tpot);
    Some(Seen {
        requests: tpot.len(),
        tpot_ms: quantile(&tpot, 0.5)?,
        tpot_p90_ms: quantile(&tpot, 0.9)?,
        ttft_ms: middle(ttft),
    })
}
