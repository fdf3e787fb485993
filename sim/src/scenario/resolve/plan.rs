//! The question to the planner, and a cut given by hand.

use planner::cost::predict::Load;
use planner::fleet::{Node, NodeId};
use planner::place::{Ask, Constraints, Objective, Shape};
use planner::plan::LayerRange;

use super::roster::Roster;
use super::workload::{Extent, extent};
use crate::scenario::kind::{Number, Split, Wrong};
use crate::scenario::leaf::Leaf;
use crate::scenario::raw::RawPlan;
use crate::scenario::reading::{Reading, count_within};
use crate::scenario::suggest;
use crate::scenario::tree::{self, Value};
use crate::scenario::{Arrivals, PlanSpec, Workload};

/// KV room where the scenario does not say, tokens: what chat programs start with.
const CONTEXT_DEFAULT: u32 = 4096;
/// Sessions at once of an open load, or of one of several copies, where the scenario does not say.
const SESSIONS_DEFAULT: u32 = 4;
/// More tokens of context, or sessions, than anyone asks for.
const MOST: u32 = 100_000_000;
/// Shares that people round ("62/31/8") do not add up to one; as far off is no slip.
const SHARES_SLACK: f64 = 0.025;

/// The plan's part of the scenario; what is wrong is noted.
pub(super) fn plan(
    reading: &Reading,
    raw: &RawPlan,
    roster: &Roster,
    head: Option<NodeId>,
    workload: &Workload,
    layers: Option<u32>,
) -> PlanSpec {
    let extent = extent(workload);
    let users = match workload.arrivals {
        Arrivals::Closed { users, .. } => users,
        _ => SESSIONS_DEFAULT,
    };
    let shape = reading.get(raw.mode).unwrap_or(Shape::Auto);
    // Users of several copies are spread over them: a copy need not hold all.
    let at_once = if shape == Shape::Replicas { users.min(SESSIONS_DEFAULT) } else { users };
    let sessions = reading.checked(raw.sessions, count_within(1, MOST)).unwrap_or(at_once);
    let constraints = Constraints {
        min_layers: reading.checked(raw.min_layers, count_within(1, MOST)).unwrap_or(1),
        latency_cap_us: reading.get(raw.latency_cap),
        pinned: roster.some(reading, raw.pinned),
        excluded: roster.some(reading, raw.exclude),
        sessions,
        context: context(reading, raw, &extent),
        shape,
    };
    if let Some(both) = constraints.pinned.iter().find(|id| constraints.excluded.contains(id)) {
        let name = &roster.nodes[both.index()].name;
        reading.fault_here(
            raw.here,
            format!("`{name}` is both pinned and excluded"),
            "take it out of one list",
        );
    }
    let load =
        Load { prompt: extent.prompt, context: extent.prompt + extent.output / 2, concurrency: users, head };
    let objective = reading.get(raw.objective).unwrap_or(Objective::Tpot);
    let split = raw.split.zip(layers).and_then(|(leaf, layers)| split(reading, leaf, roster, layers));
    PlanSpec { ask: Ask { objective, load, constraints }, split }
}

fn context(reading: &Reading, raw: &RawPlan, extent: &Extent) -> u32 {
    let longest = extent.longest;
    let check = move |context: &u32| {
        if *context >= longest {
            return count_within(1, MOST)(context);
        }
        let message = format!("a context of {context} tokens is too short for a request of {longest}");
        Err(Wrong::new(message, format!("write at least {longest}, or shorten prompt and output")))
    };
    reading.checked(raw.context, check).unwrap_or(CONTEXT_DEFAULT.max(longest))
}

/// One node's part of a cut as it was written.
enum Part {
    Layers(u32),
    Share(f64),
}

fn split(
    reading: &Reading,
    leaf: Leaf<Split>,
    roster: &Roster,
    layers: u32,
) -> Option<Vec<(NodeId, LayerRange)>> {
    if !roster.is_whole() || roster.nodes.is_empty() {
        return None;
    }
    let slot = reading.at(leaf);
    let parts = match &slot.node.value {
        Value::Text(rule) => by_rule(reading, leaf, rule, roster)?,
        Value::List(items) => by_order(reading, leaf, items, roster)?,
        Value::Table(entries) => by_name(reading, &slot.key, entries, roster),
        _ => {
            let cure = "write { NODE = 40, OTHER = 7 }, [0.85, 0.15], \"equal\" or \"memory\"";
            reading.fault_in(leaf, "no cut of the model", cure);
            return None;
        }
    };
    if reading.failed_at(&slot.node.span) {
        return None;
    }
    if parts.is_empty() {
        reading.fault_in(leaf, "the cut names no node", "give at least one node its part");
        return None;
    }
    let cut = cut(&parts, layers);
    cut.map_err(|wrong| reading.fault_in(leaf, wrong.message, wrong.cure)).ok()
}

