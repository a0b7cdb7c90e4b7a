//! Constant matrices, which a GPU keeps, so that each is uploaded once.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::kernels::bridge::is_gpu;

/// What a matrix is a function of, its size included.
pub(crate) type Key = (&'static str, [usize; 6]);

/// The most matrices that are kept, of all devices: images of many sizes must not fill a device.
const MOST: usize = 512;

type Kept = HashMap<(Key, DType), Vec<Tensor<2>>>;

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// The matrix of a key, which `values` makes where the device does not keep it yet. The CPU keeps none.
pub(crate) fn constant(
    key: Key,
    size: [usize; 2],
    device: &Device,
    dtype: DType,
    values: impl FnOnce() -> Vec<f32>,
) -> Tensor<2> {
    let plain = device.clone().without_autodiff();
    let make = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, size), (&plain, dtype));
    let of_device = |x: Tensor<2>| if device.is_autodiff() { Tensor::from_inner(x) } else { x };
    // Nor does a device that records operations, as a tensor belongs to one recording.
    if !is_gpu(&plain) {
        return of_device(make(values()));
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.values().map(Vec::len).sum::<usize>() >= MOST {
        kept.clear();
    }
    let matrices = kept.entry((key, dtype)).or_default();
    if let Some(matrix) = matrices.iter().find(|matrix| matrix.device() == plain) {
        return of_device(matrix.clone());
    }
    let matrix = make(values());
    matrices.push(matrix.clone());
    of_device(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_keeps_nothing() {
        let made = |value| constant(("test", [1; 6]), [1, 2], &Device::flex(), DType::F32, || vec![value; 2]);
        assert_eq!(made(1.0).into_data(), TensorData::new(vec![1.0f32; 2], [1, 2]));
        assert_eq!(made(2.0).into_data(), TensorData::new(vec![2.0f32; 2], [1, 2]));
    }
}
