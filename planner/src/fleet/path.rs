//! The path between two nodes, derived from networks, distances and overrides.

use std::collections::BTreeMap;

use super::{
    Delay, Distance, Fleet, LinkClass, LinkOverride, Network, NetworkId, Node, NodeId, Path, Resource,
    Segment,
};

/// One-way delay between two processes of one machine, microseconds.
/// Source: 8 KiB echo over loopback TCP takes 6.3 us; half of it one way.
const LOOPBACK_US: f64 = 3.0;

impl Fleet {
    /// The node with that id; ids come from this fleet.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The node of that name.
    pub fn by_name(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.name == name).map(|i| NodeId(i as u32))
    }

    /// The way from `from` to `to`, or `None` when their networks are not joined. It looks through all distances and
    /// overrides; whoever asks for many paths makes a [`Ways`] once.
    pub fn path(&self, from: NodeId, to: NodeId) -> Option<Path> {
        let (a, b) = (self.node(from).network, self.node(to).network);
        let distance = || self.distances.iter().find(|d| (d.a, d.b) == (a, b) || (d.b, d.a) == (a, b));
        let overrides = self.overrides.iter().filter(|o| o.from == from && o.to == to);
        self.path_over(from, to, distance, overrides)
    }

    fn path_over<'a>(
        &'a self,
        from: NodeId,
        to: NodeId,
        distance: impl FnOnce() -> Option<&'a Distance>,
        overrides: impl Iterator<Item = &'a LinkOverride>,
    ) -> Option<Path> {
        let (a, b) = (self.node(from), self.node(to));
        let mut path = if from == to || a.machine == b.machine {
            Path {
                class: LinkClass::Loopback,
                delay: Delay { base_us: LOOPBACK_US, jitter_us: 0.0 },
                loss: 0.0,
                segments: Vec::new(),
            }
        } else if a.network == b.network {
            self.local_path(from, to)
        } else {
            self.distant_path(from, to, distance()?)
        };
        for o in overrides {
            if let Some(delay) = o.delay {
                path.delay = delay;
            }
            if let Some(bytes_per_s) = o.bytes_per_s {
                path.segments.push(Segment {
                    resource: Resource::Pair(from, to),
                    bytes_per_s,
                    access_us: 0.0,
                });
            }
        }
        Some(path)
    }

    fn network_of(&self, node: &Node) -> &Network {
        &self.networks[node.network.0 as usize]
    }

    fn local_path(&self, from: NodeId, to: NodeId) -> Path {
        let net = self.network_of(self.node(from));
        let crossings = if net.shared { net.air_crossings } else { 1.0 };
        let mut segments = Vec::new();
        push_port(&mut segments, self, from, true);
        if net.shared {
            push_air(&mut segments, self, from, crossings);
        }
        push_port(&mut segments, self, to, false);
        Path { class: net.class, delay: net.delay, loss: net.loss, segments }
    }

    fn distant_path(&self, from: NodeId, to: NodeId, far: &Distance) -> Path {
        let (a, b) = (self.node(from), self.node(to));
        let (na, nb) = (self.network_of(a), self.network_of(b));
        let mut segments = Vec::new();
        push_port(&mut segments, self, from, true);
        if na.shared {
            push_air(&mut segments, self, from, 1.0);
        }
        if let Some(bytes_per_s) = na.up_bytes_per_s {
            segments.push(Segment { resource: Resource::SiteUp(a.network), bytes_per_s, access_us: 0.0 });
        }
        if let Some(bytes_per_s) = nb.down_bytes_per_s {
            segments.push(Segment { resource: Resource::SiteDown(b.network), bytes_per_s, access_us: 0.0 });
        }
        if nb.shared {
            push_air(&mut segments, self, to, 1.0);
        }
        push_port(&mut segments, self, to, false);
        Path {
            class: far.class,
            delay: half(na).then(far.delay).then(half(nb)),
            loss: 1.0 - (1.0 - na.loss) * (1.0 - far.loss) * (1.0 - nb.loss),
            segments,
        }
    }
}

/// The paths of a fleet by index: each in a time that grows with neither distances nor overrides.
#[derive(Debug)]
pub struct Ways<'a> {
    fleet: &'a Fleet,
    /// The first distance between two networks, either way round, as [`Fleet::path`] takes it.
    distances: BTreeMap<(NetworkId, NetworkId), &'a Distance>,
    /// In the fleet's order.
    overrides: BTreeMap<(NodeId, NodeId), Vec<&'a LinkOverride>>,
}

impl<'a> Ways<'a> {
    /// Indexes `fleet`.
    pub fn new(fleet: &'a Fleet) -> Self {
        let mut distances = BTreeMap::new();
        for d in &fleet.distances {
            distances.entry((d.a.min(d.b), d.a.max(d.b))).or_insert(d);
        }
        let mut overrides: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for o in &fleet.overrides {
            overrides.entry((o.from, o.to)).or_default().push(o);
        }
        Self { fleet, distances, overrides }
    }

    /// The same as [`Fleet::path`].
    pub fn path(&self, from: NodeId, to: NodeId) -> Option<Path> {
        let (a, b) = (self.fleet.node(from).network, self.fleet.node(to).network);
        let distance = || self.distances.get(&(a.min(b), a.max(b))).copied();
        let overrides = self.overrides.get(&(from, to)).into_iter().flatten().copied();
        self.fleet.path_over(from, to, distance, overrides)
    }
}

/// From a node to its network's edge is half the way between two of its nodes.
fn half(net: &Network) -> Delay {
    Delay { base_us: net.delay.base_us / 2.0, jitter_us: net.delay.jitter_us / 2.0 }
}

fn push_air(segments: &mut Vec<Segment>, fleet: &Fleet, node: NodeId, crossings: f64) {
    let id = fleet.node(node).network;
    let net = &fleet.networks[id.0 as usize];
    segments.push(Segment {
        resource: Resource::Air(id),
        bytes_per_s: net.bytes_per_s / crossings,
        access_us: net.access_us * crossings,
    });
}

/// A node's own connection limits, and so does its port on a switched network.
fn push_port(segments: &mut Vec<Segment>, fleet: &Fleet, node: NodeId, up: bool) {
    let n = fleet.node(node);
    let net = fleet.network_of(n);
    let own = if up { n.up_bytes_per_s } else { n.down_bytes_per_s };
    let port = (!net.shared).then_some(net.bytes_per_s);
    let limit = match (own, port) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    if let Some(bytes_per_s) = limit {
        let resource = if up { Resource::NodeUp(node) } else { Resource::NodeDown(node) };
        segments.push(Segment { resource, bytes_per_s, access_us: 0.0 });
    }
}
