//! Constant matrices, which a GPU keeps, so that each is uploaded once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::kernels::bridge::is_gpu;

/// What a matrix is a function of, its size included, after the name of that function.
pub(crate) type Key = (&'static str, Vec<usize>);

/// The most matrices that are kept, of all devices: images of many sizes must not fill a device.
const MOST: usize = 512;

type Kept = HashMap<(Key, DType), Vec<Tensor<2>>>;

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

thread_local! {
    /// What this thread was given since it asked for that.
    static GIVEN: RefCell<Option<Vec<Tensor<2>>>> = const { RefCell::new(None) };
}

/// What `function` returns, and the matrices that it was given on the way: who holds them has them stay where they are.
#[cfg(feature = "gpu")]
pub(super) fn held_while<T>(function: impl FnOnce() -> T) -> (T, Vec<Tensor<2>>) {
    let before = GIVEN.replace(Some(Vec::new()));
    let returned = function();
    (returned, GIVEN.replace(before).unwrap_or_default())
}

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
    let found = matrices.iter().find(|matrix| matrix.device() == plain).cloned();
    let matrix = found.unwrap_or_else(|| {
        let matrix = make(values());
        matrices.push(matrix.clone());
        matrix
    });
    GIVEN.with_borrow_mut(|given| given.as_mut().map(|given| given.push(matrix.clone())));
    of_device(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_keeps_nothing() {
        let made = |value| constant(("test", vec![1; 6]), [1, 2], &Device::flex(), DType::F32, || vec![value; 2]);
        assert_eq!(made(1.0).into_data(), TensorData::new(vec![1.0f32; 2], [1, 2]));
        assert_eq!(made(2.0).into_data(), TensorData::new(vec![2.0f32; 2], [1, 2]));
    }
}
