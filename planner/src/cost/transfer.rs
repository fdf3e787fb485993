//! One frame over a path, in the mean.

use super::constants::{FRAME_HEADER_BYTES, RETRANSMIT_US, Software, WIRE_OVERHEAD};
use crate::fleet::Path;
use crate::model::Model;

/// The parts of a transfer's time, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TransferTime {
    /// Propagation, jitter and what loss adds, in the mean.
    pub latency_us: f64,
    /// Bytes and medium access of the slowest segment.
    pub bandwidth_us: f64,
    /// Software on both ends.
    pub software_us: f64,
}

impl TransferTime {
    /// The whole transfer.
    pub fn total_us(&self) -> f64 {
        self.latency_us + self.bandwidth_us + self.software_us
    }
}

/// Bytes of a frame that carries the residual stream of `tokens` tokens.
pub fn activation_frame_bytes(model: &Model, software: &Software, tokens: u32) -> u64 {
    FRAME_HEADER_BYTES + (f64::from(model.hidden) * software.activation_bytes * f64::from(tokens)) as u64
}

/// Mean time of one frame of `bytes` over `path` when nobody else uses it.
pub fn transfer_time(path: &Path, bytes: u64, software: &Software) -> TransferTime {
    let wire = bytes as f64 * WIRE_OVERHEAD;
    let bandwidth_us =
        path.segments.iter().map(|s| s.access_us + wire / s.bytes_per_s * 1e6).fold(0.0, f64::max);
    TransferTime {
        latency_us: path.delay.mean_us() + path.loss * RETRANSMIT_US,
        bandwidth_us,
        software_us: software.per_hop_us,
    }
}
