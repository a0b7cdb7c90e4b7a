//! Several runs, one after the other, each in a process of its own: it has its own memory to be measured, and one that
//! fails takes none along.
//!
//! A child is held by a pipe to its stdin. When the pipe ends, because its parent was told to stop or is gone by
//! whatever way, the child saves as on Ctrl-C and stops; so none is left that nobody waits for.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::Computing;
use crate::cli::console::{Console, clock, on_interrupt};
use crate::error::{Error, Result};

/// What a run that is one of several is passed by the process that started it.
#[derive(Args, Clone)]
pub(crate) struct Child {
    /// Its position among the others; it stops as on Ctrl-C when its stdin ends
    #[arg(long, hide = true, value_name = "TEXT")]
    position: Option<String>,
    /// Seconds that those after it will take
    #[arg(long, hide = true, value_name = "SECONDS", requires = "position")]
    remaining_s: Option<u64>,
}

impl Child {
    /// The console of such a run; of one that is alone, `console` as it is.
    pub(crate) fn console(&self, console: Console) -> Result<Console> {
        match &self.position {
            Some(position) => console.child(format!("{position}  "), self.remaining_s.map(Duration::from_secs)),
            None => Ok(console),
        }
    }
}

/// The process that starts one after the other, and passes on that it is told to stop.
pub(crate) struct Runner<'a> {
    computing: &'a Computing,
    interrupted: Arc<AtomicBool>,
    /// The pipe whose end tells the running child to save and stop.
    stop_pipe: Arc<Mutex<Option<std::process::ChildStdin>>>,
    /// Runs that ended badly.
    pub(crate) failed: Vec<String>,
    /// What runs took so far; before that, what is expected.
    usual: Option<Duration>,
    took: Vec<Duration>,
}

impl<'a> Runner<'a> {
    /// Takes over Ctrl-C, SIGTERM and SIGHUP.
    pub(crate) fn new(computing: &'a Computing, usual: Option<Duration>) -> Result<Self> {
        let stop_pipe = Arc::new(Mutex::new(None));
        let pipe = Arc::clone(&stop_pipe);
        let interrupted = on_interrupt(move || drop(pipe.lock().unwrap_or_else(PoisonError::into_inner).take()))?;
        Ok(Self { computing, interrupted, stop_pipe, failed: Vec::new(), usual, took: Vec::new() })
    }

    /// Does what is not finished of `runs`, by what `command` answers for each; whether it was told to stop before the
    /// end. Runs that fail are noted, and those after them done.
    pub(crate) fn work(
        &mut self,
        runs: &[String],
        finished: impl Fn(&str) -> bool,
        command: impl Fn(&str) -> Result<Command>,
    ) -> Result<bool> {
        let todo: Vec<&String> = runs.iter().filter(|run| !finished(run)).collect();
        if todo.len() < runs.len() {
            talk!("{} of {} runs are already finished", runs.len() - todo.len(), runs.len());
        }
        for (at, run) in todo.iter().enumerate() {
            if self.interrupted.load(Ordering::SeqCst) {
                return Ok(true);
            }
            let after = (todo.len() - at - 1) as u32;
            let remaining = self.each().map(|each| each * after);
            let left =
                self.each().map_or(String::new(), |each| format!(", about {} in total", clock(each * (after + 1))));
            let position = format!("{run} ({}/{})", at + 1, todo.len());
            talk!("\n{position}{left}");
            let started = Instant::now();
            let failed = |error| {
                let error = Error::new("the system does not allow it").with_source(error);
                let help = error.hint().unwrap_or("allow more processes (`ulimit -u`)");
                let hint = format!("{help}; then continue with --resume, or run `compare` again");
                Error::new(format!("cannot start a process for {run}")).with_source(error).with_hint(hint)
            };
            match self.start(command(run)?, &position, remaining).map_err(failed)? {
                Some(0) => self.took.push(started.elapsed()),
                Some(130) => return Ok(true),
                Some(_) => self.failed.push((*run).clone()),
                None => {
                    talk!("{run} was killed; is there enough memory?");
                    self.failed.push((*run).clone());
                }
            }
        }
        Ok(false)
    }

    /// What a run takes, as far as is known.
    fn each(&self) -> Option<Duration> {
        let n = self.took.len() as u32;
        if n == 0 { self.usual } else { Some(self.took.iter().sum::<Duration>() / n) }
    }

    /// One run in a process of its own; its exit code. What it prints is of one run, and not what was asked for.
    fn start(&self, mut command: Command, position: &str, remaining: Option<Duration>) -> io::Result<Option<i32>> {
        command.args(["--position", position, "--device", &self.computing.device]);
        if let Some(remaining) = remaining {
            command.args(["--remaining-s", &remaining.as_secs().to_string()]);
        }
        if let Some(threads) = self.computing.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let set_stop_pipe = |pipe| *self.stop_pipe.lock().unwrap_or_else(PoisonError::into_inner) = pipe;
        set_stop_pipe(child.stdin.take());
        if self.interrupted.load(Ordering::SeqCst) {
            set_stop_pipe(None);
        }
        let status = child.wait()?;
        set_stop_pipe(None);
        Ok(status.code())
    }
}
