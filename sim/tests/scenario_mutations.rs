//! Whatever a person, an editor or a bad disk makes of a scenario: the loader answers with a scenario or an error whose
//! problems each have a place in the text, and never panics.
#![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sim::scenario::load_text;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios"))
}

fn shipped() -> Vec<(PathBuf, String)> {
    let mut found: Vec<(PathBuf, String)> = [folder(), folder().join("common")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        // A thousand nodes at each of hundreds of mutations would only cost time; the format is the same.
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "scale-1000"))
        .map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    found.sort();
    found
}

/// One change to a text.
#[derive(Debug, Clone)]
enum Change {
    /// These bytes (as a share of the text's length, and a number) go.
    Cut(f64, usize),
    /// This comes in.
    Insert(f64, String),
    /// The value of a line becomes this.
    Value(usize, String),
    /// A line stands twice, or comes before another.
    Copy(usize, usize),
}

fn values() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "0",
        "-1",
        "1e308",
        "nan",
        "-inf",
        "9223372036854775807",
        "99999999999999999999",
        "true",
        "1979-05-27",
        "[]",
        "{}",
        "\"\"",
        "\"0 ms\"",
        "\"-5 ms\"",
        "\"1e400 s\"",
        "\"17 GB\"",
        "\"0 B/s\"",
        "[[]]",
        "[{}]",
        "{ uniform = [1, 0] }",
        "{ uniform = [] }",
        "{ choice = [\"1 s\"] }",
        "{ a = 1 }",
        "[1, \"a\", {}]",
        "\"\\u0000\"",
        "\"wifi3.toml\"",
        "{ median = 0, p90 = 0, max = 0 }",
        "0.0000001",
        "4294967295",
        "\"memory\"",
        "[0.5, 0.5]",
    ]);
    prop_oneof![odd.prop_map(str::to_owned), "\\PC{0,12}"]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0.0..1.0, 1..40usize).prop_map(|(at, len)| Change::Cut(at, len)),
        (0.0..1.0, "\\PC{1,6}").prop_map(|(at, text)| Change::Insert(at, text)),
        (any::<usize>(), values()).prop_map(|(line, value)| Change::Value(line, value)),
        (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Change::Copy(from, to)),
    ]
}

fn boundary(text: &str, share: f64) -> usize {
    let mut at = ((text.len() as f64 * share) as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn apply(text: &str, change: &Change) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match change {
        Change::Cut(share, len) => {
            let start = boundary(text, *share);
            let end = boundary(text, (start + len) as f64 / text.len().max(1) as f64).max(start);
            return format!("{}{}", &text[..start], &text[end..]);
        }
        Change::Insert(share, new) => {
            let at = boundary(text, *share);
            return format!("{}{new}{}", &text[..at], &text[at..]);
        }
        Change::Value(line, value) => {
            let with_value: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].contains('=')).collect();
            if let Some(i) = with_value.get(line % with_value.len().max(1)) {
                let key = lines[*i].split('=').next().unwrap_or_default().to_owned();
                lines[*i] = format!("{key}= {value}");
            }
        }
        Change::Copy(from, to) if !lines.is_empty() => {
            let line = lines[from % lines.len()].clone();
            let to = to % lines.len();
            lines.insert(to, line);
        }
        Change::Copy(..) => {}
    }
    lines.join("\n")
}

fn loads_or_explains(path: &Path, text: &str, overrides: &[(String, String)]) {
    if let Err(error) = load_text(path, text, overrides, Some(7)) {
        assert!(!error.problems().is_empty());
        for problem in error.problems() {
            assert!(!problem.message().is_empty() && problem.line() >= 1, "{error}");
            assert!(!problem.file().is_empty(), "{error}");
        }
        let theme = miette::GraphicalTheme::unicode_nocolor();
        assert!(!error.render(&miette::GraphicalReportHandler::new_themed(theme)).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_scenario_loads_or_explains(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let all = shipped();
        let (path, text) = which.get(&all);
        let text = changes.iter().fold(text.clone(), |text, change| apply(&text, change));
        loads_or_explains(path, &text, &[]);
    }

    #[test]
    fn any_override_loads_or_explains(
        which in any::<prop::sample::Index>(),
        key in "(node|network|run|plan|workload|model|fault|device|distance)?(\\.(max|mini|home|0|9|device|rtt|split|bandwidth|[a-z]{1,4}|\\PC))*",
        value in values(),
    ) {
        let all = shipped();
        let (path, text) = which.get(&all);
        loads_or_explains(path, text, &[(key, value)]);
    }

    #[test]
    fn any_text_loads_or_explains(text in "\\PC{0,200}") {
        loads_or_explains(Path::new("any.toml"), &text, &[]);
    }
}
