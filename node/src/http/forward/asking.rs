//! One request to one node.

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::super::entropy;
use super::{Door, Miss, TABLE, Ways};
use crate::clock::{Clock as _, TokioClock};
use crate::ids::PeerId;

/// What keeps an answer apart from others of the same request.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Behind which event a stream goes on.
pub(super) const LAST: HeaderName = HeaderName::from_static("last-event-id");
/// A node that says nothing for so long is asked whether it is there.
const SILENT: Duration = Duration::from_secs(3);
/// How long it may take to say so.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer that is no stream, bytes.
const REPLY_MAX: usize = 64 << 20;
/// Headers that concern one connection alone, and those that this machine writes itself.
const OWN: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::UPGRADE,
];

/// A request as it is sent to one node after the other.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    /// What somebody on this machine asks. Where the request does not say what makes its answer the same again, that is
    /// added.
    pub(super) fn new(parts: Parts, body: Bytes) -> Self {
        let Parts { method, uri, mut headers, .. } = parts;
        OWN.iter().for_each(|name| _ = headers.remove(name));
        // What this machine keeps in its browsers is no node's business.
        [header::COOKIE, header::ORIGIN, header::REFERER].iter().for_each(|name| _ = headers.remove(name));
        if method == Method::POST && !headers.contains_key(KEY) && !headers.contains_key(LAST) {
            let key = format!("{:016x}", entropy::number());
            headers.insert(KEY, HeaderValue::try_from(key).expect("digits are a header's value"));
        }
        let path = uri.path_and_query().cloned();
        let uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        Self { method, uri, headers, body }
    }

    fn get(path: &'static str) -> Self {
        let (method, uri) = (Method::GET, Uri::from_static(path));
        Self { method, uri, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// What the mesh is, unless it is that version.
    pub(super) fn for_table(version: Option<HeaderValue>) -> Self {
        let headers = version.map(|version| (header::IF_NONE_MATCH, version)).into_iter().collect();
        Self { headers, ..Self::get("/table") }
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("mesh"));
        request
    }
}

/// A node's answer.
pub(super) struct Reply {
    pub(super) peer: PeerId,
    pub(super) door: Door,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty where it streams.
    pub(super) body: Bytes,
    /// What comes as it is made.
    pub(super) stream: Option<Coming>,
}

impl Reply {
    /// Whether another node might do better: this one is full, has nobody who serves, does not know the model, or failed.
    pub(super) fn is_unwilling(&self) -> bool {
        let unwilling = [StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS];
        unwilling.contains(&self.status) || self.status.is_server_error()
    }
}

/// The rest of an answer, and the connection it comes over.
pub(super) struct Coming {
    body: Incoming,
    _connection: Connection,
}

/// A connection at work; it ends with this.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to a node, for one request.
async fn connected(ways: &dyn Ways, door: &Door) -> Result<(PeerId, SendRequest<Body>, Connection), Miss> {
    let (peer, wire) = ways.open(door).await?;
    let (sender, work) = http1::handshake(TokioIo::new(wire)).await.map_err(|why| broke(&why))?;
    let work = tokio::spawn(async move { drop(work.await) });
    Ok((peer, sender, Connection(work.abort_handle())))
}

impl Coming {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(
        &mut self,
        ways: &dyn Ways,
        clock: TokioClock,
        door: &Door,
    ) -> Result<Option<Bytes>, Miss> {
        let frame = patiently(ways, clock, door, self.body.frame()).await?;
        match frame {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(why)) => Err(broke(&why)),
        }
    }
}

fn broke(why: &hyper::Error) -> Miss {
    Miss(format!("its answer broke off ({why})"))
}

/// Asks one node. An answer that is no stream is waited for, as long as the node lives.
pub(super) async fn ask(
    ways: &dyn Ways,
    clock: TokioClock,
    asked: &Asked,
    door: &Door,
) -> Result<Reply, Miss> {
    let (peer, mut sender, connection) = connected(ways, door).await?;
    let sent = sender.send_request(asked.request());
    let response = patiently(ways, clock, door, sent).await?.map_err(|why| broke(&why))?;
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    OWN.iter().for_each(|name| _ = headers.remove(name));
    let mut coming = Coming { body, _connection: connection };
    let door = Door { peer: Some(peer), ..door.clone() };
    let mut reply = Reply { peer, door, status: parts.status, headers, body: Bytes::new(), stream: None };
    let kind = reply.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
        reply.stream = Some(coming);
        return Ok(reply);
    }
    let mut whole = BytesMut::new();
    while let Some(bytes) = coming.next(ways, clock, &reply.door).await? {
        whole.extend_from_slice(&bytes);
        if whole.len() > REPLY_MAX {
            return Err(Miss("its answer is too long".into()));
        }
    }
    reply.body = whole.freeze();
    Ok(reply)
}

/// `work`, as long as the node lives: one that is silent is asked, over a connection of its own.
async fn patiently<F: Future + Send>(
    ways: &dyn Ways,
    clock: TokioClock,
    door: &Door,
    work: F,
) -> Result<F::Output, Miss> {
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = clock.timeout_at(clock.now().after(SILENT), work.as_mut()).await {
            return Ok(done);
        }
        // What comes meanwhile says as much.
        tokio::select! {
            biased;
            done = work.as_mut() => return Ok(done),
            lives = is_alive(ways, clock, door) => if !lives {
                return Err(Miss("it does not answer any more".into()));
            }
        }
    }
}

async fn is_alive(ways: &dyn Ways, clock: TokioClock, door: &Door) -> bool {
    let asking = async {
        let (_, mut sender, _connection) = connected(ways, door).await.ok()?;
        sender.send_request(Asked::get("/health").request()).await.ok().map(drop)
    };
    matches!(clock.timeout_at(clock.now().after(ALIVE_WITHIN), asking).await, Ok(Some(())))
}

/// The headers that whoever asked gets of a node's.
pub(super) fn told(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(TABLE);
    // A browser on this machine asks this machine.
    let browsers: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    browsers.iter().for_each(|name| _ = headers.remove(name));
    headers
}
