//! Max pooling of channels-last maps to half their size.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::vector::{load, store, vectors};

/// The largest value of each 3x3 square with stride 2 and a border of one pixel: `[b, h, w, c]` to
/// `[b, h / 2, w / 2, c]`, rounded up. As PyTorch's `MaxPool2d(3, 2, 1)`.
pub fn max_pool3x3(x: Tensor<4>) -> Tensor<4> {
    pooled(x, 3)
}

/// The largest value of each 2x2 square: `[b, h, w, c]` to `[b, h / 2, w / 2, c]`, rounded down; a side of 1 stays 1.
/// As PyTorch's `MaxPool2d(2)`, but for the side of 1, which there becomes empty.
pub fn max_pool2x2(x: Tensor<4>) -> Tensor<4> {
    pooled(x, 2)
}

fn pooled(x: Tensor<4>, side: usize) -> Tensor<4> {
    if on_cpu(&x) && x.shape().num_elements() > 0 {
        run(MaxPool { side, x: x.dims() }, Operands::One(x.into_dispatch()))
    } else {
        reference(x, side)
    }
}

/// The tensor operations that pooling stands for.
pub(crate) fn reference(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    let x = x.permute([0, 3, 1, 2]); // [b, c, h, w]
    // A side of 1 has squares of one row or column.
    let kernel = if side == 2 { [h.min(2), w.min(2)] } else { [3, 3] };
    let options = MaxPoolOptions::new(kernel).with_stride([2, 2]).with_padding([side / 3; 2]);
    max_pool2d(x, options).permute([0, 2, 3, 1])
}

/// Squares of 2, or of 3 with a border.
#[derive(Debug)]
struct MaxPool {
    side: usize,
    x: [usize; 4],
}

/// Pixels that are worth a task.
const PIXELS: usize = 256;

impl MaxPool {
    fn size(&self) -> [usize; 2] {
        let [_, h, w, _] = self.x;
        [h, w].map(|side| if self.side == 3 { side.div_ceil(2) } else { (side / 2).max(1) })
    }

    /// Rows or columns that a square has before twice its index.
    fn border(&self) -> usize {
        self.side / 3
    }

    /// The taps of a square that lie within a side.
    fn within(&self, at: usize, side: usize) -> std::ops::Range<usize> {
        let start = 2 * at;
        self.border().saturating_sub(start)..self.side.min(side + self.border() - start)
    }

    /// The squares that a row or column lies in, and as which tap of each.
    fn squares(&self, at: usize, size: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (border, side) = (self.border(), self.side);
        let first = (at + border + 2).saturating_sub(side) / 2;
        (first..size)
            .map(move |square| (square, (at + border).wrapping_sub(2 * square)))
            .take_while(move |(_, tap)| *tap < side)
    }
}

impl Kernel for MaxPool {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let x = values(&inputs[0]);
        let ([b, _, _, c], [tall, wide]) = (self.x, self.size());
        let mut y = uninitialized(b * tall * wide * c);
        let mut which = uninitialized(if keep { y.len() } else { 0 });
        let at_once = PIXELS.div_ceil(wide);
        if keep {
            let lines = y.par_chunks_exact_mut(wide * c).zip(which.par_chunks_exact_mut(wide * c)).enumerate();
            lines.with_min_len(at_once).for_each(|(line, (y, which))| vectors(Line { pool: self, x, line, y, which }));
        } else {
            let lines = y.par_chunks_exact_mut(wide * c).enumerate().with_min_len(at_once);
            lines.for_each(|(line, y)| vectors(Line { pool: self, x, line, y, which: &mut [] }));
        }
        // SAFETY: the lines are all of it.
        let [y, which] = unsafe { [written(y), written(which)] };
        let saved = if keep { vec![tensor(which, [b, tall, wide, c])] } else { Vec::new() };
        (tensor(y, [b, tall, wide, c]), saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let (which, dy) = (values(&saved[0]), values(&grad));
        let [_, _, w, c] = self.x;
        let mut dx = uninitialized(self.x.iter().product());
        let lines = dx.par_chunks_exact_mut(w * c).enumerate().with_min_len(PIXELS.div_ceil(w));
        lines.for_each(|(line, dx)| vectors(GradientLine { pool: self, which, dy, line, dx }));
        // SAFETY: the lines are all of it.
        vec![Some(tensor(unsafe { written(dx) }, self.x))]
    }
}

