//! The pixels of an image by class: all of it that is kept, for scores and for how sure these are.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Pixels of one class in one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// In truth and prediction.
    pub hit: u32,
    /// In the truth.
    pub truth: u32,
    /// In the prediction, where there is a truth.
    pub prediction: u32,
}

/// The counts of one image: of each class that truth or prediction hold, in the order of the classes. At most three
/// numbers a class; in JSON `[[class, hit, truth, prediction], ...]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u8, u32, u32, u32)>", into = "Vec<(u8, u32, u32, u32)>")]
pub struct ImageCounts(Vec<(u8, ClassCount)>);

impl ImageCounts {
    /// Of counts by class; those that are all 0 are left out.
    pub fn new(counts: impl IntoIterator<Item = (u8, ClassCount)>) -> Self {
        Self(counts.into_iter().filter(|(_, count)| *count != ClassCount::default()).collect())
    }

    /// The classes with their counts.
    pub fn classes(&self) -> &[(u8, ClassCount)] {
        &self.0
    }

    /// Fails where the counts cannot be those of some pixels of an image with `classes` classes: a file may hold
    /// anything.
    pub(crate) fn check_part(&self, classes: usize) -> Result<()> {
        if !self.0.is_sorted_by(|a, b| a.0 < b.0) || self.0.last().is_some_and(|(id, _)| usize::from(*id) >= classes) {
            return Err(Error::new(format!("its classes are not in order, or not below {classes}")));
        }
        if let Some((class, count)) = self.0.iter().find(|(_, count)| count.hit > count.truth.min(count.prediction)) {
            let ClassCount { hit, truth, prediction } = count;
            let both = format!("truth ({truth}) and prediction ({prediction})");
            return Err(Error::new(format!("of class {class} {hit} pixels are in both {both}")));
        }
        Ok(())
    }

    /// The same for all pixels of an image.
    pub(crate) fn check(&self, classes: usize) -> Result<()> {
        self.check_part(classes)?;
        let sum = |of: fn(&ClassCount) -> u32| self.0.iter().map(|(_, count)| u64::from(of(count))).sum::<u64>();
        let (truth, prediction) = (sum(|count| count.truth), sum(|count| count.prediction));
        if truth != prediction {
            return Err(Error::new(format!("it has {truth} true pixels and {prediction} predicted ones")));
        }
        Ok(())
    }

    /// The share of right pixels; `None` where there is no truth.
    pub fn accuracy(&self) -> Option<f64> {
        let sum = |of: fn(&ClassCount) -> u32| self.0.iter().map(|(_, count)| u64::from(of(count))).sum::<u64>();
        let truth = sum(|count| count.truth);
        (truth > 0).then(|| sum(|count| count.hit) as f64 / truth as f64)
    }
}

impl From<Vec<(u8, u32, u32, u32)>> for ImageCounts {
    fn from(rows: Vec<(u8, u32, u32, u32)>) -> Self {
        let count = |(class, hit, truth, prediction)| (class, ClassCount { hit, truth, prediction });
        Self::new(rows.into_iter().map(count))
    }
}

impl From<ImageCounts> for Vec<(u8, u32, u32, u32)> {
    fn from(counts: ImageCounts) -> Self {
        counts.0.into_iter().map(|(class, count)| (class, count.hit, count.truth, count.prediction)).collect()
    }
}

/// An image that was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counted {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) counts: ImageCounts,
}
