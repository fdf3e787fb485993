//! What happens on a node, as it happens: lines of JSON, the first of which says what the node is.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::desk::Observation;
use super::fault::Fault;
use super::routes::Shared;

/// What is sent at once at most, bytes.
const PIECE_MAX: usize = 32 << 10;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    model: Option<String>,
}

/// Lines that came too fast for whoever observes.
#[derive(Debug, Serialize)]
struct Lost {
    lost: u64,
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let missing = || Fault::model(asked.model.as_deref().unwrap_or("any"), &[]);
    let Observation { opening, lines } = shared.desk.observe(asked.model.as_deref()).ok_or_else(missing)?;
    let first = stream::iter([Ok::<_, Infallible>(line(&opening))]);
    let keep_alive = shared.bounds.keep_alive;
    let rest = stream::unfold(lines, move |mut lines| async move {
        let mut piece = Vec::new();
        loop {
            // An empty line says that the node lives.
            let next = match timeout(keep_alive, lines.recv()).await {
                Err(_) => Bytes::from_static(b"\n"),
                Ok(Ok(event)) => line(&event),
                Ok(Err(RecvError::Lagged(lost))) => line(&Lost { lost }),
                Ok(Err(RecvError::Closed)) => return None,
            };
            piece.extend_from_slice(&next);
            if lines.is_empty() || piece.len() >= PIECE_MAX {
                return Some((Ok(Bytes::from(piece)), lines));
            }
        }
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(first.chain(rest))).into_response())
}

fn line(value: &impl Serialize) -> Bytes {
    let text = serde_json::to_string(value).expect("string keys and finite numbers always serialise");
    Bytes::from(text + "\n")
}
