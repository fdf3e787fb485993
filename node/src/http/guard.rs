//! Who may ask. A server on this machine only must not answer pages that a browser has from elsewhere: neither those that
//! point a name of their own at 127.0.0.1, nor those that ask across origins.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::fault::Fault;
use super::forward;
use super::routes::{Caller, Shared};

/// Under this name containers reach the machine they are on.
const CONTAINER_HOST: &str = "host.docker.internal";

/// How long browsers need not ask again whether they may, seconds.
const CORS_AGE: &str = "600";

/// Stands in front of every route: turns wrong hosts away, answers browsers, counts, and tells guests which table of the
/// mesh this node has now.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = super::routes::known(request.uri().path());
    let is_guest = matches!(request.extensions().get::<Caller>(), Some(Caller::Guest(_)));
    let mut response = judged(shared.is_local && !is_guest, request, next).await;
    if is_guest {
        response.headers_mut().insert(forward::TABLE, forward::tag(&shared.desk.table()));
    }
    shared.meter.answered(path, response.status().as_u16());
    response
}

/// What a request comes to that only this machine may make, where `is_local`, and browsers only from it.
pub(super) async fn judged(is_local: bool, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).filter(|origin| is_local_origin(origin)).cloned();
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = if is_local && !host_is_local(request.headers()) {
        Fault::host().into_response()
    } else if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        allow(response.headers_mut(), origin, wanted);
    }
    response
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue, wanted: Option<HeaderValue>) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(CORS_AGE));
    if let Some(wanted) = wanted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    }
}

/// Whether a request was meant for this machine, by its `Host`. HTTP/1.0 has none.
fn host_is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    host.to_str().is_ok_and(|host| is_local(host) || without_port(host).eq_ignore_ascii_case(CONTAINER_HOST))
}

/// `http://localhost:3000`.
fn is_local_origin(origin: &HeaderValue) -> bool {
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    host.is_some_and(is_local)
}

fn is_local(host: &str) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in
            ["localhost", "LOCALHOST:9337", "127.0.0.1:80", "127.1.2.3", "[::1]:9337", "app.localhost"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:9337", "10.0.0.1", "[2001:db8::1]:80", "", ":80"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn origins_are_local_by_their_host() {
        let local = |origin| is_local_origin(&HeaderValue::from_static(origin));
        assert!(local("http://localhost:3000") && local("https://127.0.0.1"));
        assert!(!local("null") && !local("https://evil.example") && !local("http://localhost.evil.example"));
    }
}
