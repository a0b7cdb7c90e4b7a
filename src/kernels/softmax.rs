//! Softmax over the last axis.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};
use rayon::prelude::*;

use super::bridge::{Kernel, Operands, on_cpu, room, run, tensor, values, written};
use super::simd::{LANES, add_lanes, exp, largest, sum2, vectorised};

/// Softmax over the last axis.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let n = x.dims()[D - 1];
    if on_cpu(&x) && n > 0 { run(Softmax { n }, Operands::One(x.into_dispatch())) } else { reference(x) }
}

/// The composition of tensor operations that [`softmax`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softmax(x, D - 1)
}

/// Elements a task works on, at least.
const CHUNK: usize = 1 << 14;

#[derive(Debug)]
struct Softmax {
    n: usize,
}

/// The softmax of each row of `n` values.
pub(super) fn rows(x: &[f32], n: usize) -> Vec<f32> {
    let chunk = CHUNK.div_ceil(n) * n;
    let mut y = room(x.len());
    let chunks = y.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
    chunks.for_each_init(|| vec![0.0; n], |row, (y, x)| forward(x, row, y));
    // SAFETY: the chunks cover the output, and `forward` writes all of its chunk.
    unsafe { written(y) }
}

/// The gradient of rows of `n` values, given their softmax and its gradient.
pub(super) fn rows_gradient(y: &[f32], dy: &[f32], n: usize) -> Vec<f32> {
    let chunk = CHUNK.div_ceil(n) * n;
    let mut dx = room(y.len());
    let chunks = dx.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).zip(dy.par_chunks(chunk));
    chunks.for_each(|((dx, y), dy)| backward(y, dy, n, dx));
    // SAFETY: as in `rows`.
    unsafe { written(dx) }
}

impl Kernel for Softmax {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let y = tensor(rows(values(&inputs[0]), self.n), inputs[0].shape());
        (y.clone(), if keep { vec![y] } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let dx = rows_gradient(values(&saved[0]), values(&grad), self.n);
        vec![Some(tensor(dx, grad.shape()))]
    }
}

vectorised! {
    /// Some rows; `row` is scratch of one row's length.
    fn forward(x: &[f32], row: &mut [f32], y: &mut [MaybeUninit<f32>]) {
        for (x, y) in x.chunks_exact(row.len()).zip(y.chunks_exact_mut(row.len())) {
            let peak = largest(x);
            let mut lanes = [0.0; LANES];
            let (sources, mut places) = (x.chunks_exact(LANES), row.chunks_exact_mut(LANES));
            let rest = sources.remainder();
            for (x, row) in sources.zip(&mut places) {
                for i in 0..LANES {
                    row[i] = exp::<FMA>(x[i] - peak);
                    lanes[i] += row[i];
                }
            }
            for ((x, row), lane) in rest.iter().zip(places.into_remainder()).zip(&mut lanes) {
                *row = exp::<FMA>(*x - peak);
                *lane += *row;
            }
            let scale = 1.0 / add_lanes(lanes);
            for (y, row) in y.iter_mut().zip(row.iter()) {
                y.write(row * scale);
            }
        }
    }
}

vectorised! {
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
    use crate::kernels::tests::{assert_close, gradients, random, speed, strided};

    #[test]
    fn matches_the_composition() {
        for shape in [[1, 1, 1], [3, 5, 7], [2, 17, 1031], [1, 40, 150]] {
            let x = strided(shape, 1) * 4.0;
            assert_close(softmax(x.clone()), reference(x.clone()), 1e-6);
            let dy = random(shape, 2);
            let [ours] = gradients([x.clone()], &dy, |[x]| softmax(x));
            let [theirs] = gradients([x], &dy, |[x]| reference(x));
            assert_close(ours, theirs, 2e-6);
        }
    }

    #[test]
    #[ignore = "prints timings"]
    fn timing() {
        speed("softmax [1,6,1025,1025]", [random([1, 6, 1025, 1025], 1)], |[x]| softmax(x), |[x]| reference(x));
    }
}
