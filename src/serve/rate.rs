//! How fast windows are worked on, as measured.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Pixels per second: a mean that forgets, by the time that the work took.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<Sums>);

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    pixels: f64,
    seconds: f64,
}

/// Seconds of work after which what was measured counts for half.
const HALF: f64 = 10.0;
/// Before anything was measured: a small network on one core.
const GUESS: f64 = 1e6;

impl Rate {
    /// Notes that so many pixels took this long.
    pub(super) fn note(&self, pixels: u64, time: Duration) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = 0.5f64.powf(time.as_secs_f64() / HALF);
        sums.pixels = sums.pixels * keep + pixels as f64;
        sums.seconds = sums.seconds * keep + time.as_secs_f64();
    }

    /// Pixels per second.
    pub(super) fn per_second(&self) -> f64 {
        let sums = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.seconds > 0.0 { sums.pixels / sums.seconds } else { GUESS }
    }

    /// How long so many pixels take.
    pub(super) fn time(&self, pixels: u64) -> Duration {
        const DAY: f64 = 86_400.0;
        Duration::try_from_secs_f64((pixels as f64 / self.per_second()).clamp(0.0, DAY)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_is_measured() {
        let rate = Rate::default();
        assert_eq!(rate.time(2_000_000), Duration::from_secs(2));
        (0..100).for_each(|_| rate.note(500, Duration::from_secs(1)));
        assert!((rate.per_second() - 500.0).abs() < 1.0);
        (0..100).for_each(|_| rate.note(4_000, Duration::from_secs(1)));
        assert!((rate.per_second() - 4_000.0).abs() < 40.0);
        rate.note(1, Duration::ZERO);
        assert!(rate.per_second().is_finite());
    }
}
