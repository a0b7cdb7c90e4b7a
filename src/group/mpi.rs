//! Processes that MPI has started. MPI moves the data, and adds nothing: the order of its sums may change with the
//! algorithm that it chooses.

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use crate::error::{Error, Result};
use crate::group::Group;

/// All processes of this start (`MPI_COMM_WORLD`). Used by the thread that starts it.
///
/// What goes wrong within MPI, a process that is gone for instance, ends all of them: its usual way, which says so on
/// stderr.
pub struct Mpi {
    world: SimpleCommunicator,
    /// The last to be dropped: it waits for all others.
    _universe: Universe,
}

impl Mpi {
    /// Joins the others.
    ///
    /// # Errors
    /// MPI is in use by this process already.
    pub fn start() -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::new("MPI is in use by this process already"))?;
        Ok(Self { world: universe.world(), _universe: universe })
    }

    /// Ends all processes at once: the others would wait for this one.
    pub fn abort(&self) -> ! {
        self.world.abort(1)
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
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        let values = &values[bounds[0]..];
        let (lengths, starts) = counts(bounds.windows(2).map(|part| part[1] - part[0]))?;
        let mut theirs = vec![0i32; lengths.len()];
        self.world.all_to_all_into(&lengths[..], &mut theirs[..]);
        let (theirs, their_starts) = counts(theirs.into_iter().map(|length| length as usize))?;
        let mut ends = vec![0];
        ends.extend(theirs.iter().zip(&their_starts).map(|(length, start)| (length + start) as usize));
        let mut received = vec![0f32; ends[ends.len() - 1]];
        let send = Partition::new(values, lengths, starts);
        let mut into = PartitionMut::new(&mut received[..], theirs, their_starts);
        self.world.all_to_all_varcount_into(&send, &mut into);
        drop(into);
        Ok((received, ends))
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut lengths = vec![0i32; self.size()];
        let (length, _) = counts([own.len()])?;
        self.world.all_gather_into(&length[0], &mut lengths[..]);
        let (lengths, starts) = counts(lengths.into_iter().map(|length| length as usize))?;
        let mut all = vec![0u8; lengths.iter().map(|length| *length as usize).sum()];
        let mut into = PartitionMut::new(&mut all[..], &lengths[..], starts);
        self.world.all_gather_varcount_into(own, &mut into);
        drop(into);
        Ok(split(&all, &lengths))
    }

    fn complete(&self, own: &[f32], values: &mut [f32], bounds: &[usize]) -> Result<()> {
        let (lengths, starts) = counts(bounds.windows(2).map(|part| part[1] - part[0]))?;
        let into = &mut values[bounds[0]..];
        self.world.all_gather_varcount_into(own, &mut PartitionMut::new(into, lengths, starts));
        Ok(())
    }

    fn broadcast(&self, own: &[u8]) -> Result<Vec<u8>> {
        let root = self.world.process_at_rank(0);
        let mut length = own.len() as u64;
        root.broadcast_into(&mut length);
        let mut bytes = if self.rank() == 0 { own.to_vec() } else { vec![0; length as usize] };
        root.broadcast_into(&mut bytes[..]);
        Ok(bytes)
    }

    fn barrier(&self) -> Result<()> {
        self.world.barrier();
        Ok(())
    }
}
