//! What a person reads who made a mistake in a scenario: file, line, key, cause and cure, letter by letter.
#![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

use std::path::Path;

use sim::scenario::{ScenarioError, load, load_text};

/// A scenario that is right, to be spoilt. Line 1 is the question.
const RIGHT: &str = r#"# Is it right?
model = { layers = 12, hidden = 512, ffn = 2048 }

[network.home]
class = "wifi"
rtt = "20 ms"

[node]
mini = { device = "apple-m4", network = "home" }
max = { device = "apple-m4-max", network = "home" }

[plan]
split = { max = 8, mini = 4 }
"#;

fn error(text: &str) -> ScenarioError {
    load_text(Path::new("spoilt.toml"), text, &[], None).expect_err("this scenario is wrong")
}

/// The error when `what` in the right scenario is replaced.
fn spoil(what: &str, with: &str) -> String {
    assert!(RIGHT.contains(what), "{what} is not in the text");
    error(&RIGHT.replacen(what, with, 1)).to_string()
}

fn set(key: &str, value: &str) -> String {
    let overrides = [(key.to_owned(), value.to_owned())];
    load_text(Path::new("spoilt.toml"), RIGHT, &overrides, None)
        .expect_err("this override is wrong")
        .to_string()
}

#[test]
fn the_right_one_is_right() {
    let scenario = load_text(Path::new("right.toml"), RIGHT, &[], None).unwrap();
    assert_eq!(scenario.question, "Is it right?");
}

/// One problem: where, what, and what would be right.
#[track_caller]
fn says(found: &str, place: &str, message: &str, cure: &str) {
    assert_eq!(found, format!("spoilt.toml cannot be used:\n{place}: {message}\n    {cure}"));
}

#[test]
fn an_unknown_key_gets_the_nearest_one() {
    says(
        &spoil("rtt = ", "rrt = "),
        "spoilt.toml:6:1: network.home.rrt",
        "unknown key `rrt`",
        "did you mean `rtt`? keys here: class, rtt, delay, jitter, bandwidth, loss, air_crossings, access, up, down",
    );
}

#[test]
fn a_quantity_without_or_with_the_wrong_unit_gets_the_units() {
    let place = "spoilt.toml:6:7: network.home.rtt";
    let units = "(units: ns, us, µs, ms, s, min, h)";
    says(
        &spoil("\"20 ms\"", "20"),
        place,
        "a whole number where a duration should be",
        "write a number with its unit, in quotes, such as \"40 ms\"",
    );
    says(
        &spoil("\"20 ms\"", "\"20\""),
        place,
        "`20` has no unit",
        &format!("write a duration such as `40 ms` {units}"),
    );
    says(
        &spoil("\"20 ms\"", "\"20 MB\""),
        place,
        "`MB` in `20 MB` is no unit of a duration",
        &format!("write one such as `40 ms` {units}"),
    );
}

#[test]
fn zero_bandwidth_is_refused_everywhere() {
    says(
        &spoil("\"20 ms\"", "\"20 ms\"\nbandwidth = \"0 MB/s\""),
        "spoilt.toml:7:13: network.home.bandwidth",
        "the bandwidth is zero",
        "write more than zero, such as \"100 Mbit/s\"",
    );
    for (what, with) in [
        ("network = \"home\" }\nmax", "network = \"home\", up = \"0 B/s\" }\nmax"),
        ("network = \"home\" }\nmax", "network = \"home\", down = \"0 bit/s\" }\nmax"),
        ("\"apple-m4\"", "{ like = \"apple-m4\", bandwidth = \"0 GB/s\" }"),
        ("[plan]", "[[link]]\nbetween = [\"mini\", \"max\"]\nbandwidth = \"0 B/s\"\n[plan]"),
    ] {
        let found = spoil(what, with);
        assert!(found.contains("is zero"), "{found}");
    }
}

#[test]
fn no_nodes_is_an_error_of_its_own() {
    let nodes = &RIGHT[RIGHT.find("[node]").unwrap()..RIGHT.find("[plan]").unwrap()];
    says(
        &spoil(nodes, ""),
        "spoilt.toml:1:1",
        "the scenario has no nodes",
        "write [node.NAME] with device = \"apple-m4\", for each machine",
    );
    assert!(spoil("\"apple-m4\"", "\"apple-m4\", count = 0").contains("0 is out of range"));
}

