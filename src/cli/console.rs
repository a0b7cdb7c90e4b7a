//! Talk of a running command: progress on stderr, plain lines when that is not a terminal.

use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::bench;
use crate::cli::End;
use crate::cli::dashboard::Dashboard;
use crate::error::{Error, Result};
use crate::eval::summary::Evaluation;
use crate::eval::{EvalAccumulator, EvalOptions, Evaluated};
use crate::metrics::Scores;
use crate::train::{Observer, Progress, Stop};

/// Shows a run, and stops it on Ctrl-C or at a given iteration.
pub(crate) struct Console {
    /// On a terminal: the bar of the run, and the place where another may stand below it.
    bar: Option<(ProgressBar, MultiProgress)>,
    dashboard: Dashboard,
    /// The line above the curves, and when it was drawn.
    head: String,
    drawn: Option<Instant>,
    evaluating: Option<ProgressBar>,
    last_line: Option<Instant>,
    interrupted: Arc<AtomicBool>,
    stop_after: Option<u64>,
    /// Where a run stands in a comparison, and what is left of that after it.
    place: Option<(String, Option<Duration>)>,
    abandoned: Arc<AtomicBool>,
    json: bool,
    /// What the evaluation going on counts, and the counts of the best so far.
    evaluations: Option<(Option<EvalAccumulator>, Option<EvalAccumulator>)>,
}

impl Console {
    /// A console that takes over Ctrl-C: the run saves and stops.
    pub(crate) fn new(json: bool) -> Result<Self> {
        let interrupted =
            on_interrupt(|| talk!("\nsaving after this iteration or image; press Ctrl-C again to stop at once"))?;
        let bar = stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            (bars.add(bar("{msg}\n{wide_bar} {pos}/{len}")), bars)
        });
        Ok(Self {
            bar,
            dashboard: Dashboard::default(),
            head: String::new(),
            drawn: None,
            evaluating: None,
            last_line: None,
            interrupted,
            stop_after: None,
            place: None,
            abandoned: Arc::default(),
            json,
            evaluations: None,
        })
    }

    /// For one run of a comparison, which stops as on Ctrl-C when stdin ends: the process that holds the other end
    /// wants it to, or is gone.
    pub(crate) fn child(mut self, place: String, rest: Option<Duration>) -> Result<Self> {
        self.place = Some((place, rest));
        let flag = Arc::clone(&self.abandoned);
        let watch = move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            flag.store(true, Ordering::SeqCst);
        };
        match std::thread::Builder::new().name("stop-pipe".to_owned()).spawn(watch) {
            Ok(_) => Ok(self),
            Err(error) => Err(no_thread("watches the parent", error)),
        }
    }

    /// Stops before the iteration of this number.
    pub(crate) fn stop_after(mut self, iteration: Option<u64>) -> Self {
        self.stop_after = iteration;
        self
    }

    /// Counts what evaluations see, for the page of the run.
    pub(crate) fn keep_evaluations(mut self) -> Self {
        self.evaluations = Some((None, None));
        self
    }

    /// What the evaluation with these scores found; none if it was the work of an earlier process.
    pub(crate) fn found(&self, scores: &Scores) -> Option<Evaluation> {
        let (_, best) = self.evaluations.as_ref()?;
        let names: Vec<String> = scores.classes.iter().map(|class| class.name.clone()).collect();
        best.as_ref()
            .map(|accumulate| accumulate.evaluation(&names))
            .filter(|found| found.scores.matrix == scores.matrix)
    }

    /// By a signal, or by the process that started this one.
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst) || self.abandoned.load(Ordering::SeqCst)
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some((bar, _)) => bar.println(text),
            None => talk!("{text}"),
        }
    }
}

impl Observer for Console {
    fn restarted(&mut self) {
        self.dashboard = Dashboard::default();
        self.evaluations = self.evaluations.take().map(|_| (None, None));
    }

