//! From an image to labels or probabilities: whole or by sliding window, over scales and flips.

mod bands;
pub mod confidence;
mod config;
mod inference;
pub mod memory;
mod on_device;
mod postprocess;
mod replayed;
mod together;
#[cfg(test)]
pub(crate) mod toy;
mod trace;
mod view;
mod view_logits;
mod windows;

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

pub use confidence::Confidence;
pub use inference::Inference;
pub use replayed::Replayed;
pub use together::Passes;
pub(crate) use trace::{Trace, overview, trace};
pub use view::View;

use crate::decoder::SegLogits;
use crate::error::{Error, Result};
use crate::image::Labels;
use crate::infer::bands::Bands;
pub use crate::infer::config::{InferConfig, InferMode, Padding};
use crate::infer::postprocess::CpuViewLogits;
use crate::infer::view_logits::MultiViewLogits;
use crate::infer::windows::Windows;

/// What inference needs of a model.
pub trait Network {
    /// Images [b, 3, h, w], normalised, of any size, to what the network says of them, on a grid that spans them
    /// padded.
    fn predict_logits(&self, images: Tensor<4>) -> SegLogits;
    /// The number of classes k.
    fn classes(&self) -> usize;
    /// The height or width to which the network pads a side of an image.
    fn padded(&self, side: usize) -> usize;
    /// Values of 4 bytes that it holds at once at most while an image of this height and width passes, if that is
    /// known.
    fn activations(&self, _size: (usize, usize)) -> usize {
        0
    }

    /// The same function by fewer operations, if there is such a form: to be run, and neither trained nor written.
    #[must_use]
    fn for_inference(self) -> Self
    where
        Self: Sized,
    {
        self
    }
}

/// Logits [b, k, h, w] of `images` [b, 3, h, w] seen at once: bilinear from the feature grid to the image's size.
pub fn whole_logits(network: &dyn Network, images: Tensor<4>, padding: Padding) -> Tensor<4> {
    let [_, _, h, w] = images.dims();
    let config = InferConfig { padding, ..InferConfig::default() };
    Bands::new(network, View::of_tensor(images, false), Windows::whole((h, w)), &config)
        .rows(0..h)
        .permute([0, 3, 1, 2]) // [b, k, h, w]
}

/// As [`whole_logits`], from what the network said of images of this height and width.
#[cfg(feature = "export")]
pub(crate) fn at_image_size(network: &dyn Network, said: SegLogits, [h, w]: [usize; 2]) -> Tensor<4> {
    let images = Tensor::zeros([said.maps.dims()[0], 3, h, w], &said.maps.device()); // never looked at
    let config = InferConfig::default();
    let mut bands = Bands::new(network, View::of_tensor(images, false), Windows::whole((h, w)), &config);
    bands.give(vec![said]);
    bands.rows(0..h).permute([0, 3, 1, 2]) // [b, k, h, w]
}

/// Logits [b, k, h, w] of `images` [b, 3, h, w] by windows of `crop` at steps of `stride` (heights and widths): each
/// window's logits at its size, summed and divided by the number of windows over a pixel. The last windows are moved
/// back to the border; an image smaller than the crop is not padded.
pub fn slide_logits(
    network: &dyn Network,
    images: Tensor<4>,
    crop: [usize; 2],
    stride: [usize; 2],
    padding: Padding,
) -> Tensor<4> {
    let [_, _, h, w] = images.dims();
    let config = InferConfig { padding, ..InferConfig::default() };
    let windows = Windows::slide((h, w), crop, stride);
    Bands::new(network, View::of_tensor(images, false), windows, &config).rows(0..h).permute([0, 3, 1, 2]) // [b, k, h, w]
}

/// Class probabilities [b, k, h, w] at `size` (height, width): the mean over views of the softmax of their logits, each
/// resized to `size` first; where masks vote, the mean of the votes, divided by their sum. No gradient passes. Fails if
/// the device cannot be read.
pub fn probabilities(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
) -> Result<Tensor<4>> {
    probabilities_by(network, views, size, config, on_cpu(views))
}

/// The most probable class of every pixel at `size` (height, width), the lowest index on ties: one map per image.
///
/// Works in bands of rows, so that logits of the full size need not exist; see [`InferConfig::logits_mb`]. Fails if the
/// device cannot be read.
pub fn labels(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
) -> Result<Vec<Labels>> {
    labels_with(network, views, size, config, &mut |_| {})
}

/// [`labels`] and [`probabilities`] at once, each as they are alone: the network sees the windows once. `progress` gets
/// the share that is done, from 0 to 1, after each band of rows.
pub fn labels_with_probabilities(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
    progress: &mut dyn FnMut(f64),
) -> Result<(Vec<Labels>, Tensor<4>)> {
    both_by(network, views, size, config, on_cpu(views), progress)
}

