//! Processes that do one piece of work together, in step: what they send each other.
//!
//! A [`Group`] only moves data. What is added, and in which order, is decided here ([`ordered_sum`]), so that a sum has
//! the same bytes on any number of processes.

pub mod link;
#[cfg(feature = "mpi")]
mod mpi;
pub mod ordered_sum;
mod threads;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use threads::{Thread, threads};

use crate::error::{Error, Result};

/// One of several processes that work in step. Every method but [`rank`](Self::rank) and [`size`](Self::size) is called
/// by all of them, in the same order, each on any one of its threads.
///
/// # Errors
/// All others fail where a process has left the group.
pub trait Group: Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends the values from `bounds[r]` to `bounds[r + 1]` to process `r`, and returns what every process sent to this
    /// one, by rank, with the bounds of that.
    fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)>;

    /// What every process has, by rank.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Fills `values` from `bounds[r]` to `bounds[r + 1]` with what process `r` has, for every `r`; this one has `own`.
    fn complete(&self, own: &[f32], values: &mut [f32], bounds: &[usize]) -> Result<()> {
        let each: Vec<usize> = (0..=self.size()).map(|rank| rank * own.len()).collect();
        let (found, _) = self.exchange(&own.repeat(self.size()), &each)?;
        values[bounds[0]..bounds[self.size()]].copy_from_slice(&found);
        Ok(())
    }

    /// What the first process has.
    fn broadcast(&self, own: &[u8]) -> Result<Vec<u8>> {
        let own = if self.rank() == 0 { own } else { &[] };
        Ok(self.gather(own)?.swap_remove(0))
    }

    /// Says whether threads of these processes compute while others wait here, which then leave the processor to them.
    fn computes(&self, _computes: bool) {}

    /// Waits for all others.
    fn barrier(&self) -> Result<()> {
        self.gather(&[]).map(drop)
    }
}

/// A process by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        Ok((values[bounds[0]..bounds[1]].to_vec(), vec![0, bounds[1] - bounds[0]]))
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }
}

impl dyn Group + '_ {
    /// Whether this is a process by itself.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is the process that writes and reports.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Whether it is so for any process.
    ///
    /// # Errors
    /// As those of [`Group`].
    pub fn any(&self, flag: bool) -> Result<bool> {
        if self.is_alone() {
            return Ok(flag);
        }
        Ok(self.gather(&[u8::from(flag)])?.iter().any(|flag| flag != &[0]))
    }

    /// The values of all processes, by rank.
    ///
    /// # Errors
    /// As those of [`Group`], or a value that is no JSON.
    pub fn gather_values<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>> {
        self.gather(&encode(own)?)?.iter().map(|bytes| decode(bytes)).collect()
    }

    /// The value of the first process, for all.
    ///
    /// # Errors
    /// As `gather_values`.
    pub fn agree<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<T> {
        if self.is_alone() {
            return Ok(own);
        }
        decode(&self.broadcast(&encode(&own)?)?)
    }

    /// Gives all processes their results if all are good, and otherwise all of them the first error.
    ///
    /// # Errors
    /// One of them has one, or as those of [`Group`].
    pub fn all_or_none<T>(&self, own: Result<T>) -> Result<T> {
        if self.is_alone() {
            return own;
        }
        let fault = own.as_ref().err().map(|error| (error.to_string(), error.hint().map(str::to_owned)));
        let faults = self.gather_values(&fault)?;
        let Some((rank, (text, hint))) = faults.into_iter().enumerate().find_map(|(rank, fault)| Some((rank, fault?)))
        else {
            return own;
        };
        if rank == self.rank() {
            return own;
        }
        let error = Error::new(format!("process {rank} of {} failed: {text}", self.size()));
        Err(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::new("cannot send a value to other processes").with_source(error))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::new("another process sent what cannot be read")
            .with_source(error)
            .with_hint("start the same version of the program everywhere")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What every process of a group of `size` makes of it.
    pub(crate) fn together<T: Send>(size: usize, work: impl Fn(&dyn Group) -> T + Sync) -> Vec<T> {
        let work = &work;
        std::thread::scope(|scope| {
            let threads: Vec<_> = threads(size).into_iter().map(|member| scope.spawn(move || work(&member))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn what_is_sent_arrives() {
        for size in [1, 2, 3, 5] {
            let found = together(size, |group| {
                let rank = group.rank();
                let parts: Vec<f32> = (0..size).flat_map(|to| vec![(10 * rank + to) as f32; rank + 1]).collect();
                let bounds: Vec<usize> = (0..=size).map(|to| to * (rank + 1)).collect();
                let (received, bounds) = group.exchange(&parts, &bounds).unwrap();
                for from in 0..size {
                    let part = &received[bounds[from]..bounds[from + 1]];
                    assert_eq!(part, vec![(10 * from + rank) as f32; from + 1]);
                }
                let bounds: Vec<usize> = (0..=size).map(|rank| rank * 2).collect();
                let mut values = vec![-1.0; 2 * size];
                group.complete(&[rank as f32, 0.5], &mut values, &bounds).unwrap();
                assert!((0..size).all(|rank| values[2 * rank..][..2] == [rank as f32, 0.5]));
                assert_eq!(group.agree(rank).unwrap(), 0);
                assert_eq!(group.gather_values(&rank).unwrap(), (0..size).collect::<Vec<_>>());
                assert!(group.any(rank == size - 1).unwrap() && !group.any(false).unwrap());
                group.barrier().unwrap();
                rank
            });
            assert_eq!(found, (0..size).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_is_everybodys() {
        let found = together(4, |group| {
            let rank = group.rank();
            let own = if rank >= 2 { Err(Error::new(format!("fault {rank}")).with_hint("mend it")) } else { Ok(rank) };
            let error = group.all_or_none(own).unwrap_err();
            (error.to_string(), error.hint().unwrap().to_owned(), group.all_or_none(Ok(rank)).unwrap())
        });
        let expected = ["process 2 of 4 failed: fault 2", "process 2 of 4 failed: fault 2", "fault 2"];
        for (rank, (error, hint, good)) in found.iter().enumerate() {
            let expected = expected.get(rank).unwrap_or(&expected[0]);
            assert_eq!((error.as_str(), hint.as_str(), *good), (*expected, "mend it", rank));
        }
    }
}
