//! Which options a form had a use for.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// An option that some forms have a use for.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    Names,
    NamesFrom,
    Void,
    Pixels,
    JpegTolerance,
    Text,
    Images,
}

/// Which options were of use.
#[derive(Debug, Default)]
pub(super) struct Used(AtomicU8);

impl Used {
    /// Notes that there is a use for an option.
    pub(super) fn note(&self, flag: Flag) {
        self.0.fetch_or(1 << flag as u8, Relaxed);
    }

    /// Whether there was one.
    pub(super) fn holds(&self, flag: Flag) -> bool {
        self.0.load(Relaxed) & (1 << flag as u8) != 0
    }
}
