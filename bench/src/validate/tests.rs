#![allow(clippy::unwrap_used, reason = "a failed validation is the failed test")]

use std::path::Path;

use planner::cost::constants::RING;
use planner::cost::predict::{Load, predict};
use planner::plan::Breakdown;
use sim::baseline::play;
use sim::scenario::EngineKind;

use super::prediction::{Note, Prediction};
use super::{ValidateError, accuracy, assemble, json, run, text, write};

fn row(id: &str, grade: char, family: &str, error_percent: f64) -> Prediction {
    Prediction {
        id: id.into(),
        grade,
        family: family.into(),
        engine: "ring".into(),
        model: "a model".into(),
        cut: "n 0..4".into(),
        published_tok_s: (10.0, 10.0),
        predicted_tok_s: 10.0 + error_percent / 10.0,
        error_percent,
        breakdown_ms: Breakdown::default(),
        pages: false,
        calibrated_on: false,
        note: None,
        assumed: String::new(),
        source: "this test".into(),
    }
}

const CASE: &str = r#"# What does one machine give?
[node]
a = { device = "apple-m4-max" }

[model]
name = "small"
layers = 8
hidden = 2048
ffn = 8192

[workload]
prompt = 16
output = 8

[run]
engine = "llama-rpc"

[plan]
split = { a = 8 }

[published]
decode = 100.0
grade = "A"
family = "made-up"
source = "this test"
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

#[test]
fn errors_are_medians_and_nine_in_ten_by_family_and_grade() {
    let rows: Vec<Prediction> = (1..=11).map(|i| row("r", 'A', "x", f64::from(i) - 6.0)).collect();
    let groups = accuracy::by_family(&rows);
    assert_eq!(groups.len(), 1);
    let found = groups[0].accuracy;
    assert_eq!((found.rows, found.median_percent, found.p90_percent), (11, 3.0, 5.0));
    assert_eq!(found.bias_percent, 0.0);
}

#[test]
fn flagged_rows_enter_no_error_and_families_apart_no_total() {
    let anomaly = Prediction { note: Some(Note::Anomaly), ..row("r1", 'B', "x", 5000.0) };
    let apart = Prediction { note: Some(Note::Apart), ..row("r2", 'B', "y", 60.0) };
    let rows = [anomaly, apart, row("r3", 'B', "x", -10.0)];
    let total = accuracy::by_grade(&rows, |_| true);
    assert_eq!((total[0].accuracy.rows, total[0].flagged, total[0].accuracy.median_percent), (1, 1, 10.0));
    let families = accuracy::by_family(&rows);
    assert_eq!(families.iter().map(|g| g.accuracy.median_percent).collect::<Vec<_>>(), [10.0, 60.0]);
}

#[test]
fn the_number_of_constants_stands_beside_the_errors() {
    let fitted = Prediction { calibrated_on: true, ..row("r900", 'A', "x", 1.0) };
    let without = assemble(vec![row("r900", 'A', "x", 1.0)], Vec::new());
    let with = assemble(vec![fitted], Vec::new());
    assert_eq!(with.constants_fitted, without.constants_fitted + 1, "a fleet that was fitted counts");
    assert!(with.by_grade_held_out.is_empty() && !without.by_grade_held_out.is_empty());
    assert!(text(&with).contains(&format!("{} constants fitted", with.constants_fitted)));
}

#[test]
fn every_constant_that_is_said_to_be_fitted_is_on_a_row_that_says_so() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let validation = run(&cases).unwrap();
    let elsewhere = validation.constants.iter().filter(|c| c.elsewhere).count();
    assert_eq!(elsewhere, validation.constants_fitted_elsewhere);
    for constant in validation.constants.iter().filter(|c| !c.elsewhere) {
        let of_row = validation.predictions.iter().find(|p| p.id == constant.row).unwrap();
        assert!(of_row.calibrated_on, "{} is fitted on {}", constant.name, constant.row);
    }
}

/// A model far larger than a small board's memory reads its weights from a card for each token: hours for an answer, and
/// still a prediction.
#[test]
fn a_case_that_pages_for_hours_is_predicted() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let large = std::fs::read_to_string(cases.join("r236.toml")).unwrap();
    let slow = large.replace("apple-m3-ultra", "raspberry-pi-4");
    let validation = run(folder(&[("slow.toml", &slow)]).path()).unwrap();
    assert!(validation.unreadable.is_empty(), "{:?}", validation.unreadable);
    assert!(validation.predictions[0].pages && validation.predictions[0].predicted_tok_s < 0.1);
}

