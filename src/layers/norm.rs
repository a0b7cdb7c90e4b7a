//! Layer normalisation over the last axis: the channels of a token or of a pixel.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Init;
use crate::kernels;

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
}
