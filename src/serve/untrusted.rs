//! The readers of requests as functions of bytes, for tests that mutate them; their results are dropped.

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use crate::serve::ask::{Ask, pairs};
use crate::serve::decode::size;
use crate::serve::limits::Limits;
use crate::serve::{label_studio, oip, upload};

/// A multipart body of the boundary `b`, and the header of the image in it.
pub fn multipart(body: &[u8]) {
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=b"))]);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let found = runtime.block_on(async {
        let boundary = upload::boundary(&headers)?;
        upload::parts(Bytes::copy_from_slice(body), boundary).await.ok()
    });
    let mut ask = Ask::default();
    for part in found.into_iter().flatten() {
        match std::str::from_utf8(&part.bytes) {
            Ok(text) => drop(ask.set(&part.name, text)),
            Err(_) => drop(size(&part.bytes, &Limits::default())),
        }
    }
}

/// The query of an address.
pub fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(pairs) = pairs(Some(&text)) else { return };
    drop(Ask::read(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
}

/// A request of the Open Inference Protocol; a line end divides its JSON from binary tensors.
pub fn inference_request(body: &[u8]) {
    let length = body.iter().position(|byte| *byte == b'\n').map(|at| at.to_string());
    drop(oip::Asked::read(&Bytes::copy_from_slice(body), length.as_deref()));
}

/// A request of Label Studio.
pub fn label_studio_request(body: &[u8]) {
    label_studio::untrusted(&Bytes::copy_from_slice(body));
}