    fn note(&mut self, message: &str) {
        self.line(message);
    }

    fn iteration(&mut self, progress: &Progress) {
        let (place, rest) = match &self.place {
            Some((place, Some(rest))) => (place.as_str(), format!(", {} in all", clock(progress.eta + *rest))),
            Some((place, None)) => (place.as_str(), String::new()),
            None => ("", String::new()),
        };
        let text = format!(
            "{place}iteration {}/{}  loss {:.4}  lr {:.2e}  {:.1} images/s  waiting for data {:.0}%  {} left{rest}",
            progress.iteration,
            progress.iterations,
            progress.loss,
            progress.lr,
            progress.images_per_s,
            100.0 * progress.wait_share,
            clock(progress.eta),
        );
        if let Some((bar, _)) = &self.bar {
            bar.set_length(progress.iterations);
            bar.set_position(progress.iteration);
            self.dashboard.iteration(progress.loss);
            // As often as eyes can follow.
            if self.drawn.is_none_or(|drawn| drawn.elapsed() >= Duration::from_millis(100)) {
                let memory = bench::peak_rss_mb().map_or(String::new(), |mb| format!("  {mb} MB"));
                self.head = text + &memory;
                bar.set_message(self.dashboard.text(&self.head));
                self.drawn = Some(Instant::now());
            }
        } else if progress.iteration == progress.iterations
            || self.last_line.is_none_or(|last| last.elapsed() >= Duration::from_secs(10))
        {
            self.line(&text);
            self.last_line = Some(Instant::now());
        }
        if self.json {
            emit(&serde_json::json!({
                "event": "iteration", "iteration": progress.iteration, "loss": progress.loss, "lr": progress.lr,
                "images_per_s": progress.images_per_s, "wait_share": progress.wait_share,
            }));
        }
    }

    fn evaluating(&mut self, image: &Evaluated, all: usize) -> Stop {
        if let Some((accumulate, _)) = &mut self.evaluations {
            let blank = || EvalAccumulator::new(image.confusion.classes(), EvalOptions::default());
            let fresh = accumulate.take().filter(|_| image.done > 1);
            accumulate.insert(fresh.unwrap_or_else(blank)).add(image.done - 1, image);
        }
        if let Some((_, bars)) = &self.bar {
            let below = || bars.add(bar("evaluating {wide_bar} {pos}/{len}  {eta} left"));
            let bar = self.evaluating.get_or_insert_with(below);
            bar.set_length(all as u64);
            bar.set_position(image.done as u64);
            if image.done == all {
                bar.finish_and_clear();
                self.evaluating = None;
            }
        }
        if self.is_interrupted() { Stop::Save } else { Stop::No }
    }

    fn evaluated(&mut self, iteration: u64, scores: &Scores) {
        self.dashboard.evaluated(iteration, scores);
        if let Some((bar, _)) = &self.bar {
            bar.set_message(self.dashboard.text(&self.head));
        }
        if let Some((accumulate, best)) = &mut self.evaluations {
            let names: Vec<String> = scores.classes.iter().map(|class| class.name.clone()).collect();
            let reached = best.as_ref().and_then(|best| best.scores(&names).miou);
            if scores.miou >= reached {
                *best = accumulate.take();
            }
        }
        let shown = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.4}"));
        self.line(&format!(
            "iteration {iteration}: mIoU {}  mAcc {}  aAcc {}",
            shown(scores.miou),
            shown(scores.macc),
            shown(scores.aacc)
        ));
        scores.warnings.iter().for_each(|warning| self.line(&format!("warning: {warning}")));
        if self.json {
            emit(&serde_json::json!({"event": "evaluation", "iteration": iteration, "scores": scores}));
        }
    }

    fn stop(&mut self, iteration: u64) -> Stop {
        if self.is_interrupted() || self.stop_after.is_some_and(|stop| iteration >= stop) {
            Stop::Save
        } else {
            Stop::No
        }
    }
}

