//! Images to tokens.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::Init;

/// Cuts the image into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    proj: PatchProjection,
}

/// A convolution whose stride is its size.
#[derive(Module, Debug)]
pub struct PatchProjection {
    /// `[c, 3, patch, patch]`.
    weight: Param<Tensor<4>>,
    /// `[c]`.
    bias: Param<Tensor<1>>,
}

impl PatchEmbed {
    /// For patches of `patch` pixels along a side, which become `channels`.
    pub fn new(channels: usize, patch: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([channels, 3, patch, patch]);
        Self { proj: PatchProjection { weight, bias: init.constant(0.0, [channels]) } }
    }

    /// `[b, 3, height, width]` to tokens `[b, h * w, c]` and their grid, `h = ceil(height / patch)`: images are padded
    /// with zeros at the bottom and the right.
    pub fn forward(&self, images: Tensor<4>) -> (Tensor<3>, (usize, usize)) {
        let [dim, colors, patch, _] = self.proj.weight.dims();
        let [batch, _, height, width] = images.dims();
        let (h, w) = (height.div_ceil(patch), width.div_ceil(patch));
        let images = pad_to(images, (h * patch, w * patch));
        let patches = images.reshape([batch, colors, h, patch, w, patch]).permute([0, 2, 4, 1, 3, 5]).reshape([
            batch,
            h * w,
            colors * patch * patch,
        ]); // [b, n, 3 p p]
        let weight = self.proj.weight.val().reshape([dim, colors * patch * patch]);
        // Pixels that lie close together would become the same in eight bits.
        (kernels::without_int8(|| kernels::linear(patches, weight, Some(self.proj.bias.val()))), (h, w))
    }
}

/// Zeros at the bottom and the right, up to (height, width).
fn pad_to(images: Tensor<4>, (height, width): (usize, usize)) -> Tensor<4> {
    let [batch, colors, h, w] = images.dims();
    if (h, w) == (height, width) {
        return images;
    }
    let device = images.device();
    let images = Tensor::cat(vec![images, Tensor::zeros([batch, colors, height - h, w], &device)], 2);
    Tensor::cat(vec![images, Tensor::zeros([batch, colors, height, width - w], &device)], 3)
}
