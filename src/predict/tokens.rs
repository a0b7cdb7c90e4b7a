//! What the structure tokens of an image are after each block.

use crate::error::{Error, Result};
use crate::image::Image;
use crate::infer::trace;
use crate::predict::Predictor;

/// The tokens of all classes after some blocks, on the feature grid of an image as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// How many blocks they have passed; 0 are what is learned, and the prior where the model has one.
    pub block: usize,
    /// One token per class.
    pub classes: usize,
    /// Cells down.
    pub height: usize,
    /// Cells across.
    pub width: usize,
    /// `[classes, height, width]`, row-major.
    pub values: Vec<f32>,
}

impl Predictor {
    /// The tokens before the first block and after every block, in order. The image passes as a whole, whatever the
    /// windows of the model; of several scales the first counts, and mirrored views do not.
    ///
    /// # Errors
    /// A decoder that has no structure tokens, an empty image, or too little memory for the image as a whole.
    pub fn tokens(&self, image: &Image) -> Result<Vec<Tokens>> {
        let maps = trace(self.network.network(), &self.inference(), image)?.maps;
        let tokens = maps.into_iter().filter(|(name, _)| name == "kernels_in" || name.ends_with(".kernels"));
        let found: Result<Vec<Tokens>> = tokens
            .enumerate()
            .map(|(block, (_, data))| {
                let [1, height, width, classes] = data.shape()[..] else {
                    return Err(Error::new(format!("tokens of shape {:?}", data.shape())));
                };
                let cells: Vec<f32> = data.iter::<f32>().collect(); // [h, w, k]
                let of_class = |class| cells.iter().skip(class).step_by(classes).copied();
                let values = (0..classes).flat_map(of_class).collect();
                Ok(Tokens { block, classes, height, width, values })
            })
            .collect();
        match found? {
            found if found.is_empty() => Err(Error::new("the model's decoder has no structure tokens")
                .with_hint("use a model with the decoder `structtoken`: presets cse, sse and pwe")),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::Config;
    use crate::dataset::Classes;
    use crate::infer::toy::picture;

    fn predictor(decoder: &str) -> Predictor {
        let text = format!(
            "[model.backbone]\ntype = \"unet\"\nchannels = [8, 16]\ndepths = [1, 1]\nimg_size = [32, 32]\n\
             [model.decoder]\n{decoder}\n[eval]\nmode = \"whole\""
        );
        let config = Config::parse(&text, "r.toml", &[]).unwrap();
        let device = Device::flex();
        let model = config.model.init(3, 0, &device);
        let classes = Classes { names: vec!["a".into(), "b".into(), "c".into()], colors: vec![[0; 3]; 3] };
        Predictor::new(model, config.data.preprocess, config.eval, device, classes).unwrap()
    }

    #[test]
    fn tokens_of_every_block_are_maps_of_classes() {
        let predictor = predictor("type = \"structtoken\"\nnum_blocks = 2");
        let found = predictor.tokens(&picture(1, 32, 48)).unwrap();
        assert_eq!(found.iter().map(|tokens| tokens.block).collect::<Vec<_>>(), [0, 1, 2]);
        for tokens in &found {
            assert_eq!(tokens.classes, 3);
            assert_eq!(tokens.values.len(), 3 * tokens.height * tokens.width);
            assert!(tokens.values.iter().all(|value| value.is_finite()));
        }
        assert_ne!(found[1].values, found[2].values);
    }

    #[test]
    fn a_decoder_without_tokens_is_named() {
        let error = predictor("type = \"fcn\"\nauxiliary_weight = 0.0").tokens(&picture(1, 32, 32)).unwrap_err();
        assert!(error.to_string().contains("no structure tokens") && error.hint().is_some(), "{error}");
    }
}
