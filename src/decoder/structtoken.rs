//! StructToken (Lin et al., arXiv 2203.12612): structure tokens that become the mask.
//!
//! One learnable *structure token* per class, a map of the size of the feature grid, meets the features of the backbone
//! in a few blocks. A block lets the tokens take structure from the features in one of three ways, then runs both
//! through a convolutional FFN. After the last block a residual convolution smooths the tokens, which are the logits:
//! there is no per-pixel classifier, except with `prior = "linear"`, where the tokens begin as one.
//!
//! ```text
//! tokens  S [h, w, k] ──┐                  ┌─▶ S ──┐             ┌─▶ S ─▶ tail ─▶ logits [h, w, k]
//!                       ├─▶ extraction, FFN│       ├─▶ … L blocks│
//! features F [h, w, c] ─┘                  └─▶ F ──┘             └─▶ (unused)
//! ```
//!
//! Two changes to the paper's form are options: `prior = "linear"`, and `upscale_factor`, by which features, tokens
//! and logits have a finer grid than the backbone's.
//!
//! Facts that the published code fixes and the tests hold: LayerNorm eps is 1e-5 in the FFNs and 1e-6 elsewhere; GELU
//! comes after the FFN's residual sum; slice attention is scaled by the square root of the *current* number of pixels;
//! the last CSE block has no FFN for the features; tokens are resized bicubically, corners aligned when a side of the
//! table is odd.

pub mod blocks;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::structtoken::blocks::{Block, Tail};
use crate::decoder::{Decoder, Output, Prototypes};
use crate::error::{Error, Result};
use crate::layers::resize::{Mode, resize_channels_last};
use crate::layers::{Cost, DropPath, ForwardContext, Init, PointwiseConv, pixel_shuffle};

/// How tokens and features interact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BlockKind {
    /// Cross-slice extraction: tokens attend to feature channels.
    Cse,
    /// Self-slice extraction: tokens and feature channels attend to each other.
    Sse,
    /// Point-wise extraction: a learned 1x1 convolution mixes tokens and feature channels.
    Pwe,
}

/// What structure tokens begin as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Prior {
    /// What is learned of each class, whatever the image shows: the paper's form.
    #[default]
    None,
    /// That, and a linear classification of the image's features, as the backbone gives them. The tail corrects the
    /// classification and begins at zero: the network starts as the linear classifier.
    Linear,
}

/// What the structure tokens hold before they meet the features: the paper's learned maps, or less. The others are
/// controls of the same network, to find out what the maps are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tokens {
    /// A learned map per class: the paper's form.
    #[default]
    Learned,
    /// One learned value per class, the same at every position.
    Uniform,
    /// A map per class as it was drawn at random, never trained.
    Frozen,
    /// Zeros: the blocks see the features alone.
    Zero,
}

/// The largest factor that features are made finer by: patches of 16 have as many pixels.
const MAX_UPSCALE_FACTOR: usize = 16;

/// Configuration of [`StructToken`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StructTokenConfig {
    /// The interaction.
    pub block: BlockKind,
    /// Number of blocks.
    pub num_blocks: usize,
    /// Channels of the features inside of the decoder; those of the backbone by default.
    pub channels: Option<usize>,
    /// The features become finer by this factor where they enter the decoder ([`pixel_shuffle()`]), and so do the
    /// tokens and the logits.
    #[serde(skip_serializing_if = "is_unchanged")]
    pub upscale_factor: usize,
    /// Hidden channels of an FFN over its width.
    pub mlp_ratio: usize,
    /// Drop path rate of the last block, rising linearly from 0.
    pub drop_path_rate: f64,
    /// What the tokens begin as.
    #[serde(skip_serializing_if = "Prior::is_none")]
    pub prior: Prior,
    /// What the tokens hold.
    #[serde(skip_serializing_if = "Tokens::is_learned")]
    pub tokens: Tokens,
}

