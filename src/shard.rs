//! Work shared out over processes and machines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which pieces are this process's: every `count`-th from `index` on. Written as `2/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
                .with_hint("shards count from 1: `--shard 1/4` to `--shard 4/4`"));
        }
        Ok(Self { index, count })
    }

    /// Those of `pieces` that belong to it.
    pub fn of<T>(self, pieces: impl IntoIterator<Item = T>) -> Vec<T> {
        let ours = |at: usize| at as u64 % self.count == self.index;
        pieces.into_iter().enumerate().filter(|(at, _)| ours(*at)).map(|(_, piece)| piece).collect()
    }

    /// Whether the piece of this number, from 0, belongs to it.
    pub fn has(self, piece: u64) -> bool {
        piece % self.count == self.index
    }

    /// Which of `pieces` belong to it, by their numbers from 0.
    pub fn range(self, pieces: usize) -> impl Iterator<Item = usize> {
        let (first, step) = (usize::try_from(self.index), usize::try_from(self.count));
        (first.unwrap_or(usize::MAX)..pieces).step_by(step.unwrap_or(usize::MAX))
    }

    /// All shards of `count`.
    pub fn all(count: u64) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self { index, count })
    }

    /// Its number, from 0.
    pub fn index(self) -> u64 {
        self.index
    }

    /// How many shards there are.
    pub fn count(self) -> u64 {
        self.count
    }
}

impl TryFrom<String> for Shard {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
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
            Some((0, count)) => Err(Error::new(format!("there is no shard 0 of {count}"))
                .with_hint("shards count from 1: `--shard 1/4` to `--shard 4/4`")),
            None => Err(Error::new(format!("`{text}` is not a shard")).with_hint("for instance `--shard 1/4`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_in_one_shard() {
        for (pieces, count) in [(10, 3), (2, 5), (0, 2), (7, 1)] {
            let mut all: Vec<usize> = Shard::all(count).flat_map(|shard| shard.range(pieces)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..pieces).collect::<Vec<_>>());
            assert!(Shard::all(count).all(|shard| shard.range(pieces).all(|piece| shard.has(piece as u64))));
            assert!(Shard::all(count).all(|shard| shard.of(0..pieces) == shard.range(pieces).collect::<Vec<_>>()));
        }
        let text = serde_json::to_string(&"2/5".parse::<Shard>().unwrap()).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str::<Shard>(&text).unwrap().count()), ("\"2/5\"", 5));
        assert!(["0/2", "3/2", "1", "a/b", "1/0"].iter().all(|text| text.parse::<Shard>().is_err()));
    }
}
