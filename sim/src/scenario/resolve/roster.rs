//! Who is who: nodes by name, and several alike by the name they share.

use std::collections::{BTreeMap, BTreeSet};

use planner::fleet::{Network, NetworkId, Node, NodeId};

use super::device::Devices;
use crate::scenario::kind::{Names, Text, Wrong};
use crate::scenario::leaf::{Here, Leaf, Named};
use crate::scenario::raw::{RawNetwork, RawNode};
use crate::scenario::reading::{Reading, above_zero, count_within};
use crate::scenario::source::Span;
use crate::scenario::suggest;
use crate::scenario::tree::Value;

/// More nodes than anyone simulates here.
const NODES_MOST: u32 = 100_000;

/// The nodes, and which of them a name stands for.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) nodes: Vec<Node>,
    groups: BTreeMap<String, Vec<NodeId>>,
    taken: BTreeSet<String>,
    /// Names as the file has them, for suggestions.
    written: Vec<String>,
}

impl Roster {
    /// Reads all nodes.
    pub(super) fn read(
        reading: &Reading,
        raw: &Named<RawNode>,
        raw_networks: &Named<RawNetwork>,
        networks: &[Network],
        devices: &Devices<'_>,
    ) -> Self {
        let mut roster = Roster::default();
        for (name, raw) in &raw.0 {
            if !is_name(name) {
                let cure = "use letters, digits, `-` and `_`, beginning with a letter or digit";
                reading.fault_here(raw.here, format!("`{name}` is no name for a node"), cure);
            }
            roster.written.push(name.clone());
            let mut add = |own: &str| {
                if let Some(network) = home(reading, raw, raw_networks, networks) {
                    roster.add(reading, name, own, raw, network, devices);
                }
            };
            match reading.checked(raw.count, count_within(1, NODES_MOST)) {
                None => add(name),
                Some(count) => {
                    for copy in 1..=count {
                        reading.for_copy(&copy.to_string(), || add(&format!("{name}-{copy}")));
                    }
                }
            }
            if roster.nodes.len() > NODES_MOST as usize {
                reading.fault_here(raw.here, format!("more than {NODES_MOST} nodes"), "lower the counts");
                break;
            }
        }
        roster
    }

    fn add(
        &mut self,
        reading: &Reading,
        group: &str,
        name: &str,
        raw: &RawNode,
        network: NetworkId,
        devices: &Devices<'_>,
    ) {
        let Some(leaf) = raw.device else {
            reading.fault_here(
                raw.here,
                "the node has no device",
                "write device = \"apple-m4\", or a table of figures",
            );
            return;
        };
        let Some(device) = devices.device(leaf) else { return };
        if !self.taken.insert(name.to_owned()) {
            reading.fault_here(
                raw.here,
                format!("there are two nodes `{name}`"),
                "`count` numbers its nodes; rename one",
            );
        }
        let id = NodeId(self.nodes.len() as u32);
        self.groups.entry(group.to_owned()).or_default().push(id);
        if name != group {
            self.groups.entry(name.to_owned()).or_default().push(id);
        }
        let positive = || above_zero("the bandwidth", "\"20 Mbit/s\"");
        self.nodes.push(Node {
            name: name.to_owned(),
            device,
            machine: reading.get(raw.machine).unwrap_or_else(|| name.to_owned()),
            network,
            up_bytes_per_s: reading.checked(raw.up, positive()),
            down_bytes_per_s: reading.checked(raw.down, positive()),
            has_model: reading.get(raw.has_model).unwrap_or(true),
        });
    }

    /// The nodes a name stands for.
    pub(super) fn of_name(&self, name: &str) -> Option<&[NodeId]> {
        self.groups.get(name).map(Vec::as_slice)
    }

    /// Whether every node could be read.
    pub(super) fn is_whole(&self) -> bool {
        self.written.iter().all(|name| self.groups.contains_key(name))
    }

    /// All nodes, in the file's order.
    pub(super) fn all(&self) -> Vec<NodeId> {
        (0..self.nodes.len() as u32).map(NodeId).collect()
    }

