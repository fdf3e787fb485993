//! How fast this machine runs a model, in the figures that the planner asks for.
//!
//! * [`profile`] measures in some seconds; [`cached`] does once for a machine and a model.
//! * [`Profile::device`], [`Profile::software`]: what the planner's formula takes.
//! * `samples`, `steps`: steps of many sizes, timed on enough layers of the real model. `roofline`: how fast memory is read.
//! * `fit`: from them to figures. `hardware`: processor, memory, disk. `gpu`: the same of a GPU. `cache`: files of profiles.

mod cache;
mod fit;
mod gpu;
mod hardware;
mod roofline;
mod samples;
mod steps;
mod stopwatch;

use std::path::{Path, PathBuf};

use planner::cost::constants::{RING, Software};
use planner::fleet::{Device, DeviceKind};
use planner::model::Model as Shape;
use planner::model::gguf::{GgufError, GgufFile};
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

pub use self::fit::Fit;
pub(crate) use self::gpu::{Gpu, gpu};
pub use self::hardware::Hardware;
#[cfg(feature = "cli")]
pub(crate) use self::hardware::memory;
pub use self::roofline::read_bytes_per_s;
pub use self::samples::Sample;
pub use self::steps::Range;
#[cfg(any(feature = "cli", feature = "libtorch"))]
pub(crate) use self::stopwatch::Stopwatch;
use super::any::{AnyModel, AnyOptions};
use super::cpu::EngineOptions;
use super::kernels::{KernelError, Level};
use super::pool::Pool;
use super::weights::LoadError;
use crate::engine::EngineError;

/// What the system and other programs may want of the memory that is free now, as one part of so many of all.
const RESERVE_PARTS: u64 = 20;

/// How fast a disk is taken to be that could not be read, bytes per second: a SATA SSD's.
const DISK_BYTES_PER_S: f64 = 500e6;

/// How the engine that is measured uses the machine: which engine, and its threads and instructions; its other options are
/// set as measuring needs them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Options {
    /// The engine.
    pub engine: AnyOptions,
}

impl Options {
    /// The CPU engine on so many threads; 0 for one for each physical core.
    pub fn on_cpu(threads: usize, level: Level) -> Self {
        Self { engine: EngineOptions { threads, level, ..EngineOptions::default() }.into() }
    }

    fn threads(&self) -> usize {
        match self.engine.threads() {
            0 => Pool::default_threads(),
            threads => threads,
        }
    }
}

/// Why a machine could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The model's header.
    #[error(transparent)]
    File(#[from] GgufError),
    /// The layers could not be loaded.
    #[error("{}: {why}", file.display())]
    Load {
        /// Which file.
        file: PathBuf,
        /// In the engine's words.
        why: LoadError,
    },
    /// A step failed.
    #[error("the engine stopped: {0}")]
    Engine(#[from] EngineError),
    /// No memory to measure with.
    #[error(transparent)]
    Memory(#[from] KernelError),
    /// The profile was measured, and cannot be kept.
    #[error("cannot write {}: {cause}; give another folder, or make room", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
        /// The profile: good for as long as the program runs.
        measured: Box<Profile>,
    },
}

/// What a profile was measured for: with any other it does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The machine.
    pub hardware: Hardware,
    /// Threads that compute.
    pub threads: usize,
    /// Which instructions the kernels use, or which device of libtorch computes.
    pub level: String,
    /// Version of this program, whose kernels they are.
    pub version: String,
    /// Name of the model.
    pub model: String,
    /// Its layers' formats and shapes, and its head's: what speed depends on.
    pub shape: String,
}

/// One machine with one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What it holds for.
    pub key: Key,
    /// The layers that were timed.
    pub layers: LayerRange,
    /// How fast the threads read memory, bytes per second.
    pub read_bytes_per_s: f64,
    /// How fast the disk gives the model's file, bytes per second, where that could be seen.
    pub disk_bytes_per_s: Option<f64>,
    /// Memory in use by others when it was measured, bytes.
    pub used_bytes: u64,
    /// What was timed.
    pub samples: Vec<Sample>,
    /// What the samples come to.
    pub fit: Fit,
}