/// A line of squares, and which tap of each is the largest if that is asked for.
struct Line<'a> {
    pool: &'a MaxPool,
    x: &'a [f32],
    line: usize,
    y: &'a mut [MaybeUninit<f32>],
    which: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pool, x, line, y, which } = self;
        let ([_, h, w, c], [tall, _]) = (pool.x, pool.size());
        let (image, row) = (line / tall, line % tall);
        let rows = pool.within(row, h);
        for (column, y) in y.chunks_exact_mut(c).enumerate() {
            let columns = pool.within(column, w);
            for at in (0..c).step_by(S::F32_LANES) {
                let mut best = simd.splat_f32s(f32::NEG_INFINITY);
                let mut first = simd.splat_f32s((rows.start * pool.side + columns.start) as f32);
                for r in rows.clone() {
                    for q in columns.clone() {
                        let pixel = (image * h + 2 * row + r - pool.border()) * w + 2 * column + q - pool.border();
                        let value = load(simd, &x[pixel * c..][..c], at);
                        let tap = simd.splat_f32s((r * pool.side + q) as f32);
                        // What is not a number wins, and stays.
                        let (keeps, number) = (simd.less_than_or_equal_f32s(value, best), simd.equal_f32s(best, best));
                        first = simd.select_f32s(number, simd.select_f32s(keeps, first, tap), first);
                        best = simd.select_f32s(number, simd.select_f32s(keeps, best, value), best);
                    }
                }
                store(simd, y, at, best);
                if let Some(which) = which.get_mut(column * c..(column + 1) * c) {
                    store(simd, which, at, first);
                }
            }
        }
    }
}

/// The gradient of a line.
struct GradientLine<'a> {
    pool: &'a MaxPool,
    which: &'a [f32],
    dy: &'a [f32],
    line: usize,
    dx: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for GradientLine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pool, which, dy, line, dx } = self;
        let ([_, h, _, c], [tall, wide]) = (pool.x, pool.size());
        let (image, row) = (line / h, line % h);
        let zero = simd.splat_f32s(0.0);
        let rows = pool.squares(row, tall);
        for (column, dx) in dx.chunks_exact_mut(c).enumerate() {
            let columns = pool.squares(column, wide);
            for at in (0..c).step_by(S::F32_LANES) {
                let mut sum = zero;
                for (square_row, r) in rows.clone() {
                    for (square_column, q) in columns.clone() {
                        let start = ((image * tall + square_row) * wide + square_column) * c;
                        let tap = simd.splat_f32s((r * pool.side + q) as f32);
                        let won = simd.equal_f32s(load(simd, &which[start..][..c], at), tap);
                        let gradient = load(simd, &dy[start..][..c], at);
                        sum = simd.add_f32s(sum, simd.select_f32s(won, gradient, zero));
                    }
                }
                store(simd, dx, at, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn matches_the_composition_also_in_its_gradient() {
        for shape in
            [[1, 1, 1, 1], [2, 2, 2, 3], [1, 1, 6, 5], [2, 7, 1, 20], [2, 9, 12, 33], [1, 30, 41, 16], [1, 3, 3, 2]]
        {
            for side in [2, 3] {
                let pool = |x| if side == 3 { max_pool3x3(x) } else { max_pool2x2(x) };
                let theirs = |x| reference(x, side);
                let functions: [&dyn Fn(Tensor<4>) -> Tensor<4>; 2] = [&pool, &theirs];
                let [ours, theirs] = functions.map(|f| {
                    let x = tracked(strided(shape, 1));
                    let y = f(x.clone());
                    let grads = (y.clone() * Tensor::from_inner(random(y.dims(), 2))).sum().backward();
                    [y.inner(), x.grad(&grads).unwrap()]
                });
                ours.into_iter().zip(theirs).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-6));
            }
        }
    }

    #[test]
    fn what_is_no_number_is_seen() {
        let mut values = vec![0.0; 16 * 3];
        values[5 * 3 + 1] = f32::NAN;
        let x = Tensor::<1>::from_floats(values.as_slice(), &burn::tensor::Device::flex()).reshape([1, 4, 4, 3]);
        for y in [max_pool2x2(x.clone()), max_pool3x3(x)] {
            let y = y.into_data();
            let lost = y.as_slice::<f32>().unwrap().iter().enumerate().filter(|(_, value)| value.is_nan());
            assert!(lost.clone().count() > 0 && lost.map(|(i, _)| i % 3).all(|channel| channel == 1));
        }
    }
}
