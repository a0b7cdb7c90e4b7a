//! MaskFormer (Cheng et al., arXiv 2107.06278): queries that each find a mask and its class. Mask classification,
//! matched with the truth one to one.
//!
//! ```text
//! features ─▶ pyramid: strides 4 … 32 ─▶ FPN ─▶ E [h/4, w/4, c]
//!                            stride 32 ─▶ transformer decoder ◀─ queries
//!                                                │ each layer: class = linear, mask = MLP · E
//! ```
//!
//! As the official code: post-norm layers as in DETR, queries start at zero with a learned position, all layers are
//! judged through one shared norm, which is not fed back. The strides are those of the backbone's maps; on a plain ViT
//! they come from a simple feature pyramid.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::pyramid;
use crate::decoder::pyramid::Pyramid;
use crate::decoder::queries::{EPS, Ffn, MaskEmbed, masks, plain};
use crate::decoder::{Decoder, DecoderLoss, Output, Prototypes, Queries, SetLossConfig};
use crate::error::{Error, Result};
use crate::layers::position::sine_positions;
use crate::layers::resize::{Mode, resize_channels_last};
use crate::layers::{
    Conv3x3, Cost, Dropout, ForwardContext, GroupNorm, Init, LayerNorm, Linear, MultiheadAttention, PointwiseConv,
};

/// Groups of the pixel decoders' norms.
pub(super) const GROUPS: usize = 32;

/// Configuration of [`MaskFormer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct MaskFormerConfig {
    /// Masks that can be found in an image.
    pub num_queries: usize,
    /// Channels of the feature pyramid and of the FPN; a multiple of 32.
    pub conv_dim: usize,
    /// Channels of the map that masks are products with.
    pub mask_dim: usize,
    /// Channels of a query.
    pub hidden_dim: usize,
    /// Attention heads; divides `hidden_dim`.
    pub num_heads: usize,
    /// Hidden channels of a layer's FFN.
    pub dim_feedforward: usize,
    /// Transformer layers.
    pub dec_layers: usize,
    /// Share of values dropped in the layers in training.
    pub dropout: f64,
    /// How predictions are judged.
    pub loss: SetLossConfig,
}

impl Default for MaskFormerConfig {
    fn default() -> Self {
        Self {
            num_queries: 100,
            conv_dim: 256,
            mask_dim: 256,
            hidden_dim: 256,
            num_heads: 8,
            dim_feedforward: 2048,
            dec_layers: 6,
            dropout: 0.1,
            loss: SetLossConfig::maskformer(),
        }
    }
}

