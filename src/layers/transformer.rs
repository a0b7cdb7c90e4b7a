//! The block of a vision transformer, with timm's parameter names.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::kernels;
use crate::layers::{DropPath, ForwardContext, Init, LayerNorm, Linear, Rotation, cross_attention};

/// Attention and MLP, each normalised before, scaled and dropped after, and added.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
    #[module(skip)]
    drop_path: DropPath,
}

/// What a [`Block`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    /// Channels of a token.
    pub dim: usize,
    /// Attention heads; divides the width.
    pub heads: usize,
    /// Hidden channels of the MLP.
    pub mlp_dim: usize,
    /// The kind of MLP.
    pub mlp: MlpLayer,
    /// Which biases queries, keys and values have.
    pub qkv_bias: QkvBias,
    /// Initial LayerScale; none leaves LayerScale out.
    pub init_values: Option<f64>,
    /// Of the norms.
    pub eps: f64,
}

/// The MLP of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MlpLayer {
    /// Linear, GELU, linear.
    #[default]
    Mlp,
    /// Two linear layers side by side, the SiLU of the first times the second, linear (Shazeer 2020).
    SwiGlu,
}

impl MlpLayer {
    /// Outputs of the first layer for this many hidden channels.
    pub fn products(self, hidden: usize) -> usize {
        match self {
            Self::Mlp => hidden,
            Self::SwiGlu => 2 * hidden,
        }
    }

    /// Values a token that training keeps of it, beside its input.
    pub fn kept(self, hidden: usize) -> usize {
        match self {
            Self::Mlp => 2 * hidden,
            Self::SwiGlu => 3 * hidden,
        }
    }

    /// Values a token that are alive at once inside of it: gates and what they let through lie beside their product.
    pub fn alive(self, hidden: usize) -> usize {
        match self {
            Self::Mlp => hidden,
            Self::SwiGlu => 3 * hidden,
        }
    }
}

/// Which of queries, keys and values have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkvBias {
    /// All of them, as one parameter.
    #[default]
    All,
    /// Queries and values, each with a parameter of its own.
    NoKeys,
    /// None of them.
    None,
}

impl Block {
    /// A block with initial weights.
    pub fn new(shape: &BlockShape, drop_path: DropPath, init: &mut Init) -> Self {
        let BlockShape { dim, mlp_dim, mlp, init_values, eps, .. } = *shape;
        let mut scale = || init_values.map(|value| LayerScale { gamma: init.constant(value as f32, [dim]) });
        let (ls1, ls2) = (scale(), scale());
        Self {
            norm1: LayerNorm::new(dim, eps, init),
            attn: Attention::new(shape, init),
            ls1,
            norm2: LayerNorm::new(dim, eps, init),
            mlp: Mlp::new(dim, mlp_dim, mlp, init),
            ls2,
            drop_path,
        }
    }

    /// Tokens `[b, n, c]` to the same. `blocked [b, n, n]` holds 1 where a token (second axis) must not look at another
    /// (third axis), for all heads alike; no row may be blocked throughout. `rotation` turns the queries and keys of
    /// the last tokens by their places.
    ///
    /// Records `attn`, the stream between both halves.
    pub fn forward(
        &self,
        x: Tensor<3>,
        blocked: Option<Tensor<3>>,
        rotation: Option<&Rotation>,
        context: &ForwardContext,
    ) -> Tensor<3> {
        let [batch, _, _] = x.dims();
        let scale = |scale: &Option<LayerScale>| scale.as_ref().map(|scale| scale.gamma.val());
        let y = self.attn.forward(self.norm1.forward(x.clone()), blocked, rotation);
        let x = self.attn.proj.forward_add(y, scale(&self.ls1), self.drop_path.factors(batch, context), x);
        context.record("attn", &x);
        let y = self.mlp.hidden(self.norm2.forward(x.clone()));
        self.mlp.fc2.forward_add(y, scale(&self.ls2), self.drop_path.factors(batch, context), x)
    }
}

/// Multi-head self-attention with the packed projection of timm: queries, keys, values along the output axis.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Projection,
    q_bias: Option<Param<Tensor<1>>>,
    v_bias: Option<Param<Tensor<1>>>,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

/// A linear layer that may have no bias.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[out, in]`.
    weight: Param<Tensor<2>>,
    /// `[out]`.
    bias: Option<Param<Tensor<1>>>,
}

impl Attention {
    fn new(shape: &BlockShape, init: &mut Init) -> Self {
        let BlockShape { dim, heads, qkv_bias, .. } = *shape;
        let mut bias = |kind, channels| (kind == qkv_bias).then(|| init.constant(0.0, [channels]));
        let (all, queries, values) =
            (bias(QkvBias::All, 3 * dim), bias(QkvBias::NoKeys, dim), bias(QkvBias::NoKeys, dim));
        let qkv = Projection { weight: init.xavier_uniform([3 * dim, dim]), bias: all };
        Self { qkv, q_bias: queries, v_bias: values, proj: Linear::new(dim, dim, init), heads }
    }

    /// `[b, n, c]` to the same, before the last projection.
    fn forward(&self, x: Tensor<3>, blocked: Option<Tensor<3>>, rotation: Option<&Rotation>) -> Tensor<3> {
        let qkv = kernels::linear(x, self.qkv.weight.val(), self.bias());
        let qkv = match rotation {
            None => qkv,
            Some(rotation) => rotation.forward(qkv, self.heads),
        };
        match blocked {
            None => kernels::attention(qkv, self.heads),
            Some(blocked) => {
                let part = qkv.dims()[2] / 3;
                let [q, k, v] = [0, 1, 2].map(|i| qkv.clone().narrow(2, i * part, part));
                cross_attention(q, k, v, self.heads, Some(blocked))
            }
        }
    }

    /// `[3 c]`; zeros for what has none.
    fn bias(&self) -> Option<Tensor<1>> {
        match (&self.qkv.bias, &self.q_bias, &self.v_bias) {
            (Some(all), ..) => Some(all.val()),
            (None, Some(queries), Some(values)) => {
                let (queries, values) = (queries.val(), values.val());
                let keys = Tensor::zeros(queries.shape(), &queries.device());
                Some(Tensor::cat(vec![queries, keys, values], 0))
            }
            _ => None,
        }
    }
}

/// Two linear layers with GELU between them, or SwiGLU: the first layer has the gates before what they let through.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    kind: MlpLayer,
}

impl Mlp {
    fn new(dim: usize, hidden: usize, kind: MlpLayer, init: &mut Init) -> Self {
        Self { fc1: Linear::new(dim, kind.products(hidden), init), fc2: Linear::new(hidden, dim, init), kind }
    }

    /// `[b, n, c]` to what the last layer takes.
    fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        match self.kind {
            MlpLayer::Mlp => self.fc1.forward_gelu(x),
            MlpLayer::SwiGlu => kernels::swiglu(self.fc1.forward(x)),
        }
    }
}

/// A learned factor a channel on a residual branch (Touvron et al. 2021).
#[derive(Module, Debug)]
pub struct LayerScale {
    gamma: Param<Tensor<1>>,
}
