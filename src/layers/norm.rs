//! Layer normalisation over the last axis: the channels of a token or of a pixel.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::Init;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[c]`.
    pub weight: Param<Tensor<1>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// Scale one, shift zero.
    pub fn new(channels: usize, eps: f64, init: &mut Init) -> Self {
        Self { weight: init.constant(1.0, [channels]), bias: init.constant(0.0, [channels]), eps }
    }

    /// `[.., c]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }

    /// The norm followed by GELU, in one pass.
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::layer_norm_gelu(x, self.weight.val(), self.bias.val(), self.eps)
    }

    /// The end of a residual branch: `residual` plus the norm by a factor for each sample; with `gelu`, GELU of the
    /// sum.
    pub fn forward_add<const D: usize>(
        &self,
        x: Tensor<D>,
        factors: Option<Vec<f32>>,
        residual: Tensor<D>,
        gelu: bool,
    ) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        kernels::layer_norm_add(x, weight, bias, self.eps, factors, residual, gelu)
    }
}