#[test]
fn unknown_names_get_near_ones() {
    says(
        &spoil("\"wifi\"", "\"wify\""),
        "spoilt.toml:5:9: network.home.class",
        "`wify` is not a class of network",
        "did you mean `wifi`? there are: wifi, lan, thunderbolt, datacentre, wan, relay",
    );
    says(
        &spoil("\"apple-m4\"", "\"aple-m4\""),
        "spoilt.toml:9:19: node.mini.device",
        "there is no device `aple-m4`",
        "did you mean apple-m4, apple-m1, apple-m2?",
    );
    says(
        &spoil("network = \"home\" }\nmax", "network = \"hom\" }\nmax"),
        "spoilt.toml:9:41: node.mini.network",
        "there is no network `hom`",
        "did you mean `home`?",
    );
    says(
        &spoil("mini = 4", "mino = 4"),
        "spoilt.toml:13:20: plan.split.mino",
        "there is no node `mino`",
        "did you mean `mini`? nodes: mini, max",
    );
    let model = spoil("model = {", "model = \"GLM-4.7-Flsh Q4_K_M\" #");
    assert!(model.contains("spoilt.toml:2:9: model: ") && model.contains("GLM-4.7-Flash"), "{model}");
}

#[test]
fn a_cut_that_does_not_cover_the_model_says_by_how_much() {
    let place = "spoilt.toml:13:9: plan.split";
    says(&spoil("mini = 4", "mini = 3"), place, "the parts cover 11 layers, the model has 12", "add 1");
    says(&spoil("mini = 4", "mini = 9"), place, "the parts cover 17 layers, the model has 12", "take 5 away");
    says(
        &spoil("max = 8, mini = 4", "max = 0.9, mini = 0.3"),
        place,
        "the shares add up to 1.200",
        "shares of the layers add up to 1, such as 0.85 and 0.15",
    );
    says(
        &spoil("max = 8, mini = 4", "max = 0.99, mini = 0.01"),
        place,
        "of 12 layers not every one of 2 nodes gets one",
        "give the smallest part more, or take its node out",
    );
    says(
        &spoil("max = 8, mini = 4", "max = 8, mini = 0.5"),
        place,
        "layers and shares are mixed",
        "write whole numbers only, or fractions only (1.0, not 1)",
    );
}

#[test]
fn a_range_that_is_none_is_explained() {
    let cure = "write { uniform = [low, high] } or { choice = [a, b, c] }";
    says(
        &spoil("\"20 ms\"", "{ uniform = [\"40 ms\", \"5 ms\"] }"),
        "spoilt.toml:6:19: network.home.rtt",
        "the ends of a uniform range are a lower and a higher value",
        cure,
    );
    says(
        &spoil("\"20 ms\"", "{ unifrom = [\"5 ms\", \"40 ms\"] }"),
        "spoilt.toml:6:9: network.home.rtt",
        "`unifrom` is no range",
        cure,
    );
    says(
        &spoil("\"20 ms\"", "{ choice = [] }"),
        "spoilt.toml:6:18: network.home.rtt",
        "there is nothing to choose from",
        cure,
    );
}

#[test]
fn a_syntax_error_is_placed() {
    says(
        &spoil("[plan]", "[plan"),
        "spoilt.toml:12:6",
        "not valid TOML: unclosed table, expected `]`",
        "write `key = value`; texts and quantities stand in quotes: rtt = \"40 ms\"",
    );
}

#[test]
fn what_is_out_of_range_gets_the_bounds() {
    says(
        &spoil("ffn = 2048", "ffn = 2048, bits = 99"),
        "spoilt.toml:2:57: model.bits",
        "99 is out of range",
        "write a number from 0.5 to 32",
    );
    says(
        &spoil("[plan]", "[workload]\nprompt = 5000\n[plan]\ncontext = 4096"),
        "spoilt.toml:15:11: plan.context",
        "a context of 4096 tokens is too short for a request of 5128",
        "write at least 5128, or shorten prompt and output",
    );
}

