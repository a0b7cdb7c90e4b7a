//! Stochastic depth: in training a residual branch is left out for some samples (Huang et al. 2016, as in timm and
//! mmcv).

use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::ForwardContext;

/// Drops the branch of a sample with probability `rate`; kept branches are divided by `1 - rate`.
#[derive(Clone, Copy, Debug)]
pub struct DropPath {
    rate: f64,
}

impl DropPath {
    /// Never drops when `rate` is 0.
    pub fn new(rate: f64) -> Self {
        assert!((0.0..1.0).contains(&rate), "drop path rate {rate} is not in [0, 1)");
        Self { rate }
    }

    /// The rates of `depth` layers: 0 for the first, `last` for the last, evenly spaced between (timm, mmcv: linspace).
    pub fn schedule(last: f64, depth: usize) -> Vec<Self> {
        (0..depth).map(|i| Self::new(if depth == 1 { 0.0 } else { last * i as f64 / (depth - 1) as f64 })).collect()
    }

    /// The branch `[b, h, w, c]`, with the samples that are dropped at zero.
    pub fn forward(self, x: Tensor<4>, context: &ForwardContext) -> Tensor<4> {
        let batch = x.dims()[0];
        match self.factors(batch, context) {
            None => x,
            Some(factors) => {
                let factors = kernels::drawn(factors, &x.device());
                x * factors.reshape([batch, 1, 1, 1])
            }
        }
    }

    /// What the branch of each sample is multiplied by: 0 or `1 / (1 - rate)`. None leaves all as they are, which is so
    /// outside of training.
    pub fn factors(self, batch: usize, context: &ForwardContext) -> Option<Vec<f32>> {
        if self.rate == 0.0 {
            return None;
        }
        context.factors(batch, self.rate)
    }
}
