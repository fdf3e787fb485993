//! Networks, distances between them, and exceptions for pairs of nodes.

use planner::fleet::{Delay, Distance, LinkOverride, Network, NetworkId};

use super::roster::Roster;
use crate::scenario::kind::{Duration, RoundTrip, Wrong};
use crate::scenario::leaf::{Leaf, Named};
use crate::scenario::presets::{self, Preset};
use crate::scenario::raw::{RawDistance, RawLink, RawNetwork};
use crate::scenario::reading::{Reading, above_zero, within};
use crate::scenario::tree::{Node, Value};

/// More than half of the packets lost is no network.
const LOSS_MOST: f64 = 0.5;

/// Share of a distance's round trip that is its jitter where none is given: long paths vary by a few per cent.
const DISTANCE_JITTER: f64 = 0.02;

/// The three ways to say a delay.
pub(super) struct Delays {
    pub(super) rtt: Option<Leaf<Duration>>,
    pub(super) delay: Option<Leaf<Duration>>,
    pub(super) jitter: Option<Leaf<Duration>>,
}

/// The one-way delay: from a mean round trip (jitter included) or a least one-way delay. `None` where neither stands.
pub(super) fn one_way(reading: &Reading, given: &Delays, jitter_default_us: f64) -> Option<Delay> {
    let jitter = reading.get(given.jitter);
    match (given.rtt, given.delay) {
        (Some(_), Some(delay)) => {
            reading.fault_in(delay, "`rtt` and `delay` both say how long it takes", "keep one of them");
            None
        }
        (Some(leaf), None) => {
            let half_us = reading.get(Some(leaf))? / 2.0;
            // The mean is what was measured, and a trip cannot vary by more than it takes.
            let jitter_us = jitter.unwrap_or(jitter_default_us).min(half_us);
            Some(Delay { base_us: half_us - jitter_us, jitter_us })
        }
        (None, Some(leaf)) => {
            let base_us = reading.get(Some(leaf))?;
            Some(Delay { base_us, jitter_us: jitter.unwrap_or(jitter_default_us) })
        }
        (None, None) => None,
    }
}

/// The networks in the file's order.
pub(super) fn networks(reading: &Reading, raw: &Named<RawNetwork>) -> Vec<Network> {
    raw.0.iter().map(|(name, raw)| network(reading, name, raw)).collect()
}

/// What joins the nodes of a scenario that speaks of no network: they share a machine, or there is one only.
pub(super) fn none_needed(reading: &Reading) -> Network {
    network(reading, "none", &RawNetwork::default())
}

fn network(reading: &Reading, name: &str, raw: &RawNetwork) -> Network {
    let (_, lan) = presets::ALL[1];
    let preset: &Preset = reading.get(raw.class).unwrap_or(lan);
    let given = Delays { rtt: raw.rtt, delay: raw.delay, jitter: raw.jitter };
    let half_us = preset.rtt_us / 2.0;
    let jitter_us = reading.get(raw.jitter).unwrap_or(preset.jitter_us);
    let usual = Delay { base_us: (half_us - jitter_us).max(0.0), jitter_us };
    let positive = || above_zero("the bandwidth", "\"100 Mbit/s\"");
    let crossings = reading.checked(raw.air_crossings, within(1.0, 4.0)).unwrap_or(preset.air_crossings);
    let reach = reading.checked(raw.bandwidth, positive()).unwrap_or(preset.bytes_per_s);
    for (key, leaf) in
        [("air_crossings", raw.air_crossings.map(|l| l.slot)), ("access", raw.access.map(|l| l.slot))]
    {
        if leaf.is_some() && !preset.shared {
            reading.fault_here(
                raw.here,
                format!("`{key}` is a figure of Wi-Fi"),
                "write class = \"wifi\", or leave it out",
            );
        }
    }
    Network {
        name: name.to_owned(),
        class: preset.class,
        delay: one_way(reading, &given, preset.jitter_us).unwrap_or(usual),
        // A scenario says what one transfer reaches; on a shared medium each of its frames crosses the air several times.
        bytes_per_s: if preset.shared { reach * crossings } else { reach },
        shared: preset.shared,
        air_crossings: crossings,
        access_us: reading.get(raw.access).unwrap_or(preset.access_us),
        loss: reading.checked(raw.loss, within(0.0, LOSS_MOST)).unwrap_or(0.0),
        up_bytes_per_s: reading.checked(raw.up, positive()),
        down_bytes_per_s: reading.checked(raw.down, positive()),
    }
}

/// The distances, pair by pair.
pub(super) fn distances(reading: &Reading, raw: &[RawDistance], networks: &[Network]) -> Vec<Distance> {
    raw.iter().flat_map(|raw| distance(reading, raw, networks)).collect()
}

