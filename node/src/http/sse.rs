//! A reply as it is made: server-sent events, `[DONE]` at the end. Where something goes wrong, the error is the last event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, StreamExt as _};

use super::asked::Asked;
use super::resume::Heard;
use super::shapes::Paper;
use super::speech::Said;
use super::talk::Events;

/// What is left to say.
struct Stream {
    paper: Paper,
    events: Events,
    asked: Arc<Asked>,
    /// What was given of each answer, by this stream and those that it goes on with.
    heard: Vec<Heard>,
    /// Answers that are not over.
    left: usize,
    /// Tokens of those that are.
    tokens: usize,
    over: bool,
}

/// The response. A client that has nothing to read for `keep_alive` gets a comment.
pub(super) fn streamed(asked: Arc<Asked>, paper: Paper, events: Events, keep_alive: Duration) -> Response {
    let (left, heard) = (asked.answers(), asked.heard.clone());
    let stream = Stream { paper, events, asked, heard, left, tokens: 0, over: false };
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
            Said::Piece(piece) => {
                let parts = self.paper.piece(answer, piece);
                self.named(answer, piece.heard, &parts)
            }
            Said::Ended { finish, tokens, heard } => {
                self.tokens += tokens;
                self.left -= 1;
                let is_known = self.heard[answer] == *heard;
                let parts = if is_known { Vec::new() } else { self.paper.ended(answer, *finish) };
                let mut events = self.named(answer, *heard, &parts);
                if self.left == 0 {
                    self.over = true;
                    events.extend(self.asked.include_usage.then(|| data(&self.paper.total(self.tokens))));
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

    /// Events of these parts; the last one is named by what was given with it.
    fn named(&mut self, answer: usize, heard: Heard, parts: &[serde_json::Value]) -> Vec<Event> {
        self.heard[answer] = heard;
        let Some((last, before)) = parts.split_last() else { return Vec::new() };
        let name = self.asked.origin.event(&self.heard);
        before.iter().map(data).chain([fill(Event::default().id(name), last)]).collect()
    }
}

fn data(value: &impl serde::Serialize) -> Event {
    fill(Event::default(), value)
}

fn fill(event: Event, value: &impl serde::Serialize) -> Event {
    let text = serde_json::to_string(value).expect("string keys and finite numbers always serialise");
    event.data(text)
}
