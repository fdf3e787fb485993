//! A model from disk to memory, with a bar where somebody looks on.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

use super::Stopwatch;
use super::arguments::{DeviceName, EngineName, Machine};
use super::failure::Failure;
use crate::real::any::{AnyModel, AnyOptions};
use crate::real::cpu::{EngineOptions, Residual};
use crate::real::kernels::Precision;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(80);

/// A loaded model, and what loading took.
pub(super) struct Loaded {
    pub(super) model: AnyModel,
    pub(super) seconds: f64,
}

/// The engine's options from the command line.
///
/// # Errors
/// [`Failure::Usage`] for an engine that this program was built without, or a device that is not of the engine.
pub(super) fn options(machine: &Machine, threads: usize, context: u32) -> Result<AnyOptions, Failure> {
    let precision = if machine.f32 { Precision::F32 } else { Precision::Quantised };
    let residual = if machine.f32 { Residual::F32 } else { Residual::default() };
    match machine.which.engine {
        EngineName::Cpu if machine.which.device != DeviceName::default() => {
            let why = "--device is for --engine torch: the CPU engine computes on the processor";
            Err(Failure::Usage(why.into()))
        }
        EngineName::Cpu => {
            let level = machine.level.level();
            let usual = EngineOptions::default();
            Ok(EngineOptions { threads, level, precision, residual, context_max: context, ..usual }.into())
        }
        EngineName::Torch => torch(machine.which.device, threads, precision, residual, context),
    }
}

#[cfg(feature = "libtorch")]
fn torch(
    device: DeviceName,
    threads: usize,
    precision: Precision,
    residual: Residual,
    context: u32,
) -> Result<AnyOptions, Failure> {
    use crate::real::torch::{Device, TorchOptions, why_no_cuda};

    static SAID: std::sync::Once = std::sync::Once::new();
    if device == DeviceName::default()
        && let Some(why) = why_no_cuda()
    {
        SAID.call_once(|| note!("libtorch computes on the processor: {why}"));
    }
    let device: Device = device.0;
    let usual = TorchOptions::default();
    Ok(TorchOptions { device, threads, precision, residual, context_max: context, ..usual }.into())
}

#[cfg(not(feature = "libtorch"))]
fn torch(
    _device: DeviceName,
    _threads: usize,
    _precision: Precision,
    _residual: Residual,
    _context: u32,
) -> Result<AnyOptions, Failure> {
    Err(Failure::Usage(
        "this meshwright was built without libtorch: build it by `cargo build --release -p node --features libtorch`, as \
         docs/libtorch.md says"
            .into(),
    ))
}

/// Loads some layers, or all.
pub(super) fn load(
    path: &Path,
    file: &GgufFile,
    layers: Option<LayerRange>,
    options: &AnyOptions,
) -> Result<Loaded, Failure> {
    let refused = |why: String| Failure::Load { model: path.into(), why };
    let shape = crate::real::arch::shape(file).map_err(|why| refused(why.to_string()))?;
    let layers = layers.unwrap_or(LayerRange::new(0, shape.layers));
    let bar = bar(path);
    let clock = Stopwatch::start();
    let loaded = AnyModel::load(file, layers, options);
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
