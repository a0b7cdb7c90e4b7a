//! Bodies: read within limits of bytes and time, and the parts of multipart ones.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyDataStream, BodyExt, Full};
use tokio::time::{Instant, timeout_at};

use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::limits::Limits;

/// A body as a whole. Its bytes are held by the permit as they come, so that a client which sends none takes no room.
///
/// # Errors
/// 413 above the limit, 429 where too much is held, 408 where it takes too long, 400 where it breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: &Limits,
    permit: &mut Permit,
) -> Result<Bytes, Fault> {
    let stated = stated(headers);
    if stated.is_some_and(|stated| stated > limits.body_bytes as u64) {
        discard(body).await;
        return Err(Fault::body_too_large(limits.body_bytes));
    }
    let end = Instant::now() + limits.body_time;
    let mut first = None;
    let mut bytes = BytesMut::new();
    loop {
        let wait = end.min(Instant::now() + limits.idle_time);
        let frame = match timeout_at(wait, body.frame()).await {
            Err(_) => return Err(too_slow(limits)),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(Fault::bad_request(format!("the body breaks off: {error}"))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > limits.body_bytes {
            discard(body).await;
            return Err(Fault::body_too_large(limits.body_bytes));
        }
        if let Err(fault) = permit.take_bytes(data.len()) {
            discard(body).await;
            return Err(fault);
        }
        // Most bodies are one piece, which needs no copy.
        match (first.take(), bytes.is_empty()) {
            (None, true) => first = Some(data),
            (Some(before), _) => {
                bytes.extend_from_slice(&before);
                bytes.extend_from_slice(&data);
            }
            (None, false) => bytes.extend_from_slice(&data),
        }
    }
    Ok(first.unwrap_or_else(|| bytes.freeze()))
}

fn stated(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_slow(limits: &Limits) -> Fault {
    let cause = format!(
        "the body did not arrive in time: {} s as a whole, {} s between two pieces",
        limits.body_time.as_secs(),
        limits.idle_time.as_secs()
    );
    Fault::new(StatusCode::REQUEST_TIMEOUT, "timeout", cause).hint("send the request again, over a faster connection")
}

/// Reads what is left of a body that is not wanted, for a moment: a client that still sends would not see the answer.
pub(super) async fn discard(mut body: Body) {
    const MOST: usize = 16 << 20;
    let end = Instant::now() + Duration::from_millis(500);
    let mut seen = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(end, body.frame()).await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > MOST {
            return;
        }
    }
}

/// A part of a multipart body.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) file_name: Option<String>,
    pub(super) bytes: Bytes,
}

/// The boundary of a multipart body, where this is one.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    multer::parse_boundary(headers.get(header::CONTENT_TYPE)?.to_str().ok()?).ok()
}

/// The parts of a multipart body.
///
/// # Errors
/// A body that is not what its type says, and one of very many parts.
pub(super) async fn parts(bytes: Bytes, boundary: String) -> Result<Vec<Part>, Fault> {
    const MOST: usize = 64;
    let wrong = |error: multer::Error| {
        Fault::bad_request(format!("the multipart body cannot be read: {error}"))
            .hint("send it as `curl -F image=@photo.jpg` does")
    };
    let mut multipart = multer::Multipart::new(BodyDataStream::new(Full::new(bytes)), boundary);
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(wrong)? {
        if parts.len() == MOST {
            return Err(Fault::bad_request(format!("the multipart body has more than {MOST} parts")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().map(str::to_owned);
        parts.push(Part { name, file_name, bytes: field.bytes().await.map_err(wrong)? });
    }
    Ok(parts)
}
