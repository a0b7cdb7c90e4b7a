//! Convolutions over maps `[b, h, w, c]`, stride 1, same size. Weights keep PyTorch's shape `[out, in / groups, kh, kw]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Init;
use crate::kernels;

/// 1x1 convolution: a linear layer over the channels of each pixel.
#[derive(Module, Debug)]
pub struct PointwiseConv {
    /// `[out, in, 1, 1]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl PointwiseConv {
    /// Kaiming fan-in weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([outputs, inputs, 1, 1]), bias: init.constant(0.0, [outputs]) }
    }

    /// `[b, h, w, in]` to `[b, h, w, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [outputs, inputs, ..] = self.weight.dims();
        kernels::linear(x, self.weight.val().reshape([outputs, inputs]), Some(self.bias.val()))
    }
}

/// 3x3 convolution of each channel by itself, zero padding 1.
#[derive(Module, Debug)]
pub struct DepthwiseConv3x3 {
    /// `[c, 1, 3, 3]`.
    pub weight: Param<Tensor<4>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
}

impl DepthwiseConv3x3 {
    /// Kaiming fan-in weights (fan-in 9), zero bias.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([channels, 1, 3, 3]), bias: init.constant(0.0, [channels]) }
    }

    /// `[b, h, w, c]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::depthwise3x3(x, self.weight.val(), self.bias.val())
    }
}

/// 3x3 convolution within groups of channels, zero padding 1.
#[derive(Module, Debug)]
pub struct GroupedConv3x3 {
    /// `[c, c / groups, 3, 3]`.
    pub weight: Param<Tensor<4>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
}

impl GroupedConv3x3 {
    /// Kaiming fan-in weights (fan-in `9 c / groups`), zero bias.
    pub fn new(channels: usize, groups: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([channels, channels / groups, 3, 3]);
        Self { weight, bias: init.constant(0.0, [channels]), groups }
    }

    /// `[b, h, w, c]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::grouped3x3(x, self.weight.val(), self.bias.val(), self.groups)
    }
}

/// 3x3 convolution over all channels, zero padding 1.
#[derive(Module, Debug)]
pub struct Conv3x3 {
    /// `[out, in, 3, 3]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Conv3x3 {
    /// Kaiming fan-in weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([outputs, inputs, 3, 3]), bias: init.constant(0.0, [outputs]) }
    }

    /// `[b, h, w, in]` to `[b, h, w, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::conv3x3(x, self.weight.val(), self.bias.val())
    }
}
