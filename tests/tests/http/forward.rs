//! `meshwright client`'s part: requests go to nodes, and on at others, whatever happens to the connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _};
use node::http::{Bounds, Door, Forward, Miss, Opened, Server, Ways, Wire};
use node::ids::PeerId;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use crate::client::{get, named_stream, post, post_with};
use crate::house::{House, MODEL, PEER, UNSERVED, house};

const COMPLETION: &str = "/v1/completions";

/// A connection that breaks after so many bytes came.
struct Fragile {
    stream: DuplexStream,
    left: Option<usize>,
}

impl AsyncRead for Fragile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.stream).poll_read(cx, buf) };
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut bytes = vec![0; left.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        self.left = Some(left - part.filled().len());
        buf.put_slice(part.filled());
        read
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Two nodes that are one; connections break as planned.
struct Planned {
    guests: mpsc::Sender<(PeerId, DuplexStream)>,
    /// Of each connection in turn, after how many bytes it breaks; those behind them do not.
    breaks: Mutex<VecDeque<usize>>,
    /// Whom was asked for a connection.
    asked: Mutex<Vec<String>>,
}

/// The same, held by the test, too.
#[derive(Clone)]
struct Plan(Arc<Planned>);

impl Ways for Plan {
    fn open<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Opened> {
        async move {
            self.0.asked.lock().unwrap().push(door.to_string());
            if door.addresses[0] == "nowhere" {
                return Err(Miss("nobody lives there".into()));
            }
            let left = self.0.breaks.lock().unwrap().pop_front();
            let (here, there) = tokio::io::duplex(64 << 10);
            self.0.guests.send((PEER, there)).await.map_err(|_| Miss("the house is gone".into()))?;
            Ok((PEER, Box::new(Fragile { stream: here, left }) as Box<dyn Wire>))
        }
        .boxed()
    }
}

/// A client of the house by these doors, and where it answers.
fn client(house: &Arc<House>, doors: &[&str]) -> (Plan, SocketAddr) {
    let planned = Planned { guests: house.guests(), breaks: Mutex::default(), asked: Mutex::default() };
    let plan = Plan(Arc::new(planned));
    let doors = doors.iter().map(|door| Door { peer: None, addresses: vec![(*door).to_owned()] }).collect();
    let forward = Forward::new(plan.clone(), doors, Bounds::default(), house.clock);
    let server = house.runtime.block_on(Server::bind(([127, 0, 0, 1], 0).into())).unwrap();
    let address = server.address();
    house.runtime.spawn(forward.run(server, std::future::pending()));
    (plan, address)
}

/// Chunks and their events' names, without when they were made.
fn timeless(chunks: Vec<(Option<String>, Value)>) -> Vec<(Option<String>, Value)> {
    let timeless = |(id, mut chunk): (Option<String>, Value)| {
        chunk["created"] = Value::Null;
        (id, chunk)
    };
    chunks.into_iter().map(timeless).collect()
}

#[test]
fn a_stream_that_breaks_behind_any_byte_is_one_stream() {
    let (plan, address) = client(house(), &["one", "two"]);
    let usage = json!({"include_usage": true});
    let body = json!({"model": MODEL, "prompt": "A list: 1, 2, 3,", "max_tokens": 8, "temperature": 1.3, "stream_options": usage});
    let key = ("Idempotency-Key", "the same");
    let whole = timeless(named_stream(address, COMPLETION, &[key], &body));
    assert!(whole.len() > 8 && whole.last().unwrap().1["usage"].is_object(), "{whole:?}");
    // Somewhere in the head, in each event, and several times on the way.
    for at in (40..2_400).step_by(97) {
        *plan.0.breaks.lock().unwrap() = [at, at / 2 + 300].into();
        let broken = timeless(named_stream(address, COMPLETION, &[key], &body));
        assert_eq!(broken, whole, "broken behind byte {at}");
        plan.0.breaks.lock().unwrap().clear();
    }
}

#[test]
fn a_whole_answer_that_breaks_is_the_same_from_another_node() {
    let (plan, address) = client(house(), &["one", "two"]);
    let body = json!({"model": "auto", "prompt": "Once", "max_tokens": 12, "temperature": 1.5});
    let key = [("Idempotency-Key", "again")];
    let text = |reply: Value| reply["choices"][0]["text"].clone();
    let whole = text(post_with(address, COMPLETION, &key, &body).ok());
    for at in [10, 120, 400] {
        *plan.0.breaks.lock().unwrap() = [at].into();
        assert_eq!(text(post_with(address, COMPLETION, &key, &body).ok()), whole, "broken behind byte {at}");
    }
    // Without a key of its own each request is another one.
    assert_ne!(text(post(address, COMPLETION, &body).ok()), text(post(address, COMPLETION, &body).ok()));
}

#[test]
fn refusals_come_through_and_who_cannot_be_reached_is_named() {
    let (plan, address) = client(house(), &["nowhere", "one"]);
    let wrong = json!({"model": MODEL, "prompt": "Once", "max_tokens": -1});
    let error = post(address, COMPLETION, &wrong).error();
    assert_eq!(error["param"], "max_tokens");
    // What comes behind them asks for the table.
    assert_eq!(
        plan.0.asked.lock().unwrap()[..2],
        ["nowhere", "one"],
        "a refusal of the request itself is final"
    );
    let other = json!({"model": UNSERVED, "prompt": "Once"});
    let refused = post(address, COMPLETION, &other);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));
    assert_eq!(get(address, "/v1/models").ok()["data"][0]["id"], MODEL);
    assert_eq!(get(address, "/nothing").status, 404);
    let (_, address) = client(house(), &["nowhere"]);
    let error = get(address, "/v1/models").error();
    assert_eq!(error["code"], "mesh_unreachable");
    assert!(error["message"].as_str().unwrap().contains("nowhere: nobody lives there"), "{error}");
}

#[test]
fn a_client_learns_the_table_when_an_answer_names_another_one() {
    let (plan, address) = client(house(), &["one"]);
    assert_eq!(get(address, "/v1/models").status, 200);
    let fetched = || plan.0.asked.lock().unwrap().len() >= 2;
    let deadline = std::time::Duration::from_secs(20);
    let waited = house().runtime.block_on(async {
        let waiting = async {
            while !fetched() {
                node::clock::Clock::sleep(&house().clock, std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(deadline, waiting).await
    });
    assert!(waited.is_ok(), "the table is not fetched: {:?}", plan.0.asked.lock().unwrap());
    // It comes from a node of that name now, and not again while nothing changes.
    assert_eq!(get(address, "/table").ok()["models"], json!([MODEL]));
    assert_eq!(get(address, "/v1/models").status, 200);
    assert_eq!(plan.0.asked.lock().unwrap().len(), 4);
}
