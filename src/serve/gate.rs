//! The bound of accepted work that is not yet answered (429 beyond it): pixels of windows and bytes of bodies, whatever
//! the number of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use crate::serve::error::Fault;
use crate::serve::limits::Limits;
use crate::serve::rate::Rate;

/// How much is held, of how much may be.
#[derive(Debug)]
pub(super) struct Gate {
    pixels: AtomicU64,
    bytes: AtomicU64,
    most_pixels: u64,
    most_bytes: u64,
    rate: Rate,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            pixels: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            most_pixels: (limits.queue_megapixels * 1e6) as u64,
            most_bytes: limits.queue_bytes as u64,
            rate: Rate::default(),
        }
    }

    /// Holds nothing yet.
    pub(super) fn permit(self: &Arc<Self>) -> Permit {
        Permit { gate: self.clone(), pixels: 0, bytes: 0 }
    }

    /// Pixels of windows that wait or are worked on.
    pub(super) fn pixels(&self) -> u64 {
        self.pixels.load(Ordering::Acquire)
    }

    /// Bytes of bodies that are held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// The most pixels.
    pub(super) fn most_pixels(&self) -> u64 {
        self.most_pixels
    }

    /// How fast pixels are worked on, as measured.
    pub(super) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// How long until all that is held is done.
    pub(super) fn wait(&self) -> Duration {
        self.rate.time(self.pixels())
    }

    fn overloaded(&self) -> Fault {
        Fault::overloaded(self.wait())
    }
}

/// A part of what may be held, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    pixels: u64,
    bytes: u64,
}

impl Permit {
    /// Holds more bytes.
    ///
    /// # Errors
    /// 429 where there is no room for them.
    pub(super) fn take_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes +=
            take(&self.gate.bytes, bytes as u64, self.gate.most_bytes).ok_or_else(|| self.gate.overloaded())?;
        Ok(())
    }

    /// Holds the pixels of an image's windows.
    ///
    /// # Errors
    /// 413 where they would never fit, and 429 where there is no room for them.
    pub(super) fn take_pixels(&mut self, pixels: u64) -> Result<(), Fault> {
        let most = self.gate.most_pixels;
        if pixels > most {
            let megapixels = |pixels: u64| pixels as f64 / 1e6;
            let cause = format!(
                "the image is {:.2} megapixels of windows for this model, and the queue holds {:.2} at most",
                megapixels(pixels),
                megapixels(most)
            );
            return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", cause)
                .hint("cut the picture into tiles, or scale it down"));
        }
        self.pixels += take(&self.gate.pixels, pixels, most).ok_or_else(|| self.gate.overloaded())?;
        Ok(())
    }

    /// Holds so many bytes of an answer in place of what it held: the work is done, and the client is yet to read it.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.gate.pixels.fetch_sub(std::mem::take(&mut self.pixels), Ordering::AcqRel);
        self.gate.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        self.gate.bytes.fetch_sub(std::mem::replace(&mut self.bytes, bytes as u64), Ordering::AcqRel);
    }

    /// Pixels that it holds.
    pub(super) fn pixels(&self) -> u64 {
        self.pixels
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.pixels.fetch_sub(self.pixels, Ordering::AcqRel);
        self.gate.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Adds `more` where the sum stays within `most`.
fn take(held: &AtomicU64, more: u64, most: u64) -> Option<u64> {
    let add = |now: u64| now.checked_add(more).filter(|sum| *sum <= most);
    held.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok().map(|_| more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let limits = Limits { queue_megapixels: 1.0, queue_bytes: 100, body_bytes: 50, ..Limits::default() };
        let gate = Arc::new(Gate::new(&limits));
        let mut one = gate.permit();
        one.take_pixels(600_000).unwrap();
        one.take_bytes(60).unwrap();
        let mut other = gate.permit();
        assert_eq!(other.take_pixels(1_000_001).unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let full = other.take_pixels(400_001).unwrap_err();
        assert_eq!((full.status, full.code), (StatusCode::TOO_MANY_REQUESTS, "overloaded"));
        assert!(full.retry_after.unwrap() >= Duration::from_secs(1));
        assert!(other.take_bytes(41).is_err());
        other.take_pixels(400_000).unwrap();
        other.take_bytes(40).unwrap();
        assert_eq!((gate.pixels(), gate.bytes()), (1_000_000, 100));
        one.answered(90);
        assert_eq!((gate.pixels(), gate.bytes()), (400_000, 130), "an answer is never refused");
        assert!(gate.permit().take_bytes(1).is_err());
        drop((one, other));
        assert_eq!((gate.pixels(), gate.bytes()), (0, 0));
    }
}
