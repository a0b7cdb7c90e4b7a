//! Channels-last maps put side by side and taken apart: what a decoder with skip connections does between its
//! convolutions.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, SharedBuffer, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::vector::{load, store, vectors};

/// `x [b, h, w, c]` twice as large, every pixel four times, cropped at the end to the size of `skip [b, H, W, d]` and
/// followed by its channels: `[b, H, W, c + d]`. H is 2 h or 2 h - 1, and W 2 w or 2 w - 1.
pub fn upsample2x_concat(x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
    let ([b, h, w, _], [skip_b, tall, wide, _]) = (x.dims(), skip.dims());
    let fits = b == skip_b && tall.div_ceil(2) == h && wide.div_ceil(2) == w;
    assert!(fits, "upsample2x_concat: a map of {h} x {w} for one of {tall} x {wide}");
    if on_cpu(&x) && on_cpu(&skip) {
        run(Upsample { x: x.dims(), skip: skip.dims() }, Operands::Two(x.into_dispatch(), skip.into_dispatch()))
    } else {
        upsample_reference(x, skip)
    }
}

/// The composition of tensor operations that [`upsample2x_concat`] stands for.
pub(crate) fn upsample_reference(x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
    let ([b, h, w, c], [_, tall, wide, _]) = (x.dims(), skip.dims());
    let x = x.reshape([b * h, 1, w, c]).expand([b * h, 2, w, c]).reshape([b * 2 * h * w, 1, c]);
    let x = x.expand([b * 2 * h * w, 2, c]).reshape([b, 2 * h, 2 * w, c]);
    Tensor::cat(vec![x.slice([0..b, 0..tall, 0..wide]), skip], 3)
}

/// Squares of 2x2 pixels side by side: `[b, h, w, c]` to `[b, h / 2, w / 2, 4 c]`, rounded up, with zeros below and to
/// the right of the map; first the upper left pixel's channels, then the upper right's, the lower left's and the lower
/// right's.
pub fn space_to_depth2(x: Tensor<4>) -> Tensor<4> {
    if on_cpu(&x) { run(Squares { x: x.dims() }, Operands::One(x.into_dispatch())) } else { squares_reference(x) }
}

/// The composition of tensor operations that [`space_to_depth2`] stands for.
pub(crate) fn squares_reference(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let (rows, columns) = (h.div_ceil(2), w.div_ceil(2));
    let mut padded = Tensor::zeros([b, 2 * rows, 2 * columns, c], &x.device());
    padded = padded.slice_assign([0..b, 0..h, 0..w, 0..c], x);
    let squares = padded.reshape([b, rows, 2, columns, 2, c]).permute([0, 1, 3, 2, 4, 5]);
    squares.reshape([b, rows, columns, 4 * c])
}

/// Pixels that are worth a task.
const PIXELS: usize = 256;

/// Lines that are worth a task.
fn lines_at_once(width: usize) -> usize {
    PIXELS.div_ceil(width.max(1))
}

/// Knows the shapes, so that neither map need be kept for the way back.
#[derive(Debug)]
struct Upsample {
    x: [usize; 4],
    skip: [usize; 4],
}

