//! Several images whose windows enter the network together: each is labelled as it is alone, to the last bit.

use burn::tensor::Tensor;

use crate::decoder::SegLogits;
use crate::error::Result;
use crate::image::{Image, Labels};
use crate::infer::{InferConfig, InferMode, Inference, MultiViewLogits, View, labels_of, on_cpu};
use crate::kernels::{with_batch_of, with_precision};

/// What an image asks of the network, where each of its views is one pass: images that ask the same can share their
/// passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Of every scale: height and width of its windows, and how many there are.
    scales: Vec<((usize, usize), usize)>,
    most: usize,
}

impl Passes {
    /// How many such images fit into a pass as large as the settings allow, at least one.
    #[must_use]
    pub fn images_at_once(&self) -> usize {
        self.most
    }
}

impl InferConfig {
    /// What an image of `size` (height, width) asks; none where a view is more than one pass.
    pub fn passes(&self, size: (usize, usize)) -> Option<Passes> {
        let of = |size: (usize, usize)| {
            let windows = self.windows(size);
            (windows.size, windows.tops.len() * windows.lefts.len())
        };
        let scales: Vec<_> = self.sizes(size).into_iter().map(of).collect();
        // As many values as when windows of the usual size fill a pass.
        let room = (self.windows_per_batch * self.crop[0]).saturating_mul(self.crop[1]);
        let fit = |((height, width), count): &((usize, usize), usize)| {
            let by_values = room / (count * height * width).max(1);
            if self.mode == InferMode::Whole { by_values } else { by_values.min(self.windows_per_batch / count) }
        };
        if scales.iter().any(|(_, count)| *count > self.windows_per_batch) {
            return None;
        }
        let most = scales.iter().map(fit).min().unwrap_or(1).clamp(1, self.windows_per_batch);
        Some(Passes { scales, most })
    }

    /// Pixels of all windows that an image of `size` (height, width) is seen in, with the height and width of each
    /// window.
    pub fn window_pixels(&self, size: (usize, usize)) -> Vec<((usize, usize), u64)> {
        let flips = if self.flip { 2 } else { 1 };
        let of = |size: (usize, usize)| {
            let windows = self.windows(size);
            let ((height, width), count) = (windows.size, windows.tops.len() as u64 * windows.lefts.len() as u64);
            (windows.size, (height as u64).saturating_mul(width as u64).saturating_mul(count * flips))
        };
        self.sizes(size).into_iter().map(of).collect()
    }
}

