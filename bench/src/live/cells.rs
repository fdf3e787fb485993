//! What is measured: a number of nodes and the network between them, as a scenario of the simulator.

use std::fmt::Write as _;
use std::path::Path;

use planner::cost::constants::Software;
use planner::fleet::{Device, Measured};
use planner::plan::LayerRange;
use sim::scenario::{self, Scenario, ScenarioError};

/// The network between the nodes of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Net {
    /// Switched, each port of so many Mbit/s.
    Lan {
        /// Mean round trip, milliseconds.
        rtt_ms: f64,
        /// Each port's rate.
        mbit_s: f64,
    },
    /// One home's Wi-Fi, as the simulator has it where nothing else is said.
    Wifi,
}

impl Net {
    /// All of them, the fastest first.
    pub fn all() -> Vec<Net> {
        let lan = |mbit_s| move |rtt_ms| Net::Lan { rtt_ms, mbit_s };
        let rtts = [0.0, 2.0, 10.0, 40.0];
        let mut all: Vec<Net> = rtts.into_iter().map(lan(1_000.0)).collect();
        all.extend(rtts.into_iter().map(lan(100.0)));
        all.push(Net::Wifi);
        all
    }

    /// Its name in tables: `2ms-100mbit`.
    pub fn name(&self) -> String {
        match self {
            Net::Lan { rtt_ms, mbit_s } => format!("{rtt_ms}ms-{mbit_s}mbit"),
            Net::Wifi => "wifi".into(),
        }
    }

    /// Mean round trip, milliseconds; of Wi-Fi the preset's.
    pub fn rtt_ms(&self) -> f64 {
        match self {
            Net::Lan { rtt_ms, .. } => *rtt_ms,
            Net::Wifi => 5.0,
        }
    }

    fn table(&self) -> String {
        match self {
            Net::Lan { rtt_ms, mbit_s } => format!(
                "[network.net]\nclass = \"lan\"\nrtt = \"{rtt_ms} ms\"\njitter = \"0 ms\"\nbandwidth = \"{mbit_s} Mbit/s\"\n"
            ),
            Net::Wifi => "[network.net]\nclass = \"wifi\"\n".into(),
        }
    }
}

/// Who asks what of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tokens of each prompt.
    pub prompt: u32,
    /// Tokens of each answer.
    pub output: u32,
    /// Streams at once.
    pub streams: u32,
    /// Requests in all.
    pub requests: u32,
}

/// Where each of `nodes` stages begins, but the first, when `layers` are shared out as evenly as can be.
pub fn even_cut(layers: u32, nodes: u32) -> Vec<u32> {
    (1..nodes).map(|i| (f64::from(layers * i) / f64::from(nodes)).round() as u32).collect()
}

/// The stages that a cut makes.
pub fn stages(layers: u32, cut: &[u32]) -> Vec<LayerRange> {
    let firsts = std::iter::once(0).chain(cut.iter().copied());
    let ends = cut.iter().copied().chain([layers]);
    firsts.zip(ends).map(|(first, end)| LayerRange::new(first, end)).collect()
}

/// The name of the node that holds that stage; their order is that of the stages.
pub fn node_name(stage: usize) -> String {
    format!("n{stage}")
}

/// The cell as a scenario: the nodes all have `device`, one stage each, and nothing is drawn but jitter.
pub fn text(
    model: &Path,
    device: &Device,
    software: &Software,
    stages: &[LayerRange],
    net: Net,
    load: Load,
) -> String {
    let (question, count) = (net.name(), stages.len());
    let mut text = format!("# What do {count} nodes of this machine's speed give over {question}?\n\n");
    let model = model.display();
    let network = if count > 1 { net.table() } else { String::new() };
    let Load { prompt, output, streams, requests } = load;
    write!(
        text,
        "model = {{ gguf = \"{model}\" }}\n\n{network}\n{}\n[node]\n{}\n[plan]\n{}\n\n[workload]\nusers = {streams}\n\
         requests = {requests}\nprompt = {prompt}\noutput = {output}\n\n[run]\nworld = \"memory\"\n\
         compute_error = {{ device = 0, step = 0 }}\nsoftware = {{ per_hop = \"{} us\", per_step = \"{} us\" }}\n",
        scenario::device_table("here", device),
        nodes(count),
        split(stages),
        software.per_hop_us,
        software.per_step_us,
    )
    .expect("writing to text never fails");
    text
}

/// Reads such a text, as if it stood in a file beside which the model's path holds.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Scenario, ScenarioError> {
    scenario::load_text(Path::new("live.toml"), text, &[], None)
}

/// The same machine, computing so many times as fast.
pub fn faster(device: &Device, times: f64) -> Device {
    let measured = device.measured.map(|m| Measured {
        head_bytes_per_s: m.head_bytes_per_s * times,
        kv_bytes_per_s: m.kv_bytes_per_s * times,
        attention_flops: m.attention_flops * times,
    });
    Device {
        bandwidth_bytes_per_s: device.bandwidth_bytes_per_s * times,
        flops: device.flops * times,
        layer_overhead_us: device.layer_overhead_us / times,
        measured,
        ..device.clone()
    }
}

fn nodes(count: usize) -> String {
    let machine = |i| format!("{} = {{ device = \"here\" }}\n", node_name(i));
    (0..count).map(machine).collect()
}

fn split(stages: &[LayerRange]) -> String {
    let share = |(i, stage): (usize, &LayerRange)| format!("{} = {}", node_name(i), stage.len());
    let shares: Vec<String> = stages.iter().enumerate().map(share).collect();
    format!("split = {{ {} }}", shares.join(", "))
}
