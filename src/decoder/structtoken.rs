//! StructToken (Lin et al., arXiv 2203.12612): structure tokens that become the mask.
//!
//! One learnable *structure token* per class, a map of the size of the feature grid, meets the features of the backbone in a
//! few blocks. A block lets the tokens take structure from the features in one of three ways, then runs both through a
//! convolutional FFN. After the last block a residual convolution smooths the tokens, which are the logits: there is no
//! per-pixel classifier.
//!
//! ```text
//! tokens  S [h, w, k] ──┐                  ┌─▶ S ──┐             ┌─▶ S ─▶ tail ─▶ logits [h, w, k]
//!                       ├─▶ extraction, FFN│       ├─▶ … L blocks│
//! features F [h, w, c] ─┘                  └─▶ F ──┘             └─▶ (unused)
//! ```
//!
//! Facts that the published code fixes and the tests hold: LayerNorm eps is 1e-5 in the FFNs and 1e-6 elsewhere; GELU
//! comes after the FFN's residual sum; slice attention is scaled by the square root of the *current* number of pixels; the
//! last CSE block has no FFN for the features; tokens are resized bicubically, corners aligned when a side of the table is
//! odd.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::Prototypes;
use crate::error::{Error, Result};
use crate::kernels;
use crate::layers::resize::{Mode, resize_channels_last};
use crate::layers::{
    Conv3x3, Cost, DepthwiseConv3x3, DropPath, ForwardContext, GroupedConv3x3, Init, LayerNorm, PointwiseConv,
};

const EPS: f64 = 1e-6;
const FFN_EPS: f64 = 1e-5;

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
    /// That, and a linear classification of the image's features. The tail corrects the classification and begins at zero:
    /// the network starts as the linear classifier.
    Linear,
}

