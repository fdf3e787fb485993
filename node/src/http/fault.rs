//! Errors, in the form of OpenAI's: `{"error": {"message", "type", "param", "code"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::bounds::Bounds;
use super::turns::Full;
use crate::head::Refused;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    retry_s: Option<u32>,
}

/// As JSON.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    error: ShownError<'a>,
}

#[derive(Debug, Serialize)]
struct ShownError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl Fault {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code: None, retry_s: None }
    }

    /// The request as a whole cannot be understood.
    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field of it is wrong.
    pub(super) fn field(param: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let param = param.into();
        let message = format!("`{param}` {problem}");
        Self { param: Some(param), code: Some("invalid_value"), ..Self::request(message) }
    }

    /// It asks for what is not built.
    pub(super) fn unsupported(param: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self { code: Some("unsupported_value"), ..Self::field(param, problem) }
    }

    /// Prompt and answer do not fit the context.
    pub(super) fn too_long(param: &str, tokens: usize, context: u32) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens, and the prompt has at least {tokens}. Shorten it, or serve the \
             model with a longer --context."
        );
        Self { param: Some(param.into()), code: Some("context_length_exceeded"), ..Self::request(message) }
    }

    /// No such model; `known` are those there are.
    pub(super) fn model(name: &str, known: &[String]) -> Self {
        let known = if known.is_empty() { "none yet".into() } else { known.join(", ") };
        let name: String = name.chars().take(128).collect();
        let message = format!("The model `{name}` does not exist here. There is: {known}.");
        Self {
            status: StatusCode::NOT_FOUND,
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Self::request(message)
        }
    }

    /// No such address.
    pub(super) fn path(path: &str) -> Self {
        let path: String = path.chars().take(128).collect();
        let message = format!(
            "Nothing is at {path}. There is: GET /v1/models, POST /v1/chat/completions, POST /v1/completions, GET /health, \
             GET /metrics, GET /plan, GET /status, GET /table, GET /events."
        );
        Self { status: StatusCode::NOT_FOUND, code: Some("unknown_url"), ..Self::request(message) }
    }

    /// The address is right, the method is not.
    pub(super) fn method(method: &str, allowed: &str) -> Self {
        let message = format!("{method} is not allowed here: use {allowed}.");
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: Some("method_not_supported"),
            ..Self::request(message)
        }
    }

    /// The host of the request is not this machine.
    pub(super) fn host() -> Self {
        let message = "This server answers requests to this machine only: ask localhost or 127.0.0.1.";
        Self { status: StatusCode::FORBIDDEN, code: Some("wrong_host"), ..Self::request(message) }
    }

    /// What is there is not what the client has.
    pub(super) fn conflict(why: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, code: Some("conflict"), ..Self::request(why) }
    }

    /// The body is larger than any request.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        let message = format!("The request's body is larger than {} MiB.", bytes_max >> 20);
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: Some("request_too_large"),
            ..Self::request(message)
        }
    }

    /// The body is no JSON by its own account.
    pub(super) fn media_type() -> Self {
        let message =
            "The body must be JSON, and the header must say so: add `Content-Type: application/json`.";
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: Some("unsupported_media_type"),
            ..Self::request(message)
        }
    }

    /// The body came too slowly.
    pub(super) fn slow() -> Self {
        let message = "The request's body did not arrive in time: send it at once.";
        Self { status: StatusCode::REQUEST_TIMEOUT, code: Some("request_timeout"), ..Self::request(message) }
    }

    /// There is no room now.
    pub(super) fn full(why: impl Into<String>, bounds: &Bounds) -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            retry_s: Some(bounds.retry_s),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", why)
        }
    }

    /// Others are being answered, and there is no room to wait.
    pub(super) fn busy(full: Full) -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            retry_s: Some(full.again_s),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "Too many requests are being answered or wait here; try again later, or ask another node.",
            )
        }
    }

    /// Nothing serves now.
    pub(super) fn not_serving(why: impl Into<String>, bounds: &Bounds) -> Self {
        Self {
            code: Some("not_serving"),
            retry_s: Some(bounds.retry_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", why)
        }
    }

    /// Members have the model, and nobody serves it yet.
    pub(super) fn unserved(why: impl Into<String>, retry_s: u32) -> Self {
        Self {
            param: Some("model".into()),
            code: Some("model_not_served"),
            retry_s: Some(retry_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", why)
        }
    }

    /// No model that is served would do for a request of so many bytes.
    pub(super) fn no_choice(bytes: usize) -> Self {
        let why = format!("No model that is served now would do for this request of {bytes} bytes.");
        Self::unserved(why, 5)
    }

    /// No node of the mesh can be asked.
    pub(super) fn unreachable(why: impl Into<String>, bounds: &Bounds) -> Self {
        Self { code: Some("mesh_unreachable"), ..Self::not_serving(why, bounds) }
    }

    /// Something went wrong here.
    pub(super) fn internal(why: impl Into<String>) -> Self {
        Self {
            code: Some("internal_error"),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", why)
        }
    }

    /// What the node said to a request.
    pub(super) fn refused(refused: &Refused, bounds: &Bounds) -> Self {
        match refused {
            Refused::Unsound(why) => Self::request(why),
            Refused::Full(why) => Self::full(why, bounds),
            Refused::NotServing(why) => Self::not_serving(why, bounds),
        }
    }

    /// As JSON.
    pub(super) fn shown(&self) -> Shown<'_> {
        let Fault { message, kind, param, code, .. } = self;
        Shown { error: ShownError { message, kind, param: param.as_deref(), code: *code } }
    }

    #[cfg(test)]
    pub(super) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.shown())).into_response();
        if let Some(seconds) = self.retry_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
