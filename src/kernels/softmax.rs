//! Softmax over the last axis, for the kernels that contain one.

use std::f32::consts::LOG2_E;
use std::mem::MaybeUninit;

#[cfg(test)]
use burn::tensor::{Device, TensorData};
use burn::tensor::{Tensor, activation};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{uninitialized, written};
use crate::kernels::simd::{sum2, vectorized};
use crate::kernels::vector;
use crate::kernels::vector::{exp2, largest, load, put, starts, store, vectors, within};
#[cfg(feature = "gpu")]
use crate::kernels::{
    bridge::{Operands, on_gpu},
    gpu,
};

/// The softmax over the last axis.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if on_gpu(&x) && x.shape().num_elements() > 0 {
        return gpu::run(gpu::Softmax, Operands::One(x.into_dispatch()));
    }
    reference(x)
}

/// The softmax over the last axis, by tensor operations.
pub(crate) fn reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softmax(x, D - 1)
}

/// Elements a task works on, at least.
const CHUNK: usize = 1 << 14;

/// The softmax of each row of `n` values.
pub(super) fn rows(x: &[f32], n: usize) -> Vec<f32> {
    let chunk = CHUNK.div_ceil(n) * n;
    let mut y = uninitialized(x.len());
    let chunks = y.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
    chunks.for_each_init(|| vec![0.0; n], |row, (y, x)| vectors(Forward { x, row, y }));
    // SAFETY: the chunks cover the output, and `forward` writes all of its chunk.
    unsafe { written(y) }
}

/// The gradient of rows of `n` values, given their softmax and its gradient.
pub(super) fn rows_gradient(y: &[f32], dy: &[f32], n: usize) -> Vec<f32> {
    let chunk = CHUNK.div_ceil(n) * n;
    let mut dx = uninitialized(y.len());
    let chunks = dx.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).zip(dy.par_chunks(chunk));
    chunks.for_each(|((dx, y), dy)| backward(y, dy, n, dx));
    // SAFETY: as in `rows`.
    unsafe { written(dx) }
}

/// Turns logits into exponentials, less the largest of them, and returns one over their sum.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, row: &mut [f32]) -> f32 {
    let peak = simd.splat_f32s(largest(simd, row));
    let mut sum = simd.splat_f32s(0.0);
    for at in starts(simd, row.len()) {
        let x = simd.mul_f32s(simd.sub_f32s(load(simd, row, at), peak), simd.splat_f32s(LOG2_E));
        let value = exp2(simd, x);
        sum = simd.add_f32s(sum, within(simd, row.len(), at, value));
        put(simd, row, at, value);
    }
    1.0 / vector::sum(simd, sum)
}

/// Some rows of `row`'s length, which is scratch.
struct Forward<'a> {
    x: &'a [f32],
    row: &'a mut [f32],
    y: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, row, y } = self;
        for (x, y) in x.chunks_exact(row.len()).zip(y.chunks_exact_mut(row.len())) {
            row.copy_from_slice(x);
            let scale = simd.splat_f32s(exponentials(simd, row));
            for at in starts(simd, row.len()) {
                store(simd, y, at, simd.mul_f32s(load(simd, row, at), scale));
            }
        }
    }
}

vectorized! {
    fn backward(y: &[f32], dy: &[f32], n: usize, dx: &mut [MaybeUninit<f32>]) {
        for ((y, dy), dx) in y.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let product = sum2(y, dy, |y, dy| y * dy);
            for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
                dx.write(y * (dy - product));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, gradients, random};

    #[test]
    fn rows_match_the_composition() {
        for shape in [[1, 1], [15, 7], [34, 1031], [40, 150]] {
            let (x, dy) = (random(shape, 1) * 4.0, random(shape, 2));
            let flat = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().unwrap();
            let as_tensor = |x: Vec<f32>| Tensor::<2>::from_data(TensorData::new(x, shape), &Device::flex());
            let y = rows(&flat(x.clone()), shape[1]);
            assert_close(as_tensor(y.clone()), reference(x.clone()), 2e-6);
            let [theirs] = gradients([x], &dy, |[x]| reference(x));
            assert_close(as_tensor(rows_gradient(&y, &flat(dy), shape[1])), theirs, 4e-6);
        }
    }
}
