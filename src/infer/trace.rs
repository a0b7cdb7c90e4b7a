//! A forward pass over an image as a whole, or over a smaller copy of it, with what it records.

use burn::tensor::TensorData;

use super::{InferMode, Inference, View, memory};
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
    pass(model, inference, &first_view(inference, image)?)
}

/// As [`trace()`], for pictures: an image that is labelled in windows, and has more pixels than this many `windows`, is
/// scaled down to as many. Also returns height and width of what has passed.
///
/// # Errors
/// As [`trace()`].
pub(crate) fn overview(
    model: &Model,
    inference: &Inference,
    image: &Image,
    windows: usize,
) -> Result<(Trace, (usize, usize))> {
    let view = first_view(inference, image)?;
    let size = match inference.config.mode {
        InferMode::Whole => view.size(),
        InferMode::Slide => fit(view.size(), windows * inference.config.crop.iter().product::<usize>()),
    };
    let view = View::of_image(image, size, false, inference.preprocess, inference.device);
    Ok((pass(model, inference, &view)?, size))
}

/// Height and width scaled down to at most `most` pixels.
fn fit((height, width): (usize, usize), most: usize) -> (usize, usize) {
    if height * width <= most {
        return (height, width);
    }
    let scale = (most as f64 / (height * width) as f64).sqrt();
    let side = |pixels: usize, most: usize| ((pixels as f64 * scale) as usize).clamp(1, most.max(1));
    let short = side(height.min(width), most);
    let long = side(height.max(width), most / short);
    if height < width { (short, long) } else { (long, short) }
}

fn first_view<'a>(inference: &'a Inference, image: &'a Image) -> Result<View<'a>> {
    let views = inference.views(image)?;
    views.into_iter().find(|view| !view.is_flipped()).ok_or_else(|| Error::new("the image has no view"))
}

fn pass(model: &Model, inference: &Inference, view: &View) -> Result<Trace> {
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

    fn model(device: &Device) -> Model {
        let text = "[model.backbone]\ntype = \"unet\"\nchannels = [8, 16]\ndepths = [1, 1]\nimg_size = [32, 32]\n\
                    [model.decoder]\ntype = \"structtoken\"\nnum_blocks = 1";
        crate::config::Config::parse(text, "r.toml", &[]).unwrap().model.init(3, 0, device)
    }

    #[test]
    fn an_overview_has_no_more_pixels_than_its_windows() {
        let (preprocess, device) = (Preprocess::default(), Device::flex());
        let model = model(&device);
        let config = InferConfig { mode: InferMode::Slide, crop: [16, 16], stride: [8, 8], flip: true, ..config() };
        let whole = InferConfig { mode: InferMode::Whole, ..config.clone() };
        let inference = Inference { network: &model, preprocess: &preprocess, config: &config, device: &device };
        for ((width, height), windows, expected) in [
            ((64, 48), 4, (27, 36)),
            ((48, 64), 1, (18, 13)),
            ((20, 12), 1, (12, 20)),
            ((32, 32), 4, (32, 32)),
            ((3000, 1), 1, (1, 256)),
        ] {
            let image = picture(2, width, height);
            let (found, size) = overview(&model, &inference, &image, windows).unwrap();
            assert_eq!(size, expected, "{width} x {height}");
            let [_, rows, columns, _] = found.output.seg_logits().scores().dims();
            let cells = |side| Model::padded(&model, side) / 2;
            assert_eq!((rows, columns), (cells(size.0), cells(size.1)), "{width} x {height}");
        }
        // What is labelled as a whole is seen as a whole, and what need not be scaled down is what `trace` sees.
        let image = picture(2, 64, 48);
        let inference = Inference { config: &whole, ..inference };
        let (found, size) = overview(&model, &inference, &image, 1).unwrap();
        assert_eq!(size, (48, 64));
        assert_eq!(found.maps, trace(&model, &inference, &image).unwrap().maps);
    }

    #[test]
    fn an_image_passes_as_a_whole_if_it_fits() {
        let (preprocess, device) = (Preprocess::default(), Device::flex());
        let model = model(&device);
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
