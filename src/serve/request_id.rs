//! `X-Request-Id`: what a client or proxy gave, or a new one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");

/// Ids of requests: a number for the process, and one for the request.
pub(super) struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(0) }
    }

    /// The id of a request with these headers.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let fits = |id: &&HeaderValue| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
        headers.get(NAME).filter(fits).cloned().unwrap_or_else(|| {
            let id = format!("{:016x}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed));
            HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_or_new() {
        let ids = Ids::new();
        let headers = |id: &str| HeaderMap::from_iter([(NAME, HeaderValue::from_str(id).unwrap())]);
        assert_eq!(ids.of(&headers("abc-1")), "abc-1");
        let new = [ids.of(&HeaderMap::new()), ids.of(&headers("a b")), ids.of(&headers(&"x".repeat(129)))];
        assert!(new[0] != new[1] && new[1] != new[2] && new.iter().all(|id| id.len() > 16));
    }
}
