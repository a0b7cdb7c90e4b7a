//! Convolution over all channels of channels-last maps.
//!
//! 3x3 kernels of stride 1 go by [`winograd`]'s products where these are fewer by enough; all others by [`windows`].

mod depthwise;
pub(super) mod grouped3x3;
mod windows;
mod winograd;

use std::cell::Cell;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, SharedBuffer, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::linear::{column_sums, linear};
use crate::kernels::matmul::{Precision, View, precision, rate};
use crate::kernels::measure;
pub use depthwise::depthwise;
use windows::{OutputGrid, Weights, Window};
pub(crate) use winograd::CONV_POINTS;

/// 3×3 convolution, stride 1, zero padding 1: `x [b, h, w, c]`, `weight [o, c, 3, 3]`, `bias [o]` to `[b, h, w, o]`.
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [_, channels, kh, kw] = weight.dims();
    assert_eq!((x.dims()[3], kh, kw), (channels, 3, 3), "conv3x3: x and weight do not fit");
    conv2d(x, weight, Some(bias), 1, 1)
}

/// Convolution over all channels: `x [b, h, w, c]`, `weight [o, c, kh, kw]`, `bias [o]` to `[b, ho, wo, o]`, with as
/// many rows of zeros on every side as `padding` says; `ho = (h + 2 padding - kh) / stride + 1`, rounded down.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, stride: usize, padding: usize) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let [outputs, channels, kh, kw] = weight.dims();
    assert!(c == channels && stride > 0 && kh * kw > 0, "conv2d: x and weight do not fit");
    assert!(h + 2 * padding >= kh && w + 2 * padding >= kw, "conv2d: the kernel is larger than the map");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]), "conv2d: weight and bias differ in length");
    let usable = on_cpu(&x) && on_cpu(&weight) && bias.as_ref().is_none_or(on_cpu) && b * h * w * c * outputs > 0;
    if usable && (kh, kw, stride, padding) == (1, 1, 1, 0) {
        return linear(x, weight.reshape([outputs, channels]), bias);
    }
    let along = |side: usize, kernel: usize| (side + 2 * padding - kernel) / stride + 1;
    measure::note(&[b, along(h, kh), along(w, kw), outputs, c, kh, kw]);
    if !usable {
        return reference(x, weight, bias, stride, padding);
    }
    let mut operands = vec![x.into_dispatch(), weight.into_dispatch()];
    let kernel = Conv { stride, padding, bias: bias.is_some(), precision: precision(), batch: chosen_for(b) };
    operands.extend(bias.map(Tensor::into_dispatch));
    run(kernel, Operands::of(operands))
}

/// The tensor operations that [`conv2d`] stands for.
pub(crate) fn reference(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
    let x = x.permute([0, 3, 1, 2]); // [b, c, h, w]
    module::conv2d(x, weight, bias, options).permute([0, 2, 3, 1]) // [b, ho, wo, o]
}

thread_local! {
    /// Images of a pass, and how many of them the ways are chosen for.
    static SHARED: Cell<[usize; 2]> = const { Cell::new([1, 1]) };
}

/// Runs `body`, a forward pass of `together` images, so that every image gets the bits that it gets in a pass of
/// `alone`. Which way a convolution goes depends on how many images there are, and the ways differ in rounding; all
/// else sums image by image.
pub fn with_batch_of<T>(alone: usize, together: usize, body: impl FnOnce() -> T) -> T {
    struct Before([usize; 2]);
    impl Drop for Before {
        fn drop(&mut self) {
            SHARED.set(self.0);
        }
    }
    let _before = Before(SHARED.replace([together.max(1), alone.max(1)]));
    body()
}

/// The number of images that the way of a convolution of `b` images is chosen for.
fn chosen_for(b: usize) -> usize {
    let [together, alone] = SHARED.get();
    if b.is_multiple_of(together) { b / together * alone } else { b }
}

/// The extent of a map.
#[derive(Clone, Copy, Debug)]
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
}

/// Operands: x, weight, then bias if there is one.
#[derive(Debug)]
struct Conv {
    stride: usize,
    padding: usize,
    bias: bool,
    precision: Precision,
    /// The number of images that the way is chosen for.
    batch: usize,
}

