//! Labels found on a GPU in one pass over what the network said: no logits at image size, and one wait for the device.

use std::ops::Range;

use burn::tensor::{Tensor, Transaction};

use crate::error::{Error, Result};
use crate::image::Labels;
use crate::infer::bands::Bands;
use crate::infer::view_logits::MultiViewLogits;
use crate::infer::{not_finite, unread};
use crate::kernels::{Source, upsample_argmax};
use crate::layers::resize::Axis;

impl MultiViewLogits<'_> {
    /// The most probable class of every pixel, one map per image; none where there is no kernel for it, or where
    /// logits are not what orders the classes: several views, masks that vote, or an output of another size.
    /// `progress` gets the share that is done.
    pub(super) fn labels_on_device(&mut self, progress: &mut dyn FnMut(f64)) -> Result<Option<Vec<Labels>>> {
        let [view] = &mut self.views_logits[..] else { return Ok(None) };
        let (height, width) = view.size;
        if view.bands.size() != view.size {
            return Ok(None);
        }
        let tops = view.bands.windows().tops.clone();
        for (i, top) in tops.iter().enumerate() {
            progress(i as f64 / tops.len() as f64);
            view.bands.advance_to(0..top + 1);
        }
        if view.bands.votes() {
            return Ok(None);
        }
        let grids: Vec<Tensor<4>> =
            view.bands.window_rows().flat_map(|row| &row.grids).map(|grid| grid.maps.clone()).collect();
        let (rows, mut columns) = sources(&view.bands, grids[0].dims());
        if view.flipped {
            columns.reverse();
        }
        let Some(labels) = upsample_argmax(&grids, &rows, &columns) else { return Ok(None) };
        let finite = Tensor::stack::<5>(grids, 0).is_finite().all();
        let read = Transaction::default().register(labels).register(finite).try_execute().map_err(unread)?;
        let [labels, finite] =
            <[_; 2]>::try_from(read).map_err(|_| Error::new("the device did not answer all that was asked"))?;
        if !finite.iter::<bool>().all(|finite| finite) {
            return Err(not_finite());
        }
        let line = width.next_multiple_of(4);
        let maps = labels.bytes().chunks_exact(height * line).map(|bytes| {
            let ids = bytes.chunks_exact(line).flat_map(|line| &line[..width]).copied().collect();
            Labels { width, height, ids }
        });
        Ok(Some(maps.collect()))
    }
}

/// Where every row and column of the image reads the grids, which all have this shape.
fn sources(bands: &Bands, [_, gh, gw, _]: [usize; 4]) -> (Vec<Vec<Source>>, Vec<Vec<Source>>) {
    let (windows, (height, width)) = (bands.windows(), bands.size());
    let rows = along(0..height, &windows.tops, windows.size.0, &bands.window_axis(gh, windows.size.0));
    let columns = along(0..width, &windows.lefts, windows.size.1, &bands.window_axis(gw, windows.size.1));
    (rows, columns)
}

/// For each place the windows that cover it, and where their grids are read.
fn along(places: Range<usize>, starts: &[usize], length: usize, axis: &Axis) -> Vec<Vec<Source>> {
    let of = |place: usize| {
        let covering = starts.iter().enumerate().filter(|(_, start)| (**start..**start + length).contains(&place));
        let source = |(window, start): (usize, &usize)| {
            let [first, second, ..] = *axis.taps(place - start);
            Source { window, taps: [first, second] }
        };
        covering.map(source).collect()
    };
    places.map(of).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use crate::infer::toy::{Toy, noise};
    use crate::infer::view::View;
    use crate::infer::{InferConfig, InferMode, Padding, labels};

    /// Windows that overlap, the image at once, mirrored, and padded in both ways.
    #[test]
    fn a_gpu_finds_the_labels_of_the_cpu() {
        let name = std::env::var("STRUCTTOKEN_TEST_DEVICE").unwrap_or_default();
        if name.is_empty() || name == "cpu" {
            eprintln!("skipped: STRUCTTOKEN_TEST_DEVICE names no GPU");
            return;
        }
        let (device, _) = crate::device::open(&name).unwrap();
        let slide = InferConfig { crop: [12, 16], stride: [8, 10], windows_per_batch: 3, ..InferConfig::default() };
        let stretched = InferConfig { padding: Padding::Stretch, ..slide.clone() };
        let whole = InferConfig { mode: InferMode::Whole, ..slide.clone() };
        for config in [&slide, &stretched, &whole] {
            for (k, (h, w), flipped) in [(6, (61, 50), false), (5, (9, 40), true), (2, (29, 43), false)] {
                let images = noise(9, [2, 3, h, w]);
                let of = |device: &Device| {
                    let views = [View::of_tensor(images.clone().to_device(device), flipped)];
                    labels(&Toy::new(k), &views, (h, w), config).unwrap()
                };
                let (ours, theirs) = (of(&device), of(&Device::flex()));
                let differ =
                    ours.iter().zip(&theirs).flat_map(|(a, b)| a.ids.iter().zip(&b.ids)).filter(|(a, b)| a != b);
                // Two scores that are equal up to rounding may be ordered either way.
                assert!(differ.count() <= 2, "{h} x {w}, {k} classes");
            }
        }
    }
}
