//! The engine on libtorch: the same models as on the processor's engine, on a GPU by CUDA, or on the processor.
//!
//! * [`Model`]: the [model](super::model) over [`TorchOps`]; [`TorchEngine`] puts it behind the node's
//!   [`Engine`](crate::engine::Engine).
//! * [`device`](Device): which device; `library`: finds CUDA's half of libtorch.
//! * `copying`: how fast a device's memory is.
//! * `weights`, `groups`: where weights lie and in which form; `step`: the operations of a step; `attention`, `reach`,
//!   `pages`: attention, what rows look at, and where keys and values lie.
//!
//! What libtorch says is an error of the load or of the step, never a panic: all calls are those that return a `Result`.

mod attention;
mod copying;
mod groups;
mod library;
mod pages;
mod reach;
mod step;
mod weights;

use tch::TchError;

pub use self::copying::copy_bytes_per_s;
pub use self::library::{cuda_devices, why_no_cuda};
pub use self::step::TorchOps;
pub use self::weights::Torch;
pub use super::any::Device;
use super::kernels::Precision;
pub use super::model::Residual;
use super::model::{self, Limits, seam};

impl Device {
    /// The device that `Auto` stands for here.
    pub fn chosen(self) -> Self {
        match self {
            Self::Auto if cuda_devices() > 0 => Self::Cuda(0),
            Self::Auto => Self::Cpu,
            other => other,
        }
    }
}

/// How an engine uses libtorch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TorchOptions {
    /// Where to compute.
    pub device: Device,
    /// Threads that compute where that is the processor; 0 for one for each physical core. libtorch has one number for the
    /// whole program: the last engine's holds.
    pub threads: usize,
    /// Widened weights and f32 everywhere, to hold the fast path against; much slower.
    pub precision: Precision,
    /// What the numbers between layers are; the same on all nodes of a mesh, which refuse each other's tensors otherwise.
    pub residual: Residual,
    /// Memory for keys and values of all sessions in the whole model, bytes; a range of layers takes its share when it is
    /// loaded. Too little turns sessions away with `NoRoom`.
    pub kv_bytes_max: u64,
    /// Longest session, tokens; 0 for what the model was trained for.
    pub context_max: u32,
}

impl Default for TorchOptions {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            threads: 0,
            precision: Precision::Quantised,
            residual: Residual::default(),
            kv_bytes_max: 2 << 30,
            context_max: 0,
        }
    }
}

impl TorchOptions {
    fn limits(&self) -> Limits {
        let Self { residual, kv_bytes_max, context_max, .. } = *self;
        Limits { residual, kv_bytes_max, context_max }
    }
}

/// A range of layers on a device of libtorch, and its sessions.
pub type Model = model::Model<TorchOps>;

/// An engine that computes where it is called: who calls it waits.
pub type DirectEngine = seam::DirectEngine<TorchOps>;

/// The same with loads and steps on threads of their own, so that the node goes on meanwhile.
pub type TorchEngine = seam::ThreadedEngine<TorchOps>;

impl Model {
    /// Threads that compute where that is the processor, and that sample.
    pub fn threads(&self) -> usize {
        self.ops.threads()
    }

    /// Memory that its matrices take on the device, bytes: what a step reads of them.
    pub fn weight_bytes(&self) -> u64 {
        self.ops.weight_bytes()
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.ops.device()
    }
}

/// The first line of what libtorch says; the others are where in its code.
fn said(why: &TchError) -> String {
    let text = why.to_string();
    text.lines().next().unwrap_or_default().trim().to_owned()
}
