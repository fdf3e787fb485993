//! A run's timeline as Chrome trace event JSON, which `ui.perfetto.dev` and `chrome://tracing` open.
//!
//! One process for the incidents, one for the requests, one for each node and one for each link. In a process, each
//! kind of span (compute, wait, transfer, load) has tracks of its own; spans of a kind that overlap without one holding
//! the other go to the next track, so that every track nests. Timestamps are simulated microseconds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::{ReportError, write_text};
use crate::outcome::{Outcome, RequestRecord, Span};

/// One event, in the keys of the Trace Event Format.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct TraceEvent {
    name: String,
    /// Category, by which Perfetto filters.
    #[serde(skip_serializing_if = "str::is_empty")]
    cat: &'static str,
    /// Phase: `X` complete, `i` instant, `M` metadata.
    ph: &'static str,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    /// Scope of an instant: `g` global, `t` one track.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

const INCIDENTS: u32 = 1;
const REQUESTS: u32 = 2;
const FIRST_TRACK: u32 = 3;

/// Writes the timeline of `outcome` to `path`. `nodes` are the fleet's names, in order: their tracks come first.
///
/// # Errors
/// [`ReportError::Write`] names the path and what the system said.
pub fn write(path: &Path, outcome: &Outcome, nodes: &[String]) -> Result<(), ReportError> {
    write_text(path, &trace(outcome, nodes))
}

/// The timeline as text, one event a line, ordered by track and time. The same outcome gives the same text.
pub fn trace(outcome: &Outcome, nodes: &[String]) -> String {
    let mut events = incidents(outcome);
    events.extend(requests(&outcome.requests));
    events.extend(tracks(&outcome.spans, nodes));
    let lines: Vec<String> = events
        .iter()
        .map(|e| serde_json::to_string(e).expect("string keys and finite numbers always serialise"))
        .collect();
    format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"))
}

/// The name and the place of a process, as metadata events.
fn process(pid: u32, name: &str) -> [TraceEvent; 2] {
    let of = |what: &str, args| metadata(what, pid, 0, args);
    [of("process_name", json!({ "name": name })), of("process_sort_index", json!({ "sort_index": pid }))]
}

fn metadata(what: &str, pid: u32, tid: u32, args: Value) -> TraceEvent {
    TraceEvent { name: what.to_owned(), cat: "", ph: "M", ts: 0.0, dur: None, pid, tid, s: None, args }
}

fn complete(name: String, cat: &'static str, from_us: f64, to_us: f64, pid: u32, tid: u32) -> TraceEvent {
    let dur = Some(rounded(to_us - from_us).max(0.0));
    TraceEvent { name, cat, ph: "X", ts: rounded(from_us), dur, pid, tid, s: None, args: Value::Null }
}

fn rounded(us: f64) -> f64 {
    super::json::round3(us)
}

fn incidents(outcome: &Outcome) -> Vec<TraceEvent> {
    let mut events: Vec<TraceEvent> = process(INCIDENTS, "incidents").into();
    events.push(metadata("thread_name", INCIDENTS, 0, json!({ "name": "incidents" })));
    events.extend(outcome.incidents.iter().map(|i| TraceEvent {
        name: i.what.clone(),
        cat: "incident",
        ph: "i",
        ts: rounded(i.at_us),
        dur: None,
        pid: INCIDENTS,
        tid: 0,
        s: Some("g"),
        args: i.pause_us.map_or(Value::Null, |us| json!({ "pause_ms": rounded(us / 1e3) })),
    }));
    events
}

fn requests(requests: &[RequestRecord]) -> Vec<TraceEvent> {
    let mut events: Vec<TraceEvent> = process(REQUESTS, "requests").into();
    for (i, request) in requests.iter().enumerate() {
        events.extend(one_request(request, i as u32));
    }
    events
}

/// A request's track: time to its first token, then its decoding with an instant for each token.
fn one_request(request: &RequestRecord, tid: u32) -> Vec<TraceEvent> {
    let name = format!("request {} at {}", request.session.0, request.entry);
    let mut events = vec![metadata("thread_name", REQUESTS, tid, json!({ "name": name }))];
    let last = request.tokens_us.last().copied().or(request.ended_us).unwrap_or(request.asked_us);
    let first = request.tokens_us.first().copied().unwrap_or(last);
    let prefill = format!("prefill of {} tokens", request.prompt);
    events.push(complete(prefill, "request", request.asked_us, first, REQUESTS, tid));
    if !request.tokens_us.is_empty() {
        let decode = format!("decode of {} tokens", request.tokens_us.len());
        events.push(complete(decode, "request", first, last, REQUESTS, tid));
    }
    events.extend(request.tokens_us.iter().enumerate().map(|(n, at_us)| TraceEvent {
        name: format!("token {n}"),
        cat: "token",
        ph: "i",
        ts: rounded(*at_us),
        dur: None,
        pid: REQUESTS,
        tid,
        s: Some("t"),
        args: Value::Null,
    }));
    events
}

/// The spans of every node and link: processes in the fleet's order, then links by name.
fn tracks(spans: &[Span], nodes: &[String]) -> Vec<TraceEvent> {
    let place = |track: &str| nodes.iter().position(|n| n == track).unwrap_or(nodes.len());
    let mut by_track: BTreeMap<(usize, &str), Vec<&Span>> = BTreeMap::new();
    for span in spans {
        by_track.entry((place(&span.track), &span.track)).or_default().push(span);
    }
    let mut events = Vec::new();
    for (pid, ((place, track), spans)) in (FIRST_TRACK..).zip(by_track) {
        let what = if place < nodes.len() { "node" } else { "link" };
        events.extend(process(pid, &format!("{what} {track}")));
        events.extend(one_track(pid, &spans));
    }
    events
}

