//! The state that all routes share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::serve::auth::Tokens;
use crate::serve::error::Fault;
use crate::serve::gate::Gate;
use crate::serve::label_studio_host::Host;
use crate::serve::limits::Limits;
use crate::serve::metrics::Metrics;
use crate::serve::models::Models;
use crate::serve::queue::Queue;

/// What all routes share.
pub(super) struct App {
    pub(super) models: Models,
    pub(super) queue: Queue,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    pub(super) tokens: Tokens,
    /// Where Label Studio's images may be fetched.
    pub(super) label_studio: Option<Host>,
    pub(super) phase: Phase,
}

/// How far a server has come: warming up, ready, announcing that it stops, or accepting nothing more.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU8);

impl Phase {
    const WARMING_UP: u8 = 0;
    const READY: u8 = 1;
    const LEAVING: u8 = 2;
    const CLOSED: u8 = 3;

    /// It has warmed up.
    pub(super) fn begin(&self) {
        self.0.fetch_max(Self::READY, Ordering::AcqRel);
    }

    /// Balancers should send requests.
    pub(super) fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::READY
    }

    /// It was told to stop.
    pub(super) fn is_leaving(&self) -> bool {
        self.0.load(Ordering::Acquire) >= Self::LEAVING
    }

    /// Fails where work is not accepted: it warms up, or accepts nothing more.
    ///
    /// # Errors
    /// 503, with what is the case.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.0.load(Ordering::Acquire) {
            Self::WARMING_UP => Err(Fault::warming_up()),
            Self::CLOSED => Err(Fault::draining()),
            _ => Ok(()),
        }
    }

    /// Says that it stops; requests are still answered.
    pub(super) fn leave(&self) {
        self.0.fetch_max(Self::LEAVING, Ordering::AcqRel);
    }

    /// Accepts nothing more.
    pub(super) fn close(&self) {
        self.0.fetch_max(Self::CLOSED, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let phase = Phase::default();
        assert!(!phase.is_ready() && !phase.is_leaving());
        assert_eq!(phase.check().unwrap_err().code, "warming_up");
        phase.begin();
        assert!(phase.is_ready() && phase.check().is_ok());
        phase.leave();
        phase.begin();
        assert!(!phase.is_ready() && phase.is_leaving() && phase.check().is_ok(), "no way back");
        phase.close();
        assert_eq!(phase.check().unwrap_err().code, "draining");
    }
}
