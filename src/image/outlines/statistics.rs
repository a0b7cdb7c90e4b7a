//! How much of an image each class covers.

use serde::Serialize;

use crate::image::outlines::name;
use crate::image::regions::sweep;
use crate::image::{IGNORE, Labels};

/// What a label map holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Pixels that are labelled 255.
    pub ignored: u64,
    /// The classes that have pixels, by their index.
    pub classes: Vec<ClassStatistics>,
}

/// What a label map holds of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassStatistics {
    /// Its index.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its pixels.
    pub pixels: u64,
    /// Its share of all pixels of the image, from 0 to 1.
    pub share: f64,
    /// Its regions (4-connected).
    pub regions: u64,
}

/// Counts the pixels and regions of each class. `names` are those of the classes; a class without one is called by its
/// number.
#[must_use]
pub fn statistics(labels: &Labels, names: &[String]) -> Statistics {
    let (mut pixels, mut regions) = ([0u64; 256], [0u64; 256]);
    labels.ids.iter().for_each(|id| pixels[usize::from(*id)] += 1);
    for (_, class, _) in sweep(labels, &[], |_, _, _| {}).labeled() {
        regions[usize::from(class)] += 1;
    }
    let all = labels.ids.len() as f64;
    let of = |id: u8| {
        let (pixels, regions) = (pixels[usize::from(id)], regions[usize::from(id)]);
        ClassStatistics { id, name: name(names, id), pixels, share: pixels as f64 / all, regions }
    };
    Statistics {
        width: labels.width,
        height: labels.height,
        ignored: pixels[usize::from(IGNORE)],
        classes: (0..IGNORE).filter(|id| pixels[usize::from(*id)] > 0).map(of).collect(),
    }
}
