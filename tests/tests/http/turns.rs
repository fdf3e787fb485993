//! Many ask at once: who has least is answered next, and who finds no room to wait is told when to come again.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use node::Limits;
use node::http::Bounds;
use serde_json::json;

use crate::client::{Open, get, post_with, request, streamed};
use crate::house::{House, MODEL};

const COMPLETION: &str = "/v1/completions";

/// Begins an answer of so many tokens, and waits for its first.
fn begun(at: SocketAddr, key: &str, tokens: u32) -> Open {
    let body = streamed(
        &json!({"model": MODEL, "prompt": "One, two,", "max_tokens": tokens, "logit_bias": {"2": -100}}),
    );
    let mut open = Open::new(at);
    open.send(&request("POST", COMPLETION, &headers(key), &body.to_string()));
    assert_eq!(open.head().unwrap().status, 200);
    open.chunk().unwrap();
    open
}

fn headers(key: &str) -> [(&str, &str); 2] {
    [("Content-Type", "application/json"), ("Authorization", key)]
}

/// Waits until so many requests wait at the server.
fn until_waiting(at: SocketAddr, count: usize) {
    let line = format!("meshwright_requests_queued {count}\n");
    for _ in 0..600 {
        if get(at, "/metrics").body.contains(&line) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{count} do not wait: {}", get(at, "/metrics").body);
}

#[test]
fn somebody_who_asks_often_keeps_nobody_from_asking_once() {
    let house = House::new(Limits::default(), false);
    let at = house.at(Bounds { running: 2, ..Bounds::default() });
    let (one, other) = (begun(at, "Bearer greedy", 800), begun(at, "Bearer greedy", 800));
    let (done, order) = mpsc::channel();
    let body = json!({"model": MODEL, "prompt": "One,", "max_tokens": 4});
    let ask = |key: &'static str| {
        let (done, body) = (done.clone(), body.clone());
        thread::spawn(move || {
            let status = post_with(at, COMPLETION, &[("Authorization", key)], &body).status;
            done.send((key, status)).unwrap();
        })
    };
    let mut asked: Vec<_> = (1..=3)
        .map(|waiting| {
            let asked = ask("Bearer greedy");
            until_waiting(at, waiting);
            asked
        })
        .collect();
    asked.push(ask("Bearer modest"));
    until_waiting(at, 4);
    drop(one);
    let first = order.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(first, ("Bearer modest", 200), "it was answered after somebody else's fourth request");
    drop(other);
    asked.into_iter().for_each(|asked| asked.join().unwrap());
    assert!(order.try_iter().all(|(_, status)| status == 200));
}

#[test]
fn who_finds_no_room_to_wait_is_told_when_to_come_again() {
    let house = House::new(Limits::default(), false);
    let at = house.at(Bounds {
        running: 1,
        waiting: 1,
        turn_time: Duration::from_millis(400),
        ..Bounds::default()
    });
    let running = begun(at, "Bearer a", 900);
    let body = json!({"model": MODEL, "prompt": "One,", "max_tokens": 4});
    let waiting = {
        let body = body.clone();
        thread::spawn(move || post_with(at, COMPLETION, &[("Authorization", "Bearer a")], &body))
    };
    until_waiting(at, 1);
    for full in [post_with(at, COMPLETION, &[("Authorization", "Bearer b")], &body), waiting.join().unwrap()]
    {
        assert_eq!((full.status, full.error()["code"].as_str()), (429, Some("rate_limit_exceeded")));
        assert!(full.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    }
    drop(running);
    assert_eq!(post_with(at, COMPLETION, &[("Authorization", "Bearer b")], &body).status, 200);
}