/// Measures this machine with the model of `file`: some seconds.
///
/// # Errors
/// A model that the engine cannot load; no memory.
pub fn profile(file: &GgufFile, options: &Options) -> Result<Profile, ProfileError> {
    let shape = file.model()?;
    let threads = options.threads();
    let key = Key::new(file, &shape, options);
    let used_bytes = match gpu_of(options) {
        Some(gpu) => gpu.total_bytes.saturating_sub(gpu.free_bytes),
        None => hardware::memory().map_or(0, |memory| memory.total_bytes - memory.available_bytes),
    };
    let layers = samples::measured_range(&shape);
    let (context, context_max) = samples::contexts(&shape);
    let engine = options.engine.with_context_max(context_max);
    let loaded = AnyModel::load(file, layers, &engine);
    let refused = |why| ProfileError::Load { file: file.first_part().to_owned(), why };
    let mut range = Range::new(loaded.map_err(&refused)?);
    let samples = samples::take(&mut range, context)?;
    drop(range);
    let bytes: u64 = shape.layers[layers.indices()].iter().map(|layer| layer.weight_bytes()).sum();
    let bytes = bytes + shape.head_bytes;
    let read_bytes_per_s = match options.engine.gpu_bytes_per_s(bytes) {
        Some(measured) => measured.map_err(refused)?,
        None => read_bytes_per_s(bytes, threads)?,
    };
    Ok(Profile {
        key,
        layers,
        read_bytes_per_s,
        disk_bytes_per_s: hardware::disk_bytes_per_s(file.first_part()),
        used_bytes,
        fit: fit::fit(&shape, layers, &samples),
        samples,
    })
}

/// The profile kept in `folder`, measured and put there where there is none that holds, or where it shall be `fresh`.
/// Without a folder it is measured.
///
/// # Errors
/// As [`profile`]; a folder that cannot be written to.
pub fn cached(
    file: &GgufFile,
    options: &Options,
    folder: Option<&Path>,
    fresh: bool,
) -> Result<Profile, ProfileError> {
    let Some(folder) = folder else { return profile(file, options) };
    let shape = file.model()?;
    let key = Key::new(file, &shape, options);
    if let Some(kept) = cache::find(folder, &key).filter(|_| !fresh) {
        // What was timed holds; the formula may have changed since.
        let fit = fit::fit(&shape, kept.layers, &kept.samples);
        return Ok(Profile { fit, ..kept });
    }
    let measured = profile(file, options)?;
    cache::keep(folder, &measured)?;
    Ok(measured)
}

/// The GPU that computes, if one does.
fn gpu_of(options: &Options) -> Option<Gpu> {
    options.engine.gpu().and_then(gpu)
}

impl Key {
    fn new(file: &GgufFile, shape: &Shape, options: &Options) -> Self {
        Self {
            hardware: Hardware::with(gpu_of(options).as_ref()),
            threads: options.threads(),
            level: options.engine.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: shape.name.clone(),
            shape: cache::shape_text(file, shape),
        }
    }
}

impl Profile {
    /// The machine as the planner's formula takes it, for this model.
    pub fn device(&self) -> Device {
        let Hardware { memory_bytes, is_gpu, .. } = self.key.hardware;
        Device {
            kind: if is_gpu { DeviceKind::Nvidia } else { DeviceKind::Cpu },
            id: "this-machine".into(),
            name: self.key.hardware.processor.clone(),
            memory_bytes,
            reserved_bytes: (self.used_bytes + memory_bytes / RESERVE_PARTS).min(memory_bytes),
            disk_bytes_per_s: self.disk_bytes_per_s.unwrap_or(DISK_BYTES_PER_S),
            ..self.fit.device(self.read_bytes_per_s)
        }
    }

    /// What the ring's software costs here.
    pub fn software(&self) -> Software {
        RING
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;
    use crate::real::gguf::random::{Architecture, RandomModel};

    #[test]
    fn a_model_of_a_short_context_is_measured_within_it() {
        let folder = tempfile::tempdir().unwrap();
        for context in [1, 16, 48, 200] {
            let path = folder.path().join(format!("{context}.gguf"));
            RandomModel { context, ..RandomModel::tiny(Architecture::Llama) }.write(&path).unwrap();
            let options = Options::on_cpu(1, Level::best());
            let measured = profile(&GgufFile::open(&path).unwrap(), &options).unwrap();
            let ends = measured.samples.iter().map(|sample| sample.context + sample.tokens);
            assert!(ends.clone().all(|end| end <= context), "{context}: {:?}", ends.collect::<Vec<_>>());
            assert!(measured.fit.weight_bytes_per_s.is_finite());
        }
    }
}
