//! An answer on its way to whoever asked. A stream goes on at another node where its own breaks: the request is sent again
//! with the name of the last event that came whole.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream;

use super::asking::{Asked, Coming, KEY, LAST, Reply, told};
use super::events::{Cutter, Event, Kind};
use super::{Door, Forward, Miss, response};
use crate::clock::{Clock as _, Instant};
use crate::routing::AUTO;

/// How long a stream may stand still while a node is looked for that goes on with it.
const RESUMED_WITHIN: Duration = Duration::from_secs(60);
/// Between two rounds of looking.
const PAUSE: Duration = Duration::from_millis(500);

/// What whoever asked gets: a node's answer.
pub(super) fn given(forward: Arc<Forward>, asked: Asked, reply: Reply) -> Response {
    let Reply { door, status, headers, body, stream, .. } = reply;
    let Some(coming) = stream else { return response(status, told(headers), Body::from(body)) };
    let going = Going {
        forward,
        asked,
        door,
        coming,
        cutter: Cutter::default(),
        held: BytesMut::new(),
        model: None,
        over: false,
    };
    response(status, told(headers), Body::from_stream(stream::unfold(going, Going::next)))
}

/// A stream under way.
struct Going {
    forward: Arc<Forward>,
    /// The request as it would be sent to the next node.
    asked: Asked,
    door: Door,
    coming: Coming,
    cutter: Cutter,
    /// Events that were not passed on yet: nobody could go on behind them.
    held: BytesMut,
    /// The model that answers.
    model: Option<String>,
    over: bool,
}

impl Going {
    /// The next bytes for whoever asked.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        while !self.over {
            let bytes = match self.coming.next(&*self.forward.ways, self.forward.clock, &self.door).await {
                Ok(Some(bytes)) => self.take(&bytes).await,
                Ok(None) => self.resume(Miss("its answer ended too soon".into()), None).await,
                Err(miss) => self.resume(miss, None).await,
            };
            if !bytes.is_empty() {
                return Some((Ok(bytes), self));
            }
        }
        None
    }

    /// What can be passed on after these bytes came.
    async fn take(&mut self, bytes: &[u8]) -> Bytes {
        let Ok(events) = self.cutter.push(bytes) else {
            return self.resume(Miss("an event without end".into()), None).await;
        };
        let mut out = BytesMut::new();
        for Event { bytes, kind } in events {
            match kind {
                Kind::Comment => out.extend_from_slice(&bytes),
                Kind::Unnamed => self.held.extend_from_slice(&bytes),
                Kind::Named(name) => {
                    self.remember(&bytes, &name);
                    out.unsplit(self.held.split());
                    out.extend_from_slice(&bytes);
                }
                Kind::Done => {
                    self.over = true;
                    out.unsplit(self.held.split());
                    out.extend_from_slice(&bytes);
                    break;
                }
                Kind::Failed => {
                    out.extend_from_slice(&self.resume(Miss("it cannot go on".into()), Some(bytes)).await);
                    break;
                }
            }
        }
        out.freeze()
    }

    /// From now on the request is gone on with behind that event.
    fn remember(&mut self, event: &[u8], name: &str) {
        if let Ok(name) = HeaderValue::try_from(name) {
            self.asked.headers.insert(LAST, name);
            self.asked.headers.remove(KEY);
        }
        if self.model.is_none() {
            self.model = model(event);
            self.choose();
        }
    }

    /// Another node must not choose another model for the rest of an answer.
    fn choose(&mut self) {
        let Some(model) = &self.model else { return };
        let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(&self.asked.body) else { return };
        if body["model"] == AUTO {
            body["model"] = model.as_str().into();
            self.asked.body = body.to_string().into();
        }
    }

    /// Looks for a node that goes on. Gives what is to be said where none does: that of the node that failed, or why not.
    async fn resume(&mut self, miss: Miss, failed: Option<Bytes>) -> Bytes {
        tracing::info!(from = %self.door, "an answer goes on at another node: {miss}");
        let forward = Arc::clone(&self.forward);
        let (from, mut last) = (self.door.clone(), miss);
        forward.entries().failed(&from, forward.clock.now());
        let deadline = forward.clock.now().after(RESUMED_WITHIN);
        while forward.clock.now() < deadline {
            match self.round(&forward, deadline).await {
                Ok(None) => return Bytes::new(),
                Ok(Some(refusal)) => return self.end(&refusal),
                Err(miss) => last = miss,
            }
            if failed.is_some() {
                // A node lives and says that it cannot: the others were asked, and would not either.
                break;
            }
            forward.clock.sleep(PAUSE).await;
        }
        self.over = true;
        failed
            .unwrap_or_else(|| error(&format!("The answer broke off, and no node goes on with it: {last}.")))
    }

    /// Asks all that are known once. `Some` is a refusal that no other node would take back.
    async fn round(&mut self, forward: &Arc<Forward>, deadline: Instant) -> Result<Option<Reply>, Miss> {
        let mut last = Miss("none is known".into());
        for door in forward.doors() {
            let Ok(asked) = forward.clock.timeout_at(deadline, forward.ask(&self.asked, &door)).await else {
                return Err(Miss("not in time".into()));
            };
            match asked {
                Ok(Reply { status: StatusCode::OK, door, stream: Some(coming), .. }) => {
                    (self.door, self.coming) = (door, coming);
                    (self.cutter, self.held) = (Cutter::default(), BytesMut::new());
                    return Ok(None);
                }
                Ok(reply) if reply.is_unwilling() => last = Miss(format!("{door} answers {}", reply.status)),
                Ok(reply) => return Ok(Some(reply)),
                Err(miss) => last = miss,
            }
        }
        Err(last)
    }

    /// Ends the stream with a node's refusal.
    fn end(&mut self, refusal: &Reply) -> Bytes {
        self.over = true;
        let text = String::from_utf8_lossy(&refusal.body);
        let is_error =
            serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|body| body["error"].is_object());
        match is_error {
            true => Bytes::from(format!("data: {}\n\n", text.replace(['\n', '\r'], ""))),
            false => error(&format!("The answer broke off, and another node answers {}.", refusal.status)),
        }
    }
}

/// The model that an event's object names.
fn model(event: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(event).ok()?;
    let data = text.lines().find_map(|line| line.strip_prefix("data:"))?;
    let object: serde_json::Value = serde_json::from_str(data.trim()).ok()?;
    Some(object["model"].as_str()?.to_owned())
}

/// The last event of a stream that could not be gone on with.
fn error(why: &str) -> Bytes {
    let shown = super::super::fault::Fault::internal(why);
    let text =
        serde_json::to_string(&shown.shown()).expect("string keys and finite numbers always serialise");
    Bytes::from(format!("data: {text}\n\n"))
}
