//! 3×3 convolution over all channels of channels-last maps, as a product of matrices.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, module::conv2d, ops::ConvOptions};
use rayon::prelude::*;

use super::bridge::{Kernel, Operands, on_cpu, room, run, tensor, values, written};
use super::linear::column_sums;
use super::matmul::{Precision, Product, Threads, View, precision};

/// 3×3 convolution, stride 1, zero padding 1: `x [b, h, w, c]`, `weight [o, c, 3, 3]`, `bias [o]` to `[b, h, w, o]`.
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [outputs, channels, kh, kw] = weight.dims();
    assert_eq!((x.dims()[3], kh, kw), (channels, 3, 3), "conv3x3: x and weight do not fit");
    assert_eq!(bias.dims(), [outputs], "conv3x3: weight and bias differ in length");
    if on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) && outputs * channels > 0 {
        let operands = [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
        run(Dense { precision: precision() }, Operands::of(operands.into()))
    } else {
        reference(x, weight, bias)
    }
}

/// The tensor operations that [`conv3x3`] stands for.
pub(crate) fn reference(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let x = x.permute([0, 3, 1, 2]); // [b, c, h, w]
    conv2d(x, weight, Some(bias), options).permute([0, 2, 3, 1]) // [b, h, w, o]
}

const TAPS: usize = 9;

#[derive(Debug)]
struct Dense {
    precision: Precision,
}

impl Kernel for Dense {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let map = Map::of(&inputs[0]);
        let bias = values(&inputs[2]);
        let y = self.convolve(&map, values(&inputs[0]), &by_tap(values(&inputs[1]), map.c), bias.len(), Some(bias));
        (tensor(y, [map.b, map.h, map.w, bias.len()]), if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let map = Map::of(&saved[0]);
        let (dy, outputs, inner) = (values(&grad), saved[2].shape()[0], TAPS * map.c);
        // A pixel is seen by its neighbours through the opposite tap.
        let dx = wanted[0].then(|| {
            let weight = opposite(values(&saved[1]), outputs, map.c);
            tensor(self.convolve(&Map { c: outputs, ..map }, dy, &weight, map.c, None), saved[0].shape())
        });
        let dw = wanted[1].then(|| {
            let mut dw = vec![0.0; outputs * inner];
            map.each_chunk(values(&saved[0]), |pixels, columns| {
                let dy = View::new(&dy[pixels.start * outputs..], pixels.len(), outputs, outputs);
                let product = Product::new(dy.t(), View::new(columns, pixels.len(), inner, inner));
                product.precision(self.precision).add_to(&mut dw, Threads::All);
            });
            tensor(by_channel(&dw, map.c), saved[1].shape())
        });
        let db = wanted[2].then(|| tensor(column_sums(dy, outputs, |_, value| value), [outputs]));
        vec![dx, dw, db]
    }
}

impl Dense {
    /// `x [b, h, w, c]` by `weight [o, 9, c]`.
    fn convolve(&self, map: &Map, x: &[f32], weight: &[f32], outputs: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let inner = TAPS * map.c;
        let mut y = room(map.pixels() * outputs);
        let weight = View::new(weight, outputs, inner, inner);
        map.each_chunk(x, |pixels, columns| {
            let product = Product::new(View::new(columns, pixels.len(), inner, inner), weight.t());
            let y = &mut y[pixels.start * outputs..pixels.end * outputs];
            product.precision(self.precision).write_then(y, Threads::All, |_, first, y| {
                if let Some(bias) = bias {
                    y.iter_mut().zip(&bias[first..]).for_each(|(y, bias)| *y += bias);
                }
            });
        });
        // SAFETY: the chunks are all pixels.
        unsafe { written(y) }
    }
}

/// Values that are laid out as columns at once: with all pixels of a large map they would take gigabytes.
const CHUNK: usize = 4 << 20;

/// `[o, c, 9]` to `[o, 9, c]`.
fn by_tap(weight: &[f32], channels: usize) -> Vec<f32> {
    transposed(weight, channels, TAPS)
}