/// What the structure tokens hold before they meet the features: the paper's learned maps, or less. The others are controls of
/// the same network, to find out what the maps are for.
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
        Ok(())
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
        let prior = if self.prior == Prior::Linear { c * k } else { 0 };
        vec![
            Cost::new("decoder.convolutions", h * w * (project + prior + convs + tail)),
            Cost::new("decoder.slice_attention", h * w * attention),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> usize {
        let c = self.channels.unwrap_or(features.last());
        // An FFN: its input, and its hidden channels before and after the norm.
        let ffn = |channels: usize| channels * (1 + 2 * self.mlp_ratio);
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
            kernels: self.tokens.init(classes, features.grid, init),
            trained: self.tokens.is_trained(),
            layers: (0..)
                .zip(drop_paths)
                .map(|(i, drop_path)| Block::new(self, classes, channels, i + 1 == self.num_blocks, drop_path, init))
                .collect(),
            dec_proj: PointwiseConv::new(inputs, channels, init),
            prior: (self.prior == Prior::Linear).then(|| PointwiseConv::new(channels, classes, init)),
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
    /// The classification that the tokens begin as, if they do.
    prior: Option<PointwiseConv>,
    residual_block: Tail,
}

impl StructToken {
    /// The deepest feature map `[b, h, w, c]` to logits `[b, h, w, k]`.
    ///
    /// Records `feat`, `dec_proj`, `prior`, `kernels_in`, `block{i}.kernels`, `block{i}.features` and the steps inside of a block.
    pub fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Tensor<4> {
        let features = input.features(context).last();
        context.record("feat", &features);
        let [batch, h, w, _] = features.dims();
        let mut f = self.dec_proj.forward(features);
        context.record("dec_proj", &f);
        let mut s = self.tokens(batch, (h, w));
        let prior = self.prior.as_ref().map(|prior| prior.forward(f.clone()));
        if let Some(prior) = &prior {
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
        prior.unwrap_or(s) + residual
    }

    /// The structure tokens.
    pub(super) fn prototypes(&self) -> Prototypes {
        let [_, count, rows, cols] = self.kernels.dims();
        Prototypes { id: self.kernels.id, count, grid: Some([rows, cols]), of_classes: true }
    }

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

/// One interaction of tokens and features, of either kind.
#[expect(clippy::large_enum_variant, reason = "a model has a handful of blocks, all of one kind")]
#[derive(Module, Debug)]
pub enum Block {
    /// CSE.
    Cross(CrossSlice),
    /// SSE.
    SelfSlice(SelfSlice),
    /// PWE.
    Pointwise(PointwiseExtraction),
}

impl Block {
    fn new(
        config: &StructTokenConfig,
        classes: usize,
        channels: usize,
        last: bool,
        drop_path: DropPath,
        init: &mut Init,
    ) -> Self {
        let ratio = config.mlp_ratio;
        let both = classes + channels;
        match config.block {
            BlockKind::Cse => Self::Cross(CrossSlice {
                cross_attn: SliceAttention::new(classes, channels, drop_path, init),
                ffn1: Ffn::new(classes, ratio, drop_path, init),
                ffn2: (!last).then(|| Ffn::new(channels, ratio, drop_path, init)),
            }),
            BlockKind::Sse => Self::SelfSlice(SelfSlice {
                cross_attn: SliceAttention::new(both, both, drop_path, init),
                ffn1: Ffn::new(both, ratio, drop_path, init),
            }),
            BlockKind::Pwe => Self::Pointwise(PointwiseExtraction {
                attn: PointwiseAttention::new(both, drop_path, init),
                ffn1: Ffn::new(both, ratio, drop_path, init),
            }),
        }
    }

    /// Tokens `[b, h, w, k]` and features `[b, h, w, c]` to the same.
    fn forward(&self, s: Tensor<4>, f: Tensor<4>, context: &ForwardContext) -> (Tensor<4>, Tensor<4>) {
        match self {
            Self::Cross(block) => {
                let s = block.cross_attn.forward(s, f.clone(), context);
                let s = block.ffn1.forward(s, "ffn1", context);
                let f = match &block.ffn2 {
                    Some(ffn) => ffn.forward(f, "ffn2", context),
                    None => f,
                };
                (s, f)
            }
            Self::SelfSlice(block) => joined(s, f, |z| {
                let z = block.cross_attn.forward(z.clone(), z, context);
                block.ffn1.forward(z, "ffn1", context)
            }),
            Self::Pointwise(block) => joined(s, f, |z| {
                let z = block.attn.forward(z, context);
                block.ffn1.forward(z, "ffn1", context)
            }),
        }
    }
}

/// Runs `body` on tokens and features side by side, tokens first, and takes them apart again.
fn joined(s: Tensor<4>, f: Tensor<4>, body: impl FnOnce(Tensor<4>) -> Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let (classes, channels) = (s.dims()[3], f.dims()[3]);
    let z = body(Tensor::cat(vec![s, f], 3)); // [b, h, w, k + c]
    (z.clone().narrow(3, 0, classes), z.narrow(3, classes, channels))
}

/// Cross-slice extraction.
#[derive(Module, Debug)]
pub struct CrossSlice {
    cross_attn: SliceAttention,
    ffn1: Ffn,
    ffn2: Option<Ffn>,
}

/// Self-slice extraction; its attention is called `cross_attn` in the published weights too.
#[derive(Module, Debug)]
pub struct SelfSlice {
    cross_attn: SliceAttention,
    ffn1: Ffn,
}

/// Point-wise extraction.
#[derive(Module, Debug)]
pub struct PointwiseExtraction {
    attn: PointwiseAttention,
    ffn1: Ffn,
}

/// Attention whose tokens are channels, the *slices*, and whose vectors are the pixels.
#[derive(Module, Debug)]
pub struct SliceAttention {
    query_map: Projection,
    key_map: Projection,
    value_map: Projection,
    out_project: Projection,
    #[module(skip)]
    drop_path: DropPath,
}

impl SliceAttention {
    fn new(queries: usize, keys: usize, drop_path: DropPath, init: &mut Init) -> Self {
        Self {
            query_map: Projection::new(queries, init),
            key_map: Projection::new(keys, init),
            value_map: Projection::new(keys, init),
            out_project: Projection::new(queries, init),
            drop_path,
        }
    }

    /// `x + out(softmax(Q K^T / sqrt(h w)) V)`: `[b, h, w, queries]` and `[b, h, w, keys]` to `[b, h, w, queries]`.
    fn forward(&self, x: Tensor<4>, pairs: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let [batch, h, w, queries] = x.dims();
        let keys = pairs.dims()[3];
        let pixels = h * w;
        let query = self.query_map.forward(x.clone());
        let key = self.key_map.forward(pairs.clone());
        let value = self.value_map.forward(pairs);
        context.record("query_map", &query);
        context.record("key_map", &key);
        context.record("value_map", &value);
        let [key, value] = [key, value].map(|map| map.reshape([batch, pixels, keys]));
        let mixed = kernels::slice_attention(query.reshape([batch, pixels, queries]), key, value);
        let mixed = mixed.reshape([batch, h, w, queries]);
        project_and_add(x, mixed, &self.out_project, self.drop_path, context)
    }
}

/// The PWE interaction: a learned mixing of channels in place of attention.
#[derive(Module, Debug)]
pub struct PointwiseAttention {
    query_map: Projection,
    attn_pw_conv: PointwiseConv,
    out_project: Projection,
    #[module(skip)]
    drop_path: DropPath,
}

impl PointwiseAttention {
    fn new(channels: usize, drop_path: DropPath, init: &mut Init) -> Self {
        Self {
            query_map: Projection::new(channels, init),
            attn_pw_conv: PointwiseConv::new(channels, channels, init),
            out_project: Projection::new(channels, init),
            drop_path,
        }
    }

    /// `x + out(W query(x))`, `[b, h, w, k + c]` to the same.
    fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let query = self.query_map.forward(x.clone());
        context.record("query_map", &query);
        let mixed = self.attn_pw_conv.forward(query);
        context.record("attn_pw_conv", &mixed);
        project_and_add(x, mixed, &self.out_project, self.drop_path, context)
    }
}

fn project_and_add(
    x: Tensor<4>,
    mixed: Tensor<4>,
    out: &Projection,
    drop_path: DropPath,
    context: &ForwardContext,
) -> Tensor<4> {
    context.record("out_project_in", &mixed);
    let projected = out.convolve(mixed);
    if context.is_traced() {
        context.record("out_project", &out.norm3.forward(projected.clone()));
    }
    let factors = drop_path.factors(x.dims()[0], context);
    let x = out.norm3.forward_add(projected, factors, x, false);
    context.record("attn", &x);
    x
}

/// 1x1, norm, GELU, depthwise 3x3, norm, GELU, 1x1, norm (`DepthWiseConvBlock`).
#[derive(Module, Debug)]
pub struct Projection {
    conv1: PointwiseConv,
    norm1: LayerNorm,
    conv2: DepthwiseConv3x3,
    norm2: LayerNorm,
    conv3: PointwiseConv,
    norm3: LayerNorm,
}

impl Projection {
    fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            conv1: PointwiseConv::new(channels, channels, init),
            norm1: LayerNorm::new(channels, EPS, init),
            conv2: DepthwiseConv3x3::new(channels, init),
            norm2: LayerNorm::new(channels, EPS, init),
            conv3: PointwiseConv::new(channels, channels, init),
            norm3: LayerNorm::new(channels, EPS, init),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm3.forward(self.convolve(x))
    }

    /// All but the last norm.
    fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm1.forward_gelu(self.conv1.forward(x));
        let x = self.norm2.forward_gelu(self.conv2.forward(x));
        self.conv3.forward(x)
    }
}

