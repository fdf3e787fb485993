//! The sweeps: which scenario, which key, which values, and which figures they answer with.

use sim::report::plots::Metric;

/// One sweep.
#[derive(Debug, Clone, Copy)]
pub struct SweepSpec {
    /// File stem of its scenario under `bench/sweeps/`, and name of its directory under `results/plots/`.
    pub name: &'static str,
    /// The swept key, as `--set` takes it.
    pub key: &'static str,
    /// What the key means, for the axis.
    pub x_name: &'static str,
    /// Its values, in one unit.
    pub values: &'static [&'static str],
    /// What is drawn over them.
    pub metrics: &'static [Metric],
}

/// All of them. Each repeats as `sim bench/sweeps/NAME.toml --sweep KEY=VALUES`.
pub const SWEEPS: [SweepSpec; 4] = [
    SweepSpec {
        name: "round-trip",
        key: "network.home.rtt",
        x_name: "mean round trip between two machines",
        values: &["0.2 ms", "2 ms", "5 ms", "10 ms", "20 ms", "40 ms", "60 ms", "80 ms"],
        metrics: &[Metric::Decode],
    },
    SweepSpec {
        name: "bandwidth",
        key: "network.home.bandwidth",
        x_name: "bandwidth of the network",
        values: &["20 Mbit/s", "50 Mbit/s", "100 Mbit/s", "250 Mbit/s", "500 Mbit/s", "1000 Mbit/s"],
        metrics: &[Metric::Decode, Metric::FirstToken],
    },
    SweepSpec {
        name: "stages",
        key: "node.mini.count",
        x_name: "machines in the ring",
        values: &["1", "2", "3", "4", "5", "6", "7", "8"],
        metrics: &[Metric::Decode],
    },
    SweepSpec {
        name: "users",
        key: "workload.users",
        x_name: "people at once",
        values: &["1", "2", "3", "4", "6", "8", "12", "16"],
        metrics: &[Metric::Throughput, Metric::Decode],
    },
];
