//! The load: when requests come, how long they are, and where they enter.

use std::path::Path;

use planner::fleet::NodeId;
use serde::Deserialize;

use super::roster::Roster;
use crate::scenario::kind::{Count, Text, Tokens, Wrong};
use crate::scenario::leaf::Leaf;
use crate::scenario::raw::RawWorkload;
use crate::scenario::reading::{Reading, above_zero, count_within, within};
use crate::scenario::tree::{Node, Value};
use crate::scenario::{Arrivals, Length, TraceRow, Workload};

/// More requests than a run can hold in memory with their tokens.
const REQUESTS_MOST: u32 = 10_000_000;
/// Requests of an open load where the scenario does not say.
const REQUESTS_DEFAULT: u32 = 20;
/// The longest prompt or answer, tokens.
const TOKENS_MOST: u32 = 10_000_000;
/// Prompt and answer where the scenario does not say, tokens.
const TOKENS_DEFAULT: u32 = 128;

/// The load of the scenario; what is wrong is noted.
pub(super) fn workload(
    reading: &Reading,
    raw: &RawWorkload,
    roster: &Roster,
    head: Option<NodeId>,
) -> Workload {
    let arrivals = arrivals(reading, raw);
    let usual = match &arrivals {
        Arrivals::Closed { users, .. } => *users,
        Arrivals::Trace(rows) => rows.len() as u32,
        Arrivals::Fixed { .. } | Arrivals::Poisson { .. } => REQUESTS_DEFAULT,
    };
    let mut entry = roster.some(reading, raw.entry);
    if entry.is_empty() {
        entry.extend(head);
    }
    let mut requests = reading.checked(raw.requests, count_within(1, REQUESTS_MOST)).unwrap_or(usual);
    if let Arrivals::Trace(rows) = &arrivals {
        requests = requests.min(rows.len() as u32);
    }
    Workload {
        arrivals,
        requests,
        prompt: length(reading, raw.prompt),
        output: length(reading, raw.output),
        entry,
    }
}

fn arrivals(reading: &Reading, raw: &RawWorkload) -> Arrivals {
    let given = [
        ("users", raw.users.map(|l| l.slot)),
        ("every", raw.every.map(|l| l.slot)),
        ("rate", raw.rate.map(|l| l.slot)),
        ("trace", raw.trace.map(|l| l.slot)),
    ];
    let named: Vec<&str> = given.iter().filter(|(_, slot)| slot.is_some()).map(|(key, _)| *key).collect();
    if named.len() > 1 {
        let message = format!("{} each say when requests come", named.join(" and "));
        reading.fault_here(raw.here, message, "keep one of users, every, rate and trace");
    }
    if raw.think.is_some() && !named.is_empty() && raw.users.is_none() {
        reading.fault_here(raw.here, "only users think", "give `users`, or leave `think` out");
    }
    if let Some(every_us) = reading.checked(raw.every, above_zero("the distance of requests", "\"2 s\"")) {
        Arrivals::Fixed { every_us }
    } else if let Some(per_s) = reading.checked(raw.rate, within(1e-6, 1e6)) {
        Arrivals::Poisson { per_s }
    } else if let Some(rows) = raw.trace.and_then(|leaf| trace(reading, leaf)) {
        Arrivals::Trace(rows)
    } else {
        let users = reading.checked(raw.users, count_within(1, REQUESTS_MOST)).unwrap_or(1);
        Arrivals::Closed { users, think_us: reading.get(raw.think).unwrap_or(0.0) }
    }
}

/// A length: `128`, `{ uniform = [64, 256] }` or `{ median = 100, p90 = 400, max = 2000 }`.
fn length(reading: &Reading, leaf: Option<Leaf<Tokens>>) -> Length {
    let usual = Length::Fixed(TOKENS_DEFAULT);
    let Some(leaf) = leaf else { return usual };
    let slot = reading.at(leaf);
    let one = |node: &Node, key: &str| -> Option<u32> {
        let value = reading.value::<Count>(node, key)?;
        let checked = count_within(1, TOKENS_MOST)(&value);
        checked.map_err(|wrong| reading.fault(&node.span, key, wrong)).ok().map(|()| value)
    };
    if !matches!(slot.node.value, Value::Table(_)) {
        return one(&slot.node, &slot.key).map_or(usual, Length::Fixed);
    }
    let part = |name: &str| slot.node.get(name).map(|entry| &entry.node);
    let drawn = if let Some(ends) = part("uniform") {
        uniform(ends)
            .and_then(|(low, high)| Some(Length::Uniform(one(low, &slot.key)?, one(high, &slot.key)?)))
    } else if let (Some(median), Some(p90), Some(max)) = (part("median"), part("p90"), part("max")) {
        let read = |node| one(node, &slot.key);
        read(median).zip(read(p90)).zip(read(max)).map(|((median, p90), max)| Length::LogNormal {
            median,
            p90,
            max,
        })
    } else {
        None
    };
    match drawn {
        Some(Length::Uniform(low, high)) if low > high => {}
        Some(Length::LogNormal { median, p90, max }) if median > p90 || p90 > max => {}
        Some(length) => return length,
        None if reading.failed_at(&slot.node.span) => return usual,
        None => {}
    }
    let cure =
        "write 128, { uniform = [64, 256] }, or { median = 100, p90 = 400, max = 2000 }, lower values first";
    reading.fault_in(leaf, "no length of this form", cure);
    usual
}

