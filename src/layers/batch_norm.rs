//! Batch normalisation over the channels of a map.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::without_graph;
use crate::layers::{ForwardContext, Init, Statistic};

/// Share of a batch in the running statistics, as PyTorch counts it.
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for each channel, with the batch's mean and variance in training
/// and the running ones in inference; as `torch.nn.BatchNorm2d`.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[c]`.
    pub weight: Param<Tensor<1>>,
    /// `[c]`.
    pub bias: Param<Tensor<1>>,
    /// `[c]`; follows the batches, without a gradient.
    pub running_mean: Param<Tensor<1>>,
    /// `[c]`; follows the batches' unbiased variances, without a gradient.
    pub running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    /// Scale one, shift zero, statistics of a standard normal.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            weight: init.constant(1.0, [channels]),
            bias: init.constant(0.0, [channels]),
            running_mean: init.constant(0.0, [channels]).set_require_grad(false),
            running_var: init.constant(1.0, [channels]).set_require_grad(false),
        }
    }

    /// `[b, h, w, c]` to the same.
    pub fn forward(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.run(x, context, false)
    }

    /// ReLU of [`BatchNorm::forward`].
    pub fn forward_relu(&self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        self.run(x, context, true)
    }

    fn run(&self, x: Tensor<4>, context: &ForwardContext, relu: bool) -> Tensor<4> {
        let [b, h, w, _] = x.dims();
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !context.trains() {
            let moments = [self.running_mean.val(), self.running_var.val()];
            return kernels::batch_norm_with(x, weight, bias, moments, EPS, relu);
        }
        let (y, [mean, variance]) = kernels::batch_norm(x, weight, bias, EPS, relu);
        self.follow(mean, variance, b * h * w, context);
        y
    }

    fn follow(&self, mean: Tensor<1>, variance: Tensor<1>, n: usize, context: &ForwardContext) {
        let unbiased = n as f64 / (n.max(2) - 1) as f64;
        for (running, now) in [(&self.running_mean, mean), (&self.running_var, variance * unbiased)] {
            context.follow(Statistic { id: running.id, value: without_graph(now), momentum: MOMENTUM });
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn batches_are_normalised_and_remembered() {
        let norm = BatchNorm::new(3, &mut Init::new(1, &Device::flex()));
        let x = Tensor::<4>::random([2, 5, 7, 3], Distribution::Normal(4.0, 2.0), &Device::flex());
        assert!((norm.forward(x.clone(), &ForwardContext::eval()) - x.clone()).abs().max().into_scalar::<f32>() < 1e-3);
        let context = ForwardContext::train(Rng::new(1, &[]));
        let y = norm.forward(x.clone(), &context).reshape([70, 3]);
        assert!(y.clone().mean_dim(0).abs().max().into_scalar::<f32>() < 1e-4);
        assert!(((y.clone() * y.clone()).mean_dim(0) - 1.0).abs().max().into_scalar::<f32>() < 1e-3);
        let left = context.take_statistics();
        assert_eq!((left.len(), left[0].id), (2, norm.running_mean.id));
        let mean = x.reshape([70, 3]).mean_dim(0).squeeze_dim::<1>(0);
        let after = left[0].after(norm.running_mean.val());
        assert!((after - mean * 0.1).abs().max().into_scalar::<f32>() < 1e-4);
    }

    #[test]
    fn relu_cuts_what_is_negative() {
        let norm = BatchNorm::new(3, &mut Init::new(1, &Device::flex()));
        let x = Tensor::<4>::random([2, 5, 7, 3], Distribution::Normal(4.0, 2.0), &Device::flex());
        for context in [ForwardContext::eval(), ForwardContext::train(Rng::new(1, &[]))] {
            let y = norm.forward_relu(x.clone(), &context);
            assert!((y - norm.forward(x.clone(), &context).clamp_min(0.0)).abs().max().into_scalar::<f32>() == 0.0);
        }
    }
}
