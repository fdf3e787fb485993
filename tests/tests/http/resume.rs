//! Streams that are gone on with behind any of their events.

use serde_json::{Value, json};

use crate::client::{named_stream, post, post_with, stream, streamed};
use crate::house::{MODEL, address};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// Chunks without when they were made.
fn timeless(chunks: &[(Option<String>, Value)]) -> Vec<Value> {
    let timeless = |(_, chunk): &(_, Value)| {
        let mut chunk = chunk.clone();
        chunk["created"] = Value::Null;
        chunk
    };
    chunks.iter().map(timeless).collect()
}

/// By answer, what of it stands in these chunks: that several answers take turns in another order is no matter.
fn by_answer(chunks: &[Value]) -> Vec<Vec<Value>> {
    let index = |chunk: &Value| chunk["choices"][0]["index"].as_u64().map_or(2, |index| index as usize);
    let mut answers = vec![Vec::new(); 3];
    chunks.iter().for_each(|chunk| answers[index(chunk)].push(chunk.clone()));
    answers
}

#[test]
fn behind_any_event_comes_what_would_have_come() {
    let messages = json!([{"role": "user", "content": "Three short lines about rain, each with an emoji."}]);
    let usage = json!({"include_usage": true});
    let chat = json!({"model": MODEL, "messages": messages, "max_tokens": 30, "n": 2, "logprobs": true, "stream_options": usage});
    let one = json!({"model": MODEL, "prompt": "A list: 1, 2, 3,", "max_tokens": 20, "echo": true, "stop": ["9"], "temperature": 0});
    let two = json!({"model": MODEL, "prompt": ["The sea is", "Numbers: 1,"], "max_tokens": 12, "seed": -3});
    for (path, body, each) in [(CHAT, chat, 7), (COMPLETION, one, 1), (COMPLETION, two, 3)] {
        let whole = named_stream(address(), path, &[], &body);
        let chunks = timeless(&whole);
        for at in (0..whole.len()).filter(|at| at % each == 0 || *at + 4 > whole.len()) {
            let Some(id) = &whole[at].0 else { continue };
            let rest = named_stream(address(), path, &[("Last-Event-ID", id)], &body);
            assert_eq!(by_answer(&timeless(&rest)), by_answer(&chunks[at + 1..]), "{path} behind {id}");
        }
        assert!(whole.iter().filter(|(id, _)| id.is_some()).count() > 10, "{path}");
    }
}

#[test]
fn a_key_makes_a_request_that_is_sent_again_the_same_request() {
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 12, "temperature": 1.5});
    let of = |key: &str| post_with(address(), COMPLETION, &[("Idempotency-Key", key)], &body).ok();
    let text = |reply: &Value| reply["choices"][0]["text"].clone();
    assert_eq!((text(&of("a")), &of("a")["id"]), (text(&of("a")), &of("a")["id"]));
    assert_ne!(text(&of("a")), text(&of("b")));
    assert_ne!(
        text(&post(address(), COMPLETION, &body).ok()),
        text(&post(address(), COMPLETION, &body).ok())
    );
}

#[test]
fn what_cannot_be_gone_on_with_is_refused_in_words() {
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 12, "seed": 1});
    let (id, _) = named_stream(address(), COMPLETION, &[], &body).swap_remove(6);
    let id = id.unwrap();
    let ask = |id: &str, body: &Value| post_with(address(), COMPLETION, &[("Last-Event-ID", id)], body);
    let another = json!({"model": MODEL, "prompt": "Once", "max_tokens": 12, "seed": 2});
    let refused = ask(&id, &streamed(&another));
    assert_eq!((refused.status, refused.error()["code"].as_str()), (409, Some("conflict")), "{refused:?}");
    let shorter = json!({"model": MODEL, "prompt": "Once", "max_tokens": 2, "seed": 1});
    assert_eq!(ask(&id, &streamed(&shorter)).status, 409);
    let more = json!({"model": MODEL, "prompt": "Once", "max_tokens": 12, "seed": 1, "n": 2});
    for (id, body) in [(id.as_str(), &more), ("7", &body), ("zz.1-2", &body), (&"9".repeat(2000), &body)] {
        let refused = ask(id, &streamed(body));
        assert_eq!(refused.status, 400, "{id}: {refused:?}");
        refused.error();
    }
    // An empty one is none.
    assert_eq!(ask("", &body).ok()["choices"].as_array().unwrap().len(), 1);
    assert!(!stream(address(), COMPLETION, &body).is_empty());
}
