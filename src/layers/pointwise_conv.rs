//! 1x1 convolution over maps `[b, h, w, c]`. Weights keep PyTorch's shape, `[out, in, 1, 1]`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels::{self, Precision};
use crate::layers::Init;

/// 1x1 convolution: a linear layer over the channels of each pixel.
#[derive(Module, Debug)]
pub struct PointwiseConv {
    /// `[out, in, 1, 1]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl PointwiseConv {
    /// Kaiming fan-in weights, zero bias.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        let weight = init.kaiming_fan_in([outputs, inputs, 1, 1]);
        Self { weight, bias: Some(init.constant(0.0, [outputs])) }
    }

    /// Kaiming fan-in weights; for a layer that a norm follows.
    pub fn without_bias(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.kaiming_fan_in([outputs, inputs, 1, 1]), bias: None }
    }

    /// Small normal weights (std 0.01) and zero bias, as mmsegmentation's `conv_seg` begins: at first all classes are
    /// about as likely.
    pub fn classifier(inputs: usize, classes: usize, init: &mut Init) -> Self {
        let weight = init.normal(0.01, [classes, inputs, 1, 1]);
        Self { weight, bias: Some(init.constant(0.0, [classes])) }
    }

    /// `[b, h, w, in]` to `[b, h, w, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [outputs, inputs, ..] = self.weight.dims();
        kernels::linear(x, self.weight.val().reshape([outputs, inputs]), self.bias.as_ref().map(Param::val))
    }

    /// What applies `first` and then this: `W (V x + a) + b = (W V) x + (W a + b)`. Without gradients.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        let matrix = |conv: &Self| {
            let [outputs, inputs, ..] = conv.weight.dims();
            conv.weight.val().detach().reshape([outputs, inputs])
        };
        let (own, before) = (matrix(self), matrix(first));
        let [outputs, inputs] = [own.dims()[0], before.dims()[1]];
        // `linear` multiplies by the transpose of its weight.
        let product = |of: Tensor<2>, weight: Tensor<2>| {
            kernels::with_precision(Precision::F32, || kernels::linear(of, weight, None))
        };
        let own_bias = self.bias.as_ref().map(|bias| bias.val().detach());
        let moved = first.bias.as_ref().map(|bias| {
            let row = bias.val().detach().reshape([1, own.dims()[1]]);
            product(row, own.clone()).reshape([outputs])
        });
        let bias = match (moved, own_bias) {
            (Some(moved), Some(own)) => Some(moved + own),
            (moved, own) => moved.or(own),
        };
        let weight = product(own, before.transpose());
        Self { weight: Param::from_tensor(weight.reshape([outputs, inputs, 1, 1])), bias: bias.map(Param::from_tensor) }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[track_caller]
    fn assert_close(a: Tensor<4>, b: Tensor<4>) {
        assert_eq!(a.dims(), b.dims());
        let worst: f32 = (a - b).abs().max().into_scalar();
        assert!(worst < 1e-5, "{worst:e}");
    }

    #[test]
    fn one_after_another_is_both() {
        let mut init = Init::new(1, &Device::flex());
        let mut of = |inputs, outputs, bias: bool| {
            let conv = PointwiseConv::without_bias(inputs, outputs, &mut init);
            PointwiseConv { bias: bias.then(|| init.trunc_normal(1.0, [outputs])), ..conv }
        };
        let x = Init::new(2, &Device::flex()).normal(1.0, [2, 3, 5, 4]).val();
        for [first_bias, bias] in [[true, true], [true, false], [false, true], [false, false]] {
            let (first, second) = (of(4, 6, first_bias), of(6, 3, bias));
            let both = second.after(&first);
            // As of a model that learns.
            let learning = [&second, &first].map(|conv| conv.clone().to_device(&Device::flex().autodiff()));
            let learned = learning[0].after(&learning[1]);
            assert_close(learned.forward(Tensor::from_inner(x.clone())).inner(), both.forward(x.clone()));
            assert_eq!(both.bias.is_some(), first_bias || bias);
            assert_close(both.forward(x.clone()), second.forward(first.forward(x.clone())));
        }
    }
}
