//! Limits of a server.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::image::MAX_PIXELS;

/// What a server takes at most: bytes, pixels, waiting work, connections and time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Pixels of an image, as its header states them.
    pub pixels: u64,
    /// Megapixels of windows that are accepted and not yet answered.
    pub queue_megapixels: f64,
    /// Bytes of bodies that are held at once.
    pub queue_bytes: usize,
    /// Open connections; more wait until one is closed.
    pub connections: usize,
    /// Time for the headers of a request, and for the next request of a connection.
    pub header_time: Duration,
    /// Time for a body as a whole.
    pub body_time: Duration,
    /// Time without a byte of a body read, or of an answer written.
    pub idle_time: Duration,
    /// Time from the acceptance of a request to its answer.
    pub request_time: Duration,
    /// Scans of a progressive JPEG: each is decoded over the whole picture.
    pub scans: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32_000_000,
            pixels: 64_000_000,
            queue_megapixels: 64.0,
            queue_bytes: 256_000_000,
            connections: 4096,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(10),
            request_time: Duration::from_secs(600),
            scans: 32,
        }
    }
}

impl Limits {
    /// Fails on values with which nothing could be served.
    ///
    /// # Errors
    /// Says which limit is too small or too large.
    pub fn check(&self) -> Result<()> {
        let least = [
            ("the size of a body", self.body_bytes as f64),
            ("the pixels of an image", self.pixels as f64),
            ("the work in the queue", self.queue_megapixels * 1e6),
            ("the number of connections", self.connections as f64),
            ("the number of scans", self.scans as f64),
        ];
        if let Some((what, value)) = least.into_iter().find(|(_, value)| !(1.0..=1e18).contains(value)) {
            return Err(Error::new(format!("the limit of {what} is {value}")).with_hint("give a number above 0"));
        }
        if self.queue_bytes < self.body_bytes {
            return Err(Error::new(format!(
                "the queue may hold {} bytes, and one body {}",
                self.queue_bytes, self.body_bytes
            ))
            .with_hint("let the queue hold as many bytes as a body, at least"));
        }
        if self.pixels > MAX_PIXELS {
            return Err(Error::new(format!("the limit of {} pixels is too large", self.pixels))
                .with_hint(format!("give at most {MAX_PIXELS}")));
        }
        let times = [self.header_time, self.body_time, self.idle_time, self.request_time];
        if times.iter().any(Duration::is_zero) {
            return Err(Error::new("a time limit is 0").with_hint("give at least 1s"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_serve_nobody_are_refused() {
        let default = Limits::default();
        default.check().unwrap();
        let wrong = [
            Limits { body_bytes: 0, ..default },
            Limits { queue_megapixels: f64::NAN, ..default },
            Limits { queue_bytes: 1, ..default },
            Limits { pixels: MAX_PIXELS + 1, ..default },
            Limits { idle_time: Duration::ZERO, ..default },
        ];
        assert!(wrong.iter().all(|limits| limits.check().unwrap_err().hint().is_some()));
    }
}
