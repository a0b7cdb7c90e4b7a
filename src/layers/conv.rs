//! Convolutions over maps `[b, h, w, c]`: same size, or twice as large, or (pooling) half as large.
//!
//! Weights keep PyTorch's shape: `[out, in / groups, kh, kw]`, transposed `[in, out, kh, kw]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::Init;
pub use kernels::{max_pool2x2, max_pool3x3, upsample2x_concat};

/// 3x3 convolution of each channel by itself, zero padding 1.
#[derive(Module, Debug)]
pub struct DepthwiseConv3x3 {
    /// `[c, 1, 3, 3]`.
    pub weight: Param<Tensor<4>>,
    /// `[c]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl DepthwiseConv3x3 {
    /// Kaiming fan-in weights (fan-in 9), zero bias.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([channels, 1, 3, 3]);
        Self { weight, bias: Some(init.constant(0.0, [channels])) }
    }

    /// Kaiming fan-in weights (fan-in 9).
    pub fn without_bias(channels: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([channels, 1, 3, 3]), bias: None }
    }

    /// `[b, h, w, c]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let bias = bias_or_zeros(self.bias.as_ref(), &weight);
        kernels::depthwise3x3(x, weight, bias)
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
    pub bias: Option<Param<Tensor<1>>>,
}

impl Conv3x3 {
    /// Kaiming fan-in weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([outputs, inputs, 3, 3]);
        Self { weight, bias: Some(init.constant(0.0, [outputs])) }
    }

    /// Kaiming fan-in weights; for a layer that a norm follows.
    pub fn without_bias(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([outputs, inputs, 3, 3]), bias: None }
    }

    /// Zero weights and bias: for the last layer of a residual that begins as none.
    pub fn zero(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let weight = init.constant(0.0, [outputs, inputs, 3, 3]);
        Self { weight, bias: Some(init.constant(0.0, [outputs])) }
    }

    /// `[b, h, w, in]` to `[b, h, w, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), 1, 1)
    }
}

/// Convolution over all channels, of any kernel, stride and padding.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, kh, kw]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: usize,
}

impl Conv2d {
    /// A square kernel of `side`, stride 1, padding 0; Kaiming fan-in weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, side: usize, init: &mut Init) -> Self {
        let conv = Self::without_bias(inputs, outputs, side, init);
        Self { bias: Some(init.constant(0.0, [outputs])), ..conv }
    }

    /// The same without a bias; for a layer that a norm follows.
    pub fn without_bias(inputs: usize, outputs: usize, side: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([outputs, inputs, side, side]);
        Self { weight, bias: None, stride: 1, padding: 0 }
    }

    /// The same with a stride and a padding of zeros.
    #[must_use]
    pub fn strided(self, stride: usize, padding: usize) -> Self {
        Self { stride, padding, ..self }
    }

    /// `[b, h, w, in]` to `[b, ho, wo, out]` with `ho = (h + 2 padding - kh) / stride + 1`, rounded down.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        kernels::conv2d(x, self.weight.val(), bias, self.stride, self.padding)
    }
}

/// 7x7 convolution of each channel by itself, zero padding 3.
#[derive(Module, Debug)]
pub struct DepthwiseConv7x7 {
    /// `[c, 1, 7, 7]`.
    pub weight: Param<Tensor<4>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
}

impl DepthwiseConv7x7 {
    /// Kaiming fan-in weights (fan-in 49), zero bias.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([channels, 1, 7, 7]);
        Self { weight, bias: init.constant(0.0, [channels]) }
    }

    /// `[b, h, w, c]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::depthwise(x, self.weight.val(), self.bias.val())
    }
}

/// The kernels of 3x3 convolutions always add a bias.
fn bias_or_zeros(bias: Option<&Param<Tensor<1>>>, weight: &Tensor<4>) -> Tensor<1> {
    bias.map_or_else(|| Tensor::zeros([weight.dims()[0]], &weight.device()), Param::val)
}

