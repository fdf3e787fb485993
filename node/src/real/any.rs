//! Whichever engine was asked for: one type for programs that let people choose.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

use super::arch::Shape;
use super::cpu::{self, CpuEngine, EngineOptions};
use super::model::Residual;
#[cfg(feature = "libtorch")]
use super::torch::{self, TorchEngine, TorchOptions};
use super::weights::LoadError;
use crate::asides::{Asides, Results};
use crate::engine::{Engine, EngineError, Work};
use crate::ids::SessionId;

/// Where libtorch computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// On the first GPU, or on the processor where there is none.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On the GPU of this number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                number.map(Self::Cuda).ok_or_else(|| "write auto, cpu, cuda or cuda:1".into())
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// An engine's options, which say which engine it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyOptions {
    /// Our own, on the processor.
    Cpu(EngineOptions),
    /// On libtorch.
    #[cfg(feature = "libtorch")]
    Torch(TorchOptions),
}

/// A range of layers on either engine.
pub enum AnyModel {
    /// Our own, on the processor.
    Cpu(cpu::Model),
    /// On libtorch.
    #[cfg(feature = "libtorch")]
    Torch(torch::Model),
}

/// Either engine behind the node's seam.
pub enum AnyEngine {
    /// Our own, on the processor.
    Cpu(CpuEngine),
    /// On libtorch.
    #[cfg(feature = "libtorch")]
    Torch(TorchEngine),
}

/// Does the same with whichever it is.
macro_rules! either {
    ($of:ident, $any:expr, $it:ident => $work:expr) => {
        match $any {
            $of::Cpu($it) => $work,
            #[cfg(feature = "libtorch")]
            $of::Torch($it) => $work,
        }
    };
}

impl Default for AnyOptions {
    fn default() -> Self {
        Self::Cpu(EngineOptions::default())
    }
}

impl From<EngineOptions> for AnyOptions {
    fn from(options: EngineOptions) -> Self {
        Self::Cpu(options)
    }
}

#[cfg(feature = "libtorch")]
impl From<TorchOptions> for AnyOptions {
    fn from(options: TorchOptions) -> Self {
        Self::Torch(options)
    }
}

/// What speed depends on beside the machine: which engine, and what it computes with.
impl fmt::Display for AnyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(options) => f.write_str(&format!("{:?}", options.level.available()).to_lowercase()),
            #[cfg(feature = "libtorch")]
            Self::Torch(options) => write!(f, "libtorch on {}", options.device.chosen()),
        }
    }
}

impl AnyOptions {
    /// The number of the GPU that computes, if one does.
    pub(crate) fn gpu(&self) -> Option<usize> {
        match self {
            Self::Cpu(_) => None,
            #[cfg(feature = "libtorch")]
            Self::Torch(options) => match options.device.chosen() {
                Device::Cuda(number) => Some(number),
                Device::Auto | Device::Cpu => None,
            },
        }
    }

    /// How fast the memory of the GPU that computes is read and written, bytes per second, measured with so many bytes; `None`
    /// where none does.
    #[cfg_attr(not(feature = "libtorch"), expect(unused_variables, reason = "no engine here has a GPU"))]
    pub(crate) fn gpu_bytes_per_s(&self, bytes: u64) -> Option<Result<f64, LoadError>> {
        match self {
            Self::Cpu(_) => None,
            #[cfg(feature = "libtorch")]
            Self::Torch(_) => {
                let (number, bytes) = (self.gpu()?, usize::try_from(bytes).unwrap_or(usize::MAX));
                Some(torch::copy_bytes_per_s(Device::Cuda(number), bytes))
            }
        }
    }

    /// The same with another residual stream.
    #[must_use]
    pub fn with_residual(mut self, kind: Residual) -> Self {
        either!(Self, &mut self, options => options.residual = kind);
        self
    }