impl Kernel for Conv {
    fn forward(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let map = Map::of(&inputs[0]);
        let (x, weight) = (values(&inputs[0]), values(&inputs[1]));
        let bias = self.bias.then(|| values(&inputs[2]));
        let (outputs, taps) = weight_shape(&inputs[1]);
        let window = self.window(&map, taps);
        let to = Map { b: map.b, h: window.size[0], w: window.size[1], c: outputs };
        let y = if self.by_winograd(&map, outputs, taps) {
            winograd::convolve(map, x, weight, false, bias)
        } else {
            let arranged = by_tap(weight, outputs, taps);
            let inner = arranged.len() / outputs;
            let weights =
                Weights::new(View::new(&arranged, outputs, inner, inner).t(), [inner, outputs], self.precision);
            let mut y = uninitialized(to.pixels() * outputs);
            let places = OutputGrid { map: to, first: [0, 0], step: 1 };
            windows::convolve((map, window), x, &weights, bias, places, SharedBuffer::new(&mut y));
            // SAFETY: every line has been written.
            unsafe { written(y) }
        };
        let y = tensor(y, [to.b, to.h, to.w, outputs]);
        inputs.truncate(if keep { 2 } else { 0 });
        (y, inputs)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let (map, to) = (Map::of(&saved[0]), Map::of(&grad));
        let (x, weight, dy) = (values(&saved[0]), values(&saved[1]), values(&grad));
        let (outputs, taps) = weight_shape(&saved[1]);
        let by_winograd = self.by_winograd(&map, outputs, taps);
        let dx = wanted[0].then(|| {
            let dx = match by_winograd {
                true => winograd::convolve(to, dy, weight, true, None),
                false => self.input_gradient(map, to, dy, weight, taps),
            };
            tensor(dx, saved[0].shape())
        });
        let dw = wanted[1].then(|| {
            let dw = match by_winograd {
                true => winograd::weight_gradient(map, x, dy, outputs),
                false => windows::weight_gradient((map, self.window(&map, taps)), x, dy, outputs, self.precision),
            };
            tensor(dw, saved[1].shape())
        });
        let mut grads = vec![dx, dw];
        if self.bias {
            grads.push(wanted[2].then(|| tensor(column_sums(dy, outputs, |_, value| value), [outputs])));
        }
        grads
    }
}

impl Conv {
    fn window(&self, map: &Map, taps: [usize; 2]) -> Window {
        let out = |size: usize, taps: usize| (size + 2 * self.padding - taps) / self.stride + 1;
        let size = [out(map.h, taps[0]), out(map.w, taps[1])];
        Window { taps, stride: self.stride, before: [self.padding.cast_signed(); 2], size }
    }

    /// Whether Winograd's way is open, and the faster one.
    fn by_winograd(&self, map: &Map, outputs: usize, taps: [usize; 2]) -> bool {
        if (taps, self.stride, self.padding) != ([3, 3], 1, 1) {
            return false;
        }
        // Multiplications, and what takes as long as a number of them: transforms, packing the weights, writing
        // products.
        let (c, o, side) = (map.c as f64, outputs as f64, |size: usize| size.div_ceil(4) as f64);
        let tiles = self.batch as f64 * side(map.h) * side(map.w);
        let by_points = 36.0 * (tiles * ((c + 12.0) * o + 5.0 * (c + o)) + 40.0 * c * o);
        let pixels = (self.batch * map.h * (map.w + 2)) as f64;
        let plainly = pixels * (9.0 * c + 16.0) * o / rate(self.precision) + 585.0 * c * o;
        c.min(o) >= 8.0 && by_points < plainly
    }

