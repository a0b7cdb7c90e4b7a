//! How the values of a mask lie beside each other: in regions, or pixel by pixel.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// More runs of equal pixels than this are those of noise, in which nothing is looked for.
const MOST_RUNS: usize = 1 << 20;

/// What is known of a mask, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Texture {
    pub(crate) pixels: u64,
    /// Pixels that differ from those on all four sides.
    pub(crate) alone: u64,
    /// Values beside 0 or black, and how many of them are one connected region; summed over masks.
    pub(crate) values: usize,
    pub(crate) single: usize,
}

impl Texture {
    /// Of rows of `width` pixels; `blank` is 0 or black.
    pub(super) fn of<T: Copy + Eq + Hash>(values: &[T], width: usize, blank: T) -> Self {
        let width = width.max(1);
        let regions = regions(values, width);
        let counted = || regions.iter().flatten().filter(|(value, _)| **value != blank);
        Self {
            pixels: values.len() as u64,
            alone: alone(values, width),
            values: counted().count(),
            single: counted().filter(|(_, count)| **count == 1).count(),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.pixels += other.pixels;
        self.alone += other.alone;
        self.values += other.values;
        self.single += other.single;
    }

    /// Nearly every value is one region in its mask, as objects are.
    pub(crate) fn is_of_objects(&self) -> bool {
        self.values > 0 && self.single * 100 >= self.values * 85
    }

    /// The share of pixels that are alone, as dithering leaves many.
    pub(crate) fn speckled(&self) -> f64 {
        self.alone as f64 / self.pixels.max(1) as f64
    }
}

fn alone<T: Copy + Eq>(values: &[T], width: usize) -> u64 {
    let height = values.len() / width;
    let mut count = 0;
    for y in 1..height.saturating_sub(1) {
        let [above, row, below] = [y - 1, y, y + 1].map(|y| &values[y * width..(y + 1) * width]);
        for x in 1..width.saturating_sub(1) {
            let value = row[x];
            let differs = value != row[x - 1] && value != row[x + 1] && value != above[x] && value != below[x];
            count += u64::from(differs);
        }
    }
    count
}

/// How many connected regions each value has, corners connecting too. `None` of noise.
fn regions<T: Copy + Eq + Hash>(values: &[T], width: usize) -> Option<HashMap<T, usize>> {
    struct Span<T> {
        value: T,
        start: usize,
        end: usize,
        id: usize,
    }
    fn root(parents: &mut [usize], mut at: usize) -> usize {
        while parents[at] != at {
            parents[at] = parents[parents[at]];
            at = parents[at];
        }
        at
    }
    let mut parents: Vec<usize> = Vec::new();
    let mut owners: Vec<T> = Vec::new();
    let mut before: Vec<Span<T>> = Vec::new();
    for row in values.chunks(width) {
        let mut runs: Vec<Span<T>> = Vec::new();
        let mut start = 0;
        // Runs of both rows are in order: those above that end before this one begins are done.
        let mut first = 0;
        for run in row.chunk_by(|a, b| a == b) {
            let (value, end, id) = (run[0], start + run.len(), parents.len());
            parents.push(id);
            owners.push(value);
            while before.get(first).is_some_and(|above| above.end < start) {
                first += 1;
            }
            for above in before[first..].iter().take_while(|above| above.start <= end) {
                if above.value == value {
                    let (a, b) = (root(&mut parents, above.id), root(&mut parents, id));
                    parents[a.max(b)] = a.min(b);
                }
            }
            runs.push(Span { value, start, end, id });
            start = end;
        }
        if parents.len() > MOST_RUNS {
            return None;
        }
        before = runs;
    }
    let mut counts: HashMap<T, usize> = HashMap::new();
    for at in (0..parents.len()).filter(|at| parents[*at] == *at) {
        *counts.entry(owners[at]).or_default() += 1;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_counted() {
        #[rustfmt::skip]
        let values = [
            0, 1, 1, 0, 2,
            0, 1, 0, 2, 0,
            3, 0, 0, 0, 3,
            3, 3, 3, 3, 3,
        ];
        let found = regions(&values, 5).unwrap();
        assert_eq!([found[&0], found[&1], found[&2], found[&3]], [1, 1, 1, 1], "corners connect");
        let texture = Texture::of(&values, 5, 0);
        assert_eq!((texture.values, texture.single), (3, 3));
        assert_eq!(regions(&[1, 0, 1, 0, 1], 5).unwrap()[&1], 3);
        assert_eq!(Texture::of(&[1, 0, 1, 0, 1], 5, 0).single, 0);
        assert_eq!(Texture::of::<u16>(&[], 0, 0), Texture::default());
    }

    #[test]
    fn dithered_pixels_are_alone() {
        let dithered: Vec<u16> = (0..64).map(|at| (at % 8 + at / 8) % 2).collect();
        assert_eq!(Texture::of(&dithered, 8, 0).alone, 36);
        let halves: Vec<u16> = (0..64).map(|at| u16::from(at % 8 > 3)).collect();
        assert_eq!(Texture::of(&halves, 8, 0).alone, 0);
    }
}
