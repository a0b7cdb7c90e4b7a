//! Training by several processes: what those do that are not the first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cli::console::on_interrupt;
use crate::cli::{Computing, End};
use crate::error::{Error, Result};
use crate::eval::Evaluated;
use crate::group::Group;
use crate::train::{Observer, Stop};
use crate::{device, plan, run};

/// Runs `work` as one of the processes that MPI has started. Where it fails all of them end.
#[cfg(feature = "mpi")]
pub(crate) fn by_mpi(work: impl FnOnce(&dyn Group) -> Result<End>) -> Result<End> {
    let group = crate::group::Mpi::start()?;
    let end = work(&group);
    let end = crate::cli::console::finish_output(end);
    if let Err(error) = &end
        && group.size() > 1
    {
        talk!("process {} of {}:", group.rank(), group.size());
        crate::cli::report(error);
        group.abort();
    }
    end
}

/// Fails where MPI has started several processes of a command that knows nothing of the others.
pub(crate) fn ensure_alone() -> Result<()> {
    let of = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().find_map(of) {
        Some(size @ 2..) => Err(Error::usage(format!("{size} processes were started for one run, without --mpi"))
            .with_hint(match cfg!(feature = "mpi") {
                true => "add --mpi, and they share its work",
                false => "build the program with `--features mpi` and add --mpi, or start it without mpirun",
            })),
        _ => Ok(()),
    }
}

/// A run in the folder and with the recipe that the first process has sent.
pub(crate) fn follow(resume: bool, computing: &Computing, group: &dyn Group) -> Result<End> {
    let (device, _) = device::open(&computing.device)?;
    let mut observer = Follower(on_interrupt(|| ())?);
    let folder = PathBuf::from(group.agree(String::new())?);
    let config = run::run_recipe(group, None)?;
    let mut options = run::RunOptions::new(&folder, &device);
    (options.resume, options.group) = (resume, group);
    let outcome = run::train_with_restarts(&config, &options, Duration::ZERO, &mut observer)?;
    Ok(if outcome.interrupted { End::Interrupted } else { End::Done })
}

/// Measures with the first process what its plan takes on all of them.
pub(crate) fn follow_plan(computing: &Computing, group: &dyn Group) -> Result<End> {
    let (device, _) = device::open(&computing.device)?;
    plan::processes::measure(None, &device, group)?;
    Ok(End::Done)
}

/// Sends the others what they need to follow.
pub(crate) fn lead(group: &dyn Group, folder: &Path, config: &crate::config::Config) -> Result<()> {
    if group.is_alone() {
        return Ok(());
    }
    group.agree(crate::text::utf8(folder)?.to_owned())?;
    run::run_recipe(group, Some(config.clone())).map(drop)
}

/// Says nothing: the first process does. Stops when told.
struct Follower(Arc<AtomicBool>);

impl Follower {
    fn flag(&self) -> Stop {
        if self.0.load(Ordering::SeqCst) { Stop::Save } else { Stop::No }
    }
}

impl Observer for Follower {
    fn evaluating(&mut self, _image: &Evaluated, _all: usize) -> Stop {
        self.flag()
    }

    fn stop(&mut self, _iteration: u64) -> Stop {
        self.flag()
    }
}
