//! Tables that describe models, machines and networks.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::scenario::kind::{
    Bandwidth, Bytes, Count, Duration, Flag, Flops, NameOr, Names, Number, RoundTrip, Text, Word,
};
use crate::scenario::leaf::{Here, Leaf};
use crate::scenario::presets::Preset;

/// A model: from the catalog, from a GGUF file, or by its shape.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawModel {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// A name from the catalog; for a model given by its shape, the name it shall have.
    pub(crate) name: Option<Leaf<Text>>,
    /// The quantisation, such as "Q4_K_M".
    pub(crate) quant: Option<Leaf<Text>>,
    /// A GGUF file, relative to this one; only its header is read.
    pub(crate) gguf: Option<Leaf<Text>>,
    /// Transformer layers. This key makes it a model given by its shape.
    pub(crate) layers: Option<Leaf<Count>>,
    /// Width of the residual stream.
    pub(crate) hidden: Option<Leaf<Count>>,
    /// Attention heads. Default: hidden / 128.
    pub(crate) heads: Option<Leaf<Count>>,
    /// Key-value heads. Default: as many as heads.
    pub(crate) kv_heads: Option<Leaf<Count>>,
    /// Width of a head. Default: hidden / heads.
    pub(crate) head_dim: Option<Leaf<Count>>,
    /// Inner width of the dense feed-forward layers.
    pub(crate) ffn: Option<Leaf<Count>>,
    /// Tokens in the vocabulary. Default: 32000.
    pub(crate) vocab: Option<Leaf<Count>>,
    /// Whether head and embedding are one tensor. Default: false.
    pub(crate) tied: Option<Leaf<Flag>>,
    /// The experts of each mixture-of-experts layer. Default: a dense model.
    pub(crate) experts: Option<RawExperts>,
    /// Bits per weight. Default: 4.85, what Q4_K_M comes to.
    pub(crate) bits: Option<Leaf<Number>>,
    /// Size of the whole file; instead of bits.
    pub(crate) size: Option<Leaf<Bytes>>,
    /// KV bytes per token and layer at f16, where the shape does not give them (latent attention).
    pub(crate) kv_per_token: Option<Leaf<Bytes>>,
    /// Longest context, tokens. Default: 8192.
    pub(crate) context_max: Option<Leaf<Count>>,
}

/// The experts of a mixture-of-experts layer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawExperts {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// How many a layer has.
    pub(crate) count: Option<Leaf<Count>>,
    /// How many a token uses.
    pub(crate) used: Option<Leaf<Count>>,
    /// Inner width of one expert.
    pub(crate) ffn: Option<Leaf<Count>>,
    /// Inner width of the shared experts together. Default: 0.
    pub(crate) shared_ffn: Option<Leaf<Count>>,
    /// Leading layers that are dense instead. Default: 0.
    pub(crate) dense_layers: Option<Leaf<Count>>,
}

/// A device, by its figures; those left out come from `like`, or from the class.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDevice {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// A device of the catalog, or of this scenario, to start from.
    pub(crate) like: Option<Leaf<Text>>,
    /// Name for people.
    pub(crate) name: Option<Leaf<Text>>,
    /// The catalog's class of software and hardware, such as "metal", "cuda", "cpu" or "board"; instead of `like`.
    pub(crate) class: Option<Leaf<Text>>,
    /// Memory it computes from; needed where `like` is absent.
    pub(crate) memory: Option<Leaf<Bytes>>,
    /// What the system keeps of it.
    pub(crate) reserved: Option<Leaf<Bytes>>,
    /// Memory bandwidth; needed where `like` is absent.
    pub(crate) bandwidth: Option<Leaf<Bandwidth>>,
    /// Share of the bandwidth that streaming weights reaches, 0 to 1.
    pub(crate) bandwidth_efficiency: Option<Leaf<Number>>,
    /// Peak compute; needed where `like` is absent.
    pub(crate) flops: Option<Leaf<Flops>>,
    /// Share of the compute that a long prefill reaches, 0 to 1.
    pub(crate) flops_efficiency: Option<Leaf<Number>>,
    /// Dispatch of one dense layer in one step.
    pub(crate) layer_overhead: Option<Leaf<Duration>>,
    /// What a mixture-of-experts layer adds to that.
    pub(crate) expert_overhead: Option<Leaf<Duration>>,
    /// Sequential read from local disk.
    pub(crate) disk: Option<Leaf<Bandwidth>>,
    /// What a profile found of parts of a step. Default: as weights are streamed and multiplied with.
    pub(crate) measured: Option<RawMeasured>,
}

