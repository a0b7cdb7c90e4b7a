//! IoU from counts per class: pixels of truth, of prediction and of both, added up over images, without a matrix.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::metrics::image_counts::{ClassCount, ImageCounts};
use crate::stats::{mean_of_some, ratio};

/// Pixels of each class in truth, prediction and both. In JSON `[[hit, truth, prediction], ...]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overlaps(Vec<[u64; 3]>);

impl Overlaps {
    /// Nothing counted, for `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self(vec![[0; 3]; classes])
    }

    /// Pixels of each class in both, in the truth and in the prediction.
    pub(crate) fn of(counts: impl Iterator<Item = [u64; 3]>) -> Self {
        Self(counts.collect())
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.0.len()
    }

    /// Counts one pixel.
    pub fn count(&mut self, truth: u8, prediction: u8) {
        let (truth, prediction) = (usize::from(truth), usize::from(prediction));
        self.0[truth][0] += u64::from(truth == prediction);
        self.0[truth][1] += 1;
        self.0[prediction][2] += 1;
    }

    /// Adds the counts of an image.
    pub fn add(&mut self, image: &ImageCounts) {
        for (class, count) in image.classes() {
            let sums = &mut self.0[usize::from(*class)];
            for (sum, more) in sums.iter_mut().zip([count.hit, count.truth, count.prediction]) {
                *sum += u64::from(more);
            }
        }
    }

    /// Adds other counts of the same classes.
    ///
    /// # Errors
    /// Sums that are too large.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        assert_eq!(self.classes(), other.classes(), "counts of different classes");
        let pairs = self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened());
        pairs.into_iter().try_for_each(|(sum, more)| increase(sum, *more))
    }

    /// Pixels of `class` in both, in the truth and in the prediction.
    pub(crate) fn of_class(&self, class: usize) -> [u64; 3] {
        self.0[class]
    }

    /// The same, as those of one image.
    pub(crate) fn image_counts(&self) -> ImageCounts {
        let count = |[hit, truth, prediction]: [u64; 3]| {
            let [hit, truth, prediction] = [hit, truth, prediction].map(|pixels| pixels as u32);
            ClassCount { hit, truth, prediction }
        };
        ImageCounts::new(self.0.iter().enumerate().map(|(class, sums)| (class as u8, count(*sums))))
    }

    /// Fails where the counts called `field` cannot be: a file may hold anything. `whole` counts all pixels, these some
    /// of them.
    pub(crate) fn check(&self, field: &str, whole: &Self) -> Result<()> {
        if self.classes() != whole.classes() {
            let (here, there) = (self.classes(), whole.classes());
            return Err(Error::new(format!("`{field}` counts {here} classes, and the confusion matrix {there}")));
        }
        for (class, (counts, all)) in self.0.iter().zip(&whole.0).enumerate() {
            let [hit, truth, prediction] = *counts;
            if hit > truth || hit > prediction {
                return Err(Error::new(format!(
                    "`{field}[{class}]`: {hit} pixels are in both truth ({truth}) and prediction ({prediction})"
                )));
            }
            if counts.iter().zip(all).any(|(part, all)| part > all) {
                return Err(Error::new(format!(
                    "`{field}[{class}]`: {counts:?} are more pixels than the {all:?} of the confusion matrix"
                )));
            }
        }
        Ok(())
    }

    /// IoU of each class; `None` where neither truth nor prediction hold it.
    pub fn ious(&self) -> Vec<Option<f64>> {
        // A file may hold anything: no sum or difference that could fail.
        let union = |[hit, truth, prediction]: [u64; 3]| truth.saturating_add(prediction).saturating_sub(hit);
        self.0.iter().map(|sums| ratio(sums[0], union(*sums))).collect()
    }

    /// The mean of [`ious`](Self::ious) over the classes that have one.
    pub fn miou(&self) -> Option<f64> {
        mean_of_some(self.ious().into_iter())
    }

    /// Pixels of the truth.
    pub fn pixels(&self) -> u64 {
        self.0.iter().fold(0, |sum, [_, truth, _]| sum.saturating_add(*truth))
    }

    /// The share of right pixels.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.0.iter().fold(0, |sum, [hit, ..]| sum.saturating_add(*hit)), self.pixels())
    }
}

/// Adds to a count of a file, which may be any number.
pub(crate) fn increase(sum: &mut u64, more: u64) -> Result<()> {
    *sum = sum.checked_add(more).ok_or_else(|| Error::new("the counts together are too large to be true"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Labels;
    use crate::metrics::Confusion;

    #[test]
    fn counts_give_the_scores_of_the_matrix() {
        let labels = |ids: &[u8]| Labels { width: ids.len(), height: 1, ids: ids.to_vec() };
        let (truth, prediction) = ([0, 0, 1, 3, 3], [0, 1, 1, 3, 0]);
        let mut confusion = Confusion::new(5);
        confusion.add(&labels(&truth), &labels(&prediction)).unwrap();
        let mut by_pixel = Overlaps::new(5);
        truth.iter().zip(prediction).for_each(|(truth, prediction)| by_pixel.count(*truth, prediction));
        let mut by_image = Overlaps::new(5);
        by_image.add(&confusion.image_counts());
        assert_eq!((&by_pixel, &confusion.overlaps()), (&by_image, &by_image));
        let names: Vec<String> = (0..5).map(|i| i.to_string()).collect();
        let scores = confusion.scores(&names);
        assert_eq!(by_pixel.ious(), scores.classes.iter().map(|class| class.iou).collect::<Vec<_>>());
        assert_eq!((by_pixel.miou(), by_pixel.accuracy(), by_pixel.pixels()), (scores.miou, scores.aacc, 5));
        by_pixel.merge(&by_image).unwrap();
        assert_eq!((by_pixel.miou(), by_pixel.pixels()), (scores.miou, 10));
        assert_eq!((Overlaps::new(2).miou(), Overlaps::new(2).accuracy()), (None, None));
    }
}
