//! Which address is what.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use futures::stream::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::asked::{self, Asked};
use super::body;
use super::bounds::Bounds;
use super::desk::Desk;
use super::fault::Fault;
use super::forward;
use super::guard::guard;
use super::meter::Meter;
use super::resume::Origin;
use super::shapes::{self, Answer, Form, Paper};
use super::speech::{Finish, Said};
use super::sse;
use super::talk::{Events, talk};
use super::turns::{Client, Turns};
use crate::clock::{Clock as _, TokioClock};
use crate::ids::PeerId;

/// Addresses that end in a name.
const MODEL: &str = "/v1/models/";

/// Addresses, with the methods that each takes.
const ADDRESSES: [(&str, &str); 9] = [
    ("/v1/models", "GET"),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/health", "GET"),
    ("/metrics", "GET"),
    ("/plan", "GET"),
    ("/status", "GET"),
    ("/table", "GET"),
    ("/events", "GET"),
];

/// What an address is called in figures: any other is one.
pub(super) fn known(path: &str) -> &'static str {
    let exact = ADDRESSES.iter().find(|(address, _)| *address == path).map(|(address, _)| *address);
    exact.unwrap_or(if path.starts_with(MODEL) { "/v1/models/{id}" } else { "other" })
}

/// Answers requests.
#[derive(Clone)]
pub struct Api {
    desk: Arc<dyn Desk>,
    bounds: Bounds,
    meter: Arc<Meter>,
    clock: TokioClock,
}

/// From where a connection comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caller {
    /// Over TCP, from there.
    Address(IpAddr),
    /// Through the mesh's network: somebody who has its secret.
    Guest(PeerId),
}

/// What the routes share.
pub(super) struct Shared {
    pub(super) desk: Arc<dyn Desk>,
    pub(super) bounds: Bounds,
    pub(super) meter: Arc<Meter>,
    pub(super) clock: TokioClock,
    /// Whether only this machine can reach the server.
    pub(super) is_local: bool,
    pub(super) turns: Arc<Turns>,
    /// Room for bodies above the small ones.
    pub(super) large: Arc<Semaphore>,
    /// Room to make tokens of requests.
    pub(super) readers: Arc<Semaphore>,
}

impl Api {
    /// Asks `desk`; times are `clock`'s.
    pub fn new(desk: Arc<dyn Desk>, bounds: Bounds, meter: Arc<Meter>, clock: TokioClock) -> Self {
        Self { desk, bounds, meter, clock }
    }

    /// Its bounds.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Its time.
    pub(super) fn clock(&self) -> TokioClock {
        self.clock
    }

    /// Its addresses. `is_local` says whether only this machine can reach them: requests to other hosts are turned away
    /// then.
    pub(super) fn router(self, is_local: bool) -> Router {
        let Api { desk, bounds, meter, clock } = self;
        let large = Arc::new(Semaphore::new(bounds.large_bodies.max(1)));
        let readers = Arc::new(Semaphore::new(bounds.readers.max(1)));
        let turns = Turns::new(clock, bounds.running, bounds.waiting);
        let shared = Arc::new(Shared { desk, bounds, meter, clock, is_local, turns, large, readers });
        Router::new()
            .route("/v1/models", get(models))
            .route("/v1/models/{*id}", get(model))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(completion))
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .route("/plan", get(plan))
            .route("/status", get(status))
            .route("/table", get(table))
            .route("/events", get(super::observing::events))
            .method_not_allowed_fallback(wrong_method)
            .fallback(wrong_path)
            .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
            .with_state(shared)
    }
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let models: Vec<Value> = shared.desk.models().iter().map(|served| shapes::model(served)).collect();
    Json(json!({ "object": "list", "data": models }))
}

async fn model(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Fault> {
    let Path(id) = id.map_err(|why| Fault::request(format!("The model's name cannot be read: {why}.")))?;
    Ok(Json(shapes::model(&*asked::find(&*shared.desk, &id)?)))
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let health = shared.desk.health();
    let status = if health.serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if health.serving { "ok" } else { "unavailable" };
    let models: Vec<&str> = health.models.iter().map(|model| model.id.as_str()).collect();
    let shown = json!({ "status": word, "why": health.why, "models": models });
    (status, Json(shown)).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.desk.health()).into_response()
}

async fn plan(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.desk.advice()).into_response()
}

/// What clients hold; nothing for those who have this version.
async fn table(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let table = shared.desk.table();
    let tag = forward::tag(&table);
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    ([(header::ETAG, tag)], Json(forward::Shown::of(&table))).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let page = shared.meter.page(&shared.desk.health(), shared.turns.waiting());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}

async fn wrong_path(request: Request) -> Fault {
    Fault::path(request.uri().path())
}

async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    let allowed = ADDRESSES.iter().find(|(address, _)| *address == path).map_or("GET", |(_, method)| method);
    let mut response = Fault::method(request.method().as_str(), allowed).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Fault> {
    answer(shared, caller, request, Form::Chat).await
}

async fn completion(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Fault> {
    answer(shared, caller, request, Form::Completion).await
}

async fn answer(
    shared: Arc<Shared>,
    caller: Caller,
    request: Request,
    form: Form,
) -> Result<Response, Fault> {
    let since = shared.clock.now();
    let origin = Origin::read(request.headers())?;
    let client = Client::of(caller, request.headers());
    let read = move |shared: &Shared, body: &[u8]| match form {
        Form::Chat => asked::chat(body, &*shared.desk, &shared.bounds, origin),
        Form::Completion => asked::completion(body, &*shared.desk, &shared.bounds, origin),
    };
    let asked = Arc::new(body::read(&shared, request, read).await?);
    let turn = shared.turns.take(client, asked.answers(), shared.bounds.turn_time).await;
    let turn = turn.map_err(Fault::busy)?;
    let events = talk(&shared, &asked, since, turn, !asked.stream).await?;
    let paper = Paper::new(form, Arc::clone(&asked));
    if asked.stream {
        Ok(sse::streamed(asked, paper, events, shared.bounds.keep_alive))
    } else {
        whole(&asked, &paper, events).await
    }
}

/// The reply in one piece.
async fn whole(asked: &Asked, paper: &Paper, mut events: Events) -> Result<Response, Fault> {
    let begin = || Answer { text: String::new(), words: Vec::new(), finish: Finish::Length, tokens: 0 };
    let mut answers: Vec<Answer> = (0..asked.answers()).map(|_| begin()).collect();
    while let Some((index, said)) = events.next().await {
        let answer = &mut answers[index];
        match said {
            Said::Piece(piece) => {
                answer.text.push_str(&piece.text);
                answer.words.extend(piece.words);
            }
            Said::Ended { finish, tokens, .. } => (answer.finish, answer.tokens) = (finish, tokens),
            Said::Failed(fault) => return Err(fault),
        }
    }
    Ok(Json(paper.whole(&answers)).into_response())
}