    /// The nodes of a name or a list of names, without repetition.
    pub(super) fn some(&self, reading: &Reading, leaf: Option<Leaf<Names>>) -> Vec<NodeId> {
        let Some(leaf) = leaf else { return Vec::new() };
        let key = reading.at(leaf).key;
        let mut found = Vec::new();
        for (name, span) in names(reading, leaf) {
            for id in self.lookup(reading, &name, &span, &key) {
                if !found.contains(&id) {
                    found.push(id);
                }
            }
        }
        found
    }

    /// The one node of a name.
    pub(super) fn one(&self, reading: &Reading, leaf: Option<Leaf<Text>>) -> Option<NodeId> {
        let (leaf, name) = (leaf?, reading.get(leaf)?);
        let slot = reading.at(leaf);
        match self.lookup(reading, &name, &slot.node.span, &slot.key).as_slice() {
            [one] => Some(*one),
            [] => None,
            several => {
                let message = format!("`{name}` stands for {} nodes", several.len());
                reading.fault_in(leaf, message, format!("name one of them, such as `{name}-1`"));
                None
            }
        }
    }

    /// The two groups that a list of two names stands for.
    pub(super) fn two_ends(
        &self,
        reading: &Reading,
        leaf: Option<Leaf<Names>>,
        here: Here,
    ) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let Some(leaf) = leaf else {
            reading.fault_here(here, "the link does not say between whom", "write between = [\"a\", \"b\"]");
            return None;
        };
        let slot = reading.at(leaf);
        let named = names(reading, leaf);
        let [(a, a_span), (b, b_span)] = named.as_slice() else {
            reading.fault_in(leaf, "a link has two ends", "write two names: [\"a\", \"b\"]");
            return None;
        };
        Some((self.lookup(reading, a, a_span, &slot.key), self.lookup(reading, b, b_span, &slot.key)))
    }

    /// The nodes of a name, or a problem at `span`.
    pub(super) fn lookup(&self, reading: &Reading, name: &str, span: &Span, key: &str) -> Vec<NodeId> {
        if let Some(ids) = self.of_name(name) {
            return ids.to_vec();
        }
        // A node that could not be read, or a file without any, has its problem noted already.
        if !self.written.is_empty() && !self.written.iter().any(|written| written == name) {
            unknown(reading, span, key, "node", name, self.written.iter().map(String::as_str));
        }
        Vec::new()
    }
}

fn home(
    reading: &Reading,
    raw: &RawNode,
    raw_networks: &Named<RawNetwork>,
    networks: &[Network],
) -> Option<NetworkId> {
    let known = || raw_networks.0.iter().map(|(name, _)| name.as_str());
    let Some(leaf) = raw.network else {
        if networks.len() == 1 {
            return Some(NetworkId(0));
        }
        let names: Vec<&str> = known().collect();
        reading.fault_here(
            raw.here,
            "the node says no network",
            format!("networks: {}", suggest::list(&names)),
        );
        return None;
    };
    let name = reading.get(Some(leaf))?;
    let found = raw_networks.0.iter().position(|(n, _)| *n == name);
    if found.is_none() {
        let slot = reading.at(leaf);
        unknown(reading, &slot.node.span, &slot.key, "network", &name, known());
    }
    found.map(|i| NetworkId(i as u32))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// The names in a text or a list of texts, each with its place.
pub(super) fn names(reading: &Reading, leaf: Leaf<Names>) -> Vec<(String, Span)> {
    let slot = reading.at(leaf);
    texts(reading, &slot.node, &slot.key)
}

/// The same for a value inside another one.
pub(super) fn texts(reading: &Reading, node: &crate::scenario::tree::Node, key: &str) -> Vec<(String, Span)> {
    match &node.value {
        Value::List(items) => items
            .iter()
            .filter_map(|item| reading.value::<Text>(item, key).map(|text| (text, item.span.clone())))
            .collect(),
        _ => reading.value::<Text>(node, key).map(|text| vec![(text, node.span.clone())]).unwrap_or_default(),
    }
}

/// Notes that a name stands for nothing.
pub(super) fn unknown<'a>(
    reading: &Reading,
    span: &Span,
    key: &str,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) {
    let cure = suggest::cure(name, &format!("{what}s"), known);
    reading.fault(span, key, Wrong::new(format!("there is no {what} `{name}`"), cure));
}
