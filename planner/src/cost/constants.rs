//! Every constant of the cost model, in one place, each with its source. Figures that belong to a device stand in the
//! device catalog; these belong to protocols and software.

use serde::{Deserialize, Serialize};

/// Bytes on the wire per byte of payload: TCP or QUIC, IP and Ethernet headers, acknowledgements.
/// Source: 8 KiB frames of libp2p on a 40 Mbit/s `tbf` link took 1.055 times the ideal (`docs/validation.md`).
pub const WIRE_OVERHEAD: f64 = 1.055;

/// Bytes of a frame beside its tensor: headers of frame, step and transport.
/// Source: size of an encoded decode step, `node::wire` tests.
pub const FRAME_HEADER_BYTES: u64 = 96;

/// Bytes a sampled token costs on its way back to the head.
/// Source: size of an encoded token frame, `node::wire` tests.
pub const TOKEN_FRAME_BYTES: u64 = 64;

/// Activation buffers beside weights and KV: this many times the largest step's residual stream.
/// Source: llama.cpp's compute buffers for 512-token batches are 200-600 MB over 8B-70B shapes; 16 residual-sized f32
/// buffers (attention in and out, gate, up, down, scores) land there.
pub const ACTIVATION_COPIES: u64 = 16;

/// Tokens of one prefill step (chunk). Source: llama.cpp's `n_ubatch`.
pub const PREFILL_CHUNK: u32 = 512;

/// Extra delay of a lost packet, microseconds: the least retransmission timeout of RFC 6298 implementations (Linux).
pub const RETRANSMIT_US: f64 = 200_000.0;

/// Payload of one packet, bytes: a TCP segment in an Ethernet frame of 1,500 bytes with timestamps. How many of them a
/// frame takes decides how likely loss is to hit it.
pub const PACKET_BYTES: u64 = 1448;

/// What one engine's software costs, apart from devices and links.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Software {
    /// Sending one frame and receiving it: serialising, system calls, waking, microseconds.
    pub per_hop_us: f64,
    /// Starting one step on a stage: batching, synchronising with the device, microseconds.
    pub per_step_us: f64,
    /// Bytes per element of the residual stream on the wire.
    pub activation_bytes: f64,
}

/// This project's ring over libp2p streams.
/// Source: one-way overhead of a libp2p stream over a bare socket is 13 us (TCP) to 25 us (QUIC), plus 15 us for the
/// socket itself and one wake-up of the stage's task on each side; activations in 16 bits.
pub const RING: Software = Software { per_hop_us: 60.0, per_step_us: 100.0, activation_bytes: 2.0 };
