//! A network with all that lies between it and 8-bit images.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use super::{Confidence, InferConfig, Network, View};
use crate::available_memory;
use crate::backbone::Backbone;
use crate::decoder::{Decoder, SegLogits};
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::layers::ForwardContext;
use crate::loader::preprocess::Preprocess;
use crate::model::Model;

impl<B: Module + ModuleDisplay + Backbone, D: Module + ModuleDisplay + Decoder> Network for Model<B, D> {
    fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
        self.forward(images, &ForwardContext::eval()).seg_logits()
    }

    fn classes(&self) -> usize {
        Model::classes(self)
    }

    fn padded(&self, side: usize) -> usize {
        Model::padded(self, side)
    }

    fn activations(&self, size: (usize, usize)) -> usize {
        Model::activations(self, size)
    }

    fn for_inference(self) -> Self {
        Model::for_inference(self)
    }
}

/// A network with all that lies between it and 8-bit images.
#[derive(Clone, Copy)]
pub struct Inference<'a> {
    /// The network; without gradients, or each image leaves its graph behind.
    pub network: &'a dyn Network,
    /// The normalisation its weights were trained with.
    pub preprocess: &'a Preprocess,
    /// Windows, scales, flips.
    pub config: &'a InferConfig,
    /// Where the network lives.
    pub device: &'a Device,
}

impl Inference<'_> {
    /// The class of every pixel, in the image's size.
    pub fn labels(&self, image: &Image) -> Result<Labels> {
        self.labels_with(image, &mut |_| {})
    }

    /// As [`labels`](Self::labels); `progress` gets the share that is done, from 0 to 1, from time to time.
    pub fn labels_with(&self, image: &Image, progress: &mut dyn FnMut(f64)) -> Result<Labels> {
        let views = self.views(image)?;
        let mut maps = super::labels_with(self.network, &views, (image.height, image.width), self.config, progress)?;
        maps.pop().ok_or_else(|| Error::new("the network returned nothing"))
    }

    /// The class of every pixel of an image with its `truth`, and how probable label and truth are.
    pub fn labels_with_confidence(&self, image: &Image, truth: &Labels) -> Result<(Labels, Confidence)> {
        if (truth.width, truth.height, truth.ids.len()) != (image.width, image.height, image.width * image.height) {
            return Err(Error::new(format!(
                "the image has {} x {} pixels, but the truth has {} x {}",
                image.width, image.height, truth.width, truth.height
            )));
        }
        super::confidence::labels_with_confidence(self.network, &self.views(image)?, truth, self.config)
    }

    /// Class probabilities [k, h, w], in the image's size, row-major.
    ///
    /// Fails where they would take more than 16 GB.
    pub fn probabilities(&self, image: &Image) -> Result<Vec<f32>> {
        self.ensure_probabilities(image)?;
        let views = self.views(image)?;
        let tensor = super::probabilities(self.network, &views, (image.height, image.width), self.config)?;
        values(tensor)
    }

    /// [`labels_with`](Self::labels_with) and [`probabilities`](Self::probabilities) by one pass of the network.
    ///
    /// # Errors
    /// As these two.
    pub fn labels_with_probabilities(
        &self,
        image: &Image,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(Labels, Vec<f32>)> {
        self.ensure_probabilities(image)?;
        let (views, size) = (self.views(image)?, (image.height, image.width));
        let (mut maps, tensor) = super::labels_with_probabilities(self.network, &views, size, self.config, progress)?;
        let labels = maps.pop().ok_or_else(|| Error::new("the network returned nothing"))?;
        Ok((labels, values(tensor)?))
    }

    /// Fails where probabilities are too large, or the memory that is left is too little for them.
    fn ensure_probabilities(&self, image: &Image) -> Result<()> {
        let values = image.width.saturating_mul(image.height).saturating_mul(self.network.classes());
        if values > LARGEST_VALUES {
            let (width, height, classes) = (image.width, image.height, self.network.classes());
            return Err(Error::new(format!(
                "the probabilities of {classes} classes at {width} x {height} are too large"
            ))
            .with_hint("ask for labels, which are computed in bands of rows, or cut the image into tiles"));
        }
        // In bands, and put together.
        available_memory::require(
            2 * 4 * values as u64,
            &format!("the probabilities of {} x {} pixels", image.width, image.height),
            "leave out --probabilities, or cut the image into tiles",
        )
    }

    /// The views of an image that the configuration asks for.
    ///
    /// Fails on an empty image, where a view would exceed 2^28 pixels, and where the memory that is left is too little.
    pub fn views<'a>(&'a self, image: &'a Image) -> Result<Vec<View<'a>>> {
        let (width, height) = (image.width, image.height);
        if width == 0 || height == 0 || image.pixels.len() != width * height * 3 {
            return Err(Error::new(format!(
                "an image of {width} x {height} pixels holds {} bytes",
                image.pixels.len()
            )));
        }
        let sizes = self.config.sizes((height, width));
        if let Some((h, w)) = sizes.iter().find(|(h, w)| h.saturating_mul(*w) > LARGEST_VIEW) {
            return Err(Error::new(format!("the image of {width} x {height} pixels would be scaled to {w} x {h}"))
                .with_hint("lower `scales` or `resize`, or cut the image into tiles"));
        }
        super::memory::ensure_labeled(self, (height, width))?;
        let mut views = Vec::with_capacity(sizes.len() * 2);
        for size in sizes {
            let view = |flipped| View::of_image(image, size, flipped, self.preprocess, self.device);
            if self.config.flip {
                views.push(view(true));
            }
            views.push(view(false));
        }
        Ok(views)
    }
}