    /// The gradient of the input: of every `stride`-th pixel in each direction, a convolution of the output's gradient
    /// with every `stride`-th weight, the last one first.
    fn input_gradient(&self, map: Map, to: Map, dy: &[f32], weight: &[f32], taps: [usize; 2]) -> Vec<f32> {
        let mut dx = uninitialized(map.pixels() * map.c);
        let out = SharedBuffer::new(&mut dx);
        for first in (0..self.stride).flat_map(|row| (0..self.stride).map(move |column| [row, column])) {
            let sides = [0, 1].map(|side| {
                let seen = first[side] + self.padding;
                let chosen: Vec<usize> = (seen % self.stride..taps[side]).step_by(self.stride).rev().collect();
                let size = [map.h, map.w][side].saturating_sub(first[side]).div_ceil(self.stride);
                let before = chosen.len().cast_signed() - 1 - (seen / self.stride).cast_signed();
                (chosen, size, before)
            });
            let [(rows, tall, above), (columns, wide, left)] = &sides;
            if tall * wide == 0 {
                continue;
            }
            let places = OutputGrid { map, first, step: self.stride };
            if rows.is_empty() || columns.is_empty() {
                windows::clear([*tall, *wide], places, out);
                continue;
            }
            let arranged = mirrored(weight, to.c, map.c, taps, rows, columns);
            let inner = arranged.len() / map.c;
            let weights = Weights::new(View::new(&arranged, inner, map.c, map.c), [inner, map.c], self.precision);
            let taps = [rows.len(), columns.len()];
            let window = Window { taps, stride: 1, before: [*above, *left], size: [*tall, *wide] };
            windows::convolve((to, window), dy, &weights, None, places, out);
        }
        // SAFETY: every pixel belongs to one of the convolutions.
        unsafe { written(dx) }
    }
}

/// The outputs of a weight, and the rows and columns of its kernel.
fn weight_shape(weight: &FlexTensor) -> (usize, [usize; 2]) {
    let shape = weight.shape();
    (shape[0], [shape[2], shape[3]])
}

/// `[o, c, kh, kw]` to `[o, kw, kh, c]`.
fn by_tap(weight: &[f32], outputs: usize, [tall, wide]: [usize; 2]) -> Vec<f32> {
    let each = weight.len() / outputs;
    let taps = tall * wide;
    let channels = each / taps;
    let mut arranged = vec![0.0; weight.len()];
    arranged.par_chunks_mut(each).zip(weight.par_chunks(each)).with_min_len(8).for_each(|(to, from)| {
        for (at, to) in to.chunks_exact_mut(channels).enumerate() {
            let tap = at % tall * wide + at / tall;
            to.iter_mut().zip(from[tap..].iter().step_by(taps)).for_each(|(to, from)| *to = *from);
        }
    });
    arranged
}

