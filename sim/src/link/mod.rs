//! The network between the nodes, as arithmetic: given when a frame is sent, when does it arrive?
//!
//! A frame passes the segments of its path one after the other ([`planner::fleet::Path`]): uplink, air, sites, downlink.
//! Each is a resource with a time of its own, shared by everything that passes it, whoever sends. A frame waits until a
//! resource is free, flows through cut-through (its head leaves a segment before its tail has entered it), so that the
//! slowest segment sets the pace, and then takes the path's delay, a random part of it drawn per ordered pair. On an idle
//! network the mean is the planner's [`transfer_time`](planner::cost::transfer::transfer_time).
//!
//! * `airtime`: the time of one resource, the lanes' order, contention on Wi-Fi.
//! * `route`: a path prepared for many sends; jitter and loss.
//! * `faults`: partitions and changed links.
//!
//! What it leaves out: congestion control (a frame starts at full rate), and frames changing their way. Both worlds and
//! the baselines send through this one model.

mod airtime;
mod faults;
mod route;

use std::collections::BTreeMap;

use node::transport::Lane;
use planner::cost::constants::{RING, Software};
use planner::fleet::{Delay, Fleet, NodeId};

use self::airtime::{Airtime, Slot};
use self::faults::{Cut, change_direction};
use self::route::{Leg, Numbering, Route};
use crate::seed::{Draws, Seed};

/// Bytes of a bulk frame that go out before a small one gets its turn: what hardware queues and radio aggregates hold.
/// Source: 64 KiB is the largest segment offloaded to a network card at once, and an 802.11n/ac aggregate.
pub const QUANTUM_BYTES: u64 = 65_536;

/// When a sent frame arrives, and why then. The parts add up to `at_ns` minus the time of sending, but for rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delivery {
    /// When the receiver has it, nanoseconds.
    pub at_ns: u64,
    /// When the last of it has passed the last resource and is only on its way, nanoseconds.
    pub passed_ns: u64,
    /// Propagation, jitter, retransmission.
    pub latency_us: f64,
    /// Bytes and medium access of the slowest segment.
    pub bandwidth_us: f64,
    /// Waiting for resources that others used, and for earlier frames of the same stream.
    pub queueing_us: f64,
    /// Software on both ends.
    pub software_us: f64,
}

/// One ordered pair in use.
#[derive(Debug)]
struct Link {
    /// `None`: no way there.
    route: Option<Route>,
    draws: Draws,
    /// The last delivery of each lane: streams keep their order.
    last_ns: [u64; Lane::ALL.len()],
}

/// The network of one run. Pure: time is what the caller passes.
#[derive(Debug)]
pub struct Net {
    fleet: Fleet,
    software: Software,
    seed: Seed,
    numbering: Numbering,
    resources: Vec<Airtime>,
    links: Vec<BTreeMap<NodeId, Link>>,
    cuts: Vec<Cut>,
    sent_bytes: Vec<u64>,
}

impl Net {
    /// The network of `fleet`, idle. Software costs are those of this project's ring.
    pub fn new(fleet: Fleet, seed: u64) -> Self {
        Self::with_software(fleet, seed, RING)
    }

    /// The same with another engine's software costs.
    pub fn with_software(fleet: Fleet, seed: u64, software: Software) -> Self {
        let nodes = fleet.nodes.len();
        Self {
            software,
            seed: Seed::new(seed).fork("links"),
            numbering: Numbering::new(&fleet),
            resources: Vec::new(),
            links: (0..nodes).map(|_| BTreeMap::new()).collect(),
            cuts: Vec::new(),
            sent_bytes: vec![0; nodes],
            fleet,
        }
    }

    /// The fleet as its links are now.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Bytes `node` has sent, headers of the wire excluded.
    pub fn sent_bytes(&self, node: NodeId) -> u64 {
        self.sent_bytes.get(node.index()).copied().unwrap_or(0)
    }

    /// Whether frames pass from `from` to `to` just now.
    pub fn reaches(&mut self, from: NodeId, to: NodeId) -> bool {
        !self.is_cut(from, to) && self.link(from, to).is_some_and(|link| link.route.is_some())
    }