    /// The same with so much memory for keys and values of the whole model, bytes.
    #[must_use]
    pub fn with_kv_bytes_max(mut self, bytes: u64) -> Self {
        either!(Self, &mut self, options => options.kv_bytes_max = bytes);
        self
    }

    /// The same for sessions of up to so many tokens.
    #[must_use]
    pub fn with_context_max(mut self, tokens: u32) -> Self {
        either!(Self, &mut self, options => options.context_max = tokens);
        self
    }

    /// Threads that compute; 0 for one for each physical core.
    pub fn threads(&self) -> usize {
        either!(Self, self, options => options.threads)
    }
}

impl From<cpu::Model> for AnyModel {
    fn from(model: cpu::Model) -> Self {
        Self::Cpu(model)
    }
}

#[cfg(feature = "libtorch")]
impl From<torch::Model> for AnyModel {
    fn from(model: torch::Model) -> Self {
        Self::Torch(model)
    }
}

impl AnyModel {
    /// Loads the layers of `range`, and the ends of the model that belong to it.
    ///
    /// # Errors
    /// As [`Model::load`](super::model::Model::load).
    pub fn load(file: &GgufFile, range: LayerRange, options: &AnyOptions) -> Result<Self, LoadError> {
        match options {
            AnyOptions::Cpu(options) => cpu::Model::load(file, range, options).map(Self::Cpu),
            #[cfg(feature = "libtorch")]
            AnyOptions::Torch(options) => torch::Model::load(file, range, options).map(Self::Torch),
        }
    }

    /// The layers it holds.
    pub fn range(&self) -> LayerRange {
        either!(Self, self, model => model.range())
    }

    /// What the file says of the model.
    pub fn shape(&self) -> &Shape {
        either!(Self, self, model => model.shape())
    }

    /// What the residual stream between its layers is.
    pub fn residual(&self) -> Residual {
        either!(Self, self, model => model.residual())
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        either!(Self, self, model => model.vocab())
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        either!(Self, self, model => model.threads())
    }

    /// Runs one step.
    pub fn step(&mut self, batch: &[Work]) -> Results {
        either!(Self, self, model => model.step(batch))
    }

    /// Forgets positions from `len` on.
    pub fn truncate(&mut self, session: SessionId, len: u32) {
        either!(Self, self, model => model.truncate(session, len));
    }

    /// Forgets the session.
    pub fn release(&mut self, session: SessionId) {
        self.truncate(session, 0);
    }

    /// Lets `to` begin with the first `len` positions of `from`. Gives how many it has.
    pub fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        either!(Self, self, model => model.fork(from, to, len))
    }
}

impl AnyEngine {
    /// An engine that holds nothing yet, with the models it can load, by their names in plans.
    pub fn new(files: BTreeMap<String, PathBuf>, options: AnyOptions) -> Self {
        match options {
            AnyOptions::Cpu(options) => Self::Cpu(CpuEngine::new(files, options)),
            #[cfg(feature = "libtorch")]
            AnyOptions::Torch(options) => Self::Torch(TorchEngine::new(files, options)),
        }
    }
}

impl Engine for AnyEngine {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        either!(Self, self, engine => engine.load(model, layers).await)
    }

    async fn step(&mut self, batch: Vec<Work>) -> Results {
        either!(Self, self, engine => engine.step(batch).await)
    }

    fn takes_asides(&self) -> bool {
        either!(Self, self, engine => engine.takes_asides())
    }

    async fn step_between(&mut self, batch: Vec<Work>, asides: Asides) -> Results {
        either!(Self, self, engine => engine.step_between(batch, asides).await)
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        either!(Self, self, engine => engine.truncate(session, len));
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        either!(Self, self, engine => engine.fork(from, to, len))
    }

    fn release(&mut self, session: SessionId) {
        either!(Self, self, engine => engine.release(session));
    }

    fn held(&self) -> Vec<SessionId> {
        either!(Self, self, engine => engine.held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}
