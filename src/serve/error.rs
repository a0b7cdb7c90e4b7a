//! Refusals of requests: a status, and JSON of a code, the cause and a hint.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Error, ErrorKind};

/// A request that is not answered as it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    /// For programs; stays when the wording changes.
    pub(super) code: &'static str,
    pub(super) cause: String,
    pub(super) hint: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, code: &'static str, cause: impl Into<String>) -> Self {
        Self { status, code, cause: cause.into(), hint: None, retry_after: None }
    }

    pub(super) fn bad_request(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", cause)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Of an image that cannot be read.
    pub(super) fn of_image(error: &Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "image_too_large"),
            ErrorKind::Unsupported => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "image_damaged"),
        };
        Self::of(error, status, code)
    }

    /// Of an image that was read, and could not be labelled.
    pub(super) fn of_work(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Memory => Self::of(error, StatusCode::PAYLOAD_TOO_LARGE, "image_too_large"),
            _ => Self::of(error, StatusCode::INTERNAL_SERVER_ERROR, "model_failed"),
        }
    }

    pub(super) fn of(error: &Error, status: StatusCode, code: &'static str) -> Self {
        Self { status, code, cause: error.to_string(), hint: error.hint().map(str::to_owned), retry_after: None }
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than the limit of {limit} bytes"),
        )
        .hint("send a smaller file, such as a JPEG of the same picture, or cut it into tiles")
    }

    /// Of work that finds no room, for about as long as `wait`.
    pub(super) fn overloaded(wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "as much work waits as may")
            .hint("send the request again after the time in `Retry-After`")
            .retry_after(wait.clamp(Duration::from_secs(1), Duration::from_secs(120)))
    }

    pub(super) fn warming_up() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "warming_up", "the server is starting")
            .hint("send the request again once /readyz answers 200")
            .retry_after(Duration::from_secs(5))
    }

    pub(super) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the server is shutting down")
            .hint("send the request again: another server answers it")
            .retry_after(Duration::from_secs(1))
    }

    pub(super) fn not_found(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at `{path}`"))
            .hint("see /openapi.json for what there is")
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the request carries no valid token")
            .hint("send the header `Authorization: Bearer TOKEN`")
    }

    pub(super) fn unknown_model(name: &str, known: &[String]) -> Self {
        let known =
            if known.is_empty() { "none is loaded".to_owned() } else { format!("there are {}", known.join(", ")) };
        Self::new(StatusCode::NOT_FOUND, "unknown_model", format!("there is no model `{name}`")).hint(known)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = json!({"code": self.code, "cause": self.cause, "hint": self.hint}).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // Basic is taken too; named here, browsers would ask for a password over the page.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_json_with_their_headers() {
        let fault =
            Fault::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "full").retry_after(Duration::from_millis(1200));
        let response = fault.into_response();
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "2"));
        let large = Error::new("large").with_kind(ErrorKind::TooLarge).with_hint("cut it");
        let fault = Fault::of_image(&Error::new("no").with_source(large));
        assert_eq!(
            (fault.status.as_u16(), fault.code, fault.hint.as_deref()),
            (413, "image_too_large", Some("cut it"))
        );
        assert_eq!(Fault::of_work(&Error::new("nan")).status.as_u16(), 500);
        assert!(Fault::unauthorized().into_response().headers().contains_key("www-authenticate"));
    }
}
