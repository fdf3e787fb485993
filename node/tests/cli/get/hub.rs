//! A server that speaks as the Hugging Face Hub does, on loopback: listings, redirects to another host for the bytes,
//! ranges, digests in headers; and that misbehaves as it is told. It counts what it sends.

#![expect(clippy::disallowed_methods, reason = "a real server, which is slow in real time")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The commit that `main` is.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Bytes at a time.
const PIECE: usize = 32 << 10;

/// How the server behaves, other than well.
#[derive(Debug, Clone, Default)]
pub(super) struct Behaviour {
    /// It sends whole files whatever range it is asked for.
    pub(super) ignores_ranges: bool,
    /// It changes one byte of what it sends.
    pub(super) damages: bool,
    /// It says nothing of digests.
    pub(super) names_no_digest: bool,
    /// A pause before each piece of 32 KiB.
    pub(super) pause: Duration,
    /// It ends so many transfers after so many bytes.
    pub(super) cuts: Option<(u32, usize)>,
    /// It sends so many bytes too many.
    pub(super) more: usize,
    /// It answers so many requests for files with 503.
    pub(super) busy: u32,
    /// It answers listings with this instead.
    pub(super) listing: Option<&'static str>,
    /// It wants this token.
    pub(super) token: Option<&'static str>,
    /// Its conditions were not accepted.
    pub(super) gated: bool,
}

/// A request for a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) from: u64,
    pub(super) had_token: bool,
}

struct Shared {
    files: Vec<(String, Bytes)>,
    behaviour: Mutex<Behaviour>,
    asked: Mutex<Vec<Asked>>,
    /// Transfers that were cut, requests that were put off.
    cuts: AtomicU32,
    busy: AtomicU32,
    sent: AtomicU64,
    /// Where the bytes are: another port, and so another host to a client.
    store: SocketAddr,
}

/// The running server; it ends when this is dropped.
pub(super) struct Hub {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Hub {
    /// Serves these files as the repository `some/model`.
    pub(super) fn start(files: &[(&str, &[u8])]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bind = || runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (front, store) = (bind(), bind());
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            files: files
                .iter()
                .map(|(name, bytes)| ((*name).into(), Bytes::copy_from_slice(bytes)))
                .collect(),
            behaviour: Mutex::default(),
            asked: Mutex::default(),
            cuts: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            sent: AtomicU64::new(0),
            store: store.local_addr().unwrap(),
        });
        let router = Router::new()
            .route("/api/models/{owner}/{name}/revision/{revision}", get(listing))
            .route("/{owner}/{name}/resolve/{revision}/{*file}", get(resolve))
            .route("/store/{*file}", get(bytes))
            .with_state(Arc::clone(&shared));
        for listener in [front, store] {
            let router = router.clone();
            runtime.spawn(async move { axum::serve(listener, router).await });
        }
        Self { address, shared, _runtime: runtime }
    }

    /// From now on.
    pub(super) fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
        self.shared.cuts.store(0, Ordering::SeqCst);
        self.shared.busy.store(0, Ordering::SeqCst);
        lock(&self.shared.asked).clear();
        self.shared.sent.store(0, Ordering::SeqCst);
    }

    /// Bytes of files sent since it was last told how to behave.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Requests for bytes since then.
    pub(super) fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

type Repo = (String, String);

/// What the Hub says where the asker may not see the repository.
fn refusal(behaviour: &Behaviour, repo: &Repo, headers: &HeaderMap) -> Option<Response> {
    let refused =
        |status: StatusCode, code: &'static str| Some((status, [("x-error-code", code)]).into_response());
    let given = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    if (repo.0.as_str(), repo.1.as_str()) != ("some", "model") {
        // As the Hub: who is nobody is told that he may not, whether it is there or not.
        let status = if given.is_some() { StatusCode::NOT_FOUND } else { StatusCode::UNAUTHORIZED };
        return refused(status, "RepoNotFound");
    }
    if behaviour.gated {
        return refused(StatusCode::FORBIDDEN, "GatedRepo");
    }
    match behaviour.token {
        Some(token) if given != Some(format!("Bearer {token}")) => {
            Some(StatusCode::UNAUTHORIZED.into_response())
        }
        _ => None,
    }
}