impl Inference<'_> {
    /// The class of every pixel of several images, each equal to what [`labels`](Inference::labels) says of it alone.
    /// All have to ask the same [`Passes`] of the network, which sees their windows together.
    ///
    /// # Errors
    /// One for all where the network cannot be asked, and one for each image whose labels cannot be read.
    ///
    /// # Panics
    /// Where two images ask different passes.
    pub fn labels_together(&self, images: &[&Image]) -> Result<Vec<Result<Labels>>> {
        let passes: Vec<_> = images.iter().map(|image| self.config.passes((image.height, image.width))).collect();
        assert!(passes.iter().all(|asked| asked.is_some() && *asked == passes[0]), "images of different passes");
        let views = images.iter().map(|image| self.views(image)).collect::<Result<Vec<_>>>()?;
        let mut known: Vec<Vec<Vec<SegLogits>>> = vec![Vec::new(); images.len()];
        for at in 0..views.first().map_or(0, Vec::len) {
            let of_view = self.pass(&views.iter().map(|views| &views[at]).collect::<Vec<_>>());
            known.iter_mut().zip(of_view).for_each(|(known, grids)| known.push(grids));
        }
        let read = |((views, known), image): ((&Vec<View>, Vec<Vec<SegLogits>>), &&Image)| {
            let size = (image.height, image.width);
            let mut logits = MultiViewLogits::new(self.network, views, size, self.config);
            logits.views_logits.iter_mut().zip(known).for_each(|(view, grids)| view.bands.give(grids));
            let mut maps = labels_of(logits, 1, size, on_cpu(views), &mut |_| {})?;
            maps.pop().ok_or_else(|| crate::Error::new("the network returned nothing"))
        };
        Ok(views.iter().zip(known).zip(images).map(read).collect())
    }

    /// What the network says of the windows of one view of each image, all seen at once.
    fn pass(&self, views: &[&View]) -> Vec<Vec<SegLogits>> {
        let windows = |view: &&View| {
            let windows = self.config.windows(view.size());
            let places = windows.tops.iter().flat_map(|top| windows.lefts.iter().map(move |left| (*top, *left)));
            places.map(|place| view.window(place, windows.size)).collect::<Vec<Tensor<4>>>()
        };
        let windows: Vec<_> = views.iter().flat_map(windows).collect();
        let (together, alone) = (windows.len(), windows.len() / views.len());
        let all = if together == 1 { windows[0].clone() } else { Tensor::cat(windows, 0) }; // [n, 3, height, width]
        let predict = || with_precision(self.config.precision, || self.network.predict_logits(all));
        let logits = with_batch_of(alone, together, predict);
        let of = |image: usize| (image * alone..(image + 1) * alone).map(|at| logits.images(at..at + 1)).collect();
        (0..views.len()).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::infer::toy::{Toy, picture, with};
    use crate::loader::preprocess::Preprocess;
    use burn::tensor::Device;

    fn config(mode: InferMode) -> InferConfig {
        InferConfig { mode, crop: [64, 64], stride: [42, 42], ..InferConfig::default() }
    }

    #[test]
    fn images_that_fit_share_a_pass() {
        let slide = config(InferMode::Slide);
        let passes = |height, width| slide.passes((height, width));
        assert_eq!(passes(64, 64).unwrap().images_at_once(), 8);
        assert_eq!(passes(100, 90).unwrap().images_at_once(), 2, "four windows each");
        assert_eq!(passes(100, 90), passes(106, 101), "windows are all that counts");
        assert_eq!(passes(300, 300), None, "more than a pass");
        let whole = config(InferMode::Whole);
        assert_eq!(whole.passes((64, 128)).unwrap().images_at_once(), 4);
        assert_eq!(whole.passes((640, 640)).unwrap().images_at_once(), 1);
        assert_ne!(whole.passes((64, 64)), whole.passes((64, 65)));
        assert_eq!(slide.window_pixels((100, 90)), [((64, 64), 4 * 64 * 64)]);
        let scaled = InferConfig { flip: true, scales: vec![1.0, 2.0], ..whole };
        assert_eq!(scaled.window_pixels((10, 20)), [((10, 20), 400), ((20, 40), 1600)]);
    }

    #[test]
    fn the_network_is_asked_once_for_all() {
        let (toy, preprocess, device) = (Toy::new(4), Preprocess::default(), Device::flex());
        let config = config(InferMode::Slide);
        let inference = Inference { network: &toy, preprocess: &preprocess, config: &config, device: &device };
        let images: Vec<_> = (0..2).map(|seed| picture(seed, 90, 100)).collect();
        let together = inference.labels_together(&images.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((toy.largest_batch(), toy.images_seen()), (8, 8));
        for (image, labels) in images.iter().zip(together) {
            assert_eq!(labels.unwrap(), inference.labels(image).unwrap());
        }
        with(InferConfig { scales: vec![1.0, 0.5], flip: true, ..crate::infer::toy::config() }, |inference| {
            let images: Vec<_> = (0..3).map(|seed| picture(seed, 20, 13)).collect();
            let together = inference.labels_together(&images.iter().collect::<Vec<_>>()).unwrap();
            for (image, labels) in images.iter().zip(together) {
                assert_eq!(labels.unwrap(), inference.labels(image).unwrap());
            }
        });
    }

    /// Sizes and channels at which convolutions alone and together would go different ways.
    #[test]
    fn every_network_says_the_same_of_images_alone_and_together() {
        let vit = "type = \"vit\"\nembed_dim = 24\ndepth = 2\nnum_heads = 2\npatch_size = 8\nimg_size = [32, 32]";
        let unet = "type = \"unet\"\ndepths = [1, 1, 1, 1]";
        let resnet =
            "type = \"resnet\"\nlayers = 18\ndepths = [1, 1, 1, 1]\nstem_channels = 32\nchannels = [32, 64, 64, 64]";
        let (tokens, fcn) = ("type = \"structtoken\"\nnum_blocks = 1", "type = \"fcn\"\nchannels = 32");
        let queries = "type = \"maskformer\"\nnum_queries = 7";
        let (preprocess, device) = (Preprocess::default(), Device::flex());
        for (backbone, decoder) in [(vit, tokens), (vit, queries), (unet, tokens), (unet, fcn), (resnet, fcn)] {
            let text = format!("[model.backbone]\n{backbone}\n[model.decoder]\n{decoder}");
            let recipe = Config::parse(&text, "together", &[]).unwrap();
            let network = recipe.model.init(3, 7, &device);
            for (mode, size) in [(InferMode::Whole, (32, 32)), (InferMode::Slide, (32, 58))] {
                let config = InferConfig { crop: [32, 32], stride: [26, 26], ..config(mode) };
                let inference =
                    Inference { network: &network, preprocess: &preprocess, config: &config, device: &device };
                let passes = config.passes(size).unwrap();
                let images: Vec<_> =
                    (0..passes.images_at_once() as u64).map(|seed| picture(seed, size.1, size.0)).collect();
                let images: Vec<&Image> = images.iter().collect();
                assert!(images.len() > 1);
                let views: Vec<_> = images.iter().map(|image| inference.views(image).unwrap()).collect();
                let together = inference.pass(&views.iter().map(|views| &views[0]).collect::<Vec<_>>());
                for (views, grids) in views.iter().zip(&together) {
                    let alone = inference.pass(&[&views[0]]).remove(0);
                    for (one, other) in grids.iter().zip(&alone) {
                        let values = |logits: &SegLogits| logits.maps.to_data().try_to_vec::<f32>().unwrap();
                        assert!(values(one) == values(other), "{text} {mode:?}");
                    }
                }
                let labels = inference.labels_together(&images).unwrap();
                for (image, labels) in images.iter().zip(labels) {
                    assert_eq!(labels.unwrap(), inference.labels(image).unwrap(), "{text}");
                }
            }
        }
    }
}
