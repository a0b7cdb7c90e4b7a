//! A label map as others take it: run lengths, polygons, GeoJSON, COCO and Label Studio annotations, statistics.
//!
//! A *region* is a set of pixels of one class that are connected by their sides (4-connected). Pixels of
//! [`IGNORE`](super::IGNORE) belong to no region and appear in no output. Coordinates are in pixels, x to the right and
//! y down, (0, 0) at the corner of the first pixel: its centre is (0.5, 0.5), and an image of `width` pixels reaches
//! from 0 to `width`.
//!
//! Everything takes memory in proportion to the image, whatever is in it, and time as well; run lengths also in
//! proportion to the classes that are present.

mod borders;
mod brush_strokes;
mod coco;
mod geojson;
mod polygons;
mod rle;
mod simplify;
mod small;
mod statistics;

use crate::error::{Error, Result};

pub use brush_strokes::{decode_label_studio, label_studio_link, label_studio_rle, label_studio_task};
pub use coco::{CocoAnnotation, CocoForm, CocoSegmentation, CocoWriter, coco_annotations};
pub use geojson::{GeoJson, geojson};
pub use polygons::polygons;
pub use rle::{CocoRle, coco_counts};
pub use small::without_small;
pub use statistics::{ClassStatistics, Statistics, statistics};

pub(crate) use rle::{check_runs, decompress};

/// How outlines are drawn. The default is a tolerance of 1 pixel, and no region is too small.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlineOptions {
    /// Pixels that a simplified border may lie off the border between the pixels. Up to 0.49, the polygons cover
    /// exactly the pixels of the class; at `t`, only pixels change sides whose centres lie within `t` of the border.
    pub tolerance: f64,
    /// Regions and holes of fewer pixels are dropped: their pixels are in no polygon, or filled. See [`without_small`].
    pub min_area: u64,
}

impl Default for OutlineOptions {
    fn default() -> Self {
        Self { tolerance: 1.0, min_area: 0 }
    }
}

impl OutlineOptions {
    /// Fails for a tolerance that is negative or not a number.
    ///
    /// # Errors
    /// Says which value is possible.
    pub fn check(&self) -> Result<()> {
        if self.tolerance >= 0.0 && self.tolerance.is_finite() {
            return Ok(());
        }
        Err(Error::new(format!("a tolerance of {} pixels is not possible", self.tolerance))
            .with_hint("choose 0 for the exact border, or a small number such as 1"))
    }
}

/// A region's outline. Rings are given without their first point again at the end, and have at least 3 points.
///
/// The exterior's signed area is positive and those of holes are negative (the shoelace formula on x and y as they are;
/// on the screen, exteriors run clockwise), as RFC 7946 and shapely's `is_ccw` have it. No ring crosses or touches
/// itself; rings of one polygon touch in single points at most. Where two regions share a border, their rings share its
/// points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polygon {
    /// The class of its pixels.
    pub class: u8,
    /// Pixels that it covers before it is simplified.
    pub area: u64,
    /// Corners `[x, y]` of its outer border.
    pub exterior: Vec<[u32; 2]>,
    /// Corners of what is cut out of it.
    pub holes: Vec<Vec<[u32; 2]>>,
}

/// What a class is called.
fn name(names: &[String], class: u8) -> String {
    names.get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string())
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
