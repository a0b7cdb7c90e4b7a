//! Predictions side by side: what each run keeps of its own, and the images on which the decoders disagree most.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::collect::Finished;
use crate::data::image::{IGNORE, Image, Labels, RawMask, read_mask, write_index_png};
use crate::data::{Classes, Split};
use crate::error::{Error, Result};
use crate::overlay;
use crate::report::pictures::{fit, shrink_image, shrink_labels};

/// Images of which a run keeps its prediction at most, spread evenly over the split.
const KEPT: usize = 200;
/// The longer side at which they are kept.
const SIDE: usize = 256;
/// Images shown.
const SHOWN: usize = 4;
/// Smaller pictures are enlarged up to this side, so that their captions have room.
const LEAST: usize = 112;
/// The predictions of a run's first seed, made smaller, one below the other.
const STRIP: &str = "predictions.png";

/// An image whose prediction is in the strip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its index in the validation split.
    pub index: usize,
    /// Width and height in the strip.
    pub size: (usize, usize),
}

impl Shown {
    /// The longest side.
    pub(super) const SIDE: usize = SIDE;
}

/// The predictions of a run as they are made.
pub(super) struct Strip {
    every: usize,
    shown: Vec<Shown>,
    ids: Vec<u8>,
}

impl Strip {
    /// For a split of so many images; none keeps nothing.
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
        self.shown.push(Shown { index, size });
    }

    pub(super) fn write(self, folder: &Path, colors: &[[u8; 3]]) -> Result<Vec<Shown>> {
        if !self.shown.is_empty() {
            let labels = Labels { width: SIDE, height: self.ids.len() / SIDE, ids: self.ids };
            write_index_png(&folder.join(STRIP), &labels, colors)?;
        }
        Ok(self.shown)
    }
}

