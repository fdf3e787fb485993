//! The path between two nodes, prepared for many sends: resources by number, times in nanoseconds.

use std::collections::BTreeMap;

use planner::cost::transfer::{loss_delay, wire_bytes};
use planner::fleet::{Fleet, NodeId, Path, Resource};

use crate::seed::Draws;

/// Numbers the resources of a fleet: nodes' ports first, then networks, then pairs as they turn up.
#[derive(Debug)]
pub(super) struct Numbering {
    nodes: u32,
    fixed: u32,
    pairs: BTreeMap<(NodeId, NodeId), u32>,
}

impl Numbering {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let nodes = fleet.nodes.len() as u32;
        Self { nodes, fixed: 2 * nodes + 3 * fleet.networks.len() as u32, pairs: BTreeMap::new() }
    }

    /// How many there are so far.
    pub(super) fn len(&self) -> usize {
        self.fixed as usize + self.pairs.len()
    }

    fn of(&mut self, resource: Resource) -> u32 {
        let networks = 2 * self.nodes;
        match resource {
            Resource::NodeUp(node) => 2 * node.0,
            Resource::NodeDown(node) => 2 * node.0 + 1,
            Resource::Air(network) => networks + 3 * network.0,
            Resource::SiteUp(network) => networks + 3 * network.0 + 1,
            Resource::SiteDown(network) => networks + 3 * network.0 + 2,
            Resource::Pair(from, to) => {
                let next = self.fixed + self.pairs.len() as u32;
                *self.pairs.entry((from, to)).or_insert(next)
            }
        }
    }
}

/// One resource on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg {
    /// Its number.
    pub(super) resource: u32,
    /// Whether stations contend for it.
    pub(super) air: bool,
    /// Nanoseconds per byte on the wire.
    pub(super) ns_per_byte: f64,
    /// Nanoseconds per frame whatever its size.
    pub(super) access_ns: f64,
}

/// What of a route does not depend on what was sent over it.
#[derive(Debug)]
pub(super) struct Route {
    path: Path,
    pub(super) legs: Vec<Leg>,
}

impl Route {
    pub(super) fn new(path: Path, numbering: &mut Numbering) -> Self {
        let legs = path
            .segments
            .iter()
            .map(|segment| Leg {
                resource: numbering.of(segment.resource),
                air: matches!(segment.resource, Resource::Air(_)),
                ns_per_byte: 1e9 / segment.bytes_per_s,
                access_ns: segment.access_us * 1e3,
            })
            .collect();
        Self { path, legs }
    }

    /// Bytes that a frame of `bytes` puts on the wire.
    pub(super) fn wire_bytes(&self, bytes: u64) -> f64 {
        wire_bytes(&self.path, bytes)
    }

    /// One frame's delay on the way, microseconds: base, jitter, and what loss adds. Always takes three draws, so that
    /// a change of the link's figures does not move the draws of later frames.
    pub(super) fn latency_us(&self, bytes: u64, draws: &mut Draws) -> f64 {
        let (jitter, tail, middle) = (draws.exponential(), draws.unit(), draws.unit());
        let loss = loss_delay(&self.path, bytes);
        let mut latency_us = self.path.delay.base_us + self.path.delay.jitter_us * jitter;
        if tail < loss.tail_chance {
            latency_us += loss.tail_us;
        }
        if middle < loss.middle_chance {
            latency_us += loss.middle_us;
        }
        latency_us
    }
}
