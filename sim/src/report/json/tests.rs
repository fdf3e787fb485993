#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use super::*;
use crate::outcome::Status;
use crate::report::sample;

fn parsed(report: &Report) -> Value {
    serde_json::from_str(&report.to_json()).unwrap()
}

#[test]
fn the_promised_keys_are_there() {
    let json = parsed(&sample::report(false));
    for path in [
        "/scenario",
        "/seed",
        "/world",
        "/plan/mode",
        "/plan/stages/0/node",
        "/plan/stages/0/layers/1",
        "/decode_tok_s",
        "/throughput_tok_s",
        "/tpot_ms/p50",
        "/tpot_ms/p90",
        "/tpot_ms/p99",
        "/ttft_ms/p50",
        "/ttft_ms/p90",
        "/ttft_ms/p99",
        "/breakdown_ms/compute",
        "/breakdown_ms/latency",
        "/breakdown_ms/bandwidth",
        "/breakdown_ms/queueing",
        "/breakdown_ms/software",
        "/baselines/llama-rpc/decode_tok_s",
        "/baselines/tensor-parallel/decode_tok_s",
        "/requests/accepted",
        "/requests/completed",
        "/requests/resumed",
        "/requests/refused",
        "/recommended/predicted/decode_tok_s",
        "/recommended/run/decode_tok_s",
        "/predicted/tpot_ms",
        "/model/name",
        "/left_out/0/why",
        "/would_help/0/gain_percent",
    ] {
        assert!(json.pointer(path).is_some_and(|v| !v.is_null()), "{path} is missing");
    }
    assert_eq!(json["plan"]["stages"][1]["layers"], serde_json::json!([40, 44]));
    assert_eq!(json["world"], "turmoil");
}

#[test]
fn decode_rate_is_the_inverse_of_the_mean_time_per_token() {
    let mut answer = sample::answer(false);
    for (request, gap_us) in answer.main.requests.iter_mut().zip([10_000.0, 30_000.0].into_iter().cycle()) {
        request.tokens_us = vec![0.0, gap_us, 2.0 * gap_us];
        request.asked_us = -5_000.0;
    }
    let report = Report::new(&sample::scenario(), &answer, &sample::advice());
    assert_eq!(report.tpot_ms.mean, Some(20.0));
    assert_eq!(report.decode_tok_s, 50.0);
    assert_eq!(report.ttft_ms.p50, Some(5.0));
    // Six requests of three tokens, from -5 ms to 60 ms.
    assert_eq!(report.throughput_tok_s, round3(18.0 / 0.065));
}

#[test]
fn refused_requests_are_counted_apart_and_leave_no_figure() {
    let mut answer = sample::answer(false);
    for request in &mut answer.main.requests {
        request.tokens_us.clear();
        request.status = Status::Refused("full".to_owned());
    }
    let report = Report::new(&sample::scenario(), &answer, &sample::advice());
    assert_eq!((report.requests.asked, report.requests.accepted, report.requests.refused), (6, 0, 6));
    assert_eq!((report.decode_tok_s, report.throughput_tok_s), (0.0, 0.0));
    assert_eq!(report.tpot_ms, Spread::default());
    assert_eq!(parsed(&report)["tpot_ms"]["p50"], Value::Null);
    assert_eq!(report.baselines["llama-rpc"].ratio, 0.0);
}

#[test]
fn a_resumed_request_is_accepted_completed_and_resumed() {
    let report = sample::report(true);
    assert_eq!(report.requests.completed, 6);
    assert_eq!(report.requests.resumed, 2);
    assert!(report.tpot_ms.p99 > report.tpot_ms.p90);
    assert_eq!(report.incidents[0].pause_ms, Some(3100.0));
}

#[test]
fn every_number_has_at_most_three_decimals() {
    fn check(value: &Value) {
        match value {
            Value::Number(n) if n.is_f64() => {
                let text = n.to_string();
                assert!(text.split('.').nth(1).is_none_or(|d| d.len() <= 3), "{text}");
            }
            Value::Array(items) => items.iter().for_each(check),
            Value::Object(map) => map.values().for_each(check),
            _ => {}
        }
    }
    check(&parsed(&sample::report(true)));
}

#[test]
fn the_recommended_plan_is_the_main_run_when_both_agree() {
    let mut answer = sample::answer(false);
    answer.recommended.as_mut().unwrap().plan = answer.main.plan.clone();
    answer.recommended_run = None;
    let report = Report::new(&sample::scenario(), &answer, &sample::advice());
    let recommended = report.recommended.unwrap();
    assert!(recommended.is_main);
    assert_eq!(recommended.run.unwrap().decode_tok_s, report.decode_tok_s);
}

#[test]
fn a_published_range_that_holds_the_run_is_no_error() {
    let mut scenario = sample::scenario();
    let published = |low, high| crate::scenario::Published {
        id: "x".to_owned(),
        decode_tok_s: (low, high),
        grade: 'A',
        family: "wifi".to_owned(),
        source: "somewhere".to_owned(),
        assumed: String::new(),
        calibrated_on: false,
    };
    scenario.published = Some(published(10.0, 25.0));
    let inside = Report::new(&scenario, &sample::answer(false), &sample::advice());
    assert_eq!(inside.published.unwrap().error_percent, 0.0);
    scenario.published = Some(published(10.0, 8.0));
    let above = Report::new(&scenario, &sample::answer(false), &sample::advice());
    assert_eq!(above.published.unwrap().error_percent, round3((above.decode_tok_s / 10.0 - 1.0) * 100.0));
}

#[test]
fn several_seeds_give_a_mean_inside_its_interval() {
    let reports: Vec<Report> = (0..5u32)
        .map(|i| Report { seed: u64::from(i), decode_tok_s: 10.0 + f64::from(i), ..sample::report(false) })
        .collect();
    let seeds = SeedsFacts::of(&reports);
    let decode = seeds.engines["ring"].decode_tok_s;
    assert_eq!(decode.mean, Some(12.0));
    assert_eq!((decode.low, decode.high), (Some(10.037), Some(13.963)));
    assert_eq!(seeds.requests.asked, 30);
    assert_eq!(seeds.engines["ring"].decode_tok_s_by_seed, [10.0, 11.0, 12.0, 13.0, 14.0]);
}

#[test]
fn sweep_values_with_one_unit_have_a_numeric_axis() {
    let of = |values: &[&str]| {
        let points: Vec<_> = values.iter().map(|v| ((*v).to_owned(), vec![sample::report(false)])).collect();
        SweepFacts::of("key", &points)
    };
    let delays = of(&["0 ms", "2.5 ms", "\"40 ms\""]);
    assert!(delays.is_numeric());
    assert_eq!(delays.unit(), Some("ms"));
    assert_eq!(delays.points[2].position, Some(40.0));
    assert!(of(&["1", "2", "4"]).is_numeric());
    assert!(!of(&["900 us", "1 ms"]).is_numeric());
    assert!(!of(&["wifi", "lan"]).is_numeric());
}

#[test]
fn the_schema_describes_every_key_that_is_printed() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let described = schema["properties"].as_object().unwrap();
    for key in parsed(&sample::report(false)).as_object().unwrap().keys() {
        let text = described.get(key).and_then(|p| p["description"].as_str()).unwrap_or("");
        assert!(!text.is_empty(), "{key} is not described");
    }
}