/// Convolution whose stride is its size: a linear layer over patches of pixels, none of which overlap.
#[derive(Module, Debug)]
pub struct PatchConv {
    /// `[out, in, size, size]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl PatchConv {
    /// Kaiming fan-in weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, size: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([outputs, inputs, size, size]);
        Self { weight, bias: Some(init.constant(0.0, [outputs])) }
    }

    /// Kaiming fan-in weights; for a layer that a norm follows.
    pub fn without_bias(inputs: usize, outputs: usize, size: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([outputs, inputs, size, size]), bias: None }
    }

    /// `[b, h, w, in]` to `[b, ceil(h / size), ceil(w / size), out]`, zeros at the bottom and the right.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [outputs, inputs, size, _] = self.weight.dims();
        let weight = self.weight.val().permute([0, 2, 3, 1]).reshape([outputs, size * size * inputs]);
        kernels::linear(patches(x, size), weight, self.bias.as_ref().map(Param::val))
    }
}

/// Squares of `size` pixels as one: `[b, h, w, c]` to `[b, ceil(h / size), ceil(w / size), size · size · c]`, zeros at
/// the bottom and the right.
fn patches(x: Tensor<4>, size: usize) -> Tensor<4> {
    if size == 2 {
        return kernels::space_to_depth2(x);
    }
    let [b, h, w, c] = x.dims();
    let (rows, cols) = (h.div_ceil(size), w.div_ceil(size));
    let device = x.device();
    let x = match rows * size - h {
        0 => x,
        missing => Tensor::cat(vec![x, Tensor::zeros([b, missing, w, c], &device)], 1),
    };
    let x = match cols * size - w {
        0 => x,
        missing => Tensor::cat(vec![x, Tensor::zeros([b, rows * size, missing, c], &device)], 2),
    };
    let x = x.reshape([b, rows, size, cols, size * c]).permute([0, 1, 3, 2, 4]);
    x.reshape([b, rows, cols, size * size * c])
}