    /// Sends a frame of `bytes` at `now_ns`. `None` when no frame passes between the two: their networks are not
    /// joined, a partition is between them, or one of them is not in the fleet. Frames of one lane between the same two
    /// nodes arrive in the order of sending.
    pub fn send(
        &mut self,
        now_ns: u64,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        bytes: u64,
    ) -> Option<Delivery> {
        if self.is_cut(from, to) {
            return None;
        }
        let software_us = self.software.per_hop_us;
        self.link(from, to)?;
        let link = self.links.get_mut(from.index())?.get_mut(&to)?;
        let route = link.route.as_ref()?;
        self.resources.resize_with(self.numbering.len().max(self.resources.len()), Airtime::default);
        let passed = pass(&mut self.resources, route, now_ns, from, lane, bytes);
        let latency_us = route.latency_us(bytes, &mut link.draws);
        let due_ns = passed.end_ns.saturating_add(nanoseconds(latency_us + software_us));
        let last_ns = &mut link.last_ns[lane as usize];
        let at_ns = due_ns.max(*last_ns);
        *last_ns = at_ns;
        self.sent_bytes[from.index()] += bytes;
        Some(Delivery {
            at_ns,
            passed_ns: passed.end_ns,
            latency_us,
            bandwidth_us: passed.service_ns as f64 / 1e3,
            queueing_us: (passed.end_ns - now_ns - passed.service_ns + (at_ns - due_ns)) as f64 / 1e3,
            software_us,
        })
    }

    /// Puts a partition between two groups of nodes, in addition to those there are.
    pub fn cut(&mut self, a: &[NodeId], b: &[NodeId]) {
        self.cuts.push(Cut::new(self.fleet.nodes.len(), a, b));
    }

    /// Ends all partitions.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Changes the link between two nodes in both directions; what is `None` stays. Frames on their way are not touched.
    pub fn change_link(&mut self, a: NodeId, b: NodeId, delay: Option<Delay>, bytes_per_s: Option<f64>) {
        for (from, to) in [(a, b), (b, a)] {
            change_direction(&mut self.fleet, from, to, delay, bytes_per_s);
            if let Some(link) = self.links.get_mut(from.index()).and_then(|links| links.get_mut(&to)) {
                link.route = self.fleet.path(from, to).map(|path| Route::new(path, &mut self.numbering));
            }
        }
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.iter().any(|cut| cut.separates(from, to))
    }

    /// The pair's link, made at its first use. `None` when one of the two is not in the fleet.
    fn link(&mut self, from: NodeId, to: NodeId) -> Option<&mut Link> {
        let nodes = self.fleet.nodes.len();
        if from.index() >= nodes || to.index() >= nodes {
            return None;
        }
        let (fleet, numbering, seed) = (&self.fleet, &mut self.numbering, self.seed);
        Some(self.links[from.index()].entry(to).or_insert_with(|| Link {
            route: fleet.path(from, to).map(|path| Route::new(path, numbering)),
            draws: seed.fork_index(u64::from(from.0) << 32 | u64::from(to.0)).draws(),
            last_ns: [0; Lane::ALL.len()],
        }))
    }
}

/// A frame's way through the resources: when its tail has passed the last, and how long the slowest took for it alone.
struct Passed {
    end_ns: u64,
    service_ns: u64,
}

/// Takes the frame through the legs. Its head reaches a leg when it has begun to pass the one before; its tail cannot
/// leave a leg before it has left the one before.
fn pass(
    resources: &mut [Airtime],
    route: &Route,
    now_ns: u64,
    from: NodeId,
    lane: Lane,
    bytes: u64,
) -> Passed {
    let wire = route.wire_bytes(bytes);
    let mut passed = Passed { end_ns: now_ns, service_ns: 0 };
    let mut head_ns = now_ns;
    for leg in &route.legs {
        let air = &mut resources[leg.resource as usize];
        air.forget_before(now_ns);
        let contention = if leg.air { air.contention(from.0) } else { 1.0 };
        let service_ns = (leg.access_ns * contention + wire * leg.ns_per_byte).round() as u64;
        let slot = pass_leg(air, leg, head_ns, lane, service_ns, route.wire_bytes(QUANTUM_BYTES));
        if leg.air {
            air.occupy(from.0, slot.end_ns);
        }
        head_ns = slot.start_ns;
        passed.end_ns = passed.end_ns.max(slot.end_ns);
        passed.service_ns = passed.service_ns.max(service_ns);
    }
    passed
}

fn pass_leg(air: &mut Airtime, leg: &Leg, head_ns: u64, lane: Lane, service_ns: u64, quantum: f64) -> Slot {
    match lane {
        Lane::Control | Lane::Decode => {
            air.pass_urgent(head_ns, service_ns, (quantum * leg.ns_per_byte) as u64)
        }
        Lane::Prefill => air.pass_bulk(head_ns, service_ns),
    }
}

fn nanoseconds(us: f64) -> u64 {
    (us * 1e3).round() as u64
}
