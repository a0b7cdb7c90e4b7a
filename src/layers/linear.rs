//! Fully connected layer.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::Init;

/// `y = x W^T + b` over the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as in PyTorch.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Truncated normal weights of deviation 0.02, zero bias (the ViT's initialisation).
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.trunc_normal(0.02, [outputs, inputs]), bias: init.constant(0.0, [outputs]) }
    }

    /// Xavier uniform weights, zero bias (the initialisation of DETR and its kin).
    pub fn xavier(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.xavier_uniform([outputs, inputs]), bias: init.constant(0.0, [outputs]) }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::linear(x, self.weight.val(), Some(self.bias.val()))
    }

    /// GELU of the layer.
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::linear_gelu(x, self.weight.val(), Some(self.bias.val()))
    }

    /// The end of a residual branch: `residual` plus the layer, by `scale [out]` and a factor for each sample.
    pub fn forward_add<const D: usize>(
        &self,
        x: Tensor<D>,
        scale: Option<Tensor<1>>,
        factors: Option<Vec<f32>>,
        residual: Tensor<D>,
    ) -> Tensor<D> {
        kernels::linear_add(x, self.weight.val(), Some(self.bias.val()), scale, factors, residual)
    }
}

/// `y = x W^T` over the last axis.
#[derive(Module, Debug)]
pub struct Unbiased {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
}

impl Unbiased {
    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::linear(x, self.weight.val(), None)
    }
}
