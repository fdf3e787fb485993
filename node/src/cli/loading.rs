//! A model from disk to memory, with a bar where somebody looks on.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

use super::Stopwatch;
use super::arguments::Machine;
use super::failure::Failure;
use crate::real::cpu::{EngineOptions, Model, Residual};
use crate::real::kernels::Precision;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(80);

/// A loaded model, and what loading took.
pub(super) struct Loaded {
    pub(super) model: Model,
    pub(super) seconds: f64,
}

/// The engine's options from the command line.
pub(super) fn options(machine: &Machine, threads: usize, context: u32) -> EngineOptions {
    EngineOptions {
        threads,
        level: machine.level.level(),
        precision: if machine.f32 { Precision::F32 } else { Precision::Quantised },
        residual: if machine.f32 { Residual::F32 } else { Residual::default() },
        context_max: context,
        ..EngineOptions::default()
    }
}

/// Loads some layers, or all.
pub(super) fn load(
    path: &Path,
    file: &GgufFile,
    layers: Option<LayerRange>,
    options: &EngineOptions,
) -> Result<Loaded, Failure> {
    let refused = |why: String| Failure::Load { model: path.into(), why };
    let shape = crate::real::arch::shape(file).map_err(|why| refused(why.to_string()))?;
    let layers = layers.unwrap_or(LayerRange::new(0, shape.layers));
    let bar = bar(path);
    let clock = Stopwatch::start();
    let loaded = Model::load(file, layers, options);
    bar.finish_and_clear();
    let model = loaded.map_err(|why| refused(why.to_string()))?;
    Ok(Loaded { model, seconds: clock.seconds() })
}

/// Hidden unless stderr is a terminal.
pub(super) fn bar(path: &Path) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} loading {msg}  {elapsed}");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is one of indicatif's"));
    bar.set_message(name);
    bar.enable_steady_tick(TICK);
    bar
}