fn is_unchanged(upscale_factor: &usize) -> bool {
    *upscale_factor == 1
}

impl Prior {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Tokens {
    fn is_learned(&self) -> bool {
        *self == Self::Learned
    }

    fn init(self, classes: usize, (rows, cols): (usize, usize), init: &mut Init) -> Param<Tensor<4>> {
        match self {
            Self::Learned | Self::Frozen => init.trunc_normal(0.02, [1, classes, rows, cols]),
            Self::Uniform => init.trunc_normal(0.02, [1, classes, 1, 1]),
            Self::Zero => init.constant(0.0, [1, classes, 1, 1]),
        }
    }

    fn is_trained(self) -> bool {
        matches!(self, Self::Learned | Self::Uniform)
    }
}

impl Default for StructTokenConfig {
    fn default() -> Self {
        Self {
            block: BlockKind::Pwe,
            num_blocks: 4,
            channels: None,
            upscale_factor: 1,
            mlp_ratio: 4,
            drop_path_rate: 0.1,
            prior: Prior::None,
            tokens: Tokens::Learned,
        }
    }
}

impl StructTokenConfig {
    pub(super) fn check(&self, _: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        if self.num_blocks == 0 || self.mlp_ratio == 0 || self.channels == Some(0) {
            return refuse("num_blocks, mlp_ratio and channels must be at least 1".into());
        }
        if self.num_blocks > 64 || self.mlp_ratio > 64 || self.channels.is_some_and(|channels| channels > 1 << 14) {
            return refuse("num_blocks, mlp_ratio or channels is out of range".into());
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            return refuse(format!("drop_path_rate = {} is not in [0, 1)", self.drop_path_rate));
        }
        if !(1..=MAX_UPSCALE_FACTOR).contains(&self.upscale_factor) {
            return refuse(format!("upscale_factor = {} is not in 1 to {MAX_UPSCALE_FACTOR}", self.upscale_factor));
        }
        Ok(())
    }

    /// The tokens' grid over that of the features.
    fn fine(&self, (rows, cols): (usize, usize)) -> (usize, usize) {
        (rows * self.upscale_factor, cols * self.upscale_factor)
    }

