//! Parts of a U-Net: convolutions with their norm, blocks, and the steps between its levels.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use crate::backbone::unet::NormKind;
use crate::layers::{BatchNorm, Conv3x3, DropPath, ForwardContext, GroupNorm, Init, PatchConv, upsample2x_concat};

/// Channels that a group norm takes together.
pub(super) const GROUP: usize = 8;
/// Of a group norm.
pub(super) const EPS: f64 = 1e-5;

/// Batch or group normalisation.
#[derive(Module, Debug)]
pub(super) enum Norm {
    /// Over the batch.
    Batch(BatchNorm),
    /// Over groups of channels.
    Group(GroupNorm),
}

impl Norm {
    pub(super) fn new(kind: NormKind, channels: usize, init: &mut Init) -> Self {
        match kind {
            NormKind::Batch => Self::Batch(BatchNorm::new(channels, init)),
            NormKind::Group => Self::Group(GroupNorm::new(channels / GROUP, channels, EPS, init)),
        }
    }

    /// One that begins at zero.
    pub(super) fn zero(kind: NormKind, channels: usize, init: &mut Init) -> Self {
        let mut norm = Self::new(kind, channels, init);
        match &mut norm {
            Self::Batch(norm) => norm.weight = init.constant(0.0, [channels]),
            Self::Group(norm) => norm.weight = init.constant(0.0, [channels]),
        }
        norm
    }

    pub(super) fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        match self {
            Self::Batch(norm) => norm.forward(x, context),
            Self::Group(norm) => norm.forward(x),
        }
    }

    pub(super) fn forward_relu(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        match self {
            Self::Batch(norm) => norm.forward_relu(x, context),
            Self::Group(norm) => norm.forward_relu(x),
        }
    }
}

/// 3x3 convolution, norm, ReLU.
#[derive(Module, Debug)]
pub(super) struct ConvNorm {
    conv: Conv3x3,
    norm: Norm,
}

impl ConvNorm {
    pub(super) fn new(inputs: usize, outputs: usize, norm: NormKind, init: &mut Init) -> Self {
        Self { conv: Conv3x3::without_bias(inputs, outputs, init), norm: Norm::new(norm, outputs, init) }
    }

    pub(super) fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.norm.forward_relu(self.conv.forward(x), context)
    }
}

/// Patches of `stem_stride` pixels, and what lies around them.
#[derive(Module, Debug)]
pub(super) struct Stem {
    proj: PatchConv,
    norm: Norm,
    conv: ConvNorm,
}

impl Stem {
    pub(super) fn new(stride: usize, channels: usize, norm: NormKind, init: &mut Init) -> Self {
        Self {
            proj: PatchConv::without_bias(3, channels, stride, init),
            norm: Norm::new(norm, channels, init),
            conv: ConvNorm::new(channels, channels, norm, init),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.conv.forward(self.norm.forward_relu(self.proj.forward(x), context), context)
    }
}

/// Blocks at one size.
#[derive(Module, Debug)]
pub(super) struct Stage {
    pub(super) blocks: Vec<Block>,
}

/// The basic residual block.
#[derive(Module, Debug)]
pub(super) struct Block {
    conv1: Conv3x3,
    norm1: Norm,
    conv2: Conv3x3,
    norm2: Norm,
    #[module(skip)]
    drop_path: DropPath,
}

impl Block {
    pub(super) fn new(channels: usize, norm: NormKind, drop_path: DropPath, init: &mut Init) -> Self {
        Self {
            conv1: Conv3x3::without_bias(channels, channels, init),
            norm1: Norm::new(norm, channels, init),
            conv2: Conv3x3::without_bias(channels, channels, init),
            norm2: Norm::zero(norm, channels, init),
            drop_path,
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let y = self.norm1.forward_relu(self.conv1.forward(x.clone()), context);
        let y = self.norm2.forward(self.conv2.forward(y), context);
        relu(x + self.drop_path.forward(y, context))
    }
}

/// Half of the rows and columns.
#[derive(Module, Debug)]
pub(super) struct Downsample {
    conv: PatchConv,
    norm: Norm,
}

impl Downsample {
    pub(super) fn new(inputs: usize, outputs: usize, norm: NormKind, init: &mut Init) -> Self {
        Self { conv: PatchConv::without_bias(inputs, outputs, 2, init), norm: Norm::new(norm, outputs, init) }
    }

    pub(super) fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x), context)
    }
}

/// Twice the rows and columns, beside the map of that size from the way down.
#[derive(Module, Debug)]
pub(super) struct Up {
    conv1: ConvNorm,
    conv2: ConvNorm,
}

impl Up {
    pub(super) fn new(skip: usize, below: usize, channels: usize, norm: NormKind, init: &mut Init) -> Self {
        Self {
            conv1: ConvNorm::new(below + skip, channels, norm, init),
            conv2: ConvNorm::new(channels, channels, norm, init),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>, skip: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.conv2.forward(self.conv1.forward(upsample2x_concat(x, skip), context), context)
    }
}
