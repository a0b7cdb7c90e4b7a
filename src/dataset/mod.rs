//! Datasets: images with their label maps, from folders that a TOML describes, or generated.

pub(crate) mod accents;
pub(crate) mod blended_values;
pub(crate) mod cause;
mod combine;
pub mod description;
pub(crate) mod encoding;
mod fold;
pub mod folder;
pub(crate) mod ignore_mark;
pub mod join;
pub mod label_map;
pub mod leftover;
pub(crate) mod moved_dataset;
pub(crate) mod pairs;
pub(crate) mod palette;
pub mod shapes;
pub mod spec;
pub(crate) mod walk;

pub use combine::{JoinedSplits, Matched};
pub use fold::Fold;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::image::{Image, Labels};

/// Pictures with their label maps, in a fixed order.
pub trait Dataset: Send + Sync {
    /// How many samples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at `index`, below [`len`](Self::len); its image and labels have one size.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit the description, by name.
    fn get(&self, index: usize) -> Result<Sample>;

    /// What the sample is called: for files, the path below the image folder without its ending.
    fn name(&self, index: usize) -> String;

    /// The files that the sample at `index` is read from; none of a set that is made.
    fn files(&self, _index: usize) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The classes that the labels count.
    fn classes(&self) -> &Classes;

    /// Looks at all masks, and at the sizes of their images. `None` of a set that cannot be wrong.
    ///
    /// # Errors
    /// The first sample that [`get`](Self::get) would refuse for its mask.
    fn survey(&self) -> Result<Option<LabelCounts>> {
        Ok(None)
    }
}

/// What all masks of a set hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelCounts {
    /// Pixels of every label; the last, 255, is what is ignored.
    pub pixels: Vec<u64>,
    /// The images that hold a label, in order.
    pub holders: Vec<Vec<u32>>,
}

impl Default for LabelCounts {
    fn default() -> Self {
        Self { pixels: vec![0; 256], holders: vec![Vec::new(); 256] }
    }
}

impl LabelCounts {
    /// Of any set: its [`survey`](Dataset::survey), or what its samples say.
    ///
    /// # Errors
    /// A sample that cannot be read.
    pub fn of(dataset: &dyn Dataset) -> Result<Self> {
        if let Some(survey) = dataset.survey()? {
            return Ok(survey);
        }
        let mut survey = Self::default();
        for index in 0..dataset.len() {
            survey.add(index, &Self::count(&dataset.get(index)?.labels));
        }
        Ok(survey)
    }

    /// Pixels of every label of one image.
    pub(crate) fn count(labels: &Labels) -> [u64; 256] {
        let mut pixels = [0; 256];
        labels.ids.iter().for_each(|id| pixels[usize::from(*id)] += 1);
        pixels
    }

    /// Adds an image's pixels.
    pub(crate) fn add(&mut self, index: usize, pixels: &[u64; 256]) {
        for (label, count) in pixels.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.pixels[label] += count;
            self.holders[label].push(index as u32);
        }
    }
}

/// One picture and its labels, of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The picture.
    pub image: Image,
    /// Its class indices.
    pub labels: Labels,
}

/// Class names and the colours to show them in, by class index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// One name per class.
    pub names: Vec<String>,
    /// One RGB colour per class.
    pub colors: Vec<[u8; 3]>,
}

impl Classes {
    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// A part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To judge by.
    Val,
    /// To judge by once.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

/// A dataset whose decoded samples stay in memory, as many as fit a number of bytes; the rest is read each time. Its
/// masks are looked at once.
pub struct Cached {
    inner: Arc<dyn Dataset>,
    budget: usize,
    kept: Mutex<CachedSample>,
    surveyed: OnceLock<Option<LabelCounts>>,
}

#[derive(Default)]
struct CachedSample {
    samples: HashMap<usize, Arc<Sample>>,
    bytes: usize,
}

impl Cached {
    /// Keeps at most `budget` bytes of `inner`'s pixels and labels: the first that are asked for.
    pub fn new(inner: Arc<dyn Dataset>, budget: usize) -> Self {
        Self { inner, budget, kept: Mutex::default(), surveyed: OnceLock::new() }
    }
}

impl Dataset for Cached {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        // A thread that died while it held the lock leaves whole entries behind: they are inserted in one step.
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = lock().samples.get(&index).cloned();
        if let Some(sample) = found {
            return Ok((*sample).clone());
        }
        let sample = self.inner.get(index)?;
        let bytes = sample.image.pixels.len() + sample.labels.ids.len();
        let mut kept = lock();
        if kept.bytes + bytes <= self.budget && !kept.samples.contains_key(&index) {
            kept.bytes += bytes;
            kept.samples.insert(index, Arc::new(sample.clone()));
        }
        Ok(sample)
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }

    fn files(&self, index: usize) -> Vec<PathBuf> {
        self.inner.files(index)
    }

    fn survey(&self) -> Result<Option<LabelCounts>> {
        if let Some(known) = self.surveyed.get() {
            return Ok(known.clone());
        }
        let found = self.inner.survey()?;
        Ok(self.surveyed.get_or_init(|| found).clone())
    }

    fn classes(&self) -> &Classes {
        self.inner.classes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    struct Counting(shapes::Shapes, AtomicUsize);

    impl Dataset for Counting {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn get(&self, index: usize) -> Result<Sample> {
            self.1.fetch_add(1, Relaxed);
            self.0.get(index)
        }

        fn name(&self, index: usize) -> String {
            self.0.name(index)
        }

        fn classes(&self) -> &Classes {
            self.0.classes()
        }
    }

    #[test]
    fn the_cache_keeps_what_fits_and_changes_nothing() {
        let shapes = shapes::Shapes::new(1, Split::Val, 4, 64);
        let inner = Arc::new(Counting(shapes.clone(), AtomicUsize::new(0)));
        let cached = Cached::new(inner.clone(), 3 * 64 * 64 * 4);
        for _ in 0..3 {
            for index in 0..4 {
                assert_eq!(cached.get(index).unwrap(), shapes.get(index).unwrap());
            }
        }
        assert_eq!(inner.1.load(Relaxed), 3 + 3, "three are kept, the fourth is read three times");
    }
}