fn distance(reading: &Reading, raw: &RawDistance, networks: &[Network]) -> Vec<Distance> {
    let (Some(between), Some(rtt)) = (raw.between, raw.rtt) else {
        let cure = "write between = [\"a\", \"b\"] and rtt = \"20 ms\"";
        reading.fault_here(raw.here, "a distance needs `between` and `rtt`", cure);
        return Vec::new();
    };
    let known = || networks.iter().map(|n| n.name.as_str());
    let ends: Vec<NetworkId> = super::roster::names(reading, between)
        .into_iter()
        .filter_map(|(name, span)| {
            let found = networks.iter().position(|n| n.name == name);
            if found.is_none() {
                super::roster::unknown(reading, &span, &reading.at(between).key, "network", &name, known());
            }
            found.map(|i| NetworkId(i as u32))
        })
        .collect();
    if ends.len() < 2 {
        reading.fault_in(between, "a distance lies between two networks or more", "name at least two");
        return Vec::new();
    }
    let class = reading.get(raw.class).map_or(planner::fleet::LinkClass::Wan, |p| p.class);
    let loss = reading.checked(raw.loss, within(0.0, LOSS_MOST)).unwrap_or(0.0);
    let mut found = Vec::new();
    for (i, a) in ends.iter().enumerate() {
        for (j, b) in ends.iter().enumerate().skip(i + 1) {
            let pair = format!("{i}-{j}");
            let Some(rtt_us) = reading.for_copy(&pair, || pair_rtt(reading, rtt, i, j, ends.len())) else {
                return found;
            };
            let usual_us = rtt_us * DISTANCE_JITTER / 2.0;
            let jitter_us = reading.get(raw.jitter).unwrap_or(usual_us).min(rtt_us / 2.0);
            let delay = Delay { base_us: rtt_us / 2.0 - jitter_us, jitter_us };
            found.push(Distance { a: *a, b: *b, delay, class, loss });
        }
    }
    found
}

/// The round trip of the pair `i`, `j` out of one value for all, or out of a full matrix.
fn pair_rtt(reading: &Reading, leaf: Leaf<RoundTrip>, i: usize, j: usize, count: usize) -> Option<f64> {
    let slot = reading.at(leaf);
    let Value::List(rows) = &slot.node.value else {
        return reading.get(Some(leaf.of_kind::<Duration>()));
    };
    let cell = |r: usize, c: usize| -> Option<&Node> {
        match &rows.get(r)?.value {
            Value::List(cells) if cells.len() == count => cells.get(c),
            _ => None,
        }
    };
    let (Some(one), Some(other)) = (cell(i, j), cell(j, i)) else {
        let cure = format!("write {count} rows of {count} round trips, in the order of `between`");
        reading.fault_in(leaf, "the matrix does not fit the networks", cure);
        return None;
    };
    let key = format!("{}.{i}.{j}", slot.key);
    let value = reading.value::<Duration>(one, &key)?;
    if reading.value::<Duration>(other, &key)? != value {
        let wrong = Wrong::new("the matrix is not symmetric", "a round trip is the same from both ends");
        reading.fault(&other.span, &key, wrong);
    }
    Some(value)
}

/// Networks in use that no distance joins to the others are a slip more often than a wish.
pub(super) fn check_joined(
    reading: &Reading,
    raw: &Named<RawNetwork>,
    used: &[bool],
    distances: &[Distance],
) {
    if used.iter().filter(|u| **u).count() < 2 {
        return;
    }
    for (i, (name, raw)) in raw.0.iter().enumerate() {
        let id = NetworkId(i as u32);
        if used[i] && !distances.iter().any(|d| d.a == id || d.b == id) {
            let cure =
                format!("write [[distance]] with between = [\"{name}\", \"OTHER\"] and rtt = \"20 ms\"");
            reading.fault_here(raw.here, format!("`{name}` is joined to no other network"), cure);
        }
    }
}

/// The exceptions, one for each direction.
pub(super) fn links(reading: &Reading, raw: &[RawLink], roster: &Roster) -> Vec<LinkOverride> {
    let mut found = Vec::new();
    for raw in raw {
        let Some((first, second)) = roster.two_ends(reading, raw.between, raw.here) else { continue };
        let given = Delays { rtt: raw.rtt, delay: raw.delay, jitter: raw.jitter };
        let delay = one_way(reading, &given, 0.0);
        let bytes_per_s = reading.checked(raw.bandwidth, above_zero("the bandwidth", "\"100 Mbit/s\""));
        if raw.rtt.is_none() && raw.delay.is_none() && raw.bandwidth.is_none() {
            reading.fault_here(raw.here, "the link says nothing", "give it `rtt`, `delay` or `bandwidth`");
        }
        let both = !reading.get(raw.one_way).unwrap_or(false);
        for &from in &first {
            for &to in second.iter().filter(|to| **to != from) {
                found.push(LinkOverride { from, to, delay, bytes_per_s });
                if both {
                    found.push(LinkOverride { from: to, to: from, delay, bytes_per_s });
                }
            }
        }
    }
    found
}