/// Some rows and columns of the weight `[o, c, kh, kw]` as `[columns, rows, o, c]`.
fn mirrored(
    weight: &[f32],
    outputs: usize,
    channels: usize,
    [tall, wide]: [usize; 2],
    rows: &[usize],
    columns: &[usize],
) -> Vec<f32> {
    let mut arranged = vec![0.0; rows.len() * columns.len() * outputs * channels];
    arranged.par_chunks_mut(channels).with_min_len(32).enumerate().for_each(|(at, to)| {
        let (tap, o) = (at / outputs, at % outputs);
        let tap = rows[tap % rows.len()] * wide + columns[tap / rows.len()];
        let from = &weight[o * channels * tall * wide + tap..];
        to.iter_mut().zip(from.iter().step_by(tall * wide)).for_each(|(to, from)| *to = *from);
    });
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    type Results = (Tensor<4>, Tensor<4>, Tensor<4>, Tensor<1>);

    fn results(shape: [usize; 4], taps: [usize; 3], stride: usize, padding: usize, ours: bool) -> Results {
        let [outputs, tall, wide] = taps;
        let x = tracked(strided(shape, 1));
        let (w, b) = (tracked(strided([outputs, shape[3], tall, wide], 3)), tracked(random([outputs], 4)));
        let f = if ours { conv2d } else { reference };
        let y = f(x.clone(), w.clone(), Some(b.clone()), stride, padding);
        let dy = Tensor::from_inner(random(y.dims(), 2));
        let grads = (y.clone() * dy).sum().backward();
        (y.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap(), b.grad(&grads).unwrap())
    }

    #[track_caller]
    fn compare(shape: [usize; 4], taps: [usize; 3], stride: usize, padding: usize) {
        let (y, dx, dw, db) = results(shape, taps, stride, padding, true);
        let (ry, rdx, rdw, rdb) = results(shape, taps, stride, padding, false);
        assert_close(y, ry, 3e-6);
        assert_close(dx, rdx, 3e-6);
        assert_close(dw, rdw, 5e-6);
        assert_close(db, rdb, 5e-6);
    }

    #[test]
    fn three_by_three_matches_conv2d() {
        for (shape, outputs) in
            [([1, 1, 1, 1], 1), ([2, 5, 7, 12], 9), ([1, 9, 4, 35], 35), ([3, 2, 3, 70], 11), ([1, 60, 90, 120], 3)]
        {
            compare(shape, [outputs, 3, 3], 1, 1);
        }
    }

    /// Shapes for which Winograd's way is taken, channels and sizes that are multiples of nothing, and many threads.
    #[test]
    fn points_match_conv2d() {
        for (shape, outputs) in [([1, 64, 64, 16], 16), ([2, 31, 41, 67], 35), ([5, 13, 10, 130], 72)] {
            let conv = Conv { stride: 1, padding: 1, bias: true, precision: Precision::F32, batch: shape[0] };
            let [b, h, w, c] = shape;
            assert!(conv.by_winograd(&Map { b, h, w, c }, outputs, [3, 3]));
            compare(shape, [outputs, 3, 3], 1, 1);
        }
    }

    /// Eight images would go another way than one.
    #[test]
    fn images_together_get_the_bits_of_each_alone() {
        let conv = |batch| Conv { stride: 1, padding: 1, bias: true, precision: Precision::F32, batch };
        let map = Map { b: 8, h: 8, w: 8, c: 64 };
        assert!(!conv(1).by_winograd(&map, 64, [3, 3]) && conv(8).by_winograd(&map, 64, [3, 3]));
        let (x, weight) = (random([8, 8, 8, 64], 1), random([64, 64, 3, 3], 2));
        let bits = |x: Tensor<4>| conv2d(x, weight.clone(), None, 1, 1).into_data();
        let alone: Vec<_> = (0..8).map(|at| bits(x.clone().narrow(0, at, 1))).collect();
        let alone: Vec<f32> = alone.iter().flat_map(|data| data.iter::<f32>()).collect();
        let together = |x: Tensor<4>| bits(x).iter::<f32>().collect::<Vec<_>>();
        assert!(with_batch_of(1, 8, || together(x.clone())) == alone);
        assert!(together(x) != alone);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        for (shape, taps, stride) in [([3, 63, 50, 70], [66, 3, 3], 1), ([2, 90, 60, 5], [66, 3, 3], 2)] {
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (y, dx, dw, db) = pool.install(|| results(shape, taps, stride, 1, true));
                [y.into_data(), dx.into_data(), dw.into_data(), db.into_data()]
            };
            let one = on(1);
            assert!(one == on(3) && one == on(8));
        }
    }

    /// Rounded operands, or better ones where that is faster.
    #[test]
    fn precisions_are_close() {
        for (shape, taps, stride) in [([2, 24, 20, 64], [48, 3, 3], 1), ([2, 24, 20, 20], [48, 3, 3], 2)] {
            let exact = results(shape, taps, stride, 1, false);
            for precision in [Precision::Bf16, Precision::Bf16x3] {
                let ours = crate::kernels::with_precision(precision, || results(shape, taps, stride, 1, true));
                assert_close(ours.0, exact.0.clone(), 1e-2);
                assert_close(ours.1, exact.1.clone(), 1e-2);
                assert_close(ours.2, exact.2.clone(), 1e-2);
            }
        }
    }

    #[test]
    fn any_kernel_matches_conv2d() {
        for (shape, taps, stride, padding) in [
            ([2, 17, 23, 3], [20, 7, 7], 2, 3),
            ([2, 9, 12, 37], [18, 3, 3], 2, 1),
            ([1, 8, 11, 20], [33, 1, 1], 2, 0),
            ([2, 13, 18, 3], [16, 4, 4], 4, 0),
            ([2, 7, 10, 24], [40, 2, 2], 2, 0),
            ([1, 5, 9, 8], [5, 3, 1], 1, 2),
            ([1, 11, 6, 8], [5, 2, 5], 3, 2),
            ([1, 6, 6, 5], [4, 1, 1], 3, 2),
            ([3, 1, 1, 5], [4, 3, 3], 2, 1),
            ([1, 6, 9, 70], [300, 3, 3], 2, 1),
            ([2, 6, 9, 30], [31, 1, 1], 1, 0),
        ] {
            compare(shape, taps, stride, padding);
        }
    }
}
