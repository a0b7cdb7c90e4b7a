//! A forward pass over an image as a whole, with what it records.

use burn::tensor::TensorData;

use super::{Inference, memory};
use crate::decoder::Output;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::kernels::with_precision;
use crate::layers::ForwardContext;
use crate::model::Model;

/// What a traced forward pass gives.
pub(crate) struct Trace {
    /// The network's output.
    pub(crate) output: Output,
    /// The activations that it recorded, in order.
    pub(crate) maps: Vec<(String, TensorData)>,
}

/// Traces the pass of `model`, the network of `inference`, over the first view of `image` that is not mirrored: as a
/// whole, whatever the windows, and in the precision of evaluations.
///
/// # Errors
/// As [`Inference::views`], and where the memory that is left is too little for the image as a whole.
pub(crate) fn trace(model: &Model, inference: &Inference, image: &Image) -> Result<Trace> {
    let views = inference.views(image)?;
    let view = views.iter().find(|view| !view.is_flipped()).ok_or_else(|| Error::new("the image has no view"))?;
    memory::ensure_whole(inference, view.size())?;
    let context = ForwardContext::eval().traced();
    let output = with_precision(inference.config.precision, || model.forward(view.whole(), &context));
    Ok(Trace { output, maps: context.into_trace() })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::decoder::SegLogits;
    use crate::infer::toy::{config, picture};
    use crate::infer::{InferConfig, Network};
    use crate::loader::preprocess::Preprocess;

    /// A model that would need more memory than there is for anything larger than a window.
    struct Large<'a>(&'a Model);

    impl Network for Large<'_> {
        fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
            self.0.predict_logits(images)
        }

        fn classes(&self) -> usize {
            Model::classes(self.0)
        }

        fn padded(&self, side: usize) -> usize {
            Model::padded(self.0, side)
        }

        fn activations(&self, (height, width): (usize, usize)) -> usize {
            if height.max(width) > 16 { 1 << 58 } else { 1 }
        }
    }

    #[test]
    fn an_image_passes_as_a_whole_if_it_fits() {
        let text = "[model.backbone]\ntype = \"unet\"\nchannels = [8, 16]\ndepths = [1, 1]\nimg_size = [32, 32]\n\
                    [model.decoder]\ntype = \"structtoken\"\nnum_blocks = 1";
        let recipe = crate::config::Config::parse(text, "r.toml", &[]).unwrap();
        let (preprocess, device) = (Preprocess::default(), Device::flex());
        let model = recipe.model.init(3, 0, &device);
        let config = InferConfig { flip: true, scales: vec![0.5, 1.0], ..config() };
        let inference = Inference { network: &model, preprocess: &preprocess, config: &config, device: &device };
        let image = picture(1, 64, 48);
        let found = trace(&model, &inference, &image).unwrap();
        assert!(found.maps.iter().any(|(name, _)| name == "block0.kernels"));
        // The first scale, and all of the image.
        let [_, height, width, _] = found.output.seg_logits().scores().dims();
        assert!(height > width / 2 && (height, width) != (0, 0), "{height} x {width}");
        // Windows of 16 pixels fit, the image does not.
        let large = Inference { network: &Large(&model), ..inference };
        large.labels(&image).unwrap();
        let error = trace(&model, &large, &image).err().unwrap();
        assert!(error.to_string().contains("an image of 32 x 24 needs about"), "{error}");
        assert!(error.hint().unwrap().contains("cut the image into tiles"));
        trace(&model, &large, &picture(1, 32, 32)).unwrap();
    }
}