impl Kernel for Upsample {
    fn forward(&self, inputs: Vec<FlexTensor>, _: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, skip) = (values(&inputs[0]), values(&inputs[1]));
        let ([b, tall, wide, d], c) = (self.skip, self.x[3]);
        let mut y = uninitialized(b * tall * wide * (c + d));
        if !y.is_empty() {
            let lines = y.par_chunks_exact_mut(wide * (c + d)).enumerate().with_min_len(lines_at_once(wide));
            lines.for_each(|(line, y)| {
                let (image, row) = (line / tall, line % tall);
                let start = (image * tall.div_ceil(2) + row / 2) * wide.div_ceil(2) * c;
                let (x, skip) = (&x[start..][..wide.div_ceil(2) * c], &skip[line * wide * d..][..wide * d]);
                vectors(Join { x, skip, c, d, y });
            });
        }
        // SAFETY: the lines are all of it.
        let y = tensor(unsafe { written(y) }, [b, tall, wide, c + d]);
        (y, Vec::new())
    }

    fn backward(&self, _: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let ([b, h, w, c], [_, tall, wide, d]) = (self.x, self.skip);
        let dy = values(&grad);
        let mut dx = uninitialized(b * h * w * c);
        let mut dskip = uninitialized(b * tall * wide * d);
        let (dx_out, dskip_out) = (SharedBuffer::new(&mut dx), SharedBuffer::new(&mut dskip));
        (0..b * h).into_par_iter().with_min_len(lines_at_once(2 * w)).for_each(|line| {
            let (image, row) = (line / h, line % h);
            let first = image * tall + 2 * row;
            let lines = 2.min(tall - 2 * row);
            let dy = &dy[first * wide * (c + d)..][..lines * wide * (c + d)];
            // SAFETY: every line of x, and the lines of the skip that see it, belong to one task.
            let (dx, dskip) =
                unsafe { (dx_out.slice(line * w * c, w * c), dskip_out.slice(first * wide * d, lines * wide * d)) };
            vectors(Part { dy, wide, c, d, dx, dskip });
        });
        // SAFETY: the lines are all of it.
        let [dx, dskip] = unsafe { [written(dx), written(dskip)] };
        vec![wanted[0].then(|| tensor(dx, self.x)), wanted[1].then(|| tensor(dskip, self.skip))]
    }
}

/// A line of the larger map: each pixel of x twice, the skip's beside it.
struct Join<'a> {
    x: &'a [f32],
    skip: &'a [f32],
    c: usize,
    d: usize,
    y: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, skip, c, d, y } = self;
        for (column, y) in y.chunks_exact_mut(c + d).enumerate() {
            let (left, right) = y.split_at_mut(c);
            copy(simd, &x[column / 2 * c..][..c], left);
            copy(simd, &skip[column * d..][..d], right);
        }
    }
}

/// The gradients of a line of x and of the one or two lines of the skip that it meets.
struct Part<'a> {
    dy: &'a [f32],
    wide: usize,
    c: usize,
    d: usize,
    dx: &'a mut [MaybeUninit<f32>],
    dskip: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { dy, wide, c, d, dx, dskip } = self;
        let both = c + d;
        let lines = dy.len() / (wide * both).max(1);
        for column in 0..wide.div_ceil(2) {
            for at in (0..c).step_by(S::F32_LANES) {
                let mut sum = simd.splat_f32s(0.0);
                for line in 0..lines {
                    for column in 2 * column..wide.min(2 * column + 2) {
                        let start = (line * wide + column) * both;
                        sum = simd.add_f32s(sum, load(simd, &dy[start..start + c], at));
                    }
                }
                store(simd, &mut dx[column * c..][..c], at, sum);
            }
        }
        for pixel in 0..lines * wide {
            copy(simd, &dy[pixel * both + c..][..d], &mut dskip[pixel * d..][..d]);
        }
    }
}

#[inline(always)]
fn copy<S: Simd>(simd: S, from: &[f32], to: &mut [MaybeUninit<f32>]) {
    for at in (0..from.len()).step_by(S::F32_LANES) {
        store(simd, to, at, load(simd, from, at));
    }
}

/// Knows the shape, so that the map need not be kept for the way back.
#[derive(Debug)]
struct Squares {
    x: [usize; 4],
}

