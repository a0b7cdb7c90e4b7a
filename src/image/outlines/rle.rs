//! COCO's run lengths: of zeros and ones in turn, down the columns, as pycocotools writes and reads them.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::image::{Labels, MAX_PIXELS};

/// Compressed run lengths of a mask, as `pycocotools.mask.encode` gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CocoRle {
    /// Height and width.
    pub size: [usize; 2],
    /// The run lengths, compressed.
    pub counts: String,
}

impl CocoRle {
    /// Those of a class.
    #[must_use]
    pub fn of(labels: &Labels, class: u8) -> Self {
        Self { size: [labels.height, labels.width], counts: compress(&coco_counts(labels, class)) }
    }

    /// The mask, `height * width` values that are 0 or 1, rows from the top.
    ///
    /// # Errors
    /// Run lengths that are damaged or do not add up to the size, and more than [`MAX_PIXELS`] of them.
    pub fn decode(&self) -> Result<Vec<u8>> {
        let (runs, [height, width]) = (decompress(&self.counts)?, self.size);
        check_runs(&runs, width, height)?;
        let mut mask = vec![0; width * height];
        let mut at = 0;
        for (turn, run) in runs.iter().enumerate() {
            let end = at + *run as usize;
            if turn % 2 == 1 {
                (at..end).for_each(|at| mask[at % height * width + at / height] = 1);
            }
            at = end;
        }
        Ok(mask)
    }
}

/// The run lengths of a class, not compressed: pixels without it and with it in turn, down the columns; the first may
/// be 0, and the sum is `width * height`.
#[must_use]
pub fn coco_counts(labels: &Labels, class: u8) -> Vec<u64> {
    let (width, height) = (labels.width, labels.height);
    let mut turns = Turns::default();
    // Columns are taken 64 at a time, so that rows are read in order.
    let mut columns = vec![Vec::new(); 64];
    for left in (0..width).step_by(64) {
        let right = width.min(left + 64);
        let (mut above, mut bits) = (&[][..], 0u64);
        for (y, row) in labels.ids.chunks_exact(width).enumerate() {
            let row = &row[left..right];
            if row == above {
                continue;
            }
            let now = row.iter().enumerate().fold(0, |bits, (at, id)| bits | u64::from(*id == class) << at);
            let mut changed = now ^ bits;
            (above, bits) = (row, now);
            while changed != 0 {
                columns[changed.trailing_zeros() as usize].push(y);
                changed &= changed - 1;
            }
        }
        for (at, column) in columns[..right - left].iter_mut().enumerate() {
            turns.column((left + at) * height, column);
            column.clear();
        }
    }
    turns.counts(width * height)
}

/// Where a mask changes between 0 and 1, down the columns.
#[derive(Default)]
struct Turns {
    counts: Vec<u64>,
    before: usize,
    inside: bool,
}

impl Turns {
    fn at(&mut self, place: usize) {
        self.counts.push((place - self.before) as u64);
        (self.before, self.inside) = (place, !self.inside);
    }

    /// A column from `start` on that begins outside, and turns at these rows.
    fn column(&mut self, start: usize, rows: &[usize]) {
        let begins_inside = rows.first() == Some(&0);
        if begins_inside != self.inside {
            self.at(start);
        }
        rows[usize::from(begins_inside)..].iter().for_each(|row| self.at(start + row));
    }

    fn counts(mut self, all: usize) -> Vec<u64> {
        self.counts.push((all - self.before) as u64);
        self.counts
    }
}

/// Run lengths as text: numbers of 5 bits a character, from the fourth run on as differences to the run two before.
pub(super) fn compress(counts: &[u64]) -> String {
    let mut text = String::new();
    for (at, count) in counts.iter().enumerate() {
        let before = if at > 2 { counts[at - 2] } else { 0 };
        let mut rest = *count as i64 - before as i64;
        loop {
            let bits = rest & 31;
            rest >>= 5;
            // The last character carries the sign.
            let more = rest != if bits & 16 != 0 { -1 } else { 0 };
            text.push(char::from(48 + bits as u8 + if more { 32 } else { 0 }));
            if !more {
                break;
            }
        }
    }
    text
}

/// Whether run lengths add up to the picture.
///
/// # Errors
/// They do not, or it is too large.
pub(crate) fn check_runs(runs: &[u64], width: usize, height: usize) -> Result<()> {
    let all = (width as u64).checked_mul(height as u64).filter(|all| *all <= MAX_PIXELS);
    let sum = runs.iter().try_fold(0u64, |sum, run| sum.checked_add(*run));
    if all.is_none() || sum != all {
        return Err(Error::new(format!("its run lengths (`counts`) do not add up to {width}x{height} pixels")));
    }
    Ok(())
}

/// Run lengths from text.
///
/// # Errors
/// Characters that are none of its.
pub(crate) fn decompress(text: &str) -> Result<Vec<u64>> {
    let wrong = || Error::new("its compressed run lengths (`counts`) are damaged");
    let mut runs: Vec<i64> = Vec::new();
    let mut bytes = text.bytes();
    while let Some(first) = bytes.next() {
        let (mut value, mut shift, mut byte) = (0i64, 0, first);
        loop {
            let bits = byte.checked_sub(48).filter(|bits| *bits < 64).ok_or_else(wrong)?;
            value |= i64::from(bits & 31) << shift;
            shift += 5;
            if bits & 32 == 0 {
                // The last character carries the sign.
                value |= if bits & 16 != 0 { -1 << shift } else { 0 };
                break;
            }
            byte = bytes.next().filter(|_| shift < 50).ok_or_else(wrong)?;
        }
        let before = if runs.len() > 2 { runs[runs.len() - 2] } else { 0 };
        runs.push(value.checked_add(before).ok_or_else(wrong)?);
    }
    runs.into_iter().map(|run| u64::try_from(run).map_err(|_| wrong())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_lengths_are_read_and_written_as_pycocotools_does() {
        // By `rleToString`.
        for (text, runs) in [("52a0", &[5, 2, 17][..]), ("61X12:", &[6, 1, 40, 3, 50]), ("", &[])] {
            assert_eq!((decompress(text).unwrap(), compress(runs)), (runs.to_vec(), text.to_string()));
        }
        let rle = |size, counts: &str| CocoRle { size, counts: counts.into() }.decode();
        assert_eq!(rle([4, 6], "52a0").unwrap().iter().enumerate().filter(|(_, one)| **one == 1).count(), 2);
        assert_eq!(rle([2, 2], "112").unwrap(), [0, 0, 1, 0]);
        assert!(rle([4, 5], "52a0").is_err() && rle([usize::MAX, 2], "52a0").is_err() && rle([0, 0], "0").is_ok());
        assert!(decompress("\u{7f}").is_err() && decompress("PPPPPPPPPPPPPPPPPPPPPP").is_err());
    }
}
