//! The shape of each answer.

use serde_json::json;

use crate::client::{Open, get, post, request, stream};
use crate::house::{CONTEXT, MODEL, address};

#[test]
fn the_models_are_listed_and_each_has_an_address() {
    let list = get(address(), "/v1/models").ok();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    let model = get(address(), &format!("/v1/models/{MODEL}")).ok();
    assert_eq!(model, list["data"][0]);
    assert_eq!((&model["id"], &model["object"]), (&json!(MODEL), &json!("model")));
    assert_eq!(model["context_length"], CONTEXT);
    assert!(model["created"].as_i64().unwrap() > 1_600_000_000, "seconds since 1970");
    let missing = get(address(), "/v1/models/some/other");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.error()["code"], "model_not_found");
    assert!(missing.body.contains(MODEL), "it says what there is: {}", missing.body);
}

#[test]
fn a_chat_has_the_shape_of_openai() {
    let messages = json!([
        {"role": "developer", "content": "You are terse."},
        {"role": "user", "content": [{"type": "text", "text": "Name the capital"}, {"type": "text", "text": "of France."}]},
        {"role": "assistant", "content": null, "tool_calls": []},
        {"role": "user", "content": "Go on.", "name": "Ann"},
    ]);
    let body = json!({
        "model": MODEL, "messages": messages, "max_completion_tokens": 8, "max_tokens": 3, "temperature": 0,
        "user": "ann", "metadata": {}, "vendor_field": [1], "response_format": {"type": "text"}, "stop": null,
    });
    let reply = post(address(), "/v1/chat/completions", &body).ok();
    assert!(reply["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&reply["object"], &reply["model"]), (&json!("chat.completion"), &json!(MODEL)));
    let choice = &reply["choices"][0];
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &json!(null)));
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    let usage = &reply["usage"];
    let count = |field: &str| usage[field].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert!(count("completion_tokens") <= 8 && count("prompt_tokens") > 20);
}

#[test]
fn a_stream_begins_with_the_role_and_ends_with_what_it_took() {
    let body = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0,
        "stream_options": {"include_usage": true},
    });
    let chunks = stream(address(), "/v1/chat/completions", &body);
    let (total, chunks) = chunks.split_last().unwrap();
    assert_eq!(total["choices"], json!([]));
    assert_eq!(total["usage"]["completion_tokens"], 5);
    assert!(
        chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["object"] == "chat.completion.chunk")
    );
    assert!(chunks.iter().all(|chunk| chunk["id"] == total["id"] && chunk["created"] == total["created"]));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(chunks[1..].iter().all(|chunk| chunk["choices"][0]["delta"].get("role").is_none()));
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["choices"][0]["delta"]),
        (&json!("length"), &json!({}))
    );
    assert!(others.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
}

#[test]
fn a_completion_has_the_older_shape_and_may_echo() {
    let body = json!({"model": MODEL, "prompt": "One, two,", "max_tokens": 4, "temperature": 0, "echo": true, "best_of": 1});
    let reply = post(address(), "/v1/completions", &body).ok();
    assert_eq!(reply["object"], "text_completion");
    let text = reply["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("One, two,") && text.len() > 12, "{text}");
    assert_eq!(reply["usage"]["completion_tokens"], 4);
    let none = json!({"model": MODEL, "prompt": "One", "max_tokens": 0, "echo": true});
    let none = post(address(), "/v1/completions", &none).ok();
    assert_eq!(
        (&none["choices"][0]["text"], &none["choices"][0]["finish_reason"]),
        (&json!("One"), &json!("length"))
    );
}

#[test]
fn a_node_says_how_it_is_and_what_it_counted() {
    post(address(), "/v1/completions", &json!({"model": MODEL, "prompt": "Hi", "max_tokens": 3})).ok();
    assert_eq!(get(address(), "/health").ok()["status"], "ok");
    let status = get(address(), "/status").ok();
    assert_eq!((&status["serving"], &status["models"][0]["epoch"]), (&json!(true), &json!(1)));
    let page = get(address(), "/metrics");
    assert!(page.header("content-type").unwrap().starts_with("text/plain"));
    let value = |name: &str| -> f64 {
        let line = page.body.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.unwrap_or_else(|| panic!("{name}: {}", page.body)).rsplit(' ').next().unwrap().parse().unwrap()
    };
    for name in [
        "meshwright_http_requests_total{path=\"/v1/completions\",status=\"200\"}",
        "meshwright_generated_tokens_total",
        "meshwright_prompt_tokens_total",
        "meshwright_time_to_first_token_seconds_count",
        "meshwright_time_per_output_token_seconds_count",
        "meshwright_serving",
    ] {
        assert!(value(name) >= 1.0, "{name}: {}", page.body);
    }
    assert!(value("meshwright_time_to_first_token_seconds_bucket{le=\"+Inf\"}") >= 1.0);
    value("meshwright_answers_running");
    value("meshwright_answers_waiting");
}

#[test]
fn pages_of_this_machine_may_ask_and_others_are_not_told() {
    let preflight = |origin| {
        let headers = [("Origin", origin), ("Access-Control-Request-Headers", "authorization,content-type")];
        let mut open = Open::new(address());
        open.send(&request("OPTIONS", "/v1/chat/completions", &headers, ""));
        open.whole().unwrap()
    };
    let ours = preflight("http://localhost:3000");
    assert_eq!(ours.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(ours.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
}
