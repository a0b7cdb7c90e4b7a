//! Runs shared out over processes and machines.

use std::fmt;
use std::str::FromStr;

use super::Run;
use crate::error::{Error, Result};

/// Which runs are this process's: every `count`-th from `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// Everything.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// The shard of this `index`, from 0, out of `count`.
    ///
    /// # Errors
    /// There is no such shard.
    pub fn new(index: u64, count: u64) -> Result<Self> {
        if index >= count {
            return Err(Error::new(format!("there is no shard {} of {count}", index.saturating_add(1)))
                .hint("shards count from 1: `--shard 1/4` to `--shard 4/4`"));
        }
        Ok(Self { index, count })
    }

    /// Those of `runs` that belong to it.
    pub fn of(self, runs: Vec<Run>) -> Vec<Run> {
        let ours = |at: usize| at as u64 % self.count == self.index;
        runs.into_iter().enumerate().filter(|(at, _)| ours(*at)).map(|(_, run)| run).collect()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

/// `2/5`: the second of five.
impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
        match numbers {
            Some((index @ 1.., count)) => Self::new(index - 1, count),
            _ => Err(Error::new(format!("`{text}` names no shard")).hint("for instance `--shard 1/4`")),
        }
    }
}
