//! How long each step of a run took: `times.csv`, and an observer that writes it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::eval::Evaluated;
use crate::files;
use crate::metrics::Scores;
use crate::stats::median;
use crate::sweep::compare::TIMES;
use crate::train::{Observer, Progress, Stop};

/// The first line of the file.
const HEAD: &str = "iteration,ms\n";
/// No step takes longer than a year.
const LONGEST_MS: f64 = 365.0 * 86_400e3;

/// Milliseconds of each iteration.
pub(super) struct Times(BTreeMap<u64, f64>);

impl Times {
    /// Those of the run in `folder`; empty where there are none. Lines that are torn or no times are passed over.
    pub(super) fn read(folder: &Path) -> Self {
        let bytes = files::read(&folder.join(TIMES), files::RECORD).unwrap_or_default();
        let row = |line: &[u8]| {
            // Without its end it may have lost digits.
            let (iteration, ms) = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.split_once(',')?;
            let ms = ms.parse().ok().filter(|ms: &f64| (0.0..=LONGEST_MS).contains(ms))?;
            Some((iteration.parse().ok()?, ms))
        };
        Self(bytes.split_inclusive(|byte| *byte == b'\n').filter_map(row).collect())
    }

    /// The median step, in milliseconds.
    pub(super) fn median(&self) -> Option<f64> {
        median(&self.0.values().copied().collect::<Vec<_>>())
    }

    /// Seconds of training after this many iterations. An iteration whose time was lost in a crash is given the median.
    pub(super) fn elapsed(&self) -> impl Fn(u64) -> f64 + use<> {
        let usual = self.median().unwrap_or(0.0);
        let mut sum = 0.0;
        let known: Vec<(u64, f64)> = self
            .0
            .range(1..)
            .map(|(iteration, ms)| {
                sum += ms;
                (*iteration, sum)
            })
            .collect();
        move |iteration| {
            let before = known.partition_point(|(known, _)| *known <= iteration);
            let sum = before.checked_sub(1).map_or(0.0, |at| known[at].1);
            (sum + (iteration - before as u64) as f64 * usual) / 1e3
        }
    }
}

/// Passes everything on to another observer, and writes down how long every step took. What is not training,
/// evaluations and the checkpoints before them, is not counted.
pub(super) struct Stopwatch<'a> {
    inner: &'a mut dyn Observer,
    path: PathBuf,
    file: Option<File>,
    failed: Option<Error>,
    since: Instant,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn new(folder: &Path, inner: &'a mut dyn Observer) -> Self {
        Self { inner, path: folder.join(TIMES), file: None, failed: None, since: Instant::now() }
    }

    /// What went wrong with the file.
    pub(super) fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Opens the file without what is about to be repeated after `done` iterations.
    fn open(&self, done: u64) -> Result<File> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let kept = Times::read(folder).0.into_iter().filter(|(iteration, _)| *iteration <= done);
        let rows: String = kept.map(|(iteration, ms)| format!("{iteration},{ms:.3}\n")).collect();
        files::write(&self.path, format!("{HEAD}{rows}").as_bytes())?;
        let opened = OpenOptions::new().append(true).open(&self.path);
        opened.map_err(|error| Error::file("open", &self.path, error))
    }
}

impl Observer for Stopwatch<'_> {
    fn note(&mut self, message: &str) {
        self.inner.note(message);
    }

    fn iteration(&mut self, progress: &Progress) {
        let took = self.since.elapsed();
        if let Some(file) = &mut self.file {
            let line = format!("{},{:.3}\n", progress.iteration, took.as_secs_f64() * 1e3);
            if let Err(error) = file.write_all(line.as_bytes()) {
                self.failed = Some(Error::file("write", &self.path, error));
                self.file = None;
            }
        }
        self.inner.iteration(progress);
    }

    fn evaluating(&mut self, image: &Evaluated, all: usize) -> Stop {
        self.inner.evaluating(image, all)
    }

    fn evaluated(&mut self, iteration: u64, scores: &Scores) {
        self.inner.evaluated(iteration, scores);
        self.since = Instant::now();
    }

    fn stop(&mut self, iteration: u64) -> Stop {
        if self.file.is_none() && self.failed.is_none() {
            match self.open(iteration) {
                Ok(file) => self.file = Some(file),
                Err(error) => self.failed = Some(error),
            }
        }
        let stop = self.inner.stop(iteration);
        self.since = Instant::now();
        stop
    }
}

