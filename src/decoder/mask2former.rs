//! Mask2Former (Cheng et al., arXiv 2112.01527): queries that look only where their mask was before.
//!
//! ```text
//! features ─▶ pyramid ─▶ strides 32, 16, 8 ─▶ deformable encoder ─▶ M0, M1, M2
//!                        stride 4 ─▶ + upsampled M2 ─▶ E [h/4, w/4, c]
//! queries ─▶ predict ─▶ [masked attention to M(i mod 3), self-attention, FFN, predict] x dec_layers
//! ```
//!
//! As the official code: a query whose mask covers nothing of a level looks everywhere; masks pass no gradient; every
//! prediction, that of the raw queries too, is judged, at points that are mostly uncertain.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::deformable::{DeformableEncoder, EncoderShape, LEVELS};
use crate::decoder::maskformer::{ConvNorm1x1, ConvNorm3x3, FpnLevel, GROUPS};
use crate::decoder::pyramid;
use crate::decoder::pyramid::Pyramid;
use crate::decoder::queries::{EPS, Ffn, MaskEmbed, masks, plain};
use crate::decoder::{Decoder, DecoderLoss, Output, Prototypes, Queries, SetLossConfig};
use crate::error::{Error, Result};
use crate::layers::position::sine_positions;
use crate::layers::resize::{Mode, resize, resize_channels_last};
use crate::layers::{Cost, ForwardContext, Init, LayerNorm, Linear, MultiheadAttention, PointwiseConv};

/// Configuration of [`Mask2Former`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Mask2FormerConfig {
    /// Masks that can be found in an image.
    pub num_queries: usize,
    /// Channels of the pyramid, of the pixel decoder and of a query; a multiple of 32.
    pub hidden_dim: usize,
    /// Channels of the map that masks are products with.
    pub mask_dim: usize,
    /// Attention heads; divides `hidden_dim`.
    pub num_heads: usize,
    /// Layers of the deformable encoder.
    pub enc_layers: usize,
    /// Hidden channels of an encoder layer's FFN.
    pub enc_dim_feedforward: usize,
    /// Points a head reads of each level.
    pub enc_points: usize,
    /// Transformer layers of the queries.
    pub dec_layers: usize,
    /// Hidden channels of a decoder layer's FFN.
    pub dim_feedforward: usize,
    /// How predictions are judged.
    pub loss: SetLossConfig,
}

impl Default for Mask2FormerConfig {
    fn default() -> Self {
        Self {
            num_queries: 100,
            hidden_dim: 256,
            mask_dim: 256,
            num_heads: 8,
            enc_layers: 6,
            enc_dim_feedforward: 1024,
            enc_points: 4,
            dec_layers: 9,
            dim_feedforward: 2048,
            loss: SetLossConfig::default(),
        }
    }
}

impl Mask2FormerConfig {
    pub(super) fn check(&self, features: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        let widths = [self.num_queries, self.hidden_dim, self.mask_dim, self.dim_feedforward, self.enc_dim_feedforward];
        if widths.iter().any(|width| !(1..=1 << 14).contains(width)) {
            return refuse("num_queries or a number of channels is out of range".into());
        }
        if self.dec_layers > 64 || self.enc_layers > 64 || !(1..=64).contains(&self.enc_points) {
            return refuse("dec_layers, enc_layers or enc_points is out of range".into());
        }
        if self.num_heads == 0 || !self.hidden_dim.is_multiple_of(self.num_heads) {
            let (dim, heads) = (self.hidden_dim, self.num_heads);
            return refuse(format!("hidden_dim = {dim} is not a multiple of num_heads = {heads}"));
        }
        if !self.hidden_dim.is_multiple_of(GROUPS) {
            return refuse(format!("hidden_dim = {} is not a multiple of {GROUPS}", self.hidden_dim));
        }
        pyramid::check(features)?;
        self.loss.check()
    }

    fn encoder(&self) -> EncoderShape {
        EncoderShape {
            channels: self.hidden_dim,
            heads: self.num_heads,
            points: self.enc_points,
            hidden: self.enc_dim_feedforward,
            layers: self.enc_layers,
        }
    }