/// The predictions that a run kept, in the order of `shown`.
fn read_strip(folder: &Path, shown: &[Shown]) -> Result<Vec<Labels>> {
    let path = folder.join(STRIP);
    let damaged = || Error::new(format!("`{}` does not fit the run's result", path.display()));
    let RawMask::Index { width: SIDE, values, .. } = read_mask(&path)? else { return Err(damaged()) };
    let mut rows = values.chunks_exact(SIDE);
    let one = |shown: &Shown| {
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

/// One image with its truth and what every decoder said, all of one size.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) image: Image,
    pub(super) truth: Labels,
    /// By decoder: its name and its prediction.
    pub(super) predictions: Vec<(String, Labels)>,
    /// The mean share of pixels on which a decoder is not with the most.
    pub(super) disagreement: f64,
}

/// What there is to be shown.
#[derive(Default)]
pub(super) struct Pictures {
    pub(super) rows: Vec<Row>,
    pub(super) classes: Classes,
    /// Why there are none.
    pub(super) note: String,
}

/// The images on which the first seeds of the decoders disagree most. What cannot be had is said in the note: pictures are
/// no reason for a table not to be written.
pub(super) fn choose(plan: &Plan, gathered: &[Finished]) -> Pictures {
    rows(plan, gathered)
        .unwrap_or_else(|error| Pictures { note: format!("No pictures: {error}."), ..Pictures::default() })
}

fn rows(plan: &Plan, gathered: &[Finished]) -> Result<Pictures> {
    let first: Vec<&Finished> =
        gathered.iter().filter(|finished| Some(&finished.outcome.run.seed) == plan.seeds.first()).collect();
    let Some(shown) = first.first().map(|finished| finished.outcome.shown.clone()) else {
        return Err(Error::new("no run of the first seed is finished"));
    };
    let mut strips = Vec::with_capacity(first.len());
    for finished in &first {
        if finished.outcome.shown != shown {
            return Err(Error::new(format!("`{}` kept other images", finished.folder.display())));
        }
        strips.push((finished.outcome.run.decoder.clone(), read_strip(&finished.folder, &shown)?));
    }
    let disagreement = |at: usize| {
        let maps: Vec<&Labels> = strips.iter().map(|(_, strip)| &strip[at]).collect();
        disagreement(&maps)
    };
    let mut order: Vec<(f64, usize)> = (0..shown.len()).map(|at| (disagreement(at), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let dataset = plan.recipe.data.open(Split::Val)?;
    let mut rows = Vec::new();
    for (disagreement, at) in order.into_iter().take(SHOWN) {
        let Shown { index, size } = shown[at];
        if index >= dataset.len() {
            return Err(Error::new("the validation split is smaller than it was"));
        }
        let sample = dataset.get(index)?;
        rows.push(Row {
            name: dataset.name(index),
            image: shrink_image(&sample.image, size),
            truth: shrink_labels(&sample.labels, size),
            predictions: strips.iter().map(|(name, strip)| (name.clone(), strip[at].clone())).collect(),
            disagreement,
        });
    }
    Ok(Pictures { rows, classes: dataset.classes().clone(), note: String::new() })
}

/// The mean over pixels of the share of maps that do not hold the pixel's most frequent label.
fn disagreement(maps: &[&Labels]) -> f64 {
    let pixels = maps.first().map_or(0, |map| map.ids.len());
    let odd = |at: usize| {
        let count = |id: u8| maps.iter().filter(|map| map.ids[at] == id).count();
        maps.len() - maps.iter().map(|map| count(map.ids[at])).max().unwrap_or(0)
    };
    (0..pixels).map(odd).sum::<usize>() as f64 / (pixels * maps.len()).max(1) as f64
}

impl Pictures {
    /// All rows as one picture: image, truth and every decoder, labels blended over the image, with a legend of the classes.
    pub(super) fn sheet(&self) -> Option<Image> {
        let cell = |of: fn(&Image) -> usize| self.rows.iter().map(|row| of(&row.image)).max();
        let (width, height) = (cell(|image| image.width)?, cell(|image| image.height)?);
        let mut seen = [false; 256];
        let mut panels = Vec::new();
        for row in &self.rows {
            let mut see = |labels: &Labels| {
                labels.ids.iter().for_each(|id| seen[usize::from(*id)] = true);
                overlay::blend(&row.image, labels, &self.classes.colors, overlay::ALPHA)
            };
            panels.push(("image", row.image.clone()));
            panels.push(("truth", see(&row.truth)));
            panels.extend(row.predictions.iter().map(|(name, labels)| (name.as_str(), see(labels))));
        }
        let factor = (LEAST / width.max(height)).max(1);
        let panel = |(name, image)| (name, enlarged(&centred(&image, (width, height)), factor));
        let panels: Vec<(&str, Image)> = panels.into_iter().map(panel).collect();
        let classes = self.classes.names.iter().cloned().zip(self.classes.colors.iter().copied()).enumerate();
        let legend: Vec<_> = classes.filter(|(class, _)| seen[*class]).map(|(_, entry)| entry).collect();
        Some(overlay::sheet(&panels, panels.len() / self.rows.len(), &legend))
    }
}

/// Every pixel as a square of `factor` pixels.
fn enlarged(image: &Image, factor: usize) -> Image {
    let row = |row: &[u8]| -> Vec<u8> { row.as_chunks::<3>().0.iter().flat_map(|rgb| rgb.repeat(factor)).collect() };
    let rows = image.pixels.chunks_exact(image.width * 3).map(row);
    Image {
        width: image.width * factor,
        height: image.height * factor,
        pixels: rows.flat_map(|row| row.repeat(factor)).collect(),
    }
}

/// The image in the middle of a cell of at least its size.
fn centred(image: &Image, (width, height): (usize, usize)) -> Image {
    const PAPER: u8 = 235;
    let mut pixels = vec![PAPER; width * height * 3];
    let (left, top) = ((width - image.width) / 2, (height - image.height) / 2);
    for (y, row) in image.pixels.chunks_exact(image.width * 3).enumerate() {
        pixels[((top + y) * width + left) * 3..][..row.len()].copy_from_slice(row);
    }
    Image { width, height, pixels }
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
        let back = read_strip(folder.path(), &shown).unwrap();
        assert_eq!(back, [map(20, 10, 3), map(256, 64, 1), map(6, 256, 0)]);
        let more = [shown.clone(), vec![Shown { index: 9, size: (5, 5) }]].concat();
        assert!(read_strip(folder.path(), &more).unwrap_err().to_string().contains("predictions.png"));
        assert!(Strip::new(0).write(folder.path(), &[]).unwrap().is_empty());
        let mut many = Strip::new(1001);
        (0..1001).for_each(|at| many.offer(at, &maps[0]));
        assert!((150..=KEPT).contains(&many.shown.len()), "{}", many.shown.len());
    }

    #[test]
    fn small_pictures_grow_by_whole_pixels() {
        let image = Image { width: 2, height: 1, pixels: vec![1, 2, 3, 4, 5, 6] };
        let large = enlarged(&image, 2);
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6];
        assert_eq!(large, Image { width: 4, height: 2, pixels: [row, row].concat() });
        assert_eq!(enlarged(&image, 1), image);
    }

    #[test]
    fn disagreement_is_the_share_of_odd_ones() {
        let map = |ids: &[u8]| Labels { width: 2, height: 1, ids: ids.to_vec() };
        let (a, b, c) = (map(&[0, 0]), map(&[0, 1]), map(&[0, 2]));
        assert_eq!(disagreement(&[&a, &a]), 0.0);
        assert_eq!(disagreement(&[&a, &b]), 0.25);
        assert_eq!(disagreement(&[&a, &b, &c]), 2.0 / 6.0);
        assert_eq!(disagreement(&[]), 0.0);
    }
}
