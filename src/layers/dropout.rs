//! Dropout: in training, values are zeroed at random and the others scaled up (Srivastava et al. 2014).

use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::ForwardContext;

/// Drops each value with probability `rate`; kept ones are divided by `1 - rate`.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    rate: f64,
}

impl Dropout {
    /// Never drops when `rate` is 0.
    pub fn new(rate: f64) -> Self {
        assert!((0.0..1.0).contains(&rate), "dropout rate {rate} is not in [0, 1)");
        Self { rate }
    }

    /// Does it leave values as they are in this pass?
    pub fn is_off(self, context: &ForwardContext) -> bool {
        self.rate == 0.0 || !context.trains()
    }

    /// `x` in inference; in training with values dropped as the pass draws them.
    pub fn forward<const D: usize>(self, x: Tensor<D>, context: &ForwardContext) -> Tensor<D> {
        if self.rate == 0.0 {
            return x;
        }
        let shape = x.dims();
        let Some(factors) = context.factors(shape.iter().product(), self.rate) else { return x };
        let factors = kernels::drawn(factors, &x.device());
        x * factors.reshape(shape)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn keeps_the_mean() {
        let x = Tensor::<2>::ones([100, 100], &Device::flex());
        assert_eq!(Dropout::new(0.3).forward(x.clone(), &ForwardContext::eval()).sum().into_scalar::<f32>(), 1e4);
        let dropped = Dropout::new(0.3).forward(x, &ForwardContext::train(Rng::new(1, &[])));
        assert!((dropped.clone().mean().into_scalar::<f32>() - 1.0).abs() < 0.02);
        assert!((dropped.max().into_scalar::<f32>() - 1.0 / 0.7).abs() < 1e-6);
    }
}
