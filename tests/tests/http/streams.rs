//! A stream gives what the whole reply gives, for one client and for many.

use serde_json::{Value, json};

use crate::client::{post, stream};
use crate::house::{MODEL, address};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// The texts of a streamed reply's choices, and why they ended.
fn texts(chunks: &[Value], choices: usize) -> Vec<(String, Value)> {
    let mut texts = vec![(String::new(), Value::Null); choices];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let (text, finish) = &mut texts[choice["index"].as_u64().unwrap() as usize];
        assert!(finish.is_null(), "more came after the end: {choice}");
        let more = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        text.push_str(more.unwrap_or_default());
        *finish = choice["finish_reason"].clone();
    }
    texts
}

/// The same of a whole reply.
fn whole(reply: &Value) -> Vec<(String, Value)> {
    let text = |choice: &Value| {
        choice["message"]["content"].as_str().or(choice["text"].as_str()).unwrap().to_owned()
    };
    let choices = reply["choices"].as_array().unwrap();
    choices.iter().map(|choice| (text(choice), choice["finish_reason"].clone())).collect()
}

#[test]
fn a_stream_gives_the_whole_replys_text_at_the_same_seed() {
    let messages =
        json!([{"role": "user", "content": "Write three short lines about rain, with an emoji in each."}]);
    let chat =
        json!({"model": MODEL, "messages": messages, "max_tokens": 40, "seed": 11, "n": 2, "logprobs": true});
    let plain = json!({"model": MODEL, "prompt": ["The sea is", "A list: 1,"], "max_tokens": 24, "seed": -3, "stop": ["5", "."]});
    for (path, body, choices) in [(CHAT, chat, 2), (COMPLETION, plain, 2)] {
        let reply = post(address(), path, &body).ok();
        let chunks = stream(address(), path, &body);
        assert_eq!(texts(&chunks, choices), whole(&reply), "{path}");
        let words = |choice: &Value| choice["logprobs"]["content"].as_array().cloned().unwrap_or_default();
        let all = |choices: Vec<&Value>| -> Vec<Value> {
            choices.into_iter().filter(|choice| choice["index"] == 1).flat_map(words).collect()
        };
        let streamed = all(chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).collect());
        assert_eq!(streamed, all(reply["choices"].as_array().unwrap().iter().collect()), "{path}");
    }
}

#[test]
fn many_streams_at_once_give_what_each_gives_alone() {
    let body =
        |i: u64| json!({"model": MODEL, "prompt": format!("Number {i}:"), "max_tokens": 12, "seed": i});
    let alone: Vec<_> = (0..12).map(|i| whole(&post(address(), COMPLETION, &body(i)).ok())).collect();
    let together: Vec<_> = (0..12)
        .map(|i| std::thread::spawn(move || texts(&stream(address(), COMPLETION, &body(i)), 1)))
        .collect();
    let together: Vec<_> = together.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(together, alone);
}
