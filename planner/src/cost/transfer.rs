//! One frame over a path, in the mean.

use super::constants::{FRAME_HEADER_BYTES, PACKET_BYTES, RETRANSMIT_US, Software, WIRE_OVERHEAD};
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

/// Chances that loss delays a frame, and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossDelay {
    /// Chance that the frame's last packet is lost: nothing after it tells the sender, so a whole timeout passes.
    pub tail_chance: f64,
    /// What that costs, microseconds.
    pub tail_us: f64,
    /// Chance that another of its packets is lost: acknowledgements of those behind it have it sent again.
    pub middle_chance: f64,
    /// What that costs: one round trip, microseconds.
    pub middle_us: f64,
}

impl LossDelay {
    /// What loss adds in the mean, microseconds.
    pub fn mean_us(&self) -> f64 {
        self.tail_chance * self.tail_us + self.middle_chance * self.middle_us
    }
}

/// How loss delays a frame of `bytes` on `path`.
pub fn loss_delay(path: &Path, bytes: u64) -> LossDelay {
    let before_last = bytes.div_ceil(PACKET_BYTES).saturating_sub(1).min(i32::MAX as u64) as i32;
    LossDelay {
        tail_chance: path.loss,
        tail_us: RETRANSMIT_US,
        middle_chance: 1.0 - (1.0 - path.loss).powi(before_last),
        middle_us: 2.0 * path.delay.mean_us(),
    }
}

/// Bytes on the wire for a frame of `bytes`: headers, and lost packets sent again.
pub fn wire_bytes(path: &Path, bytes: u64) -> f64 {
    bytes as f64 * WIRE_OVERHEAD / (1.0 - path.loss.min(LOSS_MAX))
}

/// A path that loses more than this carries nothing worth a formula.
const LOSS_MAX: f64 = 0.9;

/// Mean time of one frame of `bytes` over `path` when nobody else uses it.
pub fn transfer_time(path: &Path, bytes: u64, software: &Software) -> TransferTime {
    let wire = wire_bytes(path, bytes);
    let bandwidth_us =
        path.segments.iter().map(|s| s.access_us + wire / s.bytes_per_s * 1e6).fold(0.0, f64::max);
    TransferTime {
        latency_us: path.delay.mean_us() + loss_delay(path, bytes).mean_us(),
        bandwidth_us,
        software_us: software.per_hop_us,
    }
}
