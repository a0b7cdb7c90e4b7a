//! Dropped paths: a residual branch is multiplied by a factor for each sample, the first axis.

use burn::tensor::Tensor;

use crate::kernels::drawn::drawn;

/// The factor of each row's sample, where `rows` rows belong to all samples alike; 1 without factors.
pub(super) fn scale_of(factors: Option<&[f32]>, rows: usize) -> impl Fn(usize) -> f32 {
    let factors = factors.unwrap_or_default();
    let rows_per_sample = if factors.is_empty() { 1 } else { rows / factors.len() };
    move |row| factors.get(row / rows_per_sample).copied().unwrap_or(1.0)
}

/// The samples of `y` by their factors, as tensor operations.
pub(super) fn by_sample<const D: usize>(y: Tensor<D>, factors: Option<Vec<f32>>) -> Tensor<D> {
    let Some(factors) = factors else { return y };
    let mut shape = [1; D];
    shape[0] = factors.len();
    let device = y.device();
    y * drawn(factors, &device).reshape(shape)
}