impl Kernel for Squares {
    fn forward(&self, inputs: Vec<FlexTensor>, _: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, [b, h, w, c]) = (values(&inputs[0]), self.x);
        let (rows, columns) = (h.div_ceil(2), w.div_ceil(2));
        let mut y = uninitialized(b * rows * columns * 4 * c);
        if !y.is_empty() {
            let lines = y.par_chunks_exact_mut(columns * 4 * c).enumerate().with_min_len(lines_at_once(w));
            lines.for_each(|(line, y)| {
                let start = line / rows * h + line % rows * 2;
                for (half, row) in (0..2).map(|half| (half, line % rows * 2 + half)) {
                    let x = &x[(start + half) * w * c..(start + half) * w * c + if row < h { w * c } else { 0 }];
                    vectors(Half { x, half, c, y: &mut *y });
                }
            });
        }
        // SAFETY: the lines are all of it.
        let y = tensor(unsafe { written(y) }, [b, rows, columns, 4 * c]);
        (y, Vec::new())
    }

    fn backward(&self, _: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let (dy, [b, h, w, c]) = (values(&grad), self.x);
        let (rows, columns) = (h.div_ceil(2), w.div_ceil(2));
        let mut dx = uninitialized(b * h * w * c);
        if !dx.is_empty() {
            let lines = dx.par_chunks_exact_mut(w * c).enumerate().with_min_len(lines_at_once(w));
            lines.for_each(|(line, dx)| {
                let start = line / h * rows + line % h / 2;
                let dy = &dy[start * columns * 4 * c..][..columns * 4 * c];
                vectors(Unhalf { dy, half: line % h % 2, c, dx });
            });
        }
        // SAFETY: the lines are all of it.
        vec![Some(tensor(unsafe { written(dx) }, self.x))]
    }
}

/// A line of the map, or nothing below its last one, as the upper or lower half of a line of squares.
struct Half<'a> {
    x: &'a [f32],
    half: usize,
    c: usize,
    y: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Half<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, half, c, y } = self;
        for (column, square) in y.chunks_exact_mut(4 * c).enumerate() {
            let place = &mut square[2 * half * c..][..2 * c];
            let start = (2 * column * c).min(x.len());
            let pixels = &x[start..x.len().min(start + 2 * c)];
            let (inside, outside) = place.split_at_mut(pixels.len());
            copy(simd, pixels, inside);
            outside.fill(MaybeUninit::new(0.0));
        }
    }
}

/// The upper or lower half of a line of squares as a line of the map.
struct Unhalf<'a> {
    dy: &'a [f32],
    half: usize,
    c: usize,
    dx: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Unhalf<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { dy, half, c, dx } = self;
        for (square, pixels) in dy.chunks_exact(4 * c).zip(dx.chunks_mut(2 * c)) {
            copy(simd, &square[2 * half * c..][..pixels.len()], pixels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn upsampling_matches_the_composition() {
        for ([b, tall, wide], c, d) in
            [([1, 1, 1], 1, 1), ([2, 8, 6], 16, 5), ([2, 7, 9], 35, 33), ([1, 6, 5], 3, 64), ([3, 1, 40], 20, 8)]
        {
            let half = |side: usize| side.div_ceil(2);
            let shape = [b, half(tall), half(wide), c];
            let results = [upsample2x_concat, upsample_reference].map(|f| {
                let (x, skip) = (tracked(strided(shape, 1)), tracked(strided([b, tall, wide, d], 2)));
                let y = f(x.clone(), skip.clone());
                let grads = (y.clone() * Tensor::from_inner(random([b, tall, wide, c + d], 3))).sum().backward();
                [y.inner(), x.grad(&grads).unwrap(), skip.grad(&grads).unwrap()]
            });
            let [ours, theirs] = results;
            ours.into_iter().zip(theirs).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-6));
        }
    }

    #[test]
    #[should_panic(expected = "a map of 2 x 3 for one of 5 x 6")]
    fn sizes_that_do_not_meet_are_refused() {
        upsample2x_concat(random([1, 2, 3, 4], 1), random([1, 5, 6, 4], 2));
    }

    #[test]
    fn squares_match_the_composition() {
        for shape in [[1, 1, 1, 1], [2, 8, 6, 16], [2, 7, 9, 35], [1, 1, 40, 3], [3, 5, 2, 20]] {
            let results = [space_to_depth2, squares_reference].map(|f| {
                let x = tracked(strided(shape, 1));
                let y = f(x.clone());
                let grads = (y.clone() * Tensor::from_inner(random(y.dims(), 3))).sum().backward();
                [y.inner(), x.grad(&grads).unwrap()]
            });
            let [ours, theirs] = results;
            ours.into_iter().zip(theirs).for_each(|(ours, theirs)| assert_close(ours, theirs, 0.0));
        }
    }
}
