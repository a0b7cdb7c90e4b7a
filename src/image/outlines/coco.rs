//! Label maps as COCO annotations.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::image::outlines::polygons::{Pieces, pieces};
use crate::image::outlines::{CocoRle, OutlineOptions, without_small};
use crate::image::{IGNORE, Labels};

/// How COCO annotations store what they cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CocoForm {
    /// An annotation per region, as a list of polygons. COCO's have no holes: a region with holes is cut into several
    /// that have none and touch each other.
    Polygons,
    /// An annotation per class and image, as compressed run lengths: exact, and not simplified.
    Rle,
}

/// An annotation, to be written by serde.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CocoAnnotation {
    /// Counted from 1.
    pub id: u64,
    /// Of the image.
    pub image_id: u64,
    /// The class index + 1.
    pub category_id: u64,
    /// Polygons `[x, y, x, y, …]`, or run lengths.
    pub segmentation: CocoSegmentation,
    /// Pixels that it covers, before polygons are simplified.
    pub area: u64,
    /// Left, top, width and height.
    pub bbox: [u32; 4],
    /// Always 0.
    pub iscrowd: u8,
}

/// What an annotation covers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CocoSegmentation {
    /// Rings without holes, whose union it is.
    Polygons(Vec<Vec<u32>>),
    /// Run lengths.
    Rle(CocoRle),
}

/// The annotations of one image, by class. Ids count from `first_id`.
#[must_use]
pub fn coco_annotations(
    labels: &Labels,
    image_id: u64,
    first_id: u64,
    form: CocoForm,
    options: OutlineOptions,
) -> Vec<CocoAnnotation> {
    let annotation = |(id, (class, area, bbox, segmentation)): (u64, (u8, u64, [u32; 4], CocoSegmentation))| {
        CocoAnnotation { id, image_id, category_id: u64::from(class) + 1, segmentation, area, bbox, iscrowd: 0 }
    };
    let covered: Vec<_> = match form {
        CocoForm::Polygons => pieces(labels, options)
            .into_iter()
            .map(|Pieces { class, area, rings }| {
                let bbox = bounds(rings.iter().flatten().map(|[x, y]| [*x, *y, *x, *y]));
                let rings = rings.into_iter().map(Vec::into_flattened).collect();
                (class, area, bbox, CocoSegmentation::Polygons(rings))
            })
            .collect(),
        CocoForm::Rle => {
            let labels = without_small(labels, options.min_area);
            let of = |(class, (area, bbox))| (class, area, bbox, CocoSegmentation::Rle(CocoRle::of(&labels, class)));
            extents(&labels).into_iter().map(of).collect()
        }
    };
    (first_id..).zip(covered).map(annotation).collect()
}

/// Left, top, width and height of what holds all these boxes, given by their sides.
fn bounds(boxes: impl Iterator<Item = [u32; 4]>) -> [u32; 4] {
    let around = |a: [u32; 4], b: [u32; 4]| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])];
    let [left, top, right, bottom] = boxes.reduce(around).unwrap_or_default();
    [left, top, right - left, bottom - top]
}

/// Pixels and bounds of the classes that are there.
fn extents(labels: &Labels) -> BTreeMap<u8, (u64, [u32; 4])> {
    let mut found: BTreeMap<u8, (u64, Vec<[u32; 4]>)> = BTreeMap::new();
    for (y, row) in (0..).zip(labels.ids.chunks_exact(labels.width.max(1))) {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            let end = x + run.len() as u32;
            if run[0] != IGNORE {
                let (pixels, boxes) = found.entry(run[0]).or_default();
                *pixels += run.len() as u64;
                match boxes.last_mut() {
                    Some(last) => *last = [last[0].min(x), last[1], last[2].max(end), y + 1],
                    None => boxes.push([x, y, end, y + 1]),
                }
            }
            x = end;
        }
    }
    found.into_iter().map(|(class, (pixels, boxes))| (class, (pixels, bounds(boxes.into_iter())))).collect()
}

/// Writes a COCO file image by image, so that only one is in memory.
#[derive(Debug)]
pub struct CocoWriter<W> {
    to: W,
    form: CocoForm,
    options: OutlineOptions,
    images: Vec<Picture>,
    annotations: u64,
}

/// An image as COCO lists it.
#[derive(Clone, Debug, Serialize)]
struct Picture {
    id: u64,
    file_name: String,
    width: usize,
    height: usize,
}

#[derive(Serialize)]
struct Category<'a> {
    id: usize,
    name: &'a str,
    supercategory: &'a str,
}

impl<W: Write> CocoWriter<W> {
    /// Begins a file whose categories are the classes with these names; their ids are the class index + 1.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn new(mut to: W, names: &[String], form: CocoForm, options: OutlineOptions) -> io::Result<Self> {
        let category = |(id, name)| Category { id, name, supercategory: "" };
        let categories: Vec<Category> = (1..).zip(names.iter().map(String::as_str)).map(category).collect();
        to.write_all(b"{\"categories\":")?;
        serde_json::to_writer(&mut to, &categories)?;
        to.write_all(b",\n\"annotations\":[")?;
        Ok(Self { to, form, options, images: Vec::new(), annotations: 0 })
    }

    /// Adds an image, which is called `name`.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn add(&mut self, name: &str, labels: &Labels) -> io::Result<()> {
        let (id, file_name) = (self.images.len() as u64 + 1, name.to_owned());
        self.images.push(Picture { id, file_name, width: labels.width, height: labels.height });
        for annotation in coco_annotations(labels, id, self.annotations + 1, self.form, self.options) {
            self.to.write_all(if self.annotations == 0 { b"\n" } else { b",\n" })?;
            self.annotations += 1;
            serde_json::to_writer(&mut self.to, &annotation)?;
        }
        Ok(())
    }

    /// Ends the file, and returns what it was written to.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(b"],\n\"images\":")?;
        serde_json::to_writer(&mut self.to, &self.images)?;
        self.to.write_all(b"}\n")?;
        self.to.flush()?;
        Ok(self.to)
    }
}
