//! What is wrong with a request is said in OpenAI's form, with the right status and the field's name; and nothing that a
//! client sends is an error of the server.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::client::{Open, get, post, request};
use crate::house::{CONTEXT, MODEL, address};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

fn chat() -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
}

fn completion() -> Value {
    json!({"model": MODEL, "prompt": "Hi", "max_tokens": 1})
}

/// `base` with one field changed.
fn with(mut base: Value, field: &str, value: Value) -> Value {
    base[field] = value;
    base
}

#[test]
fn each_wrong_field_is_named() {
    let image = json!([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "x"}}]}]);
    let table = [
        ("messages", json!(null), "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!("Hi"), "messages"),
        ("messages", json!([7]), "messages[0]"),
        ("messages", json!([{"content": "Hi"}]), "messages[0].role"),
        ("messages", json!([{"role": "king", "content": "Hi"}]), "messages[0].role"),
        ("messages", json!([{"role": "user", "content": 7}]), "messages[0].content"),
        ("messages", image, "messages[0].content[1]"),
        ("model", json!(null), "model"),
        ("model", json!(["a"]), "model"),
        ("temperature", json!(2.5), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("top_p", json!(-0.1), "top_p"),
        ("top_k", json!(1.5), "top_k"),
        ("min_p", json!(2), "min_p"),
        ("n", json!(0), "n"),
        ("n", json!(1000), "n"),
        ("seed", json!("x"), "seed"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_completion_tokens", json!(-1), "max_completion_tokens"),
        ("presence_penalty", json!(3), "presence_penalty"),
        ("repeat_penalty", json!(0), "repeat_penalty"),
        ("stop", json!(7), "stop"),
        ("stop", json!(["a", 7]), "stop"),
        ("stop", json!(vec!["a"; 99]), "stop"),
        ("stop", json!("a".repeat(5000)), "stop"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!({"include_usage": 1}), "stream_options.include_usage"),
        ("logprobs", json!(1), "logprobs"),
        ("top_logprobs", json!(5), "top_logprobs"),
        ("logit_bias", json!({"x": 1}), "logit_bias.x"),
        ("logit_bias", json!({"99999999": 1}), "logit_bias.99999999"),
        ("logit_bias", json!({"5": 101}), "logit_bias.5"),
        ("response_format", json!({"type": "json_object"}), "response_format"),
        ("tools", json!("all"), "tools"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("modalities", json!(["text", "audio"]), "modalities"),
        ("functions", json!([{}]), "functions"),
    ];
    for (field, value, param) in table {
        let response = post(address(), CHAT, &with(chat(), field, value.clone()));
        let error = response.error();
        assert_eq!((response.status, &error["param"]), (400, &json!(param)), "{field}: {value}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let table = [
        ("prompt", json!(7), "prompt"),
        ("prompt", json!([]), "prompt"),
        ("prompt", json!(["a", 7]), "prompt[1]"),
        ("prompt", json!([5, 99_999_999]), "prompt[1]"),
        ("prompt", json!([[5, -1]]), "prompt[0][1]"),
        ("prompt", json!(vec!["a"; 99]), "prompt"),
        ("suffix", json!("end"), "suffix"),
        ("best_of", json!(3), "best_of"),
        ("logprobs", json!(true), "logprobs"),
        ("logprobs", json!(99), "logprobs"),
        ("echo", json!(1), "echo"),
    ];
    for (field, value, param) in table {
        let response = post(address(), COMPLETION, &with(completion(), field, value.clone()));
        assert_eq!((response.status, &response.error()["param"]), (400, &json!(param)), "{field}: {value}");
    }
    let both = with(with(completion(), "echo", json!(true)), "logprobs", json!(1));
    assert_eq!(post(address(), COMPLETION, &both).error()["param"], "logprobs");
    let many = with(with(completion(), "prompt", json!(["a", "b", "c"])), "n", json!(20));
    assert_eq!(post(address(), COMPLETION, &many).error()["param"], "n");
}

#[test]
fn a_prompt_that_the_context_does_not_hold_is_refused_with_both_figures() {
    let long = "word ".repeat(2 * CONTEXT as usize);
    let messages = json!([{"role": "user", "content": long}]);
    let requests =
        [(CHAT, with(chat(), "messages", messages)), (COMPLETION, with(completion(), "prompt", json!(long)))];
    for (path, body) in requests {
        let response = post(address(), path, &body);
        let error = response.error();
        assert_eq!((response.status, &error["code"]), (400, &json!("context_length_exceeded")));
        assert!(error["message"].as_str().unwrap().contains(&CONTEXT.to_string()), "{error}");
    }
}

/// Eight megabytes of one letter took half a minute to become tokens that no context holds.
#[test]
fn a_text_that_cannot_fit_is_refused_unread() {
    let text = "a".repeat(7 << 20);
    let body = with(completion(), "prompt", json!([text, "b"]));
    let response = post(address(), COMPLETION, &body);
    assert_eq!((response.status, &response.error()["param"]), (400, &json!("prompt")));
    let words = response.error()["message"].as_str().unwrap().to_owned();
    // Eight letters are a token at most: it was not counted, it was estimated from the longest token there is.
    let least: usize = words.split("at least ").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    assert!((CONTEXT as usize..(7 << 20) / 32).contains(&least), "{words}");
}

#[test]
fn addresses_methods_and_media_are_held_to_what_there_is() {
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut open = Open::new(address());
        open.send(&request(method, path, headers, body));
        open.whole().unwrap()
    };
    let json = ("Content-Type", "application/json");
    let model = post(address(), CHAT, &with(chat(), "model", json!("gpt-4o")));
    assert_eq!((model.status, &model.error()["code"]), (404, &json!("model_not_found")));
    assert!(model.body.contains(MODEL), "it says what there is: {}", model.body);
    let path = get(address(), "/v1/embeddings");
    assert_eq!((path.status, &path.error()["code"]), (404, &json!("unknown_url")));
    let method = send("GET", CHAT, &[], "");
    assert_eq!((method.status, method.header("allow")), (405, Some("POST")));
    method.error();
    assert_eq!(send("DELETE", "/v1/models", &[], "").status, 405);
    for headers in
        [&[][..], &[("Content-Type", "text/plain")], &[("Content-Type", "application/x-www-form-urlencoded")]]
    {
        let response = send("POST", CHAT, headers, &chat().to_string());
        assert_eq!(response.status, 415, "{headers:?}");
        response.error();
    }
    let utf = send("POST", CHAT, &[("Content-Type", "application/json; charset=utf-8")], &chat().to_string());
    assert_eq!(utf.status, 200, "{}", utf.body);
    for body in ["", "{", "[]", "7", "\"Hi\"", "{\"model\": \"\u{0}\"}", &"[".repeat(100_000)] {
        let response = send("POST", CHAT, &[json], body);
        assert_eq!(response.status, 400, "{:.40}", body);
        response.error();
    }
    let twice = Open::new(address()).asked(b"GET /health HTTP/1.1\r\nHost: evil.example:9337\r\n\r\n");
    assert_eq!((twice.status, &twice.error()["code"]), (403, &json!("wrong_host")));
}

impl Open {
    fn asked(mut self, bytes: &[u8]) -> crate::client::Response {
        self.send(bytes);
        self.whole().unwrap()
    }
}

/// Any JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3i64..40).prop_map(Value::from),
        (0.0..2.0f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["text", "user", "tool", "auto", "none", "\u{fffd}", "<|im_end|>", "{{"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let name = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "text",
            "name",
            "tool_calls",
            "function",
            "arguments",
            "5",
            "include_usage",
            "x",
        ]);
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(name, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// A request that holds, with some fields that are anything. Answers stay short, so that the test does.
fn any_request() -> impl Strategy<Value = (&'static str, Value)> {
    let fields = vec![
        "messages",
        "prompt",
        "n",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repeat_penalty",
        "repeat_last_n",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "echo",
        "suffix",
        "best_of",
        "tools",
        "tool_choice",
        "response_format",
        "chat_template_kwargs",
        "max_completion_tokens",
        "modalities",
        "functions",
        "user",
        "model",
    ];
    let changes = vec((prop::sample::select(fields), any_json()), 0..4);
    (any::<bool>(), changes).prop_map(|(is_chat, changes)| {
        let (path, mut body) = if is_chat { (CHAT, chat()) } else { (COMPLETION, completion()) };
        for (field, value) in changes {
            body[field] = value;
        }
        if body["max_completion_tokens"].as_f64().is_some_and(|tokens| tokens > 2.0) {
            body["max_completion_tokens"] = 2.into();
        }
        (path, body)
    })
}

fn cases(count: u32) -> TestRunner {
    let times = std::env::var("CASES_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    TestRunner::new(Config { cases: count * times, failure_persistence: None, ..Config::default() })
}

#[test]
fn no_request_is_an_error_of_the_server() {
    let (mut answered, mut refused) = (0, 0);
    let counted = std::cell::RefCell::new((&mut answered, &mut refused));
    cases(300)
        .run(&any_request(), |(path, body)| {
            let response = post(address(), path, &body);
            prop_assert!(response.status < 500, "{body}: {response:?}");
            let mut counted = counted.borrow_mut();
            if response.status == 200 {
                prop_assert!(!response.body.contains("server_error"), "{body}: {response:?}");
                *counted.0 += 1;
            } else {
                response.error();
                *counted.1 += 1;
            }
            Ok(())
        })
        .unwrap();
    assert!(answered > 20 && refused > 20, "{answered} answered, {refused} refused: the cases are one-sided");
}

#[test]
fn no_bytes_disturb_the_server() {
    let bytes = prop_oneof![
        vec(any::<u8>(), 0..300),
        // A request that holds, with bytes changed.
        vec((any::<prop::sample::Index>(), any::<u8>()), 1..6).prop_map(|changes| {
            let mut bytes =
                request("POST", CHAT, &[("Content-Type", "application/json")], &chat().to_string());
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }),
    ];
    cases(200)
        .run(&bytes, |bytes| {
            let mut open = Open::new(address());
            open.send(&bytes);
            open.hang_up();
            if let Some(response) = open.head() {
                prop_assert!(response.status < 500, "{response:?}");
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(post(address(), CHAT, &chat()).status, 200);
}
