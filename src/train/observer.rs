//! Observers: the reports of a run while it trains, and its questions.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::eval::Evaluated;
use crate::metrics::Scores;

/// What a run reports while it goes, and asks. All methods do nothing by default, and `()` lets a run continue in
/// silence.
pub trait Observer {
    /// One line about what starts, or a warning.
    fn note(&mut self, _message: &str) {}
    /// After every iteration.
    fn iteration(&mut self, _progress: &Progress) {}
    /// After every image of the validation split, of which there are `all`. Shall the evaluation be broken off here,
    /// and the run stop? What was learned is saved; the evaluation is made again when the run is resumed.
    fn evaluating(&mut self, _image: &Evaluated, _all: usize) -> Stop {
        Stop::No
    }
    /// After an evaluation.
    fn evaluated(&mut self, _iteration: u64, _scores: &Scores) {}
    /// The run had collapsed and starts again: what was reported of it is void.
    fn restarted(&mut self) {}
    /// Shall the run stop before this iteration?
    fn stop(&mut self, _iteration: u64) -> Stop {
        Stop::No
    }
}

impl Observer for () {}

/// Whether a run continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Go on.
    No,
    /// Save, to be resumed later.
    Save,
}

impl Stop {
    /// For what is done image by image.
    pub(crate) fn flow(self) -> ControlFlow<()> {
        if self == Self::Save { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Where the loop stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Iterations done.
    pub iteration: u64,
    /// Iterations in all, as it looks now.
    pub iterations: u64,
    /// Loss of this iteration.
    pub loss: f64,
    /// Its parts by name.
    pub parts: BTreeMap<String, f64>,
    /// Learning rate of the backbone in this iteration.
    pub lr: f64,
    /// Images per second, lately.
    pub images_per_s: f64,
    /// Share of the time spent waiting for data, lately.
    pub wait_share: f64,
    /// Time left at this speed.
    pub eta: Duration,
}

/// Speed over the last iterations, and what is left.
pub(super) struct Pace {
    since: Instant,
    from: u64,
    /// The loader's waiting time at `since`.
    waited: Duration,
}

impl Pace {
    /// Iterations over which the speed is measured.
    const WINDOW: u64 = 20;

    pub(super) fn new(from: u64) -> Self {
        Self { since: Instant::now(), from, waited: Duration::ZERO }
    }

    /// After something other than training took time.
    pub(super) fn resume(&mut self, iteration: u64, waited: Duration) {
        (self.since, self.from, self.waited) = (Instant::now(), iteration, waited);
    }

    /// After `iteration` iterations out of `iterations`.
    pub(super) fn tick(
        &mut self,
        [iteration, iterations]: [u64; 2],
        (loss, parts): (f64, BTreeMap<String, f64>),
        lr: f64,
        batch: usize,
        waited: Duration,
    ) -> Progress {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let waiting = waited.saturating_sub(self.waited).as_secs_f64();
        let done = (iteration - self.from) as f64;
        let progress = Progress {
            iteration,
            iterations,
            loss,
            parts,
            lr,
            images_per_s: done * batch as f64 / seconds,
            wait_share: (waiting / seconds).min(1.0),
            eta: Duration::from_secs_f64(iterations.saturating_sub(iteration) as f64 * seconds / done),
        };
        if iteration - self.from >= Self::WINDOW {
            (self.since, self.from, self.waited) = (Instant::now(), iteration, waited);
        }
        progress
    }
}
