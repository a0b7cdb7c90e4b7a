//! Group normalisation of maps: over the pixels and some neighbouring channels.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::Init;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the pixels of each group of channels of a sample.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[c]`.
    pub weight: Param<Tensor<1>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    eps: f64,
}

impl GroupNorm {
    /// Scale one, shift zero. `groups` must divide `channels`.
    pub fn new(groups: usize, channels: usize, eps: f64, init: &mut Init) -> Self {
        assert!(groups > 0 && channels.is_multiple_of(groups), "a GroupNorm of {channels} channels in {groups} groups");
        Self { weight: init.constant(1.0, [channels]), bias: init.constant(0.0, [channels]), groups, eps }
    }

    /// `[b, h, w, c]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps)
    }

    /// ReLU of [`GroupNorm::forward`].
    pub fn forward_relu(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::group_norm_relu(x, self.weight.val(), self.bias.val(), self.groups, self.eps)
    }
}