/// Transposed 2x2 convolution of stride 2: each pixel becomes a square of 2x2 pixels, and none overlap.
#[derive(Module, Debug)]
pub struct TransposedConv2x2 {
    /// `[in, out, 2, 2]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl TransposedConv2x2 {
    /// Kaiming weights with what one output pixel sees, `in` values, as the fan-in; zero bias.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let std = (2.0 / inputs as f32).sqrt();
        Self { weight: init.normal(std, [inputs, outputs, 2, 2]), bias: init.constant(0.0, [outputs]) }
    }

    /// `[b, h, w, in]` to `[b, 2 h, 2 w, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, w, inputs] = x.dims();
        let outputs = self.bias.dims()[0];
        let weight = self.weight.val().permute([2, 3, 1, 0]).reshape([4 * outputs, inputs]); // [2 · 2 · out, in]
        let bias = self.bias.val().unsqueeze::<2>().expand([4, outputs]).reshape([4 * outputs]);
        let squares = kernels::linear(x, weight, Some(bias)).reshape([b, h, w, 2, 2, outputs]);
        squares.permute([0, 1, 3, 2, 4, 5]).reshape([b, 2 * h, 2 * w, outputs])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::module::{conv_transpose2d, max_pool2d};
    use burn::tensor::ops::{ConvTransposeOptions, MaxPoolOptions};
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::layers::PointwiseConv;
    use crate::rng::Rng;

    fn random(seed: u64, shape: [usize; 4]) -> Tensor<4> {
        let mut rng = Rng::new(seed, &[]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn tracked(x: Tensor<4>) -> Tensor<4> {
        Tensor::from_inner(x).require_grad()
    }

    #[track_caller]
    fn assert_close(a: Tensor<4>, b: Tensor<4>) {
        assert_eq!(a.dims(), b.dims());
        let worst: f32 = (a - b).abs().max().into_scalar();
        assert!(worst < 1e-5, "{worst:e}");
    }

    #[test]
    fn no_bias_is_a_bias_of_zero() {
        let blank = || Init::new(1, &Device::flex());
        let x = random(2, [2, 3, 5, 4]);
        let (with, without) = (Conv3x3::new(4, 6, &mut blank()), Conv3x3::without_bias(4, 6, &mut blank()));
        assert_close(without.forward(x.clone()), with.forward(x.clone()));
        let (with, without) = (PointwiseConv::new(4, 6, &mut blank()), PointwiseConv::without_bias(4, 6, &mut blank()));
        assert_close(without.forward(x.clone()), with.forward(x.clone()));
        let (with, without) = (DepthwiseConv3x3::new(4, &mut blank()), DepthwiseConv3x3::without_bias(4, &mut blank()));
        assert_close(without.forward(x.clone()), with.forward(x));
        assert_eq!(without.num_params() + 4, with.num_params());
    }

    #[test]
    fn a_layer_without_bias_learns() {
        let conv = Conv3x3::without_bias(4, 6, &mut Init::new(1, &Device::flex().autodiff()));
        let x = tracked(random(2, [2, 3, 5, 4]));
        let grads = conv.forward(x.clone()).powi_scalar(2).sum().backward();
        assert_eq!(conv.weight.grad(&grads).unwrap().dims(), [6, 4, 3, 3]);
        assert_eq!(x.grad(&grads).unwrap().dims(), [2, 3, 5, 4]);
    }

    #[test]
    fn any_kernel_has_the_size_of_pytorch() {
        let mut init = Init::new(1, &Device::flex());
        let x = random(2, [2, 13, 16, 3]);
        let stem = Conv2d::without_bias(3, 8, 7, &mut init).strided(2, 3);
        let y = stem.forward(x.clone());
        assert_eq!((y.dims(), stem.num_params()), ([2, 7, 8, 8], 8 * 3 * 49));
        assert_eq!(max_pool3x3(y.clone()).dims(), [2, 4, 4, 8]);
        assert_eq!(Conv2d::new(8, 5, 1, &mut init).strided(2, 0).forward(y.clone()).dims(), [2, 4, 4, 5]);
        assert_eq!(Conv2d::new(3, 4, 4, &mut init).strided(4, 0).forward(x).dims(), [2, 3, 4, 4]);
        assert_eq!(DepthwiseConv7x7::new(8, &mut init).forward(y.clone()).dims(), y.dims());
    }

    #[test]
    fn transposed_matches_burn() {
        let mut layer = TransposedConv2x2::new(5, 3, &mut Init::new(1, &Device::flex()));
        layer.bias = Init::new(2, &Device::flex()).normal(1.0, [3]);
        let x = random(3, [2, 3, 4, 5]);
        let options = ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
        let first = x.clone().permute([0, 3, 1, 2]);
        let expected = conv_transpose2d(first, layer.weight.val(), Some(layer.bias.val()), options);
        assert_close(layer.forward(x), expected.permute([0, 2, 3, 1]));
    }

    #[test]
    fn pooling_matches_burn_also_in_its_gradient() {
        for (h, w) in [(2, 2), (4, 6), (5, 3), (7, 8)] {
            let dy = random(2, [2, h / 2, w / 2, 3]);
            let pool = |x: Tensor<4>| {
                let x = x.permute([0, 3, 1, 2]);
                max_pool2d(x, MaxPoolOptions::new([2, 2])).permute([0, 2, 3, 1])
            };
            let functions: [&dyn Fn(Tensor<4>) -> Tensor<4>; 2] = [&max_pool2x2, &pool];
            let [(y, dx), (expected, expected_dx)] = functions.map(|f| {
                let x = tracked(random(1, [2, h, w, 3]));
                let y = f(x.clone());
                let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                (y.inner(), x.grad(&grads).unwrap())
            });
            assert_close(y, expected);
            assert_close(dx, expected_dx);
        }
    }

    #[test]
    fn pooling_keeps_a_side_of_one() {
        let x = random(1, [1, 1, 5, 2]);
        let y = max_pool2x2(x.clone());
        assert_close(y.clone().narrow(2, 0, 1), x.clone().narrow(2, 0, 2).max_dim(2));
        assert_eq!(y.dims(), [1, 1, 2, 2]);
        assert_eq!(max_pool2x2(x.clone().permute([0, 2, 1, 3])).dims(), [1, 2, 1, 2]);
        let pixel = x.narrow(2, 0, 1);
        assert_close(max_pool2x2(pixel.clone()), pixel);
    }
}