fn uniform(ends: &Node) -> Option<(&Node, &Node)> {
    match &ends.value {
        Value::List(items) => match items.as_slice() {
            [low, high] => Some((low, high)),
            _ => None,
        },
        _ => None,
    }
}

#[derive(Debug, Deserialize)]
struct Row {
    at_ms: f64,
    prompt: u32,
    output: u32,
}

fn trace(reading: &Reading, leaf: Leaf<Text>) -> Option<Vec<TraceRow>> {
    let written = reading.get(Some(leaf))?;
    let path = reading.sources.folder(&reading.at(leaf).node.span).join(written);
    let rows = read_trace(&path);
    rows.map_err(|wrong| reading.fault_in(leaf, wrong.message, wrong.cure)).ok()
}

fn read_trace(path: &Path) -> Result<Vec<TraceRow>, Wrong> {
    const CURE: &str =
        "a trace is a CSV file with the columns at_ms, prompt and output, in the order of time";
    let wrong = |message: String| Wrong::new(format!("{}: {message}", path.display()), CURE);
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(|e| wrong(e.to_string()))?;
    let mut rows: Vec<TraceRow> = Vec::new();
    for (number, row) in reader.deserialize::<Row>().enumerate() {
        // The header is line 1.
        let line = number + 2;
        let row = row.map_err(|e| wrong(e.to_string()))?;
        let at_us = row.at_ms * 1e3;
        let earlier = rows.last().is_some_and(|last| at_us < last.at_us);
        if !(at_us.is_finite() && at_us >= 0.0) || earlier {
            return Err(wrong(format!(
                "line {line}: at_ms = {} is negative or before the line above",
                row.at_ms
            )));
        }
        if row.prompt == 0 || row.output == 0 || row.prompt > TOKENS_MOST || row.output > TOKENS_MOST {
            return Err(wrong(format!("line {line}: prompt and output are from 1 to {TOKENS_MOST} tokens")));
        }
        if rows.len() as u32 >= REQUESTS_MOST {
            return Err(wrong(format!("more than {REQUESTS_MOST} rows")));
        }
        rows.push(TraceRow { at_us, prompt: row.prompt, output: row.output });
    }
    if rows.is_empty() { Err(wrong("no rows".into())) } else { Ok(rows) }
}

/// The middle and the longest of a load's lengths: what a plan is made for, and what its KV must hold.
pub(super) struct Extent {
    /// Tokens of a typical prompt.
    pub(super) prompt: u32,
    /// Tokens of a typical answer.
    pub(super) output: u32,
    /// Tokens of the longest prompt and answer together.
    pub(super) longest: u32,
}

/// How long the requests of a load are.
pub(super) fn extent(workload: &Workload) -> Extent {
    if let Arrivals::Trace(rows) = &workload.arrivals {
        let mean = |of: fn(&TraceRow) -> u32| {
            let sum: u64 = rows.iter().map(|r| u64::from(of(r))).sum();
            (sum / rows.len().max(1) as u64) as u32
        };
        let longest = rows.iter().map(|r| r.prompt.saturating_add(r.output)).max().unwrap_or(1);
        return Extent { prompt: mean(|r| r.prompt), output: mean(|r| r.output), longest };
    }
    let (prompt, prompt_most) = middle(workload.prompt);
    let (output, output_most) = middle(workload.output);
    Extent { prompt, output, longest: prompt_most.saturating_add(output_most) }
}

fn middle(length: Length) -> (u32, u32) {
    match length {
        Length::Fixed(n) => (n, n),
        Length::Uniform(low, high) => (low + (high - low) / 2, high),
        Length::LogNormal { median, max, .. } => (median, max),
    }
}