fn values(probabilities: Tensor<4>) -> Result<Vec<f32>> {
    probabilities.try_into_vec_as().map_err(|e| Error::new("cannot read probabilities from the device").with_source(e))
}

const LARGEST_VIEW: usize = 1 << 28;
const LARGEST_VALUES: usize = 4_000_000_000;

#[cfg(test)]
mod tests {
    use super::super::toy::{Toy, config, picture, with};
    use super::*;

    #[test]
    fn labels_and_probabilities_take_one_pass() {
        let (network, preprocess, device) = (Toy::new(4), Preprocess::default(), Device::flex());
        let inference = Inference { network: &network, preprocess: &preprocess, config: &config(), device: &device };
        let image = picture(3, 40, 20);
        let labels = inference.labels(&image).unwrap();
        let once = network.images_seen();
        let probabilities = inference.probabilities(&image).unwrap();
        assert_eq!(network.images_seen(), 2 * once);
        let mut shares = Vec::new();
        let both = inference.labels_with_probabilities(&image, &mut |share| shares.push(share)).unwrap();
        assert_eq!((network.images_seen(), &both), (3 * once, &(labels, probabilities)));
        assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..=1.0).contains(share)) && !shares.is_empty());
    }

    #[test]
    fn views_follow_the_configuration() {
        let config = InferConfig { resize: Some([64, 32]), scales: vec![0.5, 1.0], flip: true, ..config() };
        with(config.clone(), |inference| {
            let image = picture(3, 40, 20);
            let views = inference.views(&image).unwrap();
            let sizes: Vec<_> = views.iter().map(|view| (view.size(), view.is_flipped())).collect();
            assert_eq!(sizes, [((16, 32), true), ((16, 32), false), ((32, 64), true), ((32, 64), false)]);
            let labels = inference.labels(&image).unwrap();
            assert_eq!((labels.width, labels.height, labels.ids.len()), (40, 20, 800));
            let probabilities = inference.probabilities(&image).unwrap();
            assert_eq!(probabilities.len(), 4 * 800);
            let sum: f32 = (0..4).map(|class| probabilities[class * 800 + 123]).sum();
            assert!((sum - 1.0).abs() < 1e-5);
        });
        with(InferConfig { scales: vec![100.0], ..config }, |inference| {
            let flat = Image { width: 1, height: 1, pixels: vec![0; 3] };
            assert!(inference.views(&flat).is_ok());
            let large = InferConfig { resize: Some([1 << 20, 1 << 20]), ..inference.config.clone() };
            assert!(Inference { config: &large, ..*inference }.views(&flat).is_err());
        });
    }
}
