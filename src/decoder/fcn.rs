//! FCN (Long et al., arXiv 1411.4038): a classifier for every pixel, alone or after 3x3 convolutions. Static per-pixel
//! classification, the paradigm that StructToken argues against; with no convolutions it is Segmenter's linear
//! baseline.
//!
//! ```text
//! features ─┬─▶ num_convs x (conv, norm, ReLU) ─┬─▶ (conv_cat) ─▶ dropout ─▶ 1x1 ─▶ logits
//!           └────────── concat_input ───────────┘
//! earlier features ─▶ the same, smaller ─▶ auxiliary logits, in training alone
//! ```
//!
//! As mmsegmentation's `FCNHead`.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::{Decoder, DecoderLoss, Output};
use crate::error::{Error, Result};
use crate::layers::{BatchNorm, Conv3x3, Cost, Dropout, ForwardContext, Init, PointwiseConv};

/// Configuration of [`Fcn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FcnConfig {
    /// Convolutions before the classifier; 0 classifies the features themselves.
    pub num_convs: usize,
    /// One more convolution over the features beside what became of them.
    pub concat_input: bool,
    /// Channels of the convolutions.
    pub channels: usize,
    /// Share of channels dropped before the classifier in training.
    pub dropout_ratio: f64,
    /// Weight of the loss of an auxiliary head on the map before the last; 0 leaves it out. The backbone has to return
    /// two maps or more (`out_indices`); of a ViT two blocks, for instance `[7, 11]`.
    pub auxiliary_weight: f64,
    /// Channels of the auxiliary head's one convolution.
    pub auxiliary_channels: usize,
}

impl Default for FcnConfig {
    fn default() -> Self {
        Self {
            num_convs: 0,
            concat_input: false,
            channels: 512,
            dropout_ratio: 0.0,
            auxiliary_weight: 0.0,
            auxiliary_channels: 256,
        }
    }
}

impl FcnConfig {
    pub(super) fn check(&self, features: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        let widths = [self.channels, self.auxiliary_channels];
        if self.num_convs > 64 || widths.iter().any(|width| !(1..=1 << 14).contains(width)) {
            return refuse("num_convs, channels or auxiliary_channels is out of range".into());
        }
        self.head().check()?;
        if !self.auxiliary_weight.is_finite() || self.auxiliary_weight < 0.0 {
            return refuse("auxiliary_weight must be finite and not negative".into());
        }
        if self.auxiliary_weight > 0.0 && features.channels.len() < 2 {
            let example = match features.transformer {
                Some(blocks) => format!("{:?}", [blocks.depth.saturating_sub(2), blocks.depth.saturating_sub(1)]),
                None => "[1] of a U-Net, [2, 3] of a ResNet or ConvNeXt".to_owned(),
            };
            return Err(Error::new("model.decoder: auxiliary_weight needs two maps of the backbone").with_hint(
                format!("choose from those that it returns, for instance model.backbone.out_indices = {example}"),
            ));
        }
        Ok(())
    }

    fn head(&self) -> HeadConfig {
        let Self { num_convs, concat_input, channels, dropout_ratio, .. } = *self;
        HeadConfig { num_convs, concat_input, channels, dropout_ratio }
    }

    fn auxiliary(&self) -> HeadConfig {
        HeadConfig { num_convs: 1, concat_input: false, channels: self.auxiliary_channels, ..self.head() }
    }

