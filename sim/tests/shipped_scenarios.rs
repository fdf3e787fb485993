//! Every shipped scenario loads, has a question, and fits the schema that `sim schema` prints.
#![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

use std::path::PathBuf;

use serde_json::Value;
use sim::scenario::{Scenario, load};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios"))
}

fn shipped() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    found.sort();
    found
}

fn scenario(name: &str) -> Scenario {
    load(&folder().join(format!("{name}.toml")), &[], None).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn all_nine_load_and_ask_a_question() {
    let names: Vec<String> =
        shipped().iter().map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    for expected in
        ["churn", "lan4", "minimax-home", "qwen235b-home", "scale-1000", "solo", "wan20", "wifi2", "wifi3"]
    {
        assert!(names.iter().any(|n| n == expected), "{expected} is missing from {names:?}");
    }
    for name in names {
        let scenario = scenario(&name);
        assert!(scenario.question.ends_with('?'), "{name}: {}", scenario.question);
        assert_eq!(scenario.name, name);
    }
}

/// As much of JSON Schema as the printed schema uses; an unknown keyword is an error, so that none is skipped silently.
fn fits(schema: &Value, root: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(rules) = schema else {
        return if schema == &Value::Bool(true) { Ok(()) } else { Err("nothing fits `false`".into()) };
    };
    for (keyword, rule) in rules {
        let right = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "examples" | "default" | "format"
            | "properties" => true,
            // What a pattern takes is what the units take, which the loader checks.
            "pattern" => true,
            "$ref" => {
                let name = rule.as_str().unwrap().trim_start_matches("#/$defs/");
                return fits(&root["$defs"][name], root, value);
            }
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                types.iter().any(|t| is_type(t.as_str().unwrap(), value))
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => rule.as_array().unwrap().iter().any(|one| fits(one, root, value).is_ok()),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some() || !value.is_object()),
            "additionalProperties" => value.as_object().is_none_or(|entries| {
                let known = rules.get("properties").and_then(Value::as_object);
                entries.iter().all(|(key, entry)| {
                    known.is_some_and(|k| k.contains_key(key)) || fits(rule, root, entry).is_ok()
                })
            }),
            "items" => {
                value.as_array().is_none_or(|items| items.iter().all(|item| fits(rule, root, item).is_ok()))
            }
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "minProperties" => {
                value.as_object().is_none_or(|entries| entries.len() as u64 >= rule.as_u64().unwrap())
            }
            "minimum" => value.as_f64().is_none_or(|x| x >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|x| x <= rule.as_f64().unwrap()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|x| x > rule.as_f64().unwrap()),
            other => return Err(format!("the test does not know `{other}`")),
        };
        if !right {
            return Err(format!("{value} breaks {keyword}: {rule}"));
        }
    }
    let known = rules.get("properties").and_then(Value::as_object);
    for (key, rule) in known.into_iter().flatten() {
        if let Some(entry) = value.get(key) {
            fits(rule, root, entry).map_err(|why| format!("{key}: {why}"))?;
        }
    }
    Ok(())
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

#[test]
fn every_shipped_file_fits_the_printed_schema() {
    let schema = sim::scenario::schema();
    let common = std::fs::read_dir(folder().join("common")).unwrap().map(|entry| entry.unwrap().path());
    for path in shipped().into_iter().chain(common) {
        let value = as_json(&std::fs::read_to_string(&path).unwrap());
        fits(&schema, &schema, &value).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}

#[test]
fn the_schema_refuses_what_the_loader_refuses() {
    let schema = sim::scenario::schema();
    for wrong in [
        "colour = 1",
        "[network.home]\nrrt = \"5 ms\"",
        "[network.home]\nrtt = 5",
        "[network.home]\nclass = \"wify\"",
        "[node.a]\ncount = -1",
        "[node.a]\ndevice = { lik = \"apple-m4\" }",
        "[run]\nbaselines = [\"llama\"]",
        "[plan]\nsplit = { a = 0 }",
        "[workload]\nprompt = { uniform = [1] }",
        "[[fault]]\nat = 3",
        "[published]\ndecode = \"21\"",
    ] {
        assert!(fits(&schema, &schema, &as_json(wrong)).is_err(), "the schema takes {wrong}");
    }
}

#[test]
fn every_key_of_the_schema_is_described_and_documented() {
    let schema = sim::scenario::schema();
    let manual = std::fs::read_to_string(folder().join("../docs/scenarios.md")).unwrap();
    let tables = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let mut keys = 0;
    for (key, rule) in tables.filter_map(|table| table["properties"].as_object()).flatten() {
        assert!(rule["description"].is_string(), "`{key}` has no description");
        assert!(
            manual.contains(&format!("`{key}`")) || manual.contains(&format!("[{key}")),
            "docs/scenarios.md lacks `{key}`"
        );
        keys += 1;
    }
    assert!(keys > 90, "only {keys} keys");
}

#[test]
fn the_home_wifi_is_one_set_of_constants() {
    let (two, three) = (scenario("wifi2"), scenario("wifi3"));
    assert_eq!(two.fleet.networks, three.fleet.networks);
    assert_eq!(two.model, three.model);
    let lengths =
        |s: &Scenario| -> Vec<u32> { s.plan.split.as_ref().unwrap().iter().map(|(_, r)| r.len()).collect() };
    assert_eq!(lengths(&two), [40, 7]);
    assert_eq!(lengths(&three), [19, 19, 9]);
    let nodes = &three.fleet.nodes;
    assert_eq!(nodes[0].machine, nodes[1].machine);
    assert_eq!(nodes[0].device.memory_bytes, two.fleet.nodes[0].device.memory_bytes);
    assert_eq!(scenario("scale-1000").fleet.nodes.len(), 1000);
}
