//! How many entries of a list are done, and how fast.

use std::time::{Duration, Instant};

use crate::cli::console::clock;
use crate::cli::manifest::Line;

/// What was done, and how fast.
pub(super) struct Counts {
    started: Instant,
    told: Instant,
    done: u64,
    now: u64,
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), told: Instant::now(), done: 0, now: 0, failed: 0 }
    }

    pub(super) fn all(&self) -> u64 {
        self.done + self.failed
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn before(&mut self, line: &Line) {
        match line.error {
            None => self.done += 1,
            Some(_) => self.failed += 1,
        }
    }

    pub(super) fn after(&mut self, line: &Line) {
        self.before(line);
        self.now += 1;
        if self.told.elapsed() >= Duration::from_secs(10) {
            self.told = Instant::now();
            talk!("{}", self.text());
        }
    }

    pub(super) fn text(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        format!(
            "{} images labelled, {} failed; {} now in {}, {:.1} images/s",
            self.done,
            self.failed,
            self.now,
            clock(self.started.elapsed()),
            self.now as f64 / seconds
        )
    }
}