/// `[o, 9, c]` to `[o, c, 9]`.
fn by_channel(weight: &[f32], channels: usize) -> Vec<f32> {
    transposed(weight, TAPS, channels)
}

/// The weight `[o, c, 9]` of a convolution as that of its gradient, `[c, 9, o]`: each tap is the opposite one.
fn opposite(weight: &[f32], outputs: usize, channels: usize) -> Vec<f32> {
    let at = |c: usize, tap: usize| move |o: usize| weight[(o * channels + c) * TAPS + TAPS - 1 - tap];
    (0..channels).flat_map(|c| (0..TAPS).flat_map(move |tap| (0..outputs).map(at(c, tap)))).collect()
}

/// Every matrix of `[n, rows, columns]` transposed.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let matrices = values.chunks_exact(rows * columns);
    matrices.flat_map(|m| (0..columns).flat_map(move |j| (0..rows).map(move |i| m[i * columns + j]))).collect()
}

/// The extent of a map.
#[derive(Clone, Copy)]
struct Map {
    b: usize,
    h: usize,
    w: usize,
    c: usize,
}

impl Map {
    fn of(x: &FlexTensor) -> Self {
        let shape = x.shape();
        Self { b: shape[0], h: shape[1], w: shape[2], c: shape[3] }
    }

    fn pixels(&self) -> usize {
        self.b * self.h * self.w
    }

    /// The pixel that a tap of the pixel in a row (counted through all images) and column looks at.
    fn neighbour(&self, row: usize, column: usize, tap: usize) -> Option<usize> {
        let (image, y) = (row / self.h, row % self.h);
        let (y, x) = ((y + tap / 3).checked_sub(1)?, (column + tap % 3).checked_sub(1)?);
        (y < self.h && x < self.w).then(|| (image * self.h + y) * self.w + x)
    }

    /// Calls `f` for some pixels after others, with what the nine taps of each see: `[pixels, 9, c]`, zero outside of the
    /// map.
    fn each_chunk(&self, x: &[f32], mut f: impl FnMut(Range<usize>, &[f32])) {
        let (rows, line) = (self.b * self.h, self.w * TAPS * self.c);
        let chunk = (CHUNK / line).clamp(1, rows);
        let mut columns = vec![0.0; chunk * line];
        for first in (0..rows).step_by(chunk) {
            let last = rows.min(first + chunk);
            let columns = &mut columns[..(last - first) * line];
            columns.par_chunks_mut(line).enumerate().for_each(|(row, line)| {
                for (at, place) in line.chunks_exact_mut(self.c).enumerate() {
                    match self.neighbour(first + row, at / TAPS, at % TAPS) {
                        Some(pixel) => place.copy_from_slice(&x[pixel * self.c..][..self.c]),
                        None => place.fill(0.0),
                    }
                }
            });
            f(first * self.w..last * self.w, columns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn matches_conv2d() {
        for (shape, outputs) in
            [([1, 1, 1, 1], 1), ([2, 5, 7, 12], 9), ([1, 9, 4, 35], 35), ([3, 2, 3, 70], 11), ([1, 60, 90, 120], 3)]
        {
            let (x, w, b) = (strided(shape, 1), strided([outputs, shape[3], 3, 3], 3), random([outputs], 4));
            let dy = random([shape[0], shape[1], shape[2], outputs], 2);
            let results = [conv3x3, reference].map(|f| {
                let (x, w, b) = (tracked(x.clone()), tracked(w.clone()), tracked(b.clone()));
                let y = f(x.clone(), w.clone(), b.clone());
                let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                (y.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap(), b.grad(&grads).unwrap())
            });
            let [(y, dx, dw, db), (ry, rdx, rdw, rdb)] = results;
            assert_close(y, ry, 3e-6);
            assert_close(dx, rdx, 3e-6);
            assert_close(dw, rdw, 5e-6);
            assert_close(db, rdb, 5e-6);
        }
    }
}