/// Times a few real steps and then stops the run.
pub(super) struct StepTimer<'a> {
    inner: &'a mut dyn Observer,
    /// When to have enough, if there are steps enough by then.
    limit: Duration,
    first: Option<(u64, Instant)>,
    last: Option<(u64, Instant)>,
    interrupted: bool,
}

/// What [`StepTimer`] found.
pub(super) enum TimedStep {
    /// Seconds of a step: their mean, which is what a budget is made of.
    Step(f64),
    /// The user wants to stop.
    Interrupted,
}

impl<'a> StepTimer<'a> {
    /// Steps that are not counted: caches fill, threads start.
    const WARM_UP: u64 = 3;
    /// Steps that are counted at least, and at most.
    const STEPS: std::ops::RangeInclusive<u64> = 5..=200;

    pub(super) fn new(limit: Duration, inner: &'a mut dyn Observer) -> Self {
        Self { inner, limit, first: None, last: None, interrupted: false }
    }

    pub(super) fn found(&self) -> Result<TimedStep> {
        match (self.first, self.last) {
            _ if self.interrupted => Ok(TimedStep::Interrupted),
            (Some((from, start)), Some((to, end))) if to > from => {
                Ok(TimedStep::Step((end - start).as_secs_f64() / (to - from) as f64))
            }
            _ => {
                Err(Error::new("no step of training could be timed").with_hint("pass --iterations instead of --budget"))
            }
        }
    }
}

impl Observer for StepTimer<'_> {
    fn note(&mut self, _: &str) {}

    fn iteration(&mut self, progress: &Progress) {
        let now = (progress.iteration, Instant::now());
        if progress.iteration >= Self::WARM_UP {
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
    }

    fn evaluating(&mut self, _: &Evaluated, _: usize) -> Stop {
        Stop::No
    }

    fn evaluated(&mut self, _: u64, _: &Scores) {}

    fn stop(&mut self, iteration: u64) -> Stop {
        if self.inner.stop(iteration) != Stop::No {
            self.interrupted = true;
            return Stop::Save;
        }
        let counted = iteration.saturating_sub(Self::WARM_UP);
        let long = self.first.is_some_and(|(_, start)| start.elapsed() >= self.limit);
        match counted >= *Self::STEPS.end() || (counted >= *Self::STEPS.start() && long) {
            true => Stop::Save,
            false => Stop::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(iteration: u64) -> Progress {
        Progress {
            parts: std::collections::BTreeMap::new(),
            iteration,
            iterations: 9,
            loss: 1.0,
            lr: 0.1,
            images_per_s: 1.0,
            wait_share: 0.0,
            eta: Duration::ZERO,
        }
    }

    #[test]
    fn a_resumed_run_repeats_its_times() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(TIMES),
            b"iteration,ms\n1,10\n2,30\n3,90\nx,\n\xff\n4,nan\n1,-5\n2,1e300\n5,7",
        )
        .unwrap();
        assert_eq!(Times::read(folder.path()).0.len(), 3, "the last line is torn");
        let mut quiet = ();
        let mut watch = Stopwatch::new(folder.path(), &mut quiet);
        assert_eq!(watch.stop(2), Stop::No);
        watch.iteration(&progress(3));
        watch.finish().unwrap();
        let times = Times::read(folder.path());
        assert_eq!(times.0.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        let after =
            |times: &Times, iterations: &[u64]| iterations.iter().map(|n| times.elapsed()(*n)).collect::<Vec<_>>();
        assert_eq!(after(&times, &[0, 1, 2]), [0.0, 0.01, 0.04]);
        // What is missing is as the others are.
        let lost = Times(BTreeMap::from([(1, 10.0), (3, 10.0)]));
        assert_eq!(after(&lost, &[1, 2, 3, 1003]), [0.01, 0.02, 0.03, 10.03]);
        assert!(after(&lost, &[u64::MAX])[0].is_finite());
        assert!(Times::read(&folder.path().join("none")).median().is_none());
    }

    #[test]
    fn a_probe_stops_after_its_steps() {
        let mut quiet = ();
        let mut probe = StepTimer::new(Duration::ZERO, &mut quiet);
        let mut iteration = 0;
        while probe.stop(iteration) == Stop::No {
            iteration += 1;
            std::thread::sleep(Duration::from_millis(2));
            probe.iteration(&progress(iteration));
        }
        assert_eq!(iteration, 8);
        let TimedStep::Step(step) = probe.found().unwrap() else { panic!("not interrupted") };
        assert!(step >= 0.002, "{step}");
        assert!(StepTimer::new(Duration::ZERO, &mut ()).found().is_err());
    }
}