fn one_track(pid: u32, spans: &[&Span]) -> Vec<TraceEvent> {
    let mut by_kind: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        by_kind.entry(&span.kind).or_default().push(span);
    }
    let mut events = Vec::new();
    let mut tid = 0;
    for (kind, mut spans) in by_kind {
        spans.sort_by(|a, b| a.from_us.total_cmp(&b.from_us).then(b.to_us.total_cmp(&a.to_us)));
        for (n, lane) in lanes(&spans).into_iter().enumerate() {
            let name = if n == 0 { kind.to_owned() } else { format!("{kind} {}", n + 1) };
            events.push(metadata("thread_name", pid, tid, json!({ "name": name })));
            events.extend(
                lane.into_iter()
                    .map(|s| complete(s.label.clone(), category(&s.kind), s.from_us, s.to_us, pid, tid)),
            );
            tid += 1;
        }
    }
    events
}

fn category(kind: &str) -> &'static str {
    match kind {
        "compute" => "compute",
        "transfer" => "transfer",
        "wait" => "wait",
        "load" => "load",
        _ => "other",
    }
}

/// Spreads spans, ordered by start and then longest first, over lanes in which any two are apart or one inside the
/// other: each goes to the first lane where it fits.
fn lanes<'a>(spans: &[&'a Span]) -> Vec<Vec<&'a Span>> {
    let mut lanes: Vec<(Vec<f64>, Vec<&'a Span>)> = Vec::new();
    for span in spans {
        let fits = lanes.iter_mut().find_map(|(open, lane)| {
            while open.last().is_some_and(|end| *end <= span.from_us) {
                open.pop();
            }
            open.last().is_none_or(|end| span.to_us <= *end).then_some((open, lane))
        });
        match fits {
            Some((open, lane)) => {
                open.push(span.to_us);
                lane.push(span);
            }
            None => lanes.push((vec![span.to_us], vec![span])),
        }
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;
    use crate::report::sample;
    use crate::scenario::EngineKind;

    fn names() -> Vec<String> {
        ["max", "mini", "laptop"].map(str::to_owned).into()
    }

    fn events(text: &str) -> Vec<Value> {
        let trace: Value = serde_json::from_str(text).unwrap();
        trace["traceEvents"].as_array().unwrap().clone()
    }

    /// Panics unless the complete events of every track are ordered by start and nest.
    fn check_nesting(events: &[Value]) {
        let mut open: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
        for event in events.iter().filter(|e| e["ph"] == "X") {
            let track = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
            let from = event["ts"].as_f64().unwrap();
            let to = from + event["dur"].as_f64().unwrap();
            let stack = open.entry(track).or_default();
            assert!(stack.last().is_none_or(|(last, _)| *last <= from), "track {track:?} runs backwards");
            while stack.last().is_some_and(|(_, end)| *end <= from + 1e-3) {
                stack.pop();
            }
            assert!(stack.last().is_none_or(|(_, end)| to <= end + 1e-3), "track {track:?} does not nest");
            stack.push((from, to));
        }
    }

    #[test]
    fn a_trace_parses_nests_and_names_every_track() {
        let outcome = sample::outcome(EngineKind::Ring, 62.0, Some(5.0));
        let events = events(&trace(&outcome, &names()));
        check_nesting(&events);
        let processes: Vec<&str> = events
            .iter()
            .filter(|e| e["name"] == "process_name")
            .filter_map(|e| e["args"]["name"].as_str())
            .collect();
        assert_eq!(processes, ["incidents", "requests", "node max", "node mini", "link max → mini"]);
        let threads: Vec<&str> = events
            .iter()
            .filter(|e| e["name"] == "thread_name" && e["pid"] == FIRST_TRACK)
            .filter_map(|e| e["args"]["name"].as_str())
            .collect();
        assert_eq!(threads, ["compute", "wait", "wait 2"]);
        assert_eq!(events.iter().filter(|e| e["cat"] == "incident").count(), 2);
        let tokens = events.iter().filter(|e| e["cat"] == "token").count();
        assert_eq!(tokens, outcome.requests.iter().map(|r| r.tokens_us.len()).sum::<usize>());
    }

    #[test]
    fn the_same_outcome_gives_the_same_bytes() {
        let outcome = sample::outcome(EngineKind::Ring, 62.0, None);
        assert_eq!(trace(&outcome, &names()), trace(&outcome.clone(), &names()));
    }

    #[test]
    fn an_empty_run_is_still_a_trace() {
        let mut outcome = sample::outcome(EngineKind::Ring, 62.0, None);
        outcome.requests.clear();
        outcome.spans.clear();
        assert!(events(&trace(&outcome, &[])).iter().all(|e| e["ph"] == "M"));
    }

    proptest! {
        #[test]
        fn any_spans_nest_and_none_is_lost(
            spans in proptest::collection::vec((0u32..50, 0u32..30, 0usize..3, 0usize..2), 0..60)
        ) {
            let mut outcome = sample::outcome(EngineKind::Ring, 62.0, None);
            outcome.requests.clear();
            outcome.spans = spans
                .iter()
                .map(|(from, length, track, kind)| Span {
                    track: ["max", "mini", "max → mini"][*track].to_owned(),
                    kind: ["compute", "wait"][*kind].to_owned(),
                    label: String::new(),
                    from_us: f64::from(*from),
                    to_us: f64::from(from + length),
                })
                .collect();
            let events = events(&trace(&outcome, &names()));
            check_nesting(&events);
            prop_assert_eq!(events.iter().filter(|e| e["ph"] == "X").count(), spans.len());
        }
    }
}
