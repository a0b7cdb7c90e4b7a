//! Pools of threads that kernels share: one for each number of threads, in each process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use structtoken::{Error, Result};

use crate::errors::OrRaise;
use crate::numbers::Whole;

/// As much as a main thread has.
const STACK: usize = 8 << 20;

/// Pools by their number of threads, with the process that started them. A process that was forked has none of its parent's
/// threads.
static POOLS: Mutex<BTreeMap<usize, (u32, Arc<ThreadPool>)>> = Mutex::new(BTreeMap::new());

/// A number of threads that can be had; 0 is one per core.
pub(crate) fn count(py: Python<'_>, name: &str, threads: Option<Whole>) -> PyResult<usize> {
    threads.map_or(Ok(0), |threads| threads.size(py, name, 1, 1024))
}

/// The pool of this many threads, which all share.
///
/// # Errors
/// The system starts none.
pub(crate) fn pool(py: Python<'_>, count: usize) -> PyResult<Arc<ThreadPool>> {
    // Whoever waits for the lock of the pools does so without the interpreter's, and whoever has it runs no Python: an
    // exception is made when it is free again.
    py.detach(|| shared(count)).or_raise(py)
}

fn shared(count: usize) -> Result<Arc<ThreadPool>> {
    let process = std::process::id();
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((started_by, pool)) = pools.get(&count) {
        if *started_by == process {
            return Ok(Arc::clone(pool));
        }
        // Its threads are the parent's: there is nobody here to end.
        std::mem::forget(Arc::clone(pool));
    }
    let pool = Arc::new(start(count)?);
    pools.insert(count, (process, Arc::clone(&pool)));
    Ok(pool)
}

/// A pool of this many threads for one piece of work: it may wait for Python, which may ask for work on a shared pool meanwhile.
///
/// # Errors
/// The system starts none.
pub(crate) fn own_pool(py: Python<'_>, count: usize) -> PyResult<ThreadPool> {
    py.detach(|| start(count)).or_raise(py)
}

fn start(count: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(count)
        .stack_size(STACK)
        .thread_name(|at| format!("structtoken-{at}"))
        .build()
        .map_err(|error| {
            Error::new("cannot start the CPU threads")
                .with_source(error)
                .with_hint("pass threads=1, or allow more processes (`ulimit -u`) and memory (`ulimit -v`)")
        })
}

/// Runs `work` on a thread of the pool, without the interpreter's lock.
///
/// # Errors
/// As [`pool`], and what `work` answers.
pub(crate) fn compute<T: Send>(py: Python<'_>, count: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    let pool = pool(py, count)?;
    py.detach(|| pool.install(work)).or_raise(py)
}