async fn listing(
    State(shared): State<Arc<Shared>>,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let behaviour = lock(&shared.behaviour).clone();
    if let Some(refused) = refusal(&behaviour, &(owner, name), &headers) {
        return refused;
    }
    if revision != "main" && revision != COMMIT {
        return (StatusCode::NOT_FOUND, [("x-error-code", "RevisionNotFound")]).into_response();
    }
    if let Some(other) = behaviour.listing {
        return other.into_response();
    }
    let sibling = |(name, bytes): &(String, Bytes)| {
        let lfs = json!({"sha256": digest(bytes), "size": bytes.len(), "pointerSize": 134});
        let lfs = if behaviour.names_no_digest { json!(null) } else { lfs };
        json!({"rfilename": name, "size": bytes.len(), "blobId": "00", "lfs": lfs})
    };
    let siblings: Vec<_> = shared.files.iter().map(sibling).collect();
    axum::Json(json!({"id": "some/model", "sha": COMMIT, "siblings": siblings})).into_response()
}

async fn resolve(
    State(shared): State<Arc<Shared>>,
    Path((owner, name, revision, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let behaviour = lock(&shared.behaviour).clone();
    if let Some(refused) = refusal(&behaviour, &(owner, name), &headers) {
        return refused;
    }
    let found = shared.files.iter().find(|(name, _)| *name == file);
    let (Some((_, bytes)), true) = (found, revision == COMMIT) else {
        return (StatusCode::NOT_FOUND, [("x-error-code", "EntryNotFound")]).into_response();
    };
    if shared.busy.fetch_add(1, Ordering::SeqCst) < behaviour.busy {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut answer = HeaderMap::new();
    let mut say = |name: &'static str, value: String| answer.insert(name, value.parse().unwrap());
    say("location", format!("http://{}/store/{file}", shared.store));
    say("x-repo-commit", COMMIT.into());
    say("x-linked-size", bytes.len().to_string());
    if !behaviour.names_no_digest {
        say("x-linked-etag", format!("\"{}\"", digest(bytes)));
    }
    (StatusCode::FOUND, answer).into_response()
}

async fn bytes(State(shared): State<Arc<Shared>>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let behaviour = lock(&shared.behaviour).clone();
    let Some((_, whole)) = shared.files.iter().find(|(name, _)| *name == file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap().to_owned());
    let from = range.as_deref().map_or(0, |range| {
        range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse().unwrap()
    });
    lock(&shared.asked).push(Asked { from, had_token: headers.contains_key(header::AUTHORIZATION) });
    if from as usize >= whole.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let from = if behaviour.ignores_ranges { 0 } else { from };
    let mut to_send = whole.slice(from as usize..).to_vec();
    if behaviour.damages {
        *to_send.last_mut().unwrap() ^= 1;
    }
    to_send.extend(vec![0; behaviour.more]);
    let length = to_send.len();
    let cut = behaviour.cuts.filter(|(times, _)| shared.cuts.fetch_add(1, Ordering::SeqCst) < *times);
    let pieces = pieces(Arc::clone(&shared), to_send, behaviour.pause, cut.map(|(_, bytes)| bytes));
    let mut answer = Response::new(Body::from_stream(pieces));
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if range.is_some() && !behaviour.ignores_ranges {
        let (last, all) = (whole.len() - 1, whole.len());
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{last}/{all}");
        answer.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    answer
}

/// The bytes in pieces, counted; an error, which ends the connection, where they are cut.
fn pieces(
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    pause: Duration,
    cut: Option<usize>,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let bytes = Bytes::from(bytes);
    futures::stream::unfold(0, move |at| {
        let (shared, bytes) = (Arc::clone(&shared), bytes.clone());
        async move {
            if at >= bytes.len() {
                return None;
            }
            tokio::time::sleep(pause).await;
            if cut.is_some_and(|cut| at >= cut) {
                return Some((Err(std::io::Error::other("cut")), bytes.len()));
            }
            let piece = bytes.slice(at..bytes.len().min(at + PIECE));
            shared.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            let next = at + piece.len();
            Some((Ok::<_, Infallible>(piece).map_err(|never| match never {}), next))
        }
    })
}
