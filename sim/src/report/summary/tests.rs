use super::super::json::{IncidentFacts, SeedsFacts, SweepFacts};
use super::super::sample;
use super::page::{bar, gauge, wrapped};
use super::*;

fn widest(text: &str) -> usize {
    text.lines().map(|l| l.chars().count()).max().unwrap_or(0)
}

#[test]
fn a_newcomer_reads_the_answer_the_plan_and_the_advice() {
    let text = text(&sample::report(true), Style::Plain);
    for wanted in [
        "wifi3: What do three machines on home Wi-Fi get from GLM-4.7-Flash?",
        "Meshwright's ring (pipeline over 3 nodes)",
        "The planner recommends solo on max",
        "0..40",
        "time to first token (TTFT)",
        "latency",
        "crash of laptop",
        "llama.cpp RPC",
        "tensor parallel",
        "Left out of the recommended plan",
        "a cable instead of Wi-Fi",
        "predicted",
        "6 requests: 6 completed, 2 resumed after a failure",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }
}

#[test]
fn no_line_is_wider_than_a_hundred_columns_or_ends_in_a_space() {
    let mut report = sample::report(true);
    report.question =
        "Is this sentence, which somebody wrote at some length, broken to the width? ".repeat(4);
    report.left_out[0].why = "because ".repeat(60);
    report.violations = vec!["a token came twice".repeat(8)];
    let text = text(&report, Style::Plain);
    assert!(widest(&text) <= 100, "{text}");
    assert!(text.lines().all(|l| l == l.trim_end()), "{text}");
}

#[test]
fn terminal_codes_come_only_when_asked_for() {
    let report = sample::report(false);
    assert!(!text(&report, Style::Plain).contains('\x1b'));
    let coloured = text(&report, Style::Terminal);
    assert_eq!(coloured.replace("\x1b[1m", "").replace("\x1b[0m", ""), text(&report, Style::Plain));
}

#[test]
fn a_large_fleet_is_shortened_and_says_by_how_much() {
    let mut report = sample::report(false);
    let one = report.fleet[0].clone();
    report.fleet = vec![one; 1000];
    let text = text(&report, Style::Plain);
    assert!(text.contains("and 988 more nodes"), "{text}");
    assert!(text.lines().count() < 100);
}

#[test]
fn incidents_that_stopped_tokens_are_shown_before_those_that_did_not() {
    let mut report = sample::report(true);
    let quiet = IncidentFacts { at_ms: 10.0, what: "crash of idle".to_owned(), pause_ms: None };
    let paused = IncidentFacts { at_ms: 99_000.0, what: "crash of busy".to_owned(), pause_ms: Some(7200.0) };
    report.incidents = vec![quiet; 40];
    report.incidents.push(paused);
    let text = text(&report, Style::Plain);
    assert!(text.contains("crash of busy") && text.contains("and 29 more incidents"), "{text}");
    assert!(text.contains("41 incidents; 1 stopped tokens, for 7.20 s in all and 7.20 s at most"), "{text}");
}

#[test]
fn nodes_left_out_for_one_reason_share_a_line() {
    let mut report = sample::report(false);
    for (name, entry) in ["a-1", "a-2", "a-3"].iter().zip([0, 1, 0]) {
        let mut left = report.left_out[entry].clone();
        left.node = (*name).to_owned();
        left.why = "makes no difference".to_owned();
        report.left_out.push(left);
    }
    assert!(text(&report, Style::Plain).contains("a-1 to a-3  makes no difference"));
}

#[test]
fn a_run_without_a_token_still_reads_as_a_sentence() {
    let mut report = sample::report(false);
    report.tpot_ms = Default::default();
    report.ttft_ms = Default::default();
    report.decode_tok_s = 0.0;
    let text = text(&report, Style::Plain);
    assert!(text.contains("no token came"), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn seeds_and_sweeps_are_tables_with_intervals() {
    let reports: Vec<_> = (0..4u32)
        .map(|i| Report { decode_tok_s: 12.0 + f64::from(i), seed: u64::from(i), ..sample::report(false) })
        .collect();
    let mut report = reports[0].clone();
    report.seeds = Some(SeedsFacts::of(&reports));
    report.sweep = Some(SweepFacts::of(
        "links.delay",
        &[("5 ms".to_owned(), reports.clone()), ("40 ms".to_owned(), reports)],
    ));
    let text = text(&report, Style::Plain);
    assert!(text.contains("13.5 (11.4 to 15.6)"), "{text}");
    assert!(text.contains("Sweep of links.delay"), "{text}");
    assert!(text.contains("At links.delay = 5 ms, the first of the swept values:"), "{text}");
    assert!(widest(&text) <= 100, "{text}");
}

#[test]
fn bars_grow_with_their_share_and_never_leave_their_cells() {
    assert_eq!(bar(0.0, 10), "");
    assert_eq!(bar(1e-9, 10), "▏");
    assert_eq!(bar(0.5, 10), "█████");
    assert_eq!(bar(7.0, 10).chars().count(), 10);
    assert_eq!(gauge(0.31, 10), "███▏······");
    assert_eq!(gauge(0.0, 4), "····");
}

#[test]
fn wrapping_keeps_every_word() {
    let words = "one two three four five";
    assert_eq!(wrapped(words, 9), ["one two", "three", "four five"]);
    assert_eq!(wrapped(words, 1).len(), 5);
}

/// The golden text; memory is fixed here, because it is the cost model's business.
fn golden_report() -> Report {
    let mut report = sample::report(true);
    let recommended = report.recommended.as_mut().map(|r| &mut r.plan.stages);
    for stage in report.plan.stages.iter_mut().chain(recommended.into_iter().flatten()) {
        stage.memory_bytes = u64::from(stage.layers[1] - stage.layers[0]) * 380_000_000;
    }
    report
}

#[test]
fn the_summary_reads_as_the_golden_text() {
    let now = text(&golden_report(), Style::Plain);
    let golden = include_str!("golden.txt");
    assert!(
        now == golden,
        "if the change is meant, this is the new sim/src/report/summary/golden.txt:\n{now}"
    );
}