/// As [`labels`]; `progress` gets the share that is done, from 0 to 1, after each band of rows.
pub(super) fn labels_with(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Labels>> {
    labels_by(network, views, size, config, on_cpu(views), progress)
}

/// Whether a device is the CPU, whose memory is this process'.
pub(crate) fn is_cpu(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// On a CPU the last steps are loops ([`postprocess`]), elsewhere tensor operations.
pub(super) fn on_cpu(views: &[View]) -> bool {
    is_cpu(&views[0].device())
}

pub(super) fn probabilities_by(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
    on_cpu: bool,
) -> Result<Tensor<4>> {
    let mut views_logits = MultiViewLogits::new(network, views, size, config);
    let (batch, bands) = (views[0].batch(), views_logits.bands());
    let band = |rows: Range<usize>| {
        if !on_cpu {
            let probabilities = views_logits.probabilities(rows).permute([0, 3, 1, 2]); // [b, k, rows, w]
            return views_logits.check().map(|()| probabilities);
        }
        let views_logits = views_logits.fetch(rows.clone())?;
        Ok(probabilities_on_cpu(&views_logits, rows, [batch, size.1, network.classes()]))
    };
    Ok(Tensor::cat(bands.into_iter().map(band).collect::<Result<_>>()?, 2)) // [b, k, h, w]
}

pub(super) fn labels_by(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
    on_cpu: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Labels>> {
    let views_logits = MultiViewLogits::new(network, views, size, config);
    labels_of(views_logits, views[0].batch(), size, on_cpu, progress)
}

/// The most probable class of every pixel at `size`, of a batch of images.
fn labels_of(
    mut views_logits: MultiViewLogits,
    batch: usize,
    size: (usize, usize),
    on_cpu: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Labels>> {
    let mut maps = Maps::new(batch, size);
    if !on_cpu && let Some(maps) = views_logits.labels_on_device(progress)? {
        return Ok(maps);
    }
    if on_cpu {
        // No logits of a band exist here, and each band copies what the network said of all windows in reach.
        views_logits.band = views_logits.band.max(CPU_BAND).min(size.0);
    }
    for rows in views_logits.bands() {
        progress(rows.start as f64 / size.0 as f64);
        if on_cpu {
            maps.add_on_cpu(&views_logits.fetch(rows.clone())?, rows);
            continue;
        }
        let scores = views_logits.scores(rows); // [b, rows, w, k]
        views_logits.check()?;
        maps.add(scores)?;
    }
    Ok(maps.0)
}

fn both_by(
    network: &dyn Network,
    views: &[View<'_>],
    size: (usize, usize),
    config: &InferConfig,
    on_cpu: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<(Vec<Labels>, Tensor<4>)> {
    let (mut maps, mut bands) = (Maps::new(views[0].batch(), size), Vec::new());
    let mut views_logits = MultiViewLogits::new(network, views, size, config);
    let shape = [views[0].batch(), size.1, network.classes()];
    for rows in views_logits.bands() {
        progress(rows.start as f64 / size.0 as f64);
        if on_cpu {
            let fetched = views_logits.fetch(rows.clone())?;
            maps.add_on_cpu(&fetched, rows.clone());
            bands.push(probabilities_on_cpu(&fetched, rows, shape));
            continue;
        }
        let scores = views_logits.scores(rows); // [b, rows, w, k]
        views_logits.check()?;
        maps.add(scores.clone())?;
        bands.push(views_logits.of_scores(scores).permute([0, 3, 1, 2])); // [b, k, rows, w]
    }
    Ok((maps.0, Tensor::cat(bands, 2))) // [b, k, h, w]
}

/// Label maps, one per image, that grow by bands of rows.
struct Maps(Vec<Labels>);

impl Maps {
    fn new(batch: usize, (height, width): (usize, usize)) -> Self {
        Self(vec![Labels { width, height, ids: Vec::with_capacity(height * width) }; batch])
    }

    fn add_on_cpu(&mut self, views_logits: &[CpuViewLogits], rows: Range<usize>) {
        for (i, map) in self.0.iter_mut().enumerate() {
            map.ids.extend(postprocess::labels(views_logits, i, rows.clone()));
        }
    }

    /// The class of the highest score [b, rows, w, k].
    fn add(&mut self, scores: Tensor<4>) -> Result<()> {
        let ids: Vec<i32> = scores.argmax(3).try_into_vec_as().map_err(unread)?; // [b, rows, w, 1]
        let of_image = ids.len() / self.0.len();
        for (map, ids) in self.0.iter_mut().zip(ids.chunks_exact(of_image)) {
            map.ids.extend(ids.iter().map(|id| *id as u8));
        }
        Ok(())
    }
}

/// Class probabilities [b, k, rows, w] of a band.
fn probabilities_on_cpu(
    views_logits: &[CpuViewLogits],
    rows: Range<usize>,
    [batch, width, classes]: [usize; 3],
) -> Tensor<4> {
    let values: Vec<f32> = (0..batch).flat_map(|i| postprocess::probabilities(views_logits, i, rows.clone())).collect();
    let values = TensorData::new(values, [batch, rows.len(), width, classes]);
    Tensor::<4>::from_data(values, &Device::flex()).permute([0, 3, 1, 2])
}

/// The fewest rows that are made at once on the CPU.
const CPU_BAND: usize = 64;

/// Votes `[b, h, w, k]` over their sum.
pub(super) fn shares(votes: Tensor<4>) -> Tensor<4> {
    votes.clone() / votes.sum_dim(3).clamp_min(f32::MIN_POSITIVE)
}

/// Labels would be made of it all the same: the first class, everywhere.
pub(super) fn not_finite() -> Error {
    Error::new("the network's logits are infinite or not a number").with_hint(
        "some weights are too large, or the training that wrote them diverged: `structtoken inspect` shows the range \
         of every tensor; use an earlier checkpoint, and check that the preprocessing is that of training",
    )
}

pub(super) fn unread(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new("cannot read labels from the device").with_source(error)
}

#[cfg(test)]
mod tests;
