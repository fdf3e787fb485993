//! A reply as it is made: server-sent events, `[DONE]` at the end. Where something goes wrong, the error is the last event.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, StreamExt as _};

use super::asked::Asked;
use super::shapes::Paper;
use super::speech::Said;
use super::talk::Events;

/// What is left to say.
struct Stream {
    paper: Paper,
    events: Events,
    /// Answers that are not over.
    left: usize,
    /// Tokens of those that are.
    tokens: usize,
    include_usage: bool,
    over: bool,
}

/// The response. A client that has nothing to read for `keep_alive` gets a comment.
pub(super) fn streamed(asked: &Asked, paper: Paper, events: Events, keep_alive: Duration) -> Response {
    let include_usage = asked.include_usage;
    let left = asked.answers();
    let stream = Stream { paper, events, left, tokens: 0, include_usage, over: false };
    let events = stream::unfold(stream, next).flat_map(stream::iter);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies are not to wait for more.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

async fn next(mut stream: Stream) -> Option<(Vec<Result<Event, Infallible>>, Stream)> {
    if stream.over {
        return None;
    }
    let (answer, said) = stream.events.next().await?;
    let events = stream.write(answer, &said).into_iter().map(Ok).collect();
    Some((events, stream))
}

impl Stream {
    fn write(&mut self, answer: usize, said: &Said) -> Vec<Event> {
        match said {
            Said::Piece(piece) => self.paper.piece(answer, piece).iter().map(data).collect(),
            Said::Ended { finish, tokens } => {
                self.tokens += tokens;
                self.left -= 1;
                let mut events: Vec<Event> = self.paper.ended(answer, *finish).iter().map(data).collect();
                if self.left == 0 {
                    self.over = true;
                    events.extend(self.include_usage.then(|| data(&self.paper.total(self.tokens))));
                    events.push(Event::default().data("[DONE]"));
                }
                events
            }
            Said::Failed(fault) => {
                self.over = true;
                vec![data(&fault.shown())]
            }
        }
    }
}

fn data(value: &impl serde::Serialize) -> Event {
    let text = serde_json::to_string(value).expect("string keys and finite numbers always serialise");
    Event::default().data(text)
}