#[test]
fn a_bad_case_is_named_and_the_others_run() {
    let no_table = CASE.split("[published]").next().unwrap();
    let wrong_unit = CASE.replace("apple-m4-max", "apple-m9");
    let folder = folder(&[
        ("good.toml", CASE),
        ("bare.toml", no_table),
        ("broken.toml", "[["),
        ("m9.toml", &wrong_unit),
    ]);
    let validation = run(folder.path()).unwrap();
    assert_eq!(validation.predictions.len(), 1);
    assert_eq!(validation.predictions[0].id, "good");
    let why = |name: &str| {
        let found = validation.unreadable.iter().find(|u| u.path.ends_with(name)).unwrap();
        found.why.clone()
    };
    assert!(why("bare.toml").contains("no [published] table"));
    assert!(why("m9.toml").contains("apple-m9"), "{}", why("m9.toml"));
    assert!(why("broken.toml").contains("broken.toml:1"), "{}", why("broken.toml"));
}

#[test]
fn a_case_that_publishes_far_less_than_the_model_allows_is_flagged() {
    let slow = CASE.replace("decode = 100.0", "decode = 0.5");
    let validation = run(folder(&[("slow.toml", &slow)]).path()).unwrap();
    assert_eq!(validation.predictions[0].note, Some(Note::Anomaly));
    assert!(text(&validation).contains("times slower"));
}

#[test]
fn a_folder_without_cases_is_an_error_that_says_what_a_case_is() {
    let error = run(folder(&[("notes.md", "")]).path()).unwrap_err();
    assert!(matches!(error, ValidateError::Empty { .. }));
    assert!(error.to_string().contains("[published]"));
    assert!(matches!(run(Path::new("/no/such/folder")), Err(ValidateError::Folder { .. })));
}

#[test]
fn results_are_written_and_are_the_same_twice() {
    let cases = folder(&[("a.toml", CASE)]);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let validation = run(cases.path()).unwrap();
    assert_eq!(json(&validation), json(&run(cases.path()).unwrap()));
    for out in [&one, &two] {
        let files = write(&validation, cases.path(), out.path()).unwrap();
        assert_eq!(files.len(), 7);
    }
    for name in ["predictions.csv", "summary.txt", "scatter.svg", "errors-by-family.svg"] {
        let read = |out: &tempfile::TempDir| std::fs::read(out.path().join(name)).unwrap();
        assert_eq!(read(&one), read(&two), "{name}");
    }
}

#[test]
fn the_documentation_names_every_fitted_constant_with_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/validation.md")).unwrap();
    let validation = run(&root.join("cases")).unwrap();
    for constant in &validation.constants {
        let field = constant.name.rsplit(": ").next().unwrap();
        let of_fleet = field.starts_with("fleet of case");
        let documented = page.lines().any(|line| {
            line.starts_with('|') && line.contains(&constant.row) && (of_fleet || line.contains(field))
        });
        assert!(documented, "{} ({})", constant.name, constant.row);
    }
}

/// The ring that the simulator plays and the one that the planner predicts are written twice; on an idle mesh without
/// errors they must be the same.
#[test]
fn the_ring_as_played_is_the_ring_that_the_planner_predicts() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    for id in ["r068", "r076", "r082", "r098", "r113", "r242"] {
        let mut scenario = sim::scenario::load(&cases.join(format!("{id}.toml")), &[], None).unwrap();
        scenario.compute_error = (0.0, 0.0);
        for network in &mut scenario.fleet.networks {
            network.delay.jitter_us = 0.0;
        }
        let outcome = play(&scenario, EngineKind::Ring, 1).unwrap();
        let load = Load { head: None, ..scenario.plan.ask.load };
        let predicted = predict(&scenario.fleet, &scenario.model, &outcome.plan, &load, &RING).unwrap();
        let played_ms = outcome.breakdown.total_ms();
        assert!((played_ms / predicted.tpot_ms - 1.0).abs() < 0.005, "{id}: {played_ms} {predicted:?}");
    }
}
