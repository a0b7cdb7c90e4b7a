//! Stochastic depth: in training a residual branch is left out for some samples (Huang et al. 2016, as in timm and mmcv).

use burn::tensor::{Tensor, TensorData};

use super::Pass;

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

    /// `[b, ..]` to the same; the identity outside of training.
    pub fn forward<const D: usize>(self, x: Tensor<D>, pass: &Pass) -> Tensor<D> {
        if self.rate == 0.0 {
            return x;
        }
        let Some(kept) = pass.kept(x.dims()[0], self.rate) else { return x };
        let mut shape = [1; D];
        shape[0] = kept.len();
        let scale: Vec<f32> =
            kept.iter().map(|&kept| if kept { (1.0 / (1.0 - self.rate)) as f32 } else { 0.0 }).collect();
        let device = x.device();
        x * Tensor::<D>::from_data(TensorData::new(scale, shape), &device)
    }
}