/// Rates of parts of a step, as a profile finds them; all three are needed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMeasured {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// Streaming the head.
    pub(crate) head: Option<Leaf<Bandwidth>>,
    /// Reading the KV cache.
    pub(crate) kv: Option<Leaf<Bandwidth>>,
    /// Scores and values of many tokens.
    pub(crate) attention: Option<Leaf<Flops>>,
}

/// A machine, or several alike.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawNode {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// A device of the catalog or of this scenario, or a table with figures.
    pub(crate) device: Option<Leaf<NameOr<RawDevice>>>,
    /// The network it is attached to. Default: the only one.
    pub(crate) network: Option<Leaf<Text>>,
    /// The host it runs on: nodes of one machine reach each other by loopback. Default: a machine of its own.
    pub(crate) machine: Option<Leaf<Text>>,
    /// So many alike, named NAME-1, NAME-2 and so on; NAME means all of them. Ranges are drawn for each. Default: one, NAME.
    pub(crate) count: Option<Leaf<Count>>,
    /// Bandwidth of its own connection, sending. Default: what the network has.
    pub(crate) up: Option<Leaf<Bandwidth>>,
    /// The same, receiving.
    pub(crate) down: Option<Leaf<Bandwidth>>,
    /// Whether the weights are on its disk; without them it gets no layers. Default: true.
    pub(crate) has_model: Option<Leaf<Flag>>,
}

/// A local network.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawNetwork {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// What it is like where nothing else is said. Default: lan.
    pub(crate) class: Option<Leaf<Word<&'static Preset>>>,
    /// Mean round trip between two of its nodes, jitter included.
    pub(crate) rtt: Option<Leaf<Duration>>,
    /// Least one-way delay, jitter excluded; instead of rtt.
    pub(crate) delay: Option<Leaf<Duration>>,
    /// Mean of the random part of a one-way trip.
    pub(crate) jitter: Option<Leaf<Duration>>,
    /// What one transfer between two nodes reaches when nothing else runs: of each port on a switched network, of all
    /// transfers together on Wi-Fi.
    pub(crate) bandwidth: Option<Leaf<Bandwidth>>,
    /// Share of packets lost, 0 to 0.5. Default: 0.
    pub(crate) loss: Option<Leaf<Number>>,
    /// Times a frame between two nodes is on the air, 1 to 4; Wi-Fi only.
    pub(crate) air_crossings: Option<Leaf<Number>>,
    /// Medium access per frame and crossing; Wi-Fi only.
    pub(crate) access: Option<Leaf<Duration>>,
    /// The site's connection to other networks, sending, shared by its nodes. Default: no limit.
    pub(crate) up: Option<Leaf<Bandwidth>>,
    /// The same, receiving.
    pub(crate) down: Option<Leaf<Bandwidth>>,
}

/// How far networks are from each other.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDistance {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// Two networks or more.
    pub(crate) between: Option<Leaf<Names>>,
    /// Mean round trip between their routers: one for all pairs, or a matrix in the order of `between`.
    pub(crate) rtt: Option<Leaf<RoundTrip>>,
    /// Mean of the random part of a one-way trip. Default: 2 % of the round trip.
    pub(crate) jitter: Option<Leaf<Duration>>,
    /// Direct (wan), relayed (relay), or a cable between buildings (lan). Default: wan.
    pub(crate) class: Option<Leaf<Word<&'static Preset>>>,
    /// Share of packets lost on the way, 0 to 0.5. Default: 0.
    pub(crate) loss: Option<Leaf<Number>>,
}

/// An exception for a pair of nodes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLink {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// The two nodes; a name of several stands for each.
    pub(crate) between: Option<Leaf<Names>>,
    /// Mean round trip, jitter included.
    pub(crate) rtt: Option<Leaf<Duration>>,
    /// Least one-way delay, jitter excluded; instead of rtt.
    pub(crate) delay: Option<Leaf<Duration>>,
    /// Mean of the random part of a one-way trip. Default: 0.
    pub(crate) jitter: Option<Leaf<Duration>>,
    /// Bandwidth of this pair alone, each way.
    pub(crate) bandwidth: Option<Leaf<Bandwidth>>,
    /// Only from the first to the second. Default: both ways.
    pub(crate) one_way: Option<Leaf<Flag>>,
}
