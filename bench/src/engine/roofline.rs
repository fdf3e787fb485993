//! How fast this machine reads memory, which decoding cannot exceed.

use std::time::{Duration, Instant};

use node::real::kernels::{KernelError, Roofline};
use node::real::pool::Pool;

use super::rows::median;

/// Passes over the memory each time.
const PASSES: u32 = 3;

/// Memory of a token's weights, and what reading it took.
pub(super) struct Passes {
    memory: Roofline,
    pool: Pool,
    times: Vec<Duration>,
}

impl Passes {
    pub(super) fn new(bytes: u64, threads: usize) -> Result<Self, KernelError> {
        Ok(Self { memory: Roofline::new(bytes)?, pool: Pool::new(threads), times: Vec::new() })
    }

    /// Reads it some times.
    #[allow(clippy::disallowed_methods, reason = "a bench measures the wall clock")]
    pub(super) fn pass(&mut self) {
        for _ in 0..PASSES {
            let started = Instant::now();
            self.memory.read(&self.pool);
            self.times.push(started.elapsed());
        }
    }

    /// The middle one's speed.
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.memory.bytes() as f64 / median(&self.times).as_secs_f64()
    }
}
