//! Long work on a pool of threads, while the thread that asked for it waits: it alone calls back into Python, and hears Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rayon::ThreadPool;
use structtoken::metrics::Scores;
use structtoken::train::{Observer, Progress, Stop};

/// How long a signal may wait.
const PATIENCE: Duration = Duration::from_millis(50);

/// What long work reports.
pub(crate) enum Event {
    /// A line about what starts, or a warning.
    Note(String),
    /// After an iteration.
    Step(Progress),
    /// After an evaluation at an iteration.
    Evaluation(u64, Scores),
    /// So many pieces of all are done.
    Done(usize, usize),
}

/// The other end of those who wait.
pub(crate) struct Caller {
    events: Sender<Event>,
    heard: Mutex<Receiver<()>>,
    stop: Arc<AtomicBool>,
}

impl Caller {
    /// Reports, and waits until it was heard. Whether the work is to be broken off.
    pub(crate) fn tell(&self, event: Event) -> bool {
        if self.events.send(event).is_ok() {
            // Who no longer listens wants nothing else done.
            let _ = self.heard.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        self.is_told_to_stop()
    }

    /// Whether the work is to be broken off.
    pub(crate) fn is_told_to_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn stop(&self) -> Stop {
        if self.is_told_to_stop() { Stop::Save } else { Stop::No }
    }
}

/// A run reports to the caller, who can stop it.
impl Observer for &Caller {
    fn note(&mut self, message: &str) {
        self.tell(Event::Note(message.to_owned()));
    }

    fn iteration(&mut self, progress: &Progress) {
        self.tell(Event::Step(progress.clone()));
    }

    fn evaluating(&mut self, _image: &structtoken::eval::Evaluated, _all: usize) -> Stop {
        Caller::stop(self)
    }

    fn evaluated(&mut self, iteration: u64, scores: &Scores) {
        self.tell(Event::Evaluation(iteration, scores.clone()));
    }

    fn stop(&mut self, _iteration: u64) -> Stop {
        Caller::stop(self)
    }
}

/// Does `work` on a thread of `pool`. `see` gets what it reports, and any exception from there, or a signal, tells the
/// work to stop: it is the second answer, beside what the work gives.
///
/// Work that reports waits until it was heard. Its pool should be its own, or what `see` asks of the pool waits for the
/// work.
pub(crate) fn attend<T: Send>(
    py: Python<'_>,
    pool: &ThreadPool,
    work: impl FnOnce(&Caller) -> T + Send,
    mut see: impl FnMut(Python<'_>, Event) -> PyResult<()>,
) -> (Option<T>, Option<PyErr>) {
    let (events, mut reports) = channel();
    let (hear, heard) = channel();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Mutex::new(None));
    let caller = Caller { events, heard: Mutex::new(heard), stop: Arc::clone(&stop) };
    // In place, the thread that asked keeps its own state of the interpreter. What takes a new one from the system, as
    // `Python::attach` does, crashes where the interpreter ends meanwhile, which stops whoever takes its own back.
    let failure = pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            let caller = caller;
            let found = work(&caller);
            *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        });
        wait(py, &mut reports, &hear, &stop, &mut see)
    });
    (done.into_inner().unwrap_or_else(PoisonError::into_inner), failure)
}

/// Hears what is reported until the work ends; the exception that stopped it, if one did.
fn wait(
    py: Python<'_>,
    reports: &mut Receiver<Event>,
    hear: &Sender<()>,
    stop: &AtomicBool,
    see: &mut impl FnMut(Python<'_>, Event) -> PyResult<()>,
) -> Option<PyErr> {
    let (mut failure, mut looked) = (None, Instant::now());
    loop {
        let mut outcome = Ok(());
        let next = py.detach(|| {
            // The whole of it, which nobody shares.
            let reports: &mut Receiver<Event> = reports;
            reports.recv_timeout(PATIENCE)
        });
        let event = match next {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return failure,
        };
        let answer = event.is_some();
        if let Some(event) = event.filter(|_| failure.is_none()) {
            outcome = see(py, event);
        }
        if failure.is_none() && outcome.is_ok() && looked.elapsed() >= PATIENCE {
            looked = Instant::now();
            outcome = py.check_signals();
        }
        if let Err(error) = outcome {
            failure = Some(error);
            stop.store(true, Ordering::SeqCst);
        }
        if answer {
            let _ = hear.send(());
        }
    }
}
