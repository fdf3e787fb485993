//! What a network of a class is like when the scenario says no more. Every figure can be overridden.

use planner::fleet::LinkClass;

/// The defaults of a class of network.
#[derive(Debug, PartialEq)]
pub(crate) struct Preset {
    /// What kind of link it is to planner and reports.
    pub(crate) class: LinkClass,
    /// Mean round trip between two of its nodes, microseconds.
    pub(crate) rtt_us: f64,
    /// Mean of the random part of a one-way trip, microseconds.
    pub(crate) jitter_us: f64,
    /// What one transfer between two nodes reaches when nothing else runs, bytes per second.
    pub(crate) bytes_per_s: f64,
    /// Whether all transfers share that.
    pub(crate) shared: bool,
    /// Airtime crossings of a frame between two nodes.
    pub(crate) air_crossings: f64,
    /// Medium access per frame and crossing, microseconds.
    pub(crate) access_us: f64,
}

const MBIT: f64 = 125e3;

/// A home's Wi-Fi 5 or 6 through an access point: 2-4 ms pings when idle with a jittery tail, 200-300 Mbit/s between
/// two stations, each frame twice on the air. Access is DIFS 34 us, a mean back-off of 7.5 slots of 9 us, preamble,
/// SIFS and acknowledgement about 50 us (IEEE 802.11-2020, tables for OFDM PHYs at 5 GHz).
static WIFI: Preset = Preset {
    class: LinkClass::Wifi,
    rtt_us: 5_000.0,
    jitter_us: 1_000.0,
    bytes_per_s: 240.0 * MBIT,
    shared: true,
    air_crossings: 2.0,
    access_us: 150.0,
};

/// Gigabit Ethernet through one switch: 0.2-0.4 ms between two operating systems at rest (interrupt coalescing and
/// wake-ups, not the cable), line rate per port.
static LAN: Preset = Preset {
    class: LinkClass::Lan,
    rtt_us: 300.0,
    jitter_us: 10.0,
    bytes_per_s: 1_000.0 * MBIT,
    shared: false,
    air_crossings: 1.0,
    access_us: 0.0,
};

/// IP over a Thunderbolt cable: macOS shows such a bridge as a link of 20 Gbit/s; pings as on a LAN without a switch.
static THUNDERBOLT: Preset = Preset { rtt_us: 200.0, bytes_per_s: 20_000.0 * MBIT, ..LAN };

/// A data centre's network: 10 Gbit/s a machine, 0.1 ms within a zone.
static DATACENTRE: Preset = Preset { rtt_us: 100.0, jitter_us: 5.0, bytes_per_s: 10_000.0 * MBIT, ..LAN };

/// Nodes that each hang on the internet by their own connection: 40 ms across a continent, 100 Mbit/s; give `up` and
/// `down` where the connection is asymmetric.
static WAN: Preset =
    Preset { class: LinkClass::Wan, rtt_us: 40_000.0, jitter_us: 1_000.0, bytes_per_s: 100.0 * MBIT, ..LAN };

/// The same where no direct path can be punched: everything goes through a relay, at twice the distance.
static RELAY: Preset =
    Preset { class: LinkClass::Relay, rtt_us: 80_000.0, jitter_us: 3_000.0, bytes_per_s: 20.0 * MBIT, ..LAN };

/// The classes by the word a scenario uses.
pub(crate) static ALL: &[(&str, &Preset)] = &[
    ("wifi", &WIFI),
    ("lan", &LAN),
    ("thunderbolt", &THUNDERBOLT),
    ("datacentre", &DATACENTRE),
    ("wan", &WAN),
    ("relay", &RELAY),
];
