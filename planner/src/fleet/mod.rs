//! Machines and what joins them.
//!
//! A [`Fleet`] is nodes with devices, and networks. The path from one node to another is derived: through the
//! sender's uplink and medium, the distance between the two networks, and the receiver's downlink and medium. Bandwidth
//! belongs to an uplink or to a shared medium, never to a stream.
//!
//! * [`catalog`]: known devices, from data files, every figure with its source.

use serde::{Deserialize, Serialize};

pub mod catalog;
mod path;

pub use crate::plan::NodeId;
pub use path::Ways;

/// What kind of hardware computes; chooses dispatch behaviour and words in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Apple silicon: unified memory, Metal.
    Apple,
    /// A discrete or embedded NVIDIA GPU, CUDA.
    Nvidia,
    /// An AMD GPU, discrete or in a processor; Vulkan or ROCm.
    Amd,
    /// A CPU.
    Cpu,
}

/// A device with the figures the cost model needs, resolved from the catalog or measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Catalog key, `apple-m4-max-40`, or the name a scenario gave.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What kind.
    pub kind: DeviceKind,
    /// Memory the device computes from, bytes.
    pub memory_bytes: u64,
    /// What system and desktop keep of it, bytes.
    pub reserved_bytes: u64,
    /// Memory bandwidth by specification or measurement, bytes per second.
    pub bandwidth_bytes_per_s: f64,
    /// Share of it that streaming quantised weights reaches at batch 1.
    pub bandwidth_efficiency: f64,
    /// Peak dense multiply-add throughput in the engine's type, FLOP/s.
    pub flops: f64,
    /// Share of it that a long prefill reaches.
    pub flops_efficiency: f64,
    /// Dispatch of one dense layer's kernels in one step, microseconds.
    pub layer_overhead_us: f64,
    /// What a mixture-of-experts layer adds to that (gate, top-k, gathers, small matrices), microseconds.
    pub expert_overhead_us: f64,
    /// Sequential read from local disk, bytes per second.
    pub disk_bytes_per_s: f64,
    /// What a profile found beyond that, for the model it was made with; nothing of a device from the catalog.
    #[serde(default)]
    pub measured: Option<Measured>,
}

/// Rates of parts of a step that differ from those of streaming and multiplying with the layers' weights: attention works
/// on another format with other kernels, and so does a head that is stored otherwise than the layers.
///
/// Where they are known, streaming and computing add up instead of hiding behind each other: a core of a processor does one
/// after the other. Profiles of the CPU engine show it (`docs/live.md`): over batches of 1 to 16 the time is a straight line
/// to a few per cent, from which the roofline's corner is up to 19 % away.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Streaming the head at one position, bytes per second.
    pub head_bytes_per_s: f64,
    /// Reading the KV cache, bytes per second.
    pub kv_bytes_per_s: f64,
    /// Scores and values of many tokens, FLOP/s.
    pub attention_flops: f64,
}

impl Device {
    /// Memory a plan may use, bytes.
    pub fn usable_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.reserved_bytes)
    }
}

/// One machine (or one device of a machine).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique in the fleet.
    pub name: String,
    /// What computes there.
    pub device: Device,
    /// Nodes with the same machine name share a host: links between them are loopback.
    pub machine: String,
    /// The network it is attached to.
    pub network: NetworkId,
    /// The node's own connection to that network, if it limits: bytes per second up.
    pub up_bytes_per_s: Option<f64>,
    /// The same, down.
    pub down_bytes_per_s: Option<f64>,
    /// Whether the weights are on its disk. A node without them gets no layers.
    pub has_model: bool,
}

/// A network's place in [`Fleet::networks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId(pub u32);

/// One-way delay: `base` always, plus a random part of mean `jitter` (exponential).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Delay {
    /// The least it takes, microseconds.
    pub base_us: f64,
    /// Mean of the random part on top, microseconds.
    pub jitter_us: f64,
}

impl Delay {
    /// The mean one-way delay, microseconds.
    pub fn mean_us(&self) -> f64 {
        self.base_us + self.jitter_us
    }

    /// Two delays in a row.
    pub fn then(self, other: Delay) -> Delay {
        Delay { base_us: self.base_us + other.base_us, jitter_us: self.jitter_us + other.jitter_us }
    }
}

/// What kind of link; names it in reports and sets defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkClass {
    /// The same machine.
    Loopback,
    /// Switched Ethernet or Thunderbolt.
    Lan,
    /// One half-duplex radio medium shared by every hop.
    Wifi,
    /// The internet, direct.
    Wan,
    /// The internet, through a relay.
    Relay,
}

/// A local network: a LAN, a home's Wi-Fi, a data centre.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Unique in the fleet.
    pub name: String,
    /// What kind.
    pub class: LinkClass,
    /// One-way delay between two of its nodes, software excluded.
    pub delay: Delay,
    /// Of a shared medium the whole of it, of a switched one each port's, bytes per second.
    pub bytes_per_s: f64,
    /// Whether all of its hops share the bandwidth, half-duplex, as on Wi-Fi. A frame between two stations then
    /// crosses the air `air_crossings` times.
    pub shared: bool,
    /// Airtime crossings of one frame on a shared medium (2 through an access point).
    pub air_crossings: f64,
    /// Medium access per frame on a shared medium (contention, preamble, acknowledgement), microseconds.
    pub access_us: f64,
    /// Share of packets lost; modelled as delay (one retransmission timeout) and as lost throughput.
    pub loss: f64,
    /// The network's connection to others, bytes per second up, shared by all of its nodes.
    pub up_bytes_per_s: Option<f64>,
    /// The same, down.
    pub down_bytes_per_s: Option<f64>,
}

/// Distance between two networks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// One end.
    pub a: NetworkId,
    /// The other.
    pub b: NetworkId,
    /// One-way delay between them.
    pub delay: Delay,
    /// Direct or relayed.
    pub class: LinkClass,
    /// Share of packets lost on the way.
    pub loss: f64,
}

/// An exception for one ordered pair of nodes; a field that is absent keeps what the networks say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinkOverride {
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// One-way delay.
    pub delay: Option<Delay>,
    /// Bytes per second of this pair.
    pub bytes_per_s: Option<f64>,
}

/// Something bytes must pass one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// The air of a shared network.
    Air(NetworkId),
    /// A node's sending side.
    NodeUp(NodeId),
    /// A node's receiving side.
    NodeDown(NodeId),
    /// A network's sending side towards others.
    SiteUp(NetworkId),
    /// A network's receiving side.
    SiteDown(NetworkId),
    /// One ordered pair with a bandwidth of its own.
    Pair(NodeId, NodeId),
}

/// One resource on a path, and how fast it passes bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// What is occupied.
    pub resource: Resource,
    /// At this rate, bytes per second (airtime crossings included).
    pub bytes_per_s: f64,
    /// And for this long per frame whatever its size, microseconds.
    pub access_us: f64,
}

/// The way from one node to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// What kind, by its worst part.
    pub class: LinkClass,
    /// One-way delay, software and bandwidth excluded.
    pub delay: Delay,
    /// Share of packets lost.
    pub loss: f64,
    /// What the bytes pass, in order.
    pub segments: Vec<Segment>,
}

/// Machines and what joins them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Fleet {
    /// By [`NodeId`].
    pub nodes: Vec<Node>,
    /// By [`NetworkId`].
    pub networks: Vec<Network>,
    /// Between networks. A pair that is absent is unreachable.
    pub distances: Vec<Distance>,
    /// Exceptions.
    pub overrides: Vec<LinkOverride>,
}
