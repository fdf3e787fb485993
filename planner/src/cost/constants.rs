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

/// Bytes of each of the two messages that open a stream: who speaks, and what.
/// Source: libp2p's multistream-select exchanges two names of some thirty bytes.
pub const HANDSHAKE_BYTES: u64 = 64;

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
/// socket itself and one wake-up of the stage's task on each side; activations in 16 bits, the engine's default, whose two
/// bytes more (one a token, one a frame) are left out.
pub const RING: Software = Software { per_hop_us: 60.0, per_step_us: 100.0, activation_bytes: 2.0 };

/// A layer of latent attention starts this share of the kernels that a mixture of experts adds: two low-rank
/// projections with their norms, the absorbed key and value products, splits and joins of the rotary part.
/// Source: fitted on r190, GLM-4.7-Flash alone on an M4 Max at 68 tok/s.
pub const LATENT_DISPATCH: f64 = 0.77;

/// llama.cpp's RPC: a hub, one server after the other. Its frames pass a plain socket; the residual stream is f32.
/// Source: a bare TCP socket costs 15 us each way, a server's and the host's threads wake up in between.
pub const LLAMA_RPC: Software = Software { per_hop_us: 60.0, per_step_us: 0.0, activation_bytes: 4.0 };

/// What each layer on an RPC server adds to a token: some fifty tensors of the graph are written out by the host (300 bytes
/// each), read and built again by the server, about a microsecond a tensor, microseconds.
/// Source: structure of `rpc_tensor` and of the graph command in llama.cpp; not fitted.
pub const LLAMA_RPC_LAYER_US: f64 = 50.0;

/// Calls of a chatty RPC host to each server for each token: it asks for the allocation size of every tensor again.
/// Source: measured by the authors of mesh-llm before and after they cached the answers.
pub const LLAMA_RPC_CALLS_CHATTY: u32 = 558;

/// The same with the answers cached.
pub const LLAMA_RPC_CALLS_CACHED: u32 = 8;

/// A stage pipeline whose reply returns through every stage, polling its QUIC streams; activations in 16 bits.
/// Source: fitted on r201: two stages 20 ms apart add two round trips and 4.9 ms to each token, over four frames.
pub const HOP_BY_HOP: Software = Software { per_hop_us: 1225.0, per_step_us: 0.0, activation_bytes: 2.0 };

/// A client that carries activations from server to server: Python, asyncio, gRPC or hivemind on both ends.
/// Source: assumed equal to the other Python pipeline, [`EXO`].
pub const CLIENT_RELAY: Software = Software { per_hop_us: 1100.0, per_step_us: 0.0, activation_bytes: 2.0 };

/// exo's ring of 2024-25: Python and gRPC between the stages.
/// Source: fitted on r238: a second machine adds 2.2 ms to a token, over two hops.
pub const EXO: Software = Software { per_hop_us: 1100.0, per_step_us: 0.0, activation_bytes: 2.0 };

/// What exo of 2024-25 spends on each token beside compute and hops: sampling, detokenising, events, microseconds.
/// Source: fitted on r237, Llama 3.2 3B alone on an M4 Pro at 49.3 tok/s.
pub const EXO_TOKEN_US: f64 = 10_800.0;

/// Tensor parallelism over sockets (distributed-llama): the residual stream in 8-bit blocks of 32 with an f16 scale.
/// Source: 34 bytes for 32 elements; 15 us for a bare socket, whose reader spins.
pub const TENSOR_PARALLEL: Software =
    Software { per_hop_us: 40.0, per_step_us: 0.0, activation_bytes: 34.0 / 32.0 };

/// Share of a token's work under tensor parallelism that is not divided: norms, rotations, the root's own part.
/// Source: fitted on r002: two Raspberry Pi 4 compute 739 ms where one computes 1,308 (report of distributed-llama).
pub const TENSOR_SERIAL_SHARE: f64 = 0.13;

/// Width of the feed-forward part over that of the residual stream, for the bytes of tensor parallelism.
/// Source: 11,008 / 4,096 and 13,824 / 5,120 of Llama 2. With it the root moves 1.19 MB a token for two nodes and 2.97 MB
/// for four where distributed-llama reports 1.11 and 2.83.
pub const TENSOR_FEED_FORWARD_WIDTH: f64 = 2.7;

/// A constant of this file that was fitted on a published row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FittedConstant {
    /// Its name.
    pub name: &'static str,
    /// Its value, in the unit of its name.
    pub value: f64,
    /// The row.
    pub row: &'static str,
}

/// The constants of this file that were fitted, for the count that stands beside accuracy figures. Those of devices are
/// counted by [`crate::fleet::catalog::fitted`].
pub const FITTED: [FittedConstant; 5] = [
    FittedConstant { name: "LATENT_DISPATCH", value: LATENT_DISPATCH, row: "r190" },
    FittedConstant { name: "HOP_BY_HOP.per_hop_us", value: HOP_BY_HOP.per_hop_us, row: "r201" },
    FittedConstant { name: "EXO_TOKEN_US", value: EXO_TOKEN_US, row: "r237" },
    FittedConstant { name: "EXO.per_hop_us", value: EXO.per_hop_us, row: "r238" },
    FittedConstant { name: "TENSOR_SERIAL_SHARE", value: TENSOR_SERIAL_SHARE, row: "r002" },
];
