//! Processes that MPI has started. MPI moves the data, and adds nothing: the order of its sums may change with the
//! algorithm that it chooses.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::request::{self, LocalScope, Request};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use crate::error::{Error, Result};
use crate::group::Group;

/// All processes of this start (`MPI_COMM_WORLD`). Any thread may use it; started and dropped by one.
///
/// What goes wrong within MPI, a process that is gone for instance, ends all of them: its usual way, which says so on
/// stderr.
pub struct Mpi {
    /// MPI serves one thread at a time.
    world: Mutex<World>,
    rank: usize,
    size: usize,
    /// Whether other threads compute while one waits, in all processes alike: what does not wait is another operation.
    computes: AtomicBool,
    /// The last to be dropped: it waits for all others.
    _universe: Universe,
    /// MPI ends in the thread that started it.
    _stays: PhantomData<MutexGuard<'static, ()>>,
}

struct World(SimpleCommunicator);

// SAFETY: a communicator is a handle that every thread of the process may use where MPI was started for more than one
// (`MPI_THREAD_SERIALIZED`), one after the other: it lies behind a mutex.
unsafe impl Send for World {}

impl Mpi {
    /// Joins the others.
    ///
    /// # Errors
    /// MPI is in use by this process already, or serves none but the thread that starts it.
    pub fn start() -> Result<Self> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| Error::new("MPI is in use by this process already"))?;
        if threading < Threading::Serialized {
            return Err(Error::new("this MPI library cannot be used by several threads")
                .with_hint("use Open MPI or MPICH as Debian builds them: with MPI_THREAD_SERIALIZED or more"));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        Ok(Self {
            world: Mutex::new(World(world)),
            rank,
            size,
            computes: AtomicBool::new(false),
            _universe: universe,
            _stays: PhantomData,
        })
    }

    /// Ends all processes at once: the others would wait for this one.
    pub fn abort(&self) -> ! {
        match self.world.try_lock() {
            Ok(world) => world.0.abort(1),
            Err(TryLockError::Poisoned(world)) => world.into_inner().0.abort(1),
            // Another thread waits for others within MPI.
            Err(TryLockError::WouldBlock) => std::process::abort(),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        }
    }
}

/// Lengths, and where each of them starts, as MPI counts.
fn counts(lengths: impl IntoIterator<Item = usize>) -> Result<(Vec<i32>, Vec<i32>)> {
    let (mut lengths_found, mut starts, mut sum) = (Vec::new(), Vec::new(), 0usize);
    for length in lengths {
        let fits =
            |count: usize| i32::try_from(count).map_err(|_| Error::new("too many values for one message of MPI"));
        lengths_found.push(fits(length)?);
        starts.push(fits(sum)?);
        sum += length;
    }
    Ok((lengths_found, starts))
}

/// Waits for what has been sent and is to be received, and leaves the processor to others: the waiting of MPI itself
/// keeps one busy.
fn wait<'a, T: ?Sized>(mut request: Request<'a, T, &LocalScope<'a>>) {
    /// How long it sleeps at a time: MPI moves data while it is asked, and buffers hold what comes in between.
    const SLEEP: RangeInclusive<Duration> = Duration::from_micros(50)..=Duration::from_millis(1);
    let began = Instant::now();
    while let Err(pending) = request.test() {
        request = pending;
        std::thread::sleep((began.elapsed() / 8).clamp(*SLEEP.start(), *SLEEP.end()));
    }
}

fn split<T: Clone>(values: &[T], lengths: &[i32]) -> Vec<Vec<T>> {
    let mut rest = values;
    let cut = |length: &i32| {
        let (own, after) = rest.split_at(*length as usize);
        rest = after;
        own.to_vec()
    };
    lengths.iter().map(cut).collect()
}

impl Group for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let (values, world) = (&values[bounds[0]..], self.world());
        let (lengths, starts) = counts(bounds.windows(2).map(|part| part[1] - part[0]))?;
        let mut theirs = vec![0i32; lengths.len()];
        let computes = self.computes.load(Ordering::Relaxed);
        match computes {
            true => request::scope(|scope| {
                wait(world.0.immediate_all_to_all_into(scope, &lengths[..], &mut theirs[..]));
            }),
            false => world.0.all_to_all_into(&lengths[..], &mut theirs[..]),
        }
        let (theirs, their_starts) = counts(theirs.into_iter().map(|length| length as usize))?;
        let mut ends = vec![0];
        ends.extend(theirs.iter().zip(&their_starts).map(|(length, start)| (length + start) as usize));
        let mut received = vec![0f32; ends[ends.len() - 1]];
        let send = Partition::new(values, lengths, starts);
        let mut into = PartitionMut::new(&mut received[..], theirs, their_starts);
        match computes {
            true => request::scope(|scope| wait(world.0.immediate_all_to_all_varcount_into(scope, &send, &mut into))),
            false => world.0.all_to_all_varcount_into(&send, &mut into),
        }
        drop(into);
        Ok((received, ends))
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let world = self.world();
        let mut lengths = vec![0i32; self.size()];
        let (length, _) = counts([own.len()])?;
        world.0.all_gather_into(&length[0], &mut lengths[..]);
        let (lengths, starts) = counts(lengths.into_iter().map(|length| length as usize))?;
        let mut all = vec![0u8; lengths.iter().map(|length| *length as usize).sum()];
        let mut into = PartitionMut::new(&mut all[..], &lengths[..], starts);
        world.0.all_gather_varcount_into(own, &mut into);
        drop(into);
        Ok(split(&all, &lengths))
    }

    fn complete(&self, own: &[f32], values: &mut [f32], bounds: &[usize]) -> Result<()> {
        let (lengths, starts) = counts(bounds.windows(2).map(|part| part[1] - part[0]))?;
        let world = self.world();
        let mut into = PartitionMut::new(&mut values[bounds[0]..], lengths, starts);
        match self.computes.load(Ordering::Relaxed) {
            true => request::scope(|scope| wait(world.0.immediate_all_gather_varcount_into(scope, own, &mut into))),
            false => world.0.all_gather_varcount_into(own, &mut into),
        }
        Ok(())
    }

    fn broadcast(&self, own: &[u8]) -> Result<Vec<u8>> {
        let world = self.world();
        let root = world.0.process_at_rank(0);
        let mut length = own.len() as u64;
        root.broadcast_into(&mut length);
        let mut bytes = if self.rank() == 0 { own.to_vec() } else { vec![0; length as usize] };
        root.broadcast_into(&mut bytes[..]);
        Ok(bytes)
    }

    fn computes(&self, computes: bool) {
        self.computes.store(computes, Ordering::Relaxed);
    }

    fn barrier(&self) -> Result<()> {
        self.world().0.barrier();
        Ok(())
    }
}
