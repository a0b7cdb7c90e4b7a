//! The predictions that a run keeps: small, one below the other in one picture.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{IGNORE, Labels, RawMask, read_mask, write_index_png};
use crate::report::pictures::{fit, shrink_labels};
use crate::sweep::compare::PREDICTIONS;

/// Images of which a run keeps its prediction at most, spread evenly over the split.
const KEPT: usize = 200;
/// The longer side at which they are kept.
const SIDE: usize = 256;

/// An image whose prediction is in the strip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPrediction {
    /// Its index in the validation split.
    pub index: usize,
    /// Width and height in the strip.
    pub size: (usize, usize),
}

impl KeptPrediction {
    /// The longest side.
    pub(super) const SIDE: usize = SIDE;
}

/// The predictions of a run as they are made.
pub(super) struct Strip {
    every: usize,
    shown: Vec<KeptPrediction>,
    ids: Vec<u8>,
}

impl Strip {
    /// For a split of this many images; none keeps nothing.
    pub(super) fn new(images: usize) -> Self {
        Self { every: images.div_ceil(KEPT), shown: Vec::new(), ids: Vec::new() }
    }

    pub(super) fn offer(&mut self, index: usize, prediction: &Labels) {
        if self.every == 0 || !index.is_multiple_of(self.every) {
            return;
        }
        let size = fit(prediction.width, prediction.height, SIDE);
        let small = shrink_labels(prediction, size);
        for row in small.ids.chunks_exact(size.0) {
            self.ids.extend(row.iter().copied().chain(std::iter::repeat_n(IGNORE, SIDE - size.0)));
        }
        self.shown.push(KeptPrediction { index, size });
    }

    pub(super) fn write(self, folder: &Path, colors: &[[u8; 3]]) -> Result<Vec<KeptPrediction>> {
        if !self.shown.is_empty() {
            let labels = Labels { width: SIDE, height: self.ids.len() / SIDE, ids: self.ids };
            write_index_png(folder.join(PREDICTIONS), &labels, colors)?;
        }
        Ok(self.shown)
    }
}

/// The predictions that a run kept, in the order of `shown`.
pub(super) fn read(folder: &Path, shown: &[KeptPrediction]) -> Result<Vec<Labels>> {
    let path = folder.join(PREDICTIONS);
    let damaged = || Error::new(format!("`{}` does not fit the run's result", path.display()));
    let RawMask::Index { width: SIDE, values, .. } = read_mask(&path)? else { return Err(damaged()) };
    let mut rows = values.chunks_exact(SIDE);
    let one = |shown: &KeptPrediction| {
        let (width, height) = shown.size;
        let mut ids = Vec::with_capacity(width * height);
        for _ in 0..height {
            let row = rows.next().and_then(|row| row.get(..width)).ok_or_else(damaged)?;
            ids.extend(row.iter().map(|id| *id as u8));
        }
        Ok(Labels { width, height, ids })
    };
    shown.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let map = |width: usize, height: usize, id: u8| Labels { width, height, ids: vec![id; width * height] };
        let mut strip = Strip::new(3);
        let maps = [map(20, 10, 3), map(512, 128, 1), map(7, 300, 0)];
        maps.iter().enumerate().for_each(|(at, labels)| strip.offer(at, labels));
        let shown = strip.write(folder.path(), &[[1; 3], [2; 3], [3; 3], [4; 3]]).unwrap();
        assert_eq!(shown.iter().map(|one| one.size).collect::<Vec<_>>(), [(20, 10), (256, 64), (6, 256)]);
        let back = read(folder.path(), &shown).unwrap();
        assert_eq!(back, [map(20, 10, 3), map(256, 64, 1), map(6, 256, 0)]);
        let more = [shown.clone(), vec![KeptPrediction { index: 9, size: (5, 5) }]].concat();
        assert!(read(folder.path(), &more).unwrap_err().to_string().contains("predictions.png"));
        assert!(Strip::new(0).write(folder.path(), &[]).unwrap().is_empty());
        let mut many = Strip::new(1001);
        (0..1001).for_each(|at| many.offer(at, &maps[0]));
        assert!((150..=KEPT).contains(&many.shown.len()), "{}", many.shown.len());
    }
}
