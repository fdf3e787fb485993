//! The API on a machine that only asks: each request goes to a node of a mesh, and to another where that one dies, is cut
//! off or full. A stream that breaks goes on at another node behind the last event that came whole, so that whoever asked
//! never notices but for a pause.
//!
//! * [`Ways`]: how nodes are reached. [`Forward`] answers. `entries`: which node is next. `table`: what a node tells of them.
//! * `asking`: one request to one node. `events`: a stream in whole events. `going`: a stream over several nodes.

mod asking;
mod entries;
mod events;
mod going;
mod table;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::asking::{Asked, Reply};
pub use self::entries::Door;
use self::entries::Entries;
pub(super) use self::table::{Shown, tag};
use super::Bounds;
use super::fault::Fault;
use super::guard::judged;
use super::server::{Server, Wire};
use crate::clock::{Clock as _, Instant, TokioClock};
use crate::ids::PeerId;

/// Names, in each answer to a guest, the version of the node's table.
pub(super) const TABLE: HeaderName = HeaderName::from_static("meshwright-table");

/// Nodes that are tried for one request.
const TRIED_MAX: usize = 8;
/// Nodes that answered and would rather not, after which that is the answer.
const UNWILLING_MAX: usize = 3;
/// Who asks for nothing looks so often whether the table is another one.
const LOOK: Duration = Duration::from_secs(60);

/// Why a node could not be asked, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Miss(pub String);

/// A connection for one request, and with whom.
pub type Opened = Result<(PeerId, Box<dyn Wire>), Miss>;

/// How nodes are reached.
pub trait Ways: Send + Sync + 'static {
    /// A connection to a node, for one request, and who it is.
    fn open<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Opened>;
}

/// Answers requests by asking nodes of a mesh.
pub struct Forward {
    ways: Box<dyn Ways>,
    entries: Mutex<Entries>,
    bounds: Bounds,
    clock: TokioClock,
    /// A node has another table than this one.
    stale: Notify,
}

impl Forward {
    /// Asks those behind `doors` first, and then those that they tell of.
    pub fn new(ways: impl Ways, doors: Vec<Door>, bounds: Bounds, clock: TokioClock) -> Arc<Self> {
        let entries = Mutex::new(Entries::new(doors));
        Arc::new(Self { ways: Box::new(ways), entries, bounds, clock, stale: Notify::new() })
    }

    /// Answers at `server` until `stop` completes.
    pub async fn run(self: Arc<Self>, server: Server, stop: impl Future<Output = ()>) {
        let (bounds, clock, is_local) = (self.bounds, self.clock, server.is_local());
        let guard = move |request: Request, next: Next| judged(is_local, request, next);
        let keeping_up = tokio::spawn(Arc::clone(&self).keep_up());
        let router = Router::new().fallback(forward).layer(middleware::from_fn(guard)).with_state(self);
        server.answer(router, bounds, clock, stop).await;
        keeping_up.abort();
    }

    /// Asks for the table of the mesh: how many nodes can be asked, and for which models.
    ///
    /// # Errors
    /// [`Miss`]: nobody answers, and why.
    pub async fn look(&self) -> Result<(usize, Vec<String>), Miss> {
        let asked = Asked::for_table(self.entries().version());
        let mut misses = Vec::new();
        for door in self.doors() {
            match self.ask(&asked, &door).await.and_then(|reply| self.take_table(&reply)) {
                Ok(known) => return Ok(known),
                Err(miss) => misses.push(miss),
            }
        }
        Err(said(&misses))
    }

    fn take_table(&self, reply: &Reply) -> Result<(usize, Vec<String>), Miss> {
        let mut entries = self.entries();
        if reply.status != StatusCode::NOT_MODIFIED {
            let shown =
                Shown::parse(&reply.body).ok_or_else(|| Miss("it has no table of its mesh".into()))?;
            let version = reply.headers.get(header::ETAG).cloned();
            entries.take(shown.doors(), shown.models, version);
        }
        Ok(entries.known())
    }

    /// Looks for another table: when a node says that it has one, and now and then.
    async fn keep_up(self: Arc<Self>) {
        loop {
            let _ = self.clock.timeout_at(self.clock.now().after(LOOK), self.stale.notified()).await;
            let quiet = self.entries().heard().is_none_or(|at| self.clock.now().since(at) >= LOOK);
            if (quiet || self.entries().is_stale())
                && let Err(why) = self.look().await
            {
                tracing::warn!("the mesh cannot be asked who is there: {why}");
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing below panics half-way through a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask, in this order.
    fn doors(&self) -> Vec<Door> {
        self.entries().order().into_iter().take(TRIED_MAX).collect()
    }

    /// The answer to a request: that of the first node that gives one, or the first refusal where all refuse.
    async fn answer(self: Arc<Self>, asked: Asked) -> Response {
        let mut unwilling = Vec::new();
        let mut misses = Vec::new();
        for door in self.doors() {
            match self.ask(&asked, &door).await {
                Ok(reply) if reply.is_unwilling() => unwilling.push(reply),
                Ok(reply) => return going::given(self, asked, reply),
                Err(miss) => misses.push(miss),
            }
            if unwilling.len() >= UNWILLING_MAX {
                break;
            }
        }
        if unwilling.is_empty() {
            let why = format!("No node of the mesh can be asked: {}.", said(&misses));
            return Fault::unreachable(why, &self.bounds).into_response();
        }
        going::given(self, asked, unwilling.swap_remove(0))
    }

    /// Asks one node, and remembers whether it answers.
    async fn ask(&self, asked: &Asked, door: &Door) -> Result<Reply, Miss> {
        let reply = asking::ask(&*self.ways, self.clock, asked, door).await;
        let now = self.clock.now();
        match &reply {
            Ok(reply) => self.heard(door, reply, now),
            Err(miss) => {
                tracing::debug!(?door, "cannot be asked: {miss}");
                self.entries().failed(door, now);
            }
        }
        reply.map_err(|Miss(why)| Miss(format!("{door}: {why}")))
    }

    fn heard(&self, door: &Door, reply: &Reply, now: Instant) {
        let mut entries = self.entries();
        entries.answered(door, reply.peer, now, reply.headers.get(TABLE), !reply.is_unwilling());
        if entries.is_stale() {
            self.stale.notify_one();
        }
    }
}

fn said(misses: &[Miss]) -> Miss {
    let words: Vec<String> = misses.iter().map(ToString::to_string).collect();
    Miss(if words.is_empty() { "none is known".into() } else { words.join("; ") })
}

async fn forward(State(forward): State<Arc<Forward>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bounds = forward.bounds;
    let body = match timeout(bounds.body_time, to_bytes(body, bounds.body_bytes)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Fault::too_large(bounds.body_bytes).into_response(),
        Err(_) => return Fault::slow().into_response(),
    };
    forward.answer(Asked::new(parts, body)).await
}

/// A response of these parts.
fn response(status: StatusCode, headers: axum::http::HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
