//! Runs one after the other, each in a process of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use structtoken::compare::{Budget, Plan, Run, run};
use structtoken::error::{Error, Result};

use super::Arguments;
use crate::console::clock;

/// The process that starts one after the other.
pub(super) struct Parent<'a> {
    arguments: &'a Arguments,
    dir: &'a Path,
    interrupted: Arc<AtomicBool>,
    /// The pipe whose end tells the running child to save and stop.
    leash: Arc<Mutex<Option<std::process::ChildStdin>>>,
    /// Runs that ended badly.
    pub(super) failed: Vec<String>,
    /// What runs took so far; before that, what the budget says.
    usual: Option<Duration>,
    took: Vec<Duration>,
}

impl<'a> Parent<'a> {
    pub(super) fn new(arguments: &'a Arguments, dir: &'a Path, plan: &Plan) -> Result<Self> {
        let (interrupted, leash) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (flag, pipe) = (Arc::clone(&interrupted), Arc::clone(&leash));
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            drop(pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        })
        .map_err(|error| Error::new("cannot listen for Ctrl-C").source(error))?;
        let usual = match plan.budget {
            Budget::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Budget::Iterations(_) => None,
        };
        Ok(Self { arguments, dir, interrupted, leash, failed: Vec::new(), usual, took: Vec::new() })
    }

    /// Does what is not done of `runs`; whether it was interrupted.
    pub(super) fn work(&mut self, runs: &[Run]) -> Result<bool> {
        let todo: Vec<&Run> = runs.iter().filter(|run| !run::finished(self.dir, run)).collect();
        if todo.len() < runs.len() {
            talk!("{} of {} runs are finished already", runs.len() - todo.len(), runs.len());
        }
        for (at, run) in todo.iter().enumerate() {
            if self.interrupted.load(Ordering::SeqCst) {
                return Ok(true);
            }
            let after = (todo.len() - at - 1) as u32;
            let rest = self.each().map(|each| each * after);
            let left =
                self.each().map_or(String::new(), |each| format!(", about {} in all", clock(each * (after + 1))));
            let place = format!("{run} ({}/{})", at + 1, todo.len());
            talk!("\n{place}{left}");
            let started = Instant::now();
            match self.start(run, &place, rest)? {
                Some(0) => self.took.push(started.elapsed()),
                Some(130) => return Ok(true),
                Some(_) => self.failed.push(run.to_string()),
                None => {
                    talk!("{run} was killed; is there memory enough?");
                    self.failed.push(run.to_string());
                }
            }
        }
        Ok(self.interrupted.load(Ordering::SeqCst))
    }

    /// What a run takes, as far as is known.
    fn each(&self) -> Option<Duration> {
        let n = self.took.len() as u32;
        if n == 0 { self.usual } else { Some(self.took.iter().sum::<Duration>() / n) }
    }

    /// One run in a process of its own; its exit code.
    fn start(&self, run: &Run, place: &str, rest: Option<Duration>) -> Result<Option<i32>> {
        let failed = |error| Error::new(format!("cannot start a process for {run}")).source(error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("compare").arg("--out").arg(self.dir).args(["--child", &run.to_string()]);
        command.args(["--place", &format!("{place}  "), "--device", &self.arguments.computing.device]);
        if let Some(rest) = rest {
            command.args(["--rest", &rest.as_secs().to_string()]);
        }
        if let Some(threads) = self.arguments.computing.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(failed)?;
        let hold = |pipe| *self.leash.lock().unwrap_or_else(PoisonError::into_inner) = pipe;
        hold(child.stdin.take());
        if self.interrupted.load(Ordering::SeqCst) {
            hold(None);
        }
        let status = child.wait().map_err(failed)?;
        hold(None);
        Ok(status.code())
    }
}
