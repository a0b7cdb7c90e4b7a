//! From an answer of the worker to a response: encoded beside the inference, and held until it is written.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use crate::error::Result;
use crate::serve::app::App;
use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::work::{Answer, Timing};

/// Some bytes of an answer, with what it held.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) timing: Timing,
    pub(super) permit: Permit,
}

/// Encodes an answer on a thread of its own, and counts it.
///
/// # Errors
/// What the encoder fails with.
pub(super) async fn encoded(
    app: &Arc<App>,
    mut answer: Answer,
    encode: impl FnOnce(&Answer) -> Result<Vec<u8>> + Send + 'static,
) -> Result<Encoded, Fault> {
    let name = answer.model.name.clone();
    let failed = |cause: String| {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "answer_failed", cause)
            .hint("ask for another output, and report this one")
    };
    let work = move || {
        let start = Instant::now();
        let bytes = encode(&answer);
        answer.timing.encode = start.elapsed();
        let Answer { timing, mut permit, .. } = answer;
        permit.answered(bytes.as_ref().map_or(0, Vec::len));
        bytes.map(|bytes| Encoded { bytes, timing, permit })
    };
    // A panic in it is an error of this request.
    let found =
        tokio::task::spawn_blocking(work).await.map_err(|_| failed("the answer could not be encoded".into()))?;
    let encoded = found.map_err(|error| failed(error.to_string()))?;
    app.metrics.labelled(&name, &encoded.timing);
    Ok(encoded)
}

/// Bytes that give back what they hold once they are written, or the client has left.
struct Held {
    bytes: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Encoded {
    /// The response with these bytes.
    pub(super) fn response(self, content_type: &'static str) -> Response {
        let Self { bytes, timing, permit } = self;
        let length = bytes.len();
        let mut response = Response::new(Body::from(Bytes::from_owner(Held { bytes, _permit: permit })));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Ok(timing) = HeaderValue::from_str(&timing.header()) {
            headers.insert("server-timing", timing);
        }
        response
    }
}

/// JSON.
pub(super) fn json(value: &serde_json::Value) -> Response {
    text(value.to_string().into_bytes())
}

/// Text that is JSON.
pub(super) fn text(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
