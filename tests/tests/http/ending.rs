//! A server that is asked to stop lets running answers finish, for as long as it may.

use std::time::Duration;

use node::http::Bounds;
use serde_json::json;

use crate::client::{Open, begin};
use crate::house::{MODEL, house};

#[test]
fn an_answer_that_runs_is_finished_and_no_other_is_begun() {
    let (at, end, over) = house().serve(Bounds::default());
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 60, "stream": true, "logit_bias": {"2": -100, "0": -100}});
    let mut open = begin(at, "/v1/completions", &body);
    open.head().unwrap();
    let mut text = String::from_utf8(open.chunk().unwrap()).unwrap();
    end.send(()).unwrap();
    while let Some(chunk) = open.chunk() {
        text.push_str(&String::from_utf8(chunk).unwrap());
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    house().runtime.block_on(over).unwrap();
    assert!(std::net::TcpStream::connect(at).is_err(), "nobody listens any more");
}

#[test]
fn who_does_not_finish_in_time_is_cut_off() {
    let (at, end, over) = house().serve(Bounds { grace: Duration::from_millis(200), ..Bounds::default() });
    let body = json!({"model": MODEL, "prompt": "Once", "max_tokens": 900, "stream": true, "logit_bias": {"2": -100, "0": -100}});
    let mut open = begin(at, "/v1/completions", &body);
    open.head().unwrap();
    open.chunk().unwrap();
    let mut idle = Open::new(at);
    end.send(()).unwrap();
    house()
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(5), over).await })
        .unwrap()
        .unwrap();
    assert!(idle.head().is_none());
}