    pub(super) fn macs(&self, features: &FeatureInfo, classes: usize, (h, w): (usize, usize)) -> Vec<Cost> {
        vec![Cost::new("decoder.convolutions", h * w * self.head().macs(features.last(), classes))]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> usize {
        h * w * self.head().activations(features.last(), k)
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Fcn {
        let auxiliary = self.auxiliary_weight > 0.0;
        let earlier = features.channels[features.channels.len().saturating_sub(2)];
        Fcn {
            head: self.head().init(features.last(), classes, init),
            auxiliary: auxiliary.then(|| self.auxiliary().init(earlier, classes, init)),
            auxiliary_weight: self.auxiliary_weight,
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Fcn {
    head: FcnHead,
    auxiliary: Option<FcnHead>,
    #[module(skip)]
    auxiliary_weight: f64,
}

impl Decoder for Fcn {
    /// Logits on the grid of the features. Records `feat`.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        let mut maps = input.features(context).maps;
        let Some(last) = maps.pop() else { unreachable!("a backbone returns at least one map") };
        context.record("feat", &last);
        let logits = self.head.classify(self.head.features(last, context), context);
        let auxiliary = match (&self.auxiliary, maps.pop()) {
            (Some(head), Some(map)) if context.wants_all() => {
                vec![head.classify(head.features(map, context), context)]
            }
            _ => Vec::new(),
        };
        Output::Dense { logits, auxiliary }
    }

    /// The weight of the auxiliary head.
    fn loss(&self) -> DecoderLoss {
        DecoderLoss { auxiliary_weight: self.auxiliary_weight, ..DecoderLoss::default() }
    }
}

/// What a [`FcnHead`] is made of; keys as in [`FcnConfig`].
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadConfig {
    pub(super) num_convs: usize,
    pub(super) concat_input: bool,
    pub(super) channels: usize,
    pub(super) dropout_ratio: f64,
}

impl HeadConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        if !(0.0..1.0).contains(&self.dropout_ratio) {
            return refuse(format!("dropout_ratio = {} is not in [0, 1)", self.dropout_ratio));
        }
        if self.concat_input && self.num_convs == 0 {
            return refuse(
                "concat_input needs convolutions: with num_convs = 0 there is nothing to concatenate with the features"
                    .into(),
            );
        }
        Ok(())
    }

    /// Multiply-accumulates of a pixel.
    pub(super) fn macs(&self, inputs: usize, classes: usize) -> usize {
        let channels = self.channels;
        let convs: usize = (0..self.num_convs).map(|i| 9 * channels * if i == 0 { inputs } else { channels }).sum();
        let concat = if self.concat_input { 9 * (inputs + channels) * channels } else { 0 };
        convs + concat + classes * if self.num_convs == 0 { inputs } else { channels }
    }

    /// Values alive at a pixel: a convolution's input, its output before and after the norm, and what is put beside it.
    pub(super) fn activations(&self, inputs: usize, classes: usize) -> usize {
        match self.num_convs {
            0 => inputs + classes,
            _ => inputs.max(self.channels) + 2 * self.channels + if self.concat_input { inputs } else { 0 } + classes,
        }
    }

    pub(super) fn init(&self, inputs: usize, classes: usize, init: &mut Init) -> FcnHead {
        let channels = if self.num_convs == 0 { inputs } else { self.channels };
        let conv = |i: usize, init: &mut Init| ConvModule::new(if i == 0 { inputs } else { channels }, channels, init);
        FcnHead {
            convs: (0..self.num_convs).map(|i| conv(i, init)).collect(),
            conv_cat: self.concat_input.then(|| ConvModule::new(inputs + channels, channels, init)),
            conv_seg: PointwiseConv::classifier(channels, classes, init),
            dropout: Dropout::new(self.dropout_ratio),
        }
    }
}

/// Convolutions and a classifier.
#[derive(Module, Debug)]
pub struct FcnHead {
    convs: Vec<ConvModule>,
    conv_cat: Option<ConvModule>,
    /// The classifier.
    pub(super) conv_seg: PointwiseConv,
    #[module(skip)]
    dropout: Dropout,
}

impl FcnHead {
    /// `[b, h, w, inputs]` to `[b, h, w, channels]`, before the classifier.
    pub(super) fn features(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let y = self.convs.iter().fold(x.clone(), |y, conv| conv.forward(y, context));
        match &self.conv_cat {
            Some(conv) => conv.forward(Tensor::cat(vec![x, y], 3), context),
            None => y,
        }
    }

    /// `[b, h, w, channels]` to `[b, h, w, k]`.
    pub(super) fn classify(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let [b, _, _, c] = x.dims();
        // Whole channels are dropped.
        let x = match self.dropout.is_off(context) {
            true => x,
            false => {
                let ones = Tensor::ones([b, 1, 1, c], &x.device());
                x * self.dropout.forward(ones, context)
            }
        };
        self.conv_seg.forward(x)
    }
}

/// 3x3 convolution, batch norm, ReLU.
#[derive(Module, Debug)]
pub struct ConvModule {
    conv: Conv3x3,
    bn: BatchNorm,
}

impl ConvModule {
    fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { conv: Conv3x3::without_bias(inputs, outputs, init), bn: BatchNorm::new(outputs, init) }
    }

    fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.bn.forward_relu(self.conv.forward(x), context)
    }
}