    pub(super) fn macs(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> Vec<Cost> {
        let inputs = features.last();
        let c = self.channels.unwrap_or(inputs);
        let (n, blocks, ratio) = (k + c, self.num_blocks, self.mlp_ratio);
        let projection = |c: usize| 2 * c * c + 9 * c;
        let ffn = |c: usize| 2 * ratio * c * c + 9 * ratio * ratio * c;
        let (convs, attention) = match self.block {
            BlockKind::Cse => {
                let block = 2 * projection(k) + 2 * projection(c) + ffn(k);
                (blocks * block + (blocks - 1) * ffn(c), blocks * 2 * k * c)
            }
            BlockKind::Sse => (blocks * (4 * projection(n) + ffn(n)), blocks * 2 * n * n),
            BlockKind::Pwe => (blocks * (2 * projection(n) + n * n + ffn(n)), 0),
        };
        let (project, tail) = (inputs * c, 2 * 9 * k * k);
        let prior = if self.prior == Prior::Linear { h * w * inputs * k } else { 0 };
        let (h, w) = self.fine((h, w));
        vec![
            Cost::new("decoder.convolutions", prior + h * w * (project + convs + tail)),
            Cost::new("decoder.slice_attention", h * w * attention),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> usize {
        let c = self.channels.unwrap_or(features.last());
        // An FFN: its input, and its hidden channels before and after the norm.
        let ffn = |channels: usize| channels * (1 + 2 * self.mlp_ratio);
        let (h, w) = self.fine((h, w));
        h * w
            * match self.block {
                BlockKind::Cse => (ffn(k) + c).max(ffn(c) + k),
                BlockKind::Sse | BlockKind::Pwe => ffn(k + c),
            }
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> StructToken {
        let inputs = features.last();
        let channels = self.channels.unwrap_or(inputs);
        let drop_paths = DropPath::schedule(self.drop_path_rate, self.num_blocks);
        StructToken {
            kernels: self.tokens.init(classes, self.fine(features.grid), init),
            trained: self.tokens.is_trained(),
            layers: (0..)
                .zip(drop_paths)
                .map(|(i, drop_path)| Block::new(self, classes, channels, i + 1 == self.num_blocks, drop_path, init))
                .collect(),
            dec_proj: PointwiseConv::new(inputs, channels * self.upscale_factor * self.upscale_factor, init),
            upscale_factor: self.upscale_factor,
            conv_seg: (self.prior == Prior::Linear).then(|| PointwiseConv::classifier(inputs, classes, init)),
            residual_block: Tail::new(classes, self.prior, init),
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct StructToken {
    /// The structure tokens, `[1, k, rows, cols]`.
    kernels: Param<Tensor<4>>,
    /// Whether the tokens learn.
    #[module(skip)]
    trained: bool,
    layers: Vec<Block>,
    dec_proj: PointwiseConv,
    #[module(skip)]
    upscale_factor: usize,
    /// The classifier of what the tokens begin as, if they do.
    conv_seg: Option<PointwiseConv>,
    residual_block: Tail,
}

impl Decoder for StructToken {
    /// The deepest feature map `[b, h, w, c]` to logits `[b, h, w, k]`, h and w times `upscale_factor`.
    ///
    /// Records `feat`, `dec_proj`, with a prior `learned_kernels` and `prior`, then `kernels_in`, `block{i}.kernels`,
    /// `block{i}.features` and the steps inside of a block.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        let features = input.features(context).last();
        context.record("feat", &features);
        let coarse = self.conv_seg.as_ref().map(|classifier| classifier.forward(features.clone()));
        let mut f = pixel_shuffle(self.dec_proj.forward(features), self.upscale_factor);
        let [batch, h, w, _] = f.dims();
        context.record("dec_proj", &f);
        let mut s = self.tokens(batch, (h, w));
        let prior = coarse.map(|coarse| resize_channels_last(coarse, (h, w), Mode::Bilinear, false));
        if let Some(prior) = &prior {
            context.record("learned_kernels", &s);
            context.record("prior", prior);
            s = s + prior.clone();
        }
        context.record("kernels_in", &s);
        for (i, layer) in self.layers.iter().enumerate() {
            (s, f) = context.within(&format!("block{i}"), || layer.forward(s, f, context));
            context.record(&format!("block{i}.kernels"), &s);
            context.record(&format!("block{i}.features"), &f);
        }
        let residual = self.residual_block.residual(s.clone());
        (prior.unwrap_or(s) + residual).into()
    }

    /// The structure tokens.
    fn prototypes(&self) -> Vec<Prototypes> {
        let [_, count, rows, cols] = self.kernels.dims();
        vec![Prototypes { id: self.kernels.id, count, grid: Some([rows, cols]), of_classes: true }]
    }

    fn for_inference(mut self) -> Self {
        self.layers = self.layers.into_iter().map(Block::for_inference).collect();
        self
    }
}

impl StructToken {
    /// The tokens at the grid of the features, `[b, h, w, k]`.
    fn tokens(&self, batch: usize, (h, w): (usize, usize)) -> Tensor<4> {
        let [_, classes, rows, cols] = self.kernels.dims();
        let tokens = self.kernels.val().permute([0, 2, 3, 1]); // [1, rows, cols, k]
        let tokens = if self.trained { tokens } else { tokens.detach() };
        let tokens = if (h, w) == (rows, cols) || (rows, cols) == (1, 1) {
            tokens
        } else {
            let odd = rows % 2 == 1 || cols % 2 == 1;
            resize_channels_last(tokens, (h, w), Mode::Bicubic, odd)
        };
        tokens.expand([batch, h, w, classes])
    }
}