/// 1x1 to `ratio * c`, grouped 3x3 with `c` groups, 1x1 back, and GELU after the residual sum (`GroupConvBlock`).
#[derive(Module, Debug)]
pub struct Ffn {
    pwconv1: PointwiseConv,
    norm1: LayerNorm,
    dwconv: GroupedConv3x3,
    norm2: LayerNorm,
    pwconv2: PointwiseConv,
    norm3: LayerNorm,
    #[module(skip)]
    drop_path: DropPath,
}

impl Ffn {
    fn new(channels: usize, ratio: usize, drop_path: DropPath, init: &mut Init) -> Self {
        let hidden = channels * ratio;
        Self {
            pwconv1: PointwiseConv::new(channels, hidden, init),
            norm1: LayerNorm::new(hidden, FFN_EPS, init),
            dwconv: GroupedConv3x3::new(hidden, channels, init),
            norm2: LayerNorm::new(hidden, FFN_EPS, init),
            pwconv2: PointwiseConv::new(hidden, channels, init),
            norm3: LayerNorm::new(channels, FFN_EPS, init),
            drop_path,
        }
    }

    fn forward(&self, x: Tensor<4>, name: &str, context: &ForwardContext) -> Tensor<4> {
        let y = self.norm1.forward_gelu(self.pwconv1.forward(x.clone()));
        let y = self.norm2.forward_gelu(self.dwconv.forward(y));
        let factors = self.drop_path.factors(x.dims()[0], context);
        let x = self.norm3.forward_add(self.pwconv2.forward(y), factors, x, true);
        context.record(name, &x);
        x
    }
}

/// The residual of `x + conv(GELU(norm(conv(GELU(norm(x))))))`: identity mappings as in He et al. 2016.
#[derive(Module, Debug)]
pub struct Tail {
    norm1: LayerNorm,
    conv1: Conv3x3,
    norm2: LayerNorm,
    conv2: Conv3x3,
}

impl Tail {
    fn new(classes: usize, prior: Prior, init: &mut Init) -> Self {
        Self {
            norm1: LayerNorm::new(classes, EPS, init),
            conv1: Conv3x3::new(classes, classes, init),
            norm2: LayerNorm::new(classes, EPS, init),
            conv2: match prior {
                Prior::None => Conv3x3::new(classes, classes, init),
                Prior::Linear => Conv3x3::zero(classes, classes, init),
            },
        }
    }

    fn residual(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(self.norm1.forward_gelu(x));
        self.conv2.forward(self.norm2.forward_gelu(y))
    }
}
