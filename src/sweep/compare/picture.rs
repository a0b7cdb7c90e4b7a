//! Predictions side by side: the images on which the decoders disagree most.

use crate::dataset::{Classes, Split};
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::overlay;
use crate::report::pictures::{shrink_image, shrink_labels};
use crate::sweep::compare::ComparePlan;
use crate::sweep::compare::collect::Finished;
use crate::sweep::compare::kept_predictions::{self, KeptPrediction};

/// Images shown.
const SHOWN: usize = 4;
/// Smaller pictures are enlarged up to this side, so that their captions have room.
const LEAST: usize = 112;

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

/// The images on which the first seeds of the decoders disagree most. What cannot be had is said in the note: pictures
/// are no reason for a table not to be written.
pub(super) fn choose(plan: &ComparePlan, gathered: &[Finished]) -> Pictures {
    rows(plan, gathered)
        .unwrap_or_else(|error| Pictures { note: format!("No pictures: {error}."), ..Pictures::default() })
}

fn rows(plan: &ComparePlan, gathered: &[Finished]) -> Result<Pictures> {
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
        strips.push((finished.outcome.run.decoder.clone(), kept_predictions::read(&finished.folder, &shown)?));
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
        let KeptPrediction { index, size } = shown[at];
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
    /// All rows as one picture: image, truth and every decoder, labels blended over the image, with a legend of the
    /// classes.
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
        let panel = |(name, image)| (name, enlarged(&centered(&image, (width, height)), factor));
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
fn centered(image: &Image, (width, height): (usize, usize)) -> Image {
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