impl MaskFormerConfig {
    pub(super) fn check(&self, features: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        let widths = [self.num_queries, self.conv_dim, self.mask_dim, self.hidden_dim, self.dim_feedforward];
        if widths.iter().any(|width| !(1..=1 << 14).contains(width)) || !(1..=64).contains(&self.dec_layers) {
            return refuse("num_queries, dec_layers or a number of channels is out of range".into());
        }
        if !self.conv_dim.is_multiple_of(GROUPS) {
            return refuse(format!("conv_dim = {} is not a multiple of {GROUPS}", self.conv_dim));
        }
        if self.num_heads == 0 || !self.hidden_dim.is_multiple_of(self.num_heads) || !self.hidden_dim.is_multiple_of(4)
        {
            let (dim, heads) = (self.hidden_dim, self.num_heads);
            return refuse(format!("hidden_dim = {dim} is not a multiple of num_heads = {heads} and of 4"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("dropout = {} is not in [0, 1)", self.dropout));
        }
        pyramid::check(features)?;
        self.loss.check()
    }

    pub(super) fn macs(&self, features: &FeatureInfo, classes: usize, grid: (usize, usize)) -> Vec<Cost> {
        let (c, d, q) = (self.conv_dim, self.hidden_dim, self.num_queries);
        let [finest, finer, middle, top] = pyramid::pixels(features, grid);
        let levels = [finest, finer, middle];
        let fpn: usize = levels.iter().map(|n| n * 10 * c * c).sum::<usize>() + top * 9 * c * c;
        let project = if c == d { 0 } else { top * c * d };
        let ffn = 2 * q * d * self.dim_feedforward;
        let layer = MultiheadAttention::macs(q, q, d) + MultiheadAttention::macs(q, top, d) + ffn;
        vec![
            Cost::new("decoder.pyramid", pyramid::macs(features, c, grid)),
            Cost::new("decoder.pixels", fpn + finest * 9 * c * self.mask_dim),
            Cost::new("decoder.layers", project + self.dec_layers * layer),
            Cost::new(
                "decoder.predictions",
                q * (d * (classes + 1) + MaskEmbed::macs(d, d, self.mask_dim) + finest * self.mask_dim),
            ),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, _: usize, grid: (usize, usize)) -> usize {
        let (c, [finest, ..]) = (self.conv_dim, pyramid::pixels(features, grid));
        // The finest maps of the pyramid and of the FPN; then the masks of the queries beside the map they are made of.
        let levels = finest * (pyramid::activations(features, c) + 3 * c);
        levels.max(finest * (2 * self.mask_dim + 2 * self.num_queries))
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> MaskFormer {
        MaskFormer {
            pyramid: Pyramid::new(features, self.conv_dim, init),
            head: self.head(self.conv_dim, classes, init),
        }
    }

    /// The decoder on maps of `inputs` channels at strides 4, 8, 16 and 32.
    pub fn head(&self, inputs: usize, classes: usize, init: &mut Init) -> MaskFormerHead {
        let (c, d) = (self.conv_dim, self.hidden_dim);
        let level = |init: &mut Init| FpnLevel {
            lateral: ConvNorm1x1::new(inputs, c, init),
            output: ConvNorm3x3::new(c, c, init),
        };
        MaskFormerHead {
            stem: ConvNorm3x3::new(inputs, c, init),
            levels: (0..3).map(|_| level(init)).collect(),
            mask_features: Conv3x3::new(c, self.mask_dim, init),
            input_proj: (inputs != d).then(|| PointwiseConv::new(inputs, d, init)),
            query_embed: init.normal(1.0, [self.num_queries, d]),
            layers: (0..self.dec_layers).map(|_| Layer::new(self, init)).collect(),
            norm: LayerNorm::new(d, EPS, init),
            class_embed: plain(d, classes + 1, init),
            mask_embed: MaskEmbed::new(d, d, self.mask_dim, false, init),
            loss: self.loss,
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct MaskFormer {
    pyramid: Pyramid,
    head: MaskFormerHead,
}

impl Decoder for MaskFormer {
    /// One prediction per layer, with masks of the pyramid's finest map, at a quarter of the images' size over a ViT.
    /// Records what [`MaskFormerHead`] does.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        self.head.forward(self.pyramid.forward(input.features(context)), context)
    }

    fn loss(&self) -> DecoderLoss {
        self.head.loss().into()
    }

    /// The queries.
    fn prototypes(&self) -> Vec<Prototypes> {
        vec![self.head.prototypes()]
    }
}

/// FPN and transformer decoder.
#[derive(Module, Debug)]
pub struct MaskFormerHead {
    stem: ConvNorm3x3,
    /// Strides 16, 8, 4.
    levels: Vec<FpnLevel>,
    mask_features: Conv3x3,
    input_proj: Option<PointwiseConv>,
    /// `[q, c]`: the queries' positions.
    query_embed: Param<Tensor<2>>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    class_embed: Linear,
    mask_embed: MaskEmbed,
    #[module(skip)]
    loss: SetLossConfig,
}

impl MaskFormerHead {
    /// The queries.
    fn prototypes(&self) -> Prototypes {
        Prototypes { id: self.query_embed.id, count: self.query_embed.dims()[0], grid: None, of_classes: false }
    }

    /// How its predictions are judged.
    pub fn loss(&self) -> SetLossConfig {
        self.loss
    }

    /// Maps `[b, h, w, c]` at strides 4, 8, 16, 32 to one prediction per layer.
    ///
    /// Records `pixel.*` of the FPN and `dec.*` of the transformer decoder.
    pub fn forward(&self, maps: Vec<Tensor<4>>, context: &ForwardContext) -> Output {
        let [f4, f8, f16, f32] = <[Tensor<4>; 4]>::try_from(maps)
            .unwrap_or_else(|maps| panic!("MaskFormer takes four maps, not {}", maps.len()));
        let pixels = self.pixels([f16, f8, f4], f32.clone(), context);
        let memory = match &self.input_proj {
            Some(project) => project.forward(f32),
            None => f32,
        };
        context.record("dec.input_proj", &memory);
        let [b, h, w, d] = memory.dims();
        let positions = sine_positions(h, w, d, &memory.device());
        context.record("dec.pos", &positions.clone().unsqueeze::<4>());
        let memory = memory.reshape([b, h * w, d]);
        let keys = memory.clone() + positions.reshape([1, h * w, d]);
        let embed = self.query_embed.val().unsqueeze::<3>(); // [1, q, d]
        let mut x = Tensor::zeros([b, embed.dims()[1], d], &memory.device());
        let mut predictions = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            x = context.within(&format!("dec.layer{i}"), || {
                layer.forward(x, embed.clone(), keys.clone(), memory.clone(), context)
            });
            context.record(&format!("dec.layer{i}"), &x);
            if context.wants_all() || i + 1 == self.layers.len() {
                predictions.push(self.predict(i, x.clone(), pixels.clone(), context));
            }
        }
        Output::Queries { predictions }
    }

    /// The map that masks are products with, `[b, h/4, w/4, c]`.
    fn pixels(&self, finer: [Tensor<4>; 3], coarsest: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let mut y = self.stem.forward(coarsest);
        context.record("pixel.stem", &y);
        for (i, (level, map)) in self.levels.iter().zip(finer).enumerate() {
            let lateral = level.lateral.forward(map);
            context.record(&format!("pixel.fpn{i}.lateral"), &lateral);
            let [_, h, w, _] = lateral.dims();
            let coarser = resize_channels_last(y, (h, w), Mode::Nearest, false);
            y = level.output.forward(lateral + coarser);
            context.record(&format!("pixel.fpn{i}"), &y);
        }
        let pixels = self.mask_features.forward(y);
        context.record("pixel.mask_features", &pixels);
        pixels
    }

    fn predict(&self, i: usize, x: Tensor<3>, pixels: Tensor<4>, context: &ForwardContext) -> Queries {
        let x = self.norm.forward(x);
        context.record(&format!("dec.normed{i}"), &x);
        let weights = self.mask_embed.forward(x.clone());
        context.record(&format!("dec.mask_embed{i}"), &weights);
        let found = Queries { classes: self.class_embed.forward(x), masks: masks(weights, pixels) };
        context.record(&format!("dec.class{i}"), &found.classes);
        context.record(&format!("dec.mask{i}"), &found.masks);
        found
    }
}

/// Self-attention of the queries, attention to the memory, FFN; each added and normalised.
#[derive(Module, Debug)]
pub struct Layer {
    self_attn: MultiheadAttention,
    norm1: LayerNorm,
    cross_attn: MultiheadAttention,
    norm2: LayerNorm,
    ffn: Ffn,
    #[module(skip)]
    dropout: Dropout,
}

impl Layer {
    fn new(config: &MaskFormerConfig, init: &mut Init) -> Self {
        let (d, heads, dropout) = (config.hidden_dim, config.num_heads, config.dropout);
        Self {
            self_attn: MultiheadAttention::new(d, heads, dropout, init),
            norm1: LayerNorm::new(d, EPS, init),
            cross_attn: MultiheadAttention::new(d, heads, dropout, init),
            norm2: LayerNorm::new(d, EPS, init),
            ffn: Ffn::new(d, config.dim_feedforward, dropout, init),
            dropout: Dropout::new(dropout),
        }
    }

    /// Queries `[b, q, d]` with their positions `[1, q, d]`; keys and values `[b, n, d]`.
    fn forward(
        &self,
        x: Tensor<3>,
        embed: Tensor<3>,
        keys: Tensor<3>,
        memory: Tensor<3>,
        context: &ForwardContext,
    ) -> Tensor<3> {
        let q = x.clone() + embed.clone();
        let y = self.self_attn.forward(q.clone(), q, x.clone(), None, context);
        context.record("self_attn", &y);
        let x = self.norm1.forward(x + self.dropout.forward(y, context));
        context.record("self_ln", &x);
        let y = self.cross_attn.forward(x.clone() + embed, keys, memory, None, context);
        context.record("cross_attn", &y);
        let x = self.norm2.forward(x + self.dropout.forward(y, context));
        context.record("cross_ln", &x);
        self.ffn.forward(x, context)
    }
}

/// A lateral connection, and a convolution of its sum with what comes from above.
#[derive(Module, Debug)]
pub struct FpnLevel {
    pub(super) lateral: ConvNorm1x1,
    pub(super) output: ConvNorm3x3,
}

/// 3x3 convolution without bias, group norm, ReLU.
#[derive(Module, Debug)]
pub struct ConvNorm3x3 {
    conv: Conv3x3,
    norm: GroupNorm,
}

impl ConvNorm3x3 {
    pub(super) fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { conv: Conv3x3::without_bias(inputs, outputs, init), norm: GroupNorm::new(GROUPS, outputs, EPS, init) }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward_relu(self.conv.forward(x))
    }
}

/// 1x1 convolution, group norm.
#[derive(Module, Debug)]
pub struct ConvNorm1x1 {
    conv: PointwiseConv,
    norm: GroupNorm,
}

impl ConvNorm1x1 {
    /// Without bias.
    pub(super) fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let conv = PointwiseConv::without_bias(inputs, outputs, init);
        Self { conv, norm: GroupNorm::new(GROUPS, outputs, EPS, init) }
    }

    /// With bias.
    pub(super) fn with_bias(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let conv = PointwiseConv::new(inputs, outputs, init);
        Self { conv, norm: GroupNorm::new(GROUPS, outputs, EPS, init) }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}
