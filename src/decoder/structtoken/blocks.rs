//! The blocks of [`StructToken`](super::StructToken) and what they are made of: extraction by slices or points, the
//! convolutional FFN, and the residual tail.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::decoder::structtoken::{BlockKind, Prior, StructTokenConfig};
use crate::kernels;
use crate::layers::{
    Conv3x3, DepthwiseConv3x3, DropPath, ForwardContext, GroupedConv3x3, Init, LayerNorm, PointwiseConv,
};

const EPS: f64 = 1e-6;
const FFN_EPS: f64 = 1e-5;

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
    pub(super) fn new(
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
    pub(super) fn forward(&self, s: Tensor<4>, f: Tensor<4>, context: &ForwardContext) -> (Tensor<4>, Tensor<4>) {
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

    /// The same function with the linear layers of [`PointwiseAttention`] that follow one another as one.
    pub(super) fn for_inference(self) -> Self {
        match self {
            Self::Pointwise(block) => {
                Self::Pointwise(PointwiseExtraction { attn: block.attn.for_inference(), ..block })
            }
            other => other,
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
    /// None where the first layer of `out_project` does its work too.
    attn_pw_conv: Option<PointwiseConv>,
    out_project: Projection,
    #[module(skip)]
    drop_path: DropPath,
}

impl PointwiseAttention {
    fn new(channels: usize, drop_path: DropPath, init: &mut Init) -> Self {
        Self {
            query_map: Projection::new(channels, init),
            attn_pw_conv: Some(PointwiseConv::new(channels, channels, init)),
            out_project: Projection::new(channels, init),
            drop_path,
        }
    }

    /// `x + out(W query(x))`, `[b, h, w, k + c]` to the same.
    fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let query = self.query_map.forward(x.clone());
        context.record("query_map", &query);
        let mixed = match &self.attn_pw_conv {
            Some(conv) => conv.forward(query),
            None => query,
        };
        if self.attn_pw_conv.is_some() {
            context.record("attn_pw_conv", &mixed);
        }
        project_and_add(x, mixed, &self.out_project, self.drop_path, context)
    }

    /// The same function with one linear layer between the norms of its projections.
    fn for_inference(mut self) -> Self {
        if let Some(first) = self.attn_pw_conv.take() {
            self.out_project.conv1 = self.out_project.conv1.after(&first);
        }
        self
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
    pub(super) fn new(classes: usize, prior: Prior, init: &mut Init) -> Self {
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

    pub(super) fn residual(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(self.norm1.forward_gelu(x));
        self.conv2.forward(self.norm2.forward_gelu(y))
    }
}
