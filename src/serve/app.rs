//! The state that all routes share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::serve::auth::Tokens;
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

/// How far a server has come: ready, announcing that it stops, or accepting nothing more.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU8);

impl Phase {
    const READY: u8 = 0;
    const LEAVING: u8 = 1;
    const CLOSED: u8 = 2;

    /// Balancers should send requests.
    pub(super) fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::READY
    }

    /// Work is not accepted any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::CLOSED
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