    pub(super) fn macs(&self, features: &FeatureInfo, classes: usize, grid: (usize, usize)) -> Vec<Cost> {
        let (d, q) = (self.hidden_dim, self.num_queries);
        let [finest, finer, middle, top] = pyramid::pixels(features, grid);
        let levels = [top, middle, finer];
        let tokens: usize = levels.iter().sum();
        let ffn = 2 * q * d * self.dim_feedforward;
        let attention = |i: usize| MultiheadAttention::macs(q, levels[i % LEVELS], d);
        let layers = (0..self.dec_layers).map(|i| attention(i) + MultiheadAttention::macs(q, q, d) + ffn).sum();
        let prediction = q * (d * (classes + 1) + MaskEmbed::macs(d, d, self.mask_dim) + finest * self.mask_dim);
        vec![
            Cost::new("decoder.pyramid", pyramid::macs(features, d, grid)),
            Cost::new("decoder.encoder", tokens * d * d + self.encoder().macs(tokens)),
            Cost::new("decoder.pixels", finest * (10 * d * d + d * self.mask_dim)),
            Cost::new("decoder.layers", layers),
            Cost::new("decoder.predictions", (self.dec_layers + 1) * prediction),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, _: usize, grid: (usize, usize)) -> usize {
        let (d, [finest, finer, middle, top]) = (self.hidden_dim, pyramid::pixels(features, grid));
        let tokens = finer + middle + top;
        // The finest maps; or the encoder's tokens with all that its FFN and its samples hold.
        let levels = finest * pyramid::activations(features, d);
        let encoder = finest * d + tokens * (4 * d + self.enc_dim_feedforward);
        levels.max(encoder).max(finest * (2 * self.mask_dim + 2 * self.num_queries))
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Mask2Former {
        Mask2Former {
            pyramid: Pyramid::new(features, self.hidden_dim, init),
            head: self.head(self.hidden_dim, classes, init),
        }
    }

    /// The decoder on maps of `inputs` channels at strides 4, 8, 16 and 32.
    pub fn head(&self, inputs: usize, classes: usize, init: &mut Init) -> Mask2FormerHead {
        let d = self.hidden_dim;
        Mask2FormerHead {
            pixel_decoder: PixelDecoder {
                input_proj: (0..LEVELS).map(|_| ConvNorm1x1::with_bias(inputs, d, init)).collect(),
                encoder: DeformableEncoder::new(&self.encoder(), init),
                fpn: FpnLevel { lateral: ConvNorm1x1::new(inputs, d, init), output: ConvNorm3x3::new(d, d, init) },
                mask_features: PointwiseConv::new(d, self.mask_dim, init),
            },
            query_feat: init.normal(1.0, [self.num_queries, d]),
            query_embed: init.normal(1.0, [self.num_queries, d]),
            level_embed: init.normal(1.0, [LEVELS, d]),
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
pub struct Mask2Former {
    pyramid: Pyramid,
    head: Mask2FormerHead,
}

impl Decoder for Mask2Former {
    /// A prediction of the raw queries and one per layer, with masks of the pyramid's finest map, at a quarter of the
    /// images' size over a ViT. Records what [`Mask2FormerHead`] does.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        self.head.forward(self.pyramid.forward(input.features(context)), context)
    }

    fn loss(&self) -> DecoderLoss {
        self.head.loss().into()
    }

    /// Where the queries start, and their positions.
    fn prototypes(&self) -> Vec<Prototypes> {
        self.head.prototypes().to_vec()
    }
}

/// Pixel decoder and transformer decoder.
#[derive(Module, Debug)]
pub struct Mask2FormerHead {
    pixel_decoder: PixelDecoder,
    /// `[q, c]`: where the queries start.
    query_feat: Param<Tensor<2>>,
    /// `[q, c]`: the queries' positions.
    query_embed: Param<Tensor<2>>,
    /// `[3, c]`: added to the memory of each level.
    level_embed: Param<Tensor<2>>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    class_embed: Linear,
    mask_embed: MaskEmbed,
    #[module(skip)]
    loss: SetLossConfig,
}

impl Mask2FormerHead {
    /// Where the queries start, and their positions.
    fn prototypes(&self) -> [Prototypes; 2] {
        [&self.query_feat, &self.query_embed].map(|queries| Prototypes {
            id: queries.id,
            count: queries.dims()[0],
            grid: None,
            of_classes: false,
        })
    }

    /// How its predictions are judged.
    pub fn loss(&self) -> SetLossConfig {
        self.loss
    }

    /// Maps `[b, h, w, c]` at strides 4, 8, 16, 32 to a prediction of the raw queries and one per layer.
    ///
    /// Records `pixel.*` of the pixel decoder and `dec.*` of the transformer decoder.
    pub fn forward(&self, maps: Vec<Tensor<4>>, context: &ForwardContext) -> Output {
        let (levels, pixels) = self.pixel_decoder.forward(maps, context);
        let memories: Vec<PixelMemory> =
            levels.into_iter().enumerate().map(|(i, map)| self.memory(i, map, context)).collect();
        let b = pixels.dims()[0];
        let [q, d] = self.query_feat.dims();
        let embed = self.query_embed.val().unsqueeze::<3>(); // [1, q, d]
        let mut x = self.query_feat.val().unsqueeze::<3>().expand([b, q, d]);
        let mut last = self.predict(0, x.clone(), pixels.clone(), context);
        let mut predictions = Vec::with_capacity(self.layers.len() + 1);
        for (i, layer) in self.layers.iter().enumerate() {
            let memory = &memories[i % LEVELS];
            let blocked = blocked(&last.masks, memory.size);
            context.record(&format!("dec.attn_mask{i}"), &blocked);
            let blocked = unless_all(blocked);
            predictions.push(last);
            x = context.within(&format!("dec.layer{i}"), || layer.forward(x, embed.clone(), memory, blocked, context));
            context.record(&format!("dec.layer{i}"), &x);
            last = self.predict(i + 1, x.clone(), pixels.clone(), context);
        }
        predictions.push(last);
        Output::Queries { predictions }
    }

    /// What the queries read of a level.
    fn memory(&self, level: usize, map: Tensor<4>, context: &ForwardContext) -> PixelMemory {
        let [b, h, w, d] = map.dims();
        let positions = sine_positions(h, w, d, &map.device());
        context.record(&format!("dec.pos{level}"), &positions.clone().unsqueeze::<4>());
        let embed = self.level_embed.val().narrow(0, level, 1).unsqueeze::<3>(); // [1, 1, d]
        let values = map.reshape([b, h * w, d]) + embed;
        PixelMemory { keys: values.clone() + positions.reshape([1, h * w, d]), values, size: (h, w) }
    }

    fn predict(&self, i: usize, x: Tensor<3>, pixels: Tensor<4>, context: &ForwardContext) -> Queries {
        let x = self.norm.forward(x);
        let weights = self.mask_embed.forward(x.clone());
        context.record(&format!("dec.mask_embed{i}"), &weights);
        let found = Queries { classes: self.class_embed.forward(x), masks: masks(weights, pixels) };
        context.record(&format!("dec.class{i}"), &found.classes);
        context.record(&format!("dec.mask{i}"), &found.masks);
        found
    }
}

/// A level as keys and values `[b, h w, d]`.
struct PixelMemory {
    keys: Tensor<3>,
    values: Tensor<3>,
    size: (usize, usize),
}

/// Where masks `[b, q, h, w]`, resized to a level, are off: `[b, q, n]`, 1 or 0, without a gradient.
fn blocked(masks: &Tensor<4>, (h, w): (usize, usize)) -> Tensor<3> {
    let [b, q, ..] = masks.dims();
    let masks = resize(masks.clone().detach(), (h, w), Mode::Bilinear, false);
    sigmoid(masks).lower_elem(0.5).float().reshape([b, q, h * w])
}

/// The same, but a query that is blocked from everything is blocked from nothing.
fn unless_all(blocked: Tensor<3>) -> Tensor<3> {
    let n = blocked.dims()[2] as f64;
    let some_left = blocked.clone().sum_dim(2).lower_elem(n - 0.5).float(); // [b, q, 1]
    blocked * some_left
}

/// Masked attention to a level, self-attention, FFN; each added and normalised.
#[derive(Module, Debug)]
pub struct Layer {
    cross_attn: MultiheadAttention,
    cross_norm: LayerNorm,
    self_attn: MultiheadAttention,
    self_norm: LayerNorm,
    ffn: Ffn,
}

impl Layer {
    fn new(config: &Mask2FormerConfig, init: &mut Init) -> Self {
        let (d, heads) = (config.hidden_dim, config.num_heads);
        Self {
            cross_attn: MultiheadAttention::new(d, heads, 0.0, init),
            cross_norm: LayerNorm::new(d, EPS, init),
            self_attn: MultiheadAttention::new(d, heads, 0.0, init),
            self_norm: LayerNorm::new(d, EPS, init),
            ffn: Ffn::new(d, config.dim_feedforward, 0.0, init),
        }
    }

    /// Queries `[b, q, d]` with their positions `[1, q, d]`; `blocked [b, q, n]`.
    fn forward(
        &self,
        x: Tensor<3>,
        embed: Tensor<3>,
        memory: &PixelMemory,
        blocked: Tensor<3>,
        context: &ForwardContext,
    ) -> Tensor<3> {
        context.record("attn_mask_used", &blocked);
        let (keys, values) = (memory.keys.clone(), memory.values.clone());
        let y = self.cross_attn.forward(x.clone() + embed.clone(), keys, values, Some(blocked), context);
        context.record("cross_attn", &y);
        let x = self.cross_norm.forward(x + y);
        context.record("cross_ln", &x);
        let q = x.clone() + embed;
        let y = self.self_attn.forward(q.clone(), q, x.clone(), None, context);
        context.record("self_attn", &y);
        let x = self.self_norm.forward(x + y);
        context.record("self_ln", &x);
        self.ffn.forward(x, context)
    }
}

/// Deformable encoder over strides 32, 16, 8, and one FPN level for stride 4.
#[derive(Module, Debug)]
pub struct PixelDecoder {
    /// Strides 32, 16, 8.
    input_proj: Vec<ConvNorm1x1>,
    encoder: DeformableEncoder,
    fpn: FpnLevel,
    mask_features: PointwiseConv,
}

impl PixelDecoder {
    /// Maps at strides 4, 8, 16, 32 to the encoded ones at 32, 16, 8, and the map that masks are products with.
    fn forward(&self, maps: Vec<Tensor<4>>, context: &ForwardContext) -> (Vec<Tensor<4>>, Tensor<4>) {
        let [f4, f8, f16, f32] = <[Tensor<4>; 4]>::try_from(maps)
            .unwrap_or_else(|maps| panic!("Mask2Former takes four maps, not {}", maps.len()));
        let levels = self.input_proj.iter().zip([f32, f16, f8]).map(|(project, map)| project.forward(map));
        let levels: Vec<Tensor<4>> = levels.collect();
        levels.iter().enumerate().for_each(|(i, map)| context.record(&format!("pixel.input_proj{i}"), map));
        let levels = self.encoder.forward(levels, context);
        levels.iter().enumerate().for_each(|(i, map)| context.record(&format!("pixel.multi_scale{i}"), map));
        let lateral = self.fpn.lateral.forward(f4);
        context.record("pixel.lateral", &lateral);
        let [_, h, w, _] = lateral.dims();
        let coarser = resize_channels_last(levels[LEVELS - 1].clone(), (h, w), Mode::Bilinear, false);
        let y = self.fpn.output.forward(lateral + coarser);
        context.record("pixel.fpn", &y);
        let pixels = self.mask_features.forward(y);
        context.record("pixel.mask_features", &pixels);
        (levels, pixels)
    }
}
