//! Clients that send too much, too slowly, or go away: they are told so, or let go, and nobody else notices.

use std::time::Duration;

use node::Limits;
use node::http::Bounds;
use serde_json::{Value, json};

use crate::client::{Open, begin, get, post, request};
use crate::house::{House, MODEL, address, house};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// An answer that takes seconds.
fn long(stream: bool) -> Value {
    json!({"model": MODEL, "prompt": "Once", "max_tokens": 900, "stream": stream, "logit_bias": {"2": -100, "0": -100}})
}

fn short() -> Value {
    json!({"model": MODEL, "prompt": "Hi", "max_tokens": 1})
}

#[test]
fn a_body_that_is_too_large_is_refused_before_and_while_it_is_read() {
    let at = house().at(Bounds { body_bytes: 1 << 20, ..Bounds::default() });
    let body = json!({"model": MODEL, "prompt": "a".repeat(2 << 20)}).to_string();
    let head = format!("POST {COMPLETION} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    let mut told = Open::new(at);
    told.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    let response = told.whole().unwrap();
    assert_eq!((response.status, &response.error()["code"]), (413, &json!("request_too_large")));
    let mut chunked = Open::new(at);
    chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes());
    // The server may have answered and closed before all is sent.
    chunked.send(body.as_bytes());
    assert_eq!(chunked.whole().unwrap().status, 413);
    assert_eq!(post(at, COMPLETION, &short()).status, 200);
}

#[test]
fn a_head_and_a_body_that_come_too_slowly_are_given_up() {
    let brief = Duration::from_millis(300);
    let at = house().at(Bounds { head_time: brief, body_time: brief, ..Bounds::default() });
    let mut head = Open::new(at);
    head.send(b"POST /v1/comp");
    assert!(head.head().is_none_or(|response| response.status == 408), "the connection is closed");
    let mut body = Open::new(at);
    body.send(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{");
    let response = body.whole().unwrap();
    assert_eq!((response.status, &response.error()["code"]), (408, &json!("request_timeout")));
    let mut idle = Open::new(at);
    assert!(idle.head().is_none(), "who asks nothing is let go");
    assert_eq!(post(at, COMPLETION, &short()).status, 200);
}

#[test]
fn connections_beyond_the_bound_wait_for_their_turn() {
    let at =
        house().at(Bounds { connections: 2, head_time: Duration::from_millis(500), ..Bounds::default() });
    let _held: Vec<Open> = (0..2).map(|_| Open::new(at)).collect();
    // Its turn comes when the others, who ask nothing, are let go.
    assert_eq!(get(at, "/v1/models").status, 200);
}

#[test]
fn a_client_that_reads_nothing_loses_its_connection() {
    let at =
        house().at(Bounds { connections: 1, stall_time: Duration::from_millis(300), ..Bounds::default() });
    let mut deaf = Open::new(at);
    let requests = request("GET", "/v1/models", &[], "").repeat(1000);
    // Answers to some tens of thousands of requests are more than the system keeps for it.
    let sent = (0..1000).take_while(|_| deaf.send(&requests)).count();
    assert!(sent < 1000, "the server went on listening to a client that does not");
    assert_eq!(get(at, "/v1/models").status, 200);
}

#[test]
fn a_client_that_goes_away_frees_its_session_at_once() {
    let house = House::new(Limits::default(), false);
    let at = house.at(Bounds::default());
    for stream in [true, false] {
        for _ in 0..3 {
            let mut open = begin(at, COMPLETION, &long(stream));
            if stream {
                open.head().unwrap();
                open.chunk().unwrap();
            }
            house.runtime.block_on(async {
                let until = house.held_by_somebody();
                tokio::time::timeout(Duration::from_secs(30), until).await.unwrap();
            });
            drop(open);
            // A whole answer would take several times as long.
            house.drained(Duration::from_secs(2));
        }
    }
}

#[test]
fn who_finds_no_room_is_told_when_to_come_again() {
    let house = House::new(Limits { sessions: 1, ..Limits::default() }, false);
    let at = house.at(Bounds::default());
    let mut first = begin(at, COMPLETION, &long(true));
    first.head().unwrap();
    first.chunk().unwrap();
    for stream in [false, true] {
        let mut body = short();
        body["stream"] = stream.into();
        let response = post(at, COMPLETION, &body);
        assert_eq!((response.status, &response.error()["code"]), (429, &json!("rate_limit_exceeded")));
        assert!(response.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    }
    drop(first);
    house.drained(Duration::from_secs(2));
    assert_eq!(post(at, COMPLETION, &short()).status, 200);
}

#[test]
fn while_no_plan_serves_requests_are_told_so() {
    let limits = Limits { plan_wait: Duration::from_secs(20), ..Limits::default() };
    let at =
        House::new(limits, true).at(Bounds { patience: Duration::from_millis(200), ..Bounds::default() });
    for (path, body) in [
        (COMPLETION, short()),
        (CHAT, json!({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": true})),
    ] {
        let response = post(at, path, &body);
        assert_eq!((response.status, &response.error()["code"]), (503, &json!("not_serving")));
        assert!(response.header("retry-after").is_some());
    }
    assert_eq!(get(at, "/health").status, 503);
    assert_eq!(get(at, "/status").ok()["serving"], false);
    assert_eq!(get(at, "/v1/models").status, 200);
}

#[test]
fn a_request_in_a_thousand_pieces_and_two_in_one_are_answered() {
    let bytes = request("POST", COMPLETION, &[("Content-Type", "application/json")], &short().to_string());
    let mut slow = Open::new(address());
    for byte in &bytes {
        slow.send(&[*byte]);
    }
    assert_eq!(slow.whole().unwrap().status, 200);
    let mut twice = Open::new(address());
    twice.send(&[bytes.clone(), bytes].concat());
    assert_eq!([twice.whole().unwrap().status, twice.whole().unwrap().status], [200, 200]);
}
