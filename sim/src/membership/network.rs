//! Where members are, and what becomes of a packet.

use node::clock::Instant;

use super::spec::Network;
use crate::seed::{Draws, Seed};

/// Bytes of UDP and IPv4 headers, for each piece that fits an Ethernet frame.
const HEADER_BYTES: u64 = 28;
/// What fits one beside them.
const PIECE_BYTES: u64 = 1_472;

/// What a packet costs on the wire.
pub(super) fn wire_bytes(length: usize) -> u64 {
    let length = length as u64;
    length + HEADER_BYTES * length.div_ceil(PIECE_BYTES).max(1)
}

/// A member's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    x_ms: f64,
    y_ms: f64,
    access_ms: f64,
}

impl Place {
    pub(super) fn draw(network: &Network, draws: &mut Draws) -> Self {
        Self {
            x_ms: draws.unit() * network.width_ms,
            y_ms: draws.unit() * network.width_ms,
            access_ms: draws.exponential() * network.access_ms,
        }
    }

    /// The round trip between two, without what is random, milliseconds.
    pub(super) fn round_trip_ms(&self, other: &Self) -> f64 {
        (self.x_ms - other.x_ms).hypot(self.y_ms - other.y_ms) + self.access_ms + other.access_ms + 0.3
    }
}

/// A member's own clock: it began at another time, and runs at another speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watchwork {
    offset_ns: u64,
    rate: f64,
}

impl Watchwork {
    pub(super) fn draw(network: &Network, seed: Seed) -> Self {
        let mut draws = seed.draws();
        let offset_ns = (draws.unit() * 1e12) as u64;
        Self { offset_ns, rate: 1.0 + (draws.unit() * 2.0 - 1.0) * network.skew }
    }

    pub(super) fn local(&self, at_ns: u64) -> Instant {
        Instant(self.offset_ns + (at_ns as f64 * self.rate) as u64)
    }

    /// The first time at which it shows `at` or more.
    pub(super) fn global(&self, at: Instant) -> u64 {
        let mut at_ns = (at.0.saturating_sub(self.offset_ns) as f64 / self.rate) as u64;
        while self.local(at_ns) < at {
            at_ns += 1;
        }
        at_ns
    }
}
