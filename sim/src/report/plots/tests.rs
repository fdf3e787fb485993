#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::super::json::SweepFacts;
use super::super::sample;
use super::*;
use crate::outcome::Outcome;
use crate::report::json::SeedsFacts;
use crate::scenario::EngineKind;

/// Reports that differ as several seeds would, faster by `factor`.
fn reports(factor: f64) -> Vec<Report> {
    (0..12u32)
        .map(|seed| {
            let mut report = sample::report(false);
            let wobble = factor * (1.0 + f64::from((seed * 37) % 11) / 100.0);
            report.seed = u64::from(seed);
            report.decode_tok_s *= wobble;
            report.throughput_tok_s *= wobble;
            report.baselines.get_mut("llama-rpc").unwrap().decode_tok_s *= wobble;
            report
        })
        .collect()
}

fn sweep_facts() -> SweepFacts {
    let points: Vec<_> = [0.0, 5.0, 10.0, 20.0, 40.0, 80.0]
        .map(|ms: f64| (format!("{ms} ms"), reports(20.0 / (10.0 + ms))))
        .into();
    SweepFacts::of("link.delay", &points)
}

fn full_report() -> Report {
    let mut report = sample::report(true);
    report.seeds = Some(SeedsFacts::of(&reports(1.0)));
    report.sweep = Some(sweep_facts());
    report
}

fn all_scenes() -> Vec<(&'static str, Scene)> {
    let (scenario, answer, report) = (sample::scenario(), sample::answer(true), full_report());
    let quiet = Outcome { incidents: Vec::new(), ..sample::outcome(EngineKind::Ring, 62.0, None) };
    let words: Vec<_> = ["wifi", "lan"].map(|w| (w.to_owned(), reports(1.0))).into();
    vec![
        ("timeline", timeline::draw(&scenario, &answer.main, &report)),
        ("quiet timeline", timeline::draw(&scenario, &quiet, &sample::report(false))),
        ("breakdown", breakdown::draw(&report)),
        ("seeds", seeds::draw(&report, report.seeds.as_ref().unwrap())),
        ("decode", sweep("Does distance matter?", "round trip", &sweep_facts(), Metric::Decode)),
        ("first token", sweep("Does distance matter?", "round trip", &sweep_facts(), Metric::FirstToken)),
        ("overview", overview("What would I get?", &vec![sample::report(true); 9])),
        (
            "long title",
            overview(
                &"Is a question that somebody wrote at length still read? ".repeat(4),
                &reports(1.0)[..2],
            ),
        ),
        (
            "words",
            sweep(
                "Does the network matter?",
                "network",
                &SweepFacts::of("network", &words),
                Metric::Throughput,
            ),
        ),
    ]
}

#[test]
fn every_text_is_inside_its_page() {
    for (name, scene) in all_scenes() {
        for (label, [left, top, right, bottom]) in scene.text_boxes() {
            let inside = left >= 0.0 && top >= 0.0 && right <= scene.width && bottom <= scene.height;
            assert!(inside, "{name}: {:?} leaves the page", label.text);
        }
    }
}

#[test]
fn no_two_texts_overlap() {
    for (name, scene) in all_scenes() {
        let boxes = scene.text_boxes();
        for (n, (a, [al, at, ar, ab])) in boxes.iter().enumerate() {
            for (b, [bl, bt, br, bb]) in &boxes[n + 1..] {
                let apart = ar <= bl || br <= al || ab <= bt || bb <= at;
                assert!(apart, "{name}: {:?} and {:?} overlap", a.text, b.text);
            }
        }
    }
}

#[test]
fn every_figure_is_written_as_svg_and_as_png_of_twice_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let (scenario, answer, report) = (sample::scenario(), sample::answer(true), full_report());
    let written = write(directory.path(), &scenario, &answer, &report).unwrap();
    let names: Vec<&str> = written.iter().filter_map(|p| p.file_name()?.to_str()).collect();
    for stem in ["timeline", "breakdown", "seeds", "sweep-decode", "sweep-throughput", "sweep-first-token"] {
        assert!(names.contains(&format!("{stem}.svg").as_str()), "{names:?}");
        assert!(names.contains(&format!("{stem}.png").as_str()), "{names:?}");
    }
    let svg = std::fs::read_to_string(directory.path().join("breakdown.svg")).unwrap();
    assert!(svg.contains("<svg width=\"860\"") && svg.contains("viewBox=\"0 0 6880"), "{}", &svg[..200]);
    let png = std::fs::read(directory.path().join("breakdown.png")).unwrap();
    assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 1720, "width in the PNG's header");
}

#[test]
fn the_same_report_gives_the_same_figure() {
    let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for directory in [&a, &b] {
        breakdown::draw(&full_report()).save(directory.path(), "x").unwrap();
    }
    for name in ["x.svg", "x.png"] {
        let read = |d: &tempfile::TempDir| std::fs::read(d.path().join(name)).unwrap();
        assert_eq!(read(&a), read(&b), "{name}");
    }
}

#[test]
fn a_bar_that_dwarfs_the_others_is_cut_and_still_says_its_length() {
    let scene = breakdown::draw(&sample::report(false));
    let texts: Vec<&str> = scene.text_boxes().iter().map(|(l, _)| l.text.as_str()).collect();
    assert!(texts.contains(&"1,930 ms") && texts.contains(&"62.0 ms"), "{texts:?}");
}

#[test]
fn a_run_without_requests_is_drawn_without_panicking() {
    let mut answer = sample::answer(false);
    answer.main.requests.clear();
    answer.main.ended_us = 0.0;
    let scene = timeline::draw(&sample::scenario(), &answer.main, &sample::report(false));
    assert!(scene.height > 0.0 && scene.marks.len() > 2);
}

#[test]
fn a_thousand_requests_are_shortened_and_the_caption_says_so() {
    let mut answer = sample::answer(false);
    let one = answer.main.requests[0].clone();
    answer.main.requests = vec![one; 1000];
    let scene = timeline::draw(&sample::scenario(), &answer.main, &sample::report(false));
    assert!(scene.height < 700.0);
    assert!(scene.text_boxes().iter().any(|(l, _)| l.text.contains("the first 24 of 1000 requests")));
}

#[test]
fn a_sweep_says_its_axes_and_how_certain_it_is() {
    let scene = sweep("Does distance matter?", "round trip", &sweep_facts(), Metric::FirstToken);
    let texts: Vec<&str> = scene.text_boxes().iter().map(|(l, _)| l.text.as_str()).collect();
    for wanted in [
        "round trip, ms",
        "median time to first token, seconds",
        "Mean over 12 seeds at each point, with its 95 % confidence interval; lower is better, logarithmic scale",
    ] {
        assert!(texts.contains(&wanted), "{wanted:?} is missing in {texts:?}");
    }
}
