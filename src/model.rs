//! The model: a backbone and a decoder. Images in, logits out.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::backbone::{AnyBackbone, Backbone, BackboneConfig, BackboneInput, VitConfig};
use crate::decoder::{AnyDecoder, Decoder, DecoderConfig, DecoderLoss, Output, Prototypes, StructTokenConfig};
use crate::error::Result;
use crate::layers::{Cost, ForwardContext, Gridded, Init, parameters};

/// `[model]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
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
    /// A network of these two.
    pub fn new(backbone: BackboneConfig, decoder: DecoderConfig) -> Self {
        Self { backbone, decoder }
    }

    /// Refuses what cannot be built, naming the key.
    pub fn check(&self) -> Result<()> {
        self.backbone.check()?;
        self.decoder.check(&self.backbone.features())
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
        Model { backbone, decoder, classes, stride: self.backbone.features().stride(), config: Some(self.clone()) }
    }

    /// Multiply-accumulates of one image of `height` by `width`, by part: convolutions, linear layers and matrix
    /// products; norms, activations and the resize to image size are not counted (as fvcore and the papers do).
    pub fn macs(&self, classes: usize, (height, width): (usize, usize)) -> Vec<Cost> {
        let features = self.backbone.features();
        let grid = (height.div_ceil(features.stride()), width.div_ceil(features.stride()));
        let mut costs = self.backbone.macs((height, width));
        costs.extend(self.decoder.macs(&features, classes, grid));
        costs
    }

    /// Values of 4 bytes that are alive at once at most while one image of `height` by `width` passes, weights not
    /// counted.
    pub fn activations(&self, classes: usize, (height, width): (usize, usize)) -> usize {
        let features = self.backbone.features();
        let grid = (height.div_ceil(features.stride()), width.div_ceil(features.stride()));
        self.backbone.activations(grid).max(self.decoder.activations(&features, classes, grid))
    }
}

/// A backbone and a decoder: those that a recipe chooses, or others.
#[derive(Module, Debug)]
pub struct Model<B: Module = AnyBackbone, D: Module = AnyDecoder> {
    backbone: B,
    decoder: D,
    #[module(skip)]
    classes: usize,
    #[module(skip)]
    stride: usize,
    /// What a recipe made it of.
    #[module(skip)]
    config: Option<ModelConfig>,
}

impl<B: Module + ModuleDisplay + Backbone, D: Module + ModuleDisplay> Gridded for Model<B, D> {
    fn grid(&self) -> Option<(usize, usize)> {
        self.backbone.grid()
    }
}

impl<B: Module + ModuleDisplay + Backbone, D: Module + ModuleDisplay + Decoder> Model<B, D> {
    /// A decoder for `classes` classes on a backbone whose last map has one pixel for `stride` x `stride` pixels of the
    /// image.
    pub fn new(backbone: B, decoder: D, classes: usize, stride: usize) -> Self {
        Self { backbone, decoder, classes, stride, config: None }
    }

    /// Normalised images `[b, 3, height, width]` to what the decoder says of them, on a grid that spans the images
    /// padded to [`Model::padded`]. Whoever needs it at image size resizes bilinearly to the padded size, corners not
    /// aligned, and cuts off the padding.
    pub fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Output {
        let output = self.decoder.forward(BackboneInput { backbone: &self.backbone, images }, context);
        if let Output::Dense { logits, .. } = &output {
            context.record("logits16", logits);
        }
        output
    }

    /// How its decoder is to be judged.
    pub fn decoder_loss(&self) -> DecoderLoss {
        self.decoder.loss()
    }

    /// What its decoder knows of classes or queries before it has seen an image.
    pub fn prototypes(&self) -> Vec<Prototypes> {
        self.decoder.prototypes()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// As [`ModelConfig::activations`] of an image of this height and width; 0 for a model that no recipe describes.
    pub fn activations(&self, size: (usize, usize)) -> usize {
        self.config.as_ref().map_or(0, |config| config.activations(self.classes, size))
    }

    /// A side of an image, rounded up to whole patches.
    pub fn padded(&self, side: usize) -> usize {
        side.next_multiple_of(self.stride)
    }

    /// Gives batch norms the statistics that a pass of training left. To be called once its gradients have been taken:
    /// the parameters begin a new graph.
    #[must_use]
    pub fn with_statistics(self, context: &ForwardContext) -> Self {
        let statistics: BTreeMap<_, _> = context.take_statistics().into_iter().map(|left| (left.id, left)).collect();
        if statistics.is_empty() {
            return self;
        }
        parameters::map(self, |parameter, value| match statistics.get(&parameter.id) {
            Some(statistic) => statistic.after(value),
            None => value,
        })
    }

    /// The same function by fewer operations, as [`Decoder::for_inference`]: to be run, and neither trained nor
    /// written.
    #[must_use]
    pub fn for_inference(mut self) -> Self {
        self.decoder = self.decoder.for_inference();
        self
    }

    /// The same model with a backbone that does not learn.
    #[must_use]
    pub fn freeze_backbone(mut self) -> Self {
        self.backbone = self.backbone.no_grad();
        self
    }
}
