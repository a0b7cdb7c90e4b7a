//! The sum of the squares of many tensors: that of all gradients is what they are clipped by.

use burn::tensor::Tensor;

#[cfg(feature = "gpu")]
use crate::kernels::{bridge::on_gpu, gpu};

/// The sum of the squares of all values, as a tensor of one; none of no tensors. Equal tensors give equal bits.
pub fn square_sum<'a>(tensors: impl IntoIterator<Item = &'a Tensor<1>>) -> Option<Tensor<1>> {
    let tensors: Vec<Tensor<1>> = tensors.into_iter().cloned().collect();
    #[cfg(feature = "gpu")]
    if !tensors.is_empty() && tensors.iter().all(|x| on_gpu(x) && x.dims()[0] > 0) {
        return Some(gpu::square_sum(tensors));
    }
    reference(tensors)
}

/// The composition of tensor operations that [`square_sum`] stands for.
pub(crate) fn reference(tensors: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    tensors.into_iter().map(|x| (x.clone() * x).sum()).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::random;

    #[test]
    fn every_value_counts() {
        let tensors = [1, 130, 4099].map(|len| random([len], len as u64));
        let values = tensors.iter().flat_map(|x| x.to_data().try_to_vec::<f32>().unwrap());
        let truth: f64 = values.map(|x| f64::from(x).powi(2)).sum();
        let sum = f64::from(square_sum(&tensors).unwrap().into_scalar::<f32>());
        assert!((sum - truth).abs() < 1e-5 * truth, "{sum} for {truth}");
        assert!(square_sum([]).is_none());
    }
}
