//! The engine on the processor.
//!
//! * [`Model`]: the [model](super::model) over [`CpuOps`]: nothing of it waits for anything but the processor.
//!   [`CpuEngine`] puts it behind the node's [`Engine`](crate::engine::Engine).
//! * `step`: the operations of a step; `attention`, `kv`: attention and what it reads.
//!
//! Logits and tokens are the same bits whatever shares a step, however a prompt is cut into steps, and on any number of
//! threads.

mod attention;
mod kv;
mod step;

pub use self::step::{Cpu, CpuOps};
use super::kernels::{Level, Precision};
pub use super::model::Residual;
use super::model::{self, Limits, seam};

/// How an engine uses the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineOptions {
    /// Threads that compute; 0 for one for each physical core.
    pub threads: usize,
    /// Which instructions the kernels use; what the machine lacks is left out.
    pub level: Level,
    /// Widened weights and f32 everywhere, to hold the fast path against; many times slower.
    pub precision: Precision,
    /// What the numbers between layers are; the same on all nodes of a mesh, which refuse each other's tensors otherwise.
    pub residual: Residual,
    /// Memory that keys and values of all sessions would take in the whole model, bytes; a range of layers has its share.
    /// Too little turns sessions away with `NoRoom`.
    pub kv_bytes_max: u64,
    /// Longest session, tokens; 0 for what the model was trained for.
    pub context_max: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            level: Level::best(),
            precision: Precision::Quantised,
            residual: Residual::default(),
            kv_bytes_max: 2 << 30,
            context_max: 0,
        }
    }
}

impl EngineOptions {
    fn limits(&self) -> Limits {
        let Self { residual, kv_bytes_max, context_max, .. } = *self;
        Limits { residual, kv_bytes_max, context_max }
    }
}

/// A range of layers on the processor, and its sessions.
pub type Model = model::Model<CpuOps>;

/// An engine that computes where it is called, on its own threads: who calls it waits.
pub type DirectEngine = seam::DirectEngine<CpuOps>;

/// The same with loads and steps on threads of their own, so that the node goes on meanwhile.
pub type CpuEngine = seam::ThreadedEngine<CpuOps>;

impl Model {
    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.ops.threads()
    }
}