#[test]
fn a_value_set_from_outside_is_checked_like_one_in_the_file() {
    let place =
        |key: &str, value: &str, column: usize, at: &str| format!("--set {key}={value}:1:{column}: {at}");
    let says = |key: &str, value: &str, column: usize, message: &str, cure: &str| {
        says(&set(key, value), &place(key, value, column, key), message, cure);
    };
    says(
        "network.home.rtt",
        "30",
        18,
        "a whole number where a duration should be",
        "write a number with its unit, in quotes, such as \"40 ms\"",
    );
    says("network.hom.rtt", "30 ms", 9, "there is no network `hom`", "did you mean `home`?");
    says(
        "run.wrld",
        "memory",
        5,
        "unknown key `wrld`",
        "did you mean `world`? keys here: engine, baselines, world, seed, scale, compute_error, software, inject, limit",
    );
    says("node.mini.up", "0 B/s", 14, "the bandwidth is zero", "write more than zero, such as \"20 Mbit/s\"");
    says("plan..x", "3", 1, "an empty part in the key", "write SECTION.KEY=VALUE");
}

#[test]
fn all_problems_of_a_file_are_reported_at_once_and_underlined() {
    let text = RIGHT.replace("\"20 ms\"", "20").replace("mini = 4", "mino = 4").replace("wifi", "wify");
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let found = error(&text).render(&miette::GraphicalReportHandler::new_themed(theme).with_width(110));
    let lines: Vec<&str> = found.lines().map(str::trim_end).collect();
    assert_eq!(lines.join("\n"), THREE_PROBLEMS.trim_end());
}

const THREE_PROBLEMS: &str = r#"  × spoilt.toml cannot be used: 3 problems

Error:
  × network.home.class: `wify` is not a class of network
   ╭─[spoilt.toml:5:9]
 4 │ [network.home]
 5 │ class = "wify"
   ·         ───┬──
   ·            ╰── here
 6 │ rtt = 20
   ╰────
  help: did you mean `wifi`? there are: wifi, lan, thunderbolt, datacentre, wan, relay

Error:
  × network.home.rtt: a whole number where a duration should be
   ╭─[spoilt.toml:6:7]
 5 │ class = "wify"
 6 │ rtt = 20
   ·       ─┬
   ·        ╰── here
 7 │
   ╰────
  help: write a number with its unit, in quotes, such as "40 ms"

Error:
  × plan.split.mino: there is no node `mino`
    ╭─[spoilt.toml:13:20]
 12 │ [plan]
 13 │ split = { max = 8, mino = 4 }
    ·                    ──┬─
    ·                      ╰── here
    ╰────
  help: did you mean `mini`? nodes: mini, max
"#;

#[test]
fn a_file_that_is_not_there_is_said_to_be_missing() {
    let found = load(Path::new("/nowhere/x.toml"), &[], None).unwrap_err().to_string();
    assert!(found.contains("/nowhere/x.toml cannot be read: No such file"), "{found}");
}

#[test]
fn includes_that_go_in_a_circle_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.toml", "include = \"b.toml\"\n");
    write("b.toml", "include = \"a.toml\"\n");
    let found = load(&folder.path().join("a.toml"), &[], None).unwrap_err();
    assert_eq!(found.problems().len(), 1);
    assert_eq!(found.problems()[0].message(), "includes go in a circle: a -> b -> a");
    assert!(found.problems()[0].file().ends_with("b.toml"));
    assert_eq!(found.problems()[0].line(), 1);
}

#[test]
fn a_problem_in_an_included_file_is_placed_in_that_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("net.toml"), "[network.home]\nclass = \"wify\"\n").unwrap();
    let text = RIGHT.replace("class = \"wifi\"\n", "").replace("model =", "include = \"net.toml\"\nmodel =");
    let found = load_text(&folder.path().join("main.toml"), &text, &[], None).unwrap_err();
    assert_eq!(found.problems().len(), 1, "{found}");
    assert!(found.problems()[0].file().ends_with("net.toml"));
    assert_eq!((found.problems()[0].line(), found.problems()[0].key()), (2, "network.home.class"));
}

#[test]
fn a_model_file_that_is_none_is_placed_at_its_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.gguf"), "GGUF is not what this is").unwrap();
    let shape = "model = { layers = 12, hidden = 512, ffn = 2048 }";
    for (file, part) in [("bad.gguf", "bad.gguf"), ("none.gguf", "none.gguf")] {
        let text = RIGHT.replace(shape, &format!("model = {{ gguf = \"{file}\" }}"));
        let found = load_text(&folder.path().join("main.toml"), &text, &[], None).unwrap_err();
        assert_eq!(found.problems().len(), 1, "{found}");
        let problem = &found.problems()[0];
        assert_eq!((problem.key(), problem.line()), ("model.gguf", 2));
        assert!(problem.message().contains(part), "{}", problem.message());
    }
}