fn by_rule(reading: &Reading, leaf: Leaf<Split>, rule: &str, roster: &Roster) -> Option<Vec<(NodeId, Part)>> {
    let weight: fn(&Node) -> f64 = match rule {
        "equal" => |_| 1.0,
        "memory" => |node| node.device.usable_bytes() as f64,
        _ => {
            let cure = suggest::cure(rule, "there are", ["equal", "memory"]);
            reading.fault_in(leaf, format!("`{rule}` is no rule to cut by"), cure);
            return None;
        }
    };
    let nodes: Vec<NodeId> =
        roster.all().into_iter().filter(|id| roster.nodes[id.index()].has_model).collect();
    let total: f64 = nodes.iter().map(|id| weight(&roster.nodes[id.index()])).sum();
    let part = |id: &NodeId| (*id, Part::Share(weight(&roster.nodes[id.index()]) / total));
    Some(nodes.iter().map(part).collect())
}

fn by_order(
    reading: &Reading,
    leaf: Leaf<Split>,
    items: &[tree::Node],
    roster: &Roster,
) -> Option<Vec<(NodeId, Part)>> {
    let nodes = roster.all();
    if items.len() != nodes.len() {
        let message = format!("{} parts for {} nodes", items.len(), nodes.len());
        reading.fault_in(
            leaf,
            message,
            "a list has a part for each node in the file's order; { NODE = part } names them",
        );
        return None;
    }
    let key = reading.at(leaf).key;
    Some(
        nodes
            .into_iter()
            .zip(items)
            .filter_map(|(id, item)| Some((id, part(reading, item, &key)?)))
            .collect(),
    )
}

fn by_name(reading: &Reading, key: &str, entries: &[tree::Entry], roster: &Roster) -> Vec<(NodeId, Part)> {
    let mut parts: Vec<(NodeId, Part)> = Vec::new();
    for entry in entries {
        let key = format!("{key}.{}", entry.key);
        for id in roster.lookup(reading, &entry.key, &entry.key_span, &key) {
            if parts.iter().any(|(other, _)| *other == id) {
                let name = &roster.nodes[id.index()].name;
                let wrong = Wrong::new(format!("`{name}` has a part already"), "give each node one part");
                reading.fault(&entry.key_span, &key, wrong);
            } else if let Some(part) = part(reading, &entry.node, &key) {
                parts.push((id, part));
            }
        }
    }
    parts
}

fn part(reading: &Reading, node: &tree::Node, key: &str) -> Option<Part> {
    let value = reading.value::<Number>(node, key)?;
    if value <= 0.0 || value > f64::from(u32::MAX) {
        let wrong =
            Wrong::new(format!("a part of {value}"), "write layers (1, 2, ...) or a share between 0 and 1");
        reading.fault(&node.span, key, wrong);
        return None;
    }
    Some(match node.value {
        Value::Whole(_) => Part::Layers(value as u32),
        _ => Part::Share(value),
    })
}

/// Lays the parts one after the other over the layers.
fn cut(parts: &[(NodeId, Part)], layers: u32) -> Result<Vec<(NodeId, LayerRange)>, Wrong> {
    let shares = parts.iter().filter(|(_, part)| matches!(part, Part::Share(_))).count();
    let ends = match shares {
        0 => ends_of_layers(parts, layers)?,
        n if n == parts.len() => ends_of_shares(parts, layers)?,
        _ => {
            return Err(Wrong::new(
                "layers and shares are mixed",
                "write whole numbers only, or fractions only (1.0, not 1)",
            ));
        }
    };
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let ranges: Vec<LayerRange> =
        starts.zip(&ends).map(|(first, end)| LayerRange::new(first, *end)).collect();
    if ranges.iter().any(|r| r.is_empty()) {
        let message = format!("of {layers} layers not every one of {} nodes gets one", parts.len());
        return Err(Wrong::new(message, "give the smallest part more, or take its node out"));
    }
    Ok(parts.iter().map(|(id, _)| *id).zip(ranges).collect())
}

fn ends_of_layers(parts: &[(NodeId, Part)], layers: u32) -> Result<Vec<u32>, Wrong> {
    let mut sum = 0u64;
    let mut ends = Vec::with_capacity(parts.len());
    for (_, part) in parts {
        if let Part::Layers(count) = part {
            sum += u64::from(*count);
            ends.push(u32::try_from(sum).unwrap_or(u32::MAX));
        }
    }
    if sum == u64::from(layers) {
        return Ok(ends);
    }
    let message = format!("the parts cover {sum} layers, the model has {layers}");
    let off = sum.abs_diff(u64::from(layers));
    Err(Wrong::new(
        message,
        if sum > u64::from(layers) { format!("take {off} away") } else { format!("add {off}") },
    ))
}

/// Every boundary is rounded to the nearest layer, so that rounding errors do not add up.
fn ends_of_shares(parts: &[(NodeId, Part)], layers: u32) -> Result<Vec<u32>, Wrong> {
    let share = |part: &Part| match part {
        Part::Share(share) => *share,
        Part::Layers(_) => 0.0,
    };
    let total: f64 = parts.iter().map(|(_, part)| share(part)).sum();
    if (total - 1.0).abs() > SHARES_SLACK {
        let message = format!("the shares add up to {total:.3}");
        return Err(Wrong::new(message, "shares of the layers add up to 1, such as 0.85 and 0.15"));
    }
    let mut sum = 0.0;
    Ok(parts
        .iter()
        .map(|(_, part)| {
            sum += share(part);
            (sum / total * f64::from(layers)).round() as u32
        })
        .collect())
}
