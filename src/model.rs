//! The model: a backbone and a decoder. Images in, logits out.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, BackboneConfig, VitConfig};
use crate::decoder::{Decoder, DecoderConfig, StructTokenConfig};
use crate::error::Result;
use crate::layers::{Cost, Init, Pass};

/// `[model]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The feature extractor.
    pub backbone: BackboneConfig,
    /// What makes masks of features.
    pub decoder: DecoderConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            backbone: BackboneConfig::Vit(VitConfig::default()),
            decoder: DecoderConfig::StructToken(StructTokenConfig::default()),
        }
    }
}

impl ModelConfig {
    /// Refuses what cannot be built, naming the key.
    pub fn check(&self) -> Result<()> {
        self.backbone.check()?;
        self.decoder.check()
    }

    /// The model for `classes` classes with the initial weights of `seed`.
    pub fn init(&self, classes: usize, seed: u64, device: &Device) -> Model {
        self.build(classes, &mut Init::new(seed, device))
    }

    /// The model with zeros for weights, to be loaded or measured.
    pub fn blank(&self, classes: usize, device: &Device) -> Model {
        self.build(classes, &mut Init::blank(device))
    }

    fn build(&self, classes: usize, init: &mut Init) -> Model {
        let backbone = self.backbone.init(init);
        let decoder = self.decoder.init(&self.backbone.features(), classes, init);
        Model { backbone, decoder, classes, stride: self.backbone.features().stride }
    }

    /// Multiply-accumulates of one image of `height` by `width`, by part: convolutions, linear layers and matrix products;
    /// norms, activations and the resize to image size are not counted (as fvcore and the papers do).
    pub fn macs(&self, classes: usize, (height, width): (usize, usize)) -> Vec<Cost> {
        let features = self.backbone.features();
        let grid = (height.div_ceil(features.stride), width.div_ceil(features.stride));
        let mut costs = self.backbone.macs(grid);
        costs.extend(self.decoder.macs(&features, classes, grid));
        costs
    }
}

/// A backbone and a decoder.
#[derive(Module, Debug)]
pub struct Model {
    backbone: Backbone,
    decoder: Decoder,
    #[module(skip)]
    classes: usize,
    #[module(skip)]
    stride: usize,
}

impl Model {
    /// Normalised images `[b, 3, height, width]` to logits `[b, h, w, classes]` at the feature grid,
    /// `h = ceil(height / stride)`. Whoever needs them at image size resizes bilinearly to `h * stride`, corners not
    /// aligned, and cuts off what lies in the padding.
    pub fn forward(&self, images: Tensor<4>, pass: &Pass) -> Tensor<4> {
        let logits = self.decoder.forward(self.backbone.forward(images, pass), pass);
        pass.record("logits16", &logits);
        logits
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Image pixels along a cell of the logits.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The same model with a backbone that does not learn.
    #[must_use]
    pub fn freeze_backbone(mut self) -> Self {
        self.backbone = self.backbone.no_grad();
        self
    }
}
