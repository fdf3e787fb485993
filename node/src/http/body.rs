//! The body of a request: bounded in size and time, and turned into something on a thread of its own.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::fault::Fault;
use super::routes::Shared;

/// Reads the body and gives what `make` makes of it.
///
/// # Errors
/// [`Fault`]: it is no JSON by its header, too large, too slow, or what `make` says.
pub(super) async fn read<T: Send + 'static>(
    shared: &Arc<Shared>,
    request: Request,
    make: impl FnOnce(&Shared, &[u8]) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(Fault::media_type());
    }
    let bounds = &shared.bounds;
    let length = length(&parts.headers);
    if length.is_some_and(|bytes| bytes > bounds.body_bytes) {
        return Err(Fault::too_large(bounds.body_bytes));
    }
    let is_small = length.is_some_and(|bytes| bytes <= bounds.small_body_bytes);
    let room = if is_small { None } else { Some(large(shared).await?) };
    let bytes = timeout(bounds.body_time, whole(body, bounds.body_bytes)).await;
    let bytes = bytes.map_err(|_| Fault::slow())??;
    let reader = room_of(&shared.readers).await?;
    let shared = Arc::clone(shared);
    let made = tokio::task::spawn_blocking(move || {
        // Held until the work is done, even if the client is gone by then.
        let _rooms = (reader, room);
        make(&shared, &bytes)
    });
    made.await.unwrap_or_else(|why| {
        tracing::error!(%why, "reading a request failed");
        Err(Fault::internal(
            "The request could not be read because of an error in this server; its log says more.",
        ))
    })
}

async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, Fault> {
    to_bytes(body, bytes_max).await.map_err(|why| {
        let too_large = std::iter::successors(std::error::Error::source(&why), |e| e.source())
            .any(|e| e.to_string().contains("length limit"));
        if too_large {
            Fault::too_large(bytes_max)
        } else {
            Fault::request(format!("The request's body broke off: {why}."))
        }
    })
}

/// Room for a large body, once there is.
async fn large(shared: &Shared) -> Result<OwnedSemaphorePermit, Fault> {
    let waited = timeout(shared.bounds.body_time, room_of(&shared.large)).await;
    waited.unwrap_or_else(|_| {
        Err(Fault::full("Other large requests are being read; try again later.", &shared.bounds))
    })
}

async fn room_of(rooms: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    Arc::clone(rooms).acquire_owned().await.map_err(|_| Fault::internal("The server ends."))
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `application/json` and its relatives. Without this a page in a browser could ask from anywhere: only JSON makes the
/// browser ask for leave first.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}