/// Takes over Ctrl-C: the work is broken off after this `piece` of it. Once all of it is `done` the process ends at
/// once: whatever it writes is then there as a whole or not at all.
pub(crate) fn on_interrupt_until(piece: &'static str, done: &Arc<AtomicBool>) -> Result<Arc<AtomicBool>> {
    let done = Arc::clone(done);
    on_interrupt(move || match done.load(Ordering::SeqCst) {
        true => std::process::exit(130),
        false => talk!("\nstopping after this {piece}; press Ctrl-C again to stop at once"),
    })
}

/// Takes over Ctrl-C, SIGTERM and SIGHUP: the first time `first` is called and the answer becomes true, the second time
/// the process ends at once.
pub(crate) fn on_interrupt(first: impl Fn() + Send + 'static) -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let handle = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        first();
    };
    // `nohup` has a process ignore SIGHUP, and the handler would undo that.
    // SAFETY: sets what one signal does, before any handler is there.
    #[cfg(unix)]
    let nohup = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) } == libc::SIG_IGN;
    ctrlc::set_handler(handle).map_err(|error| match error {
        ctrlc::Error::System(error) => no_thread("listens for Ctrl-C", error),
        error => Error::new("cannot listen for Ctrl-C").with_source(error),
    })?;
    #[cfg(unix)]
    if nohup {
        // SAFETY: as above; ignoring a signal calls nothing.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
    Ok(interrupted)
}

fn no_thread(what: &str, error: io::Error) -> Error {
    Error::new(format!("cannot start the thread that {what}"))
        .with_source(error)
        .with_hint("allow more processes (`ulimit -u`), or start fewer threads with --threads 1")
}

/// Progress through files: a bar, or a line every ten seconds where stderr is not a terminal.
pub(crate) struct StepProgress {
    what: &'static str,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Mutex<Instant>,
}

impl StepProgress {
    /// Progress of something that is done to files, called by its verb.
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = stderr().is_terminal().then(|| bar("{msg} {wide_bar} {pos}/{len}  {eta} left").with_message(what));
        Self { what, bar, started: Instant::now(), last_line: Mutex::new(Instant::now()) }
    }

    /// `done` of `all` are finished.
    pub(crate) fn show(&self, done: usize, all: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            return;
        }
        let mut last_line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last_line.elapsed() >= Duration::from_secs(10) && done > 0 {
            *last_line = Instant::now();
            let left = self.started.elapsed().mul_f64((all - done) as f64 / done as f64);
            talk!("{} {done}/{all}  {} left", self.what, clock(left));
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a JSON object as one line on stdout.
pub(crate) fn emit(value: &serde_json::Value) {
    print(&value.to_string());
}

/// Text on stdout. A reader that has gone away wants no more; any other failure is kept for [`finish_output`], so that
/// the work is done all the same.
pub(crate) fn print(text: &str) {
    note_write_error(writeln!(stdout().lock(), "{text}"));
}

/// The first failure to write to stdout.
static WRITE_ERROR: Mutex<Option<io::Error>> = Mutex::new(None);

/// Keeps a failure to write to stdout, unless its reader has gone away.
pub(crate) fn note_write_error(outcome: io::Result<()>) {
    if let Err(error) = outcome
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        WRITE_ERROR.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// How a command ended, when all that it printed is out: a failure to print is one of the command.
pub(crate) fn finish_output(end: Result<End>) -> Result<End> {
    note_write_error(stdout().flush());
    let write_error = WRITE_ERROR.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (end, write_error) {
        (Ok(_), Some(error)) => Err(Error::new("cannot write to the standard output")
            .with_source(error)
            .with_hint("the printed text is incomplete: make room where it goes, or send it elsewhere; files were written as usual")),
        (end, _) => end,
    }
}

/// A progress bar on stderr; invisible when that is not a terminal.
pub(crate) fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}
