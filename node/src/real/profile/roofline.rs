//! How fast this machine reads memory: what an answer's tokens would take if computing cost nothing.

use super::stopwatch::Stopwatch;
use crate::real::kernels::{KernelError, Roofline};
use crate::real::pool::Pool;

/// The most that is read, bytes: beyond it no cache plays a part.
const BYTES_MAX: u64 = 1 << 30;

/// Less than this is in the caches nearest to the cores, and no weights are.
const BYTES_MIN: u64 = 1 << 20;

/// How often it is read; the middle counts.
const RUNS: usize = 9;

/// Bytes a second that so many threads read of as much memory as a token's weights take.
///
/// # Errors
/// No memory.
pub fn read_bytes_per_s(bytes: u64, threads: usize) -> Result<f64, KernelError> {
    let roofline = Roofline::new(bytes.clamp(BYTES_MIN, BYTES_MAX))?;
    let pool = Pool::new(threads);
    let mut seconds = [0.0; RUNS];
    for run in &mut seconds {
        let clock = Stopwatch::start();
        roofline.read(&pool);
        *run = clock.seconds();
    }
    seconds.sort_by(f64::total_cmp);
    Ok(roofline.bytes() as f64 / seconds[RUNS / 2])
}
