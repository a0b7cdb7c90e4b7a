//! Depthwise convolution with a large kernel: 5x5 or 7x7.
//!
//! A task copies some channels of a band of rows with their border of zeros, small enough for the second-level cache;
//! after that all is multiply-adds of whole vectors. The input gradient is the same convolution with the taps mirrored.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, SharedBuffer, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::conv::Map;
use crate::kernels::measure;
use crate::kernels::vector::{load, put, store, vectors};

/// Depthwise convolution, stride 1, of the same size: `x [b, h, w, c]`, `weight [c, 1, k, k]` with an odd `k`,
/// `bias [c]` to `[b, h, w, c]`. Kernels of 3, 5 and 7 have a CPU kernel.
pub fn depthwise(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let [_, _, side, _] = weight.dims();
    assert!(weight.dims() == [c, 1, side, side] && side % 2 == 1, "depthwise: x and weight do not fit");
    assert_eq!(bias.dims(), [c], "depthwise: weight and bias differ in length");
    let usable = on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) && x.shape().num_elements() > 0;
    if side != 3 {
        measure::note(&[b, h, w, c, side, side]);
    }
    match side {
        3 => crate::kernels::depthwise3x3(x, weight, bias),
        5 | 7 if usable => {
            let operands = Operands::Three(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
            run(Depthwise { side }, operands)
        }
        _ => reference(x, weight, bias),
    }
}

/// The tensor operations that [`depthwise`] stands for.
pub(crate) fn reference(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [c, _, side, _] = weight.dims();
    let options = ConvOptions::new([1, 1], [side / 2; 2], [1, 1], c);
    let x = x.permute([0, 3, 1, 2]); // [b, c, h, w]
    module::conv2d(x, weight, Some(bias), options).permute([0, 2, 3, 1])
}

/// Channels that a task takes.
const CHANNELS: usize = 64;
/// The channels of a task come in multiples of this: a vector of AVX-512.
const VECTOR: usize = 16;
/// Outputs summed at once.
const PIXELS: usize = 8;
/// Values of a band with its border, about: half of a small second-level cache for each of the two that a task of the
/// backward step holds.
const BAND: usize = 1 << 16;

#[derive(Debug)]
struct Depthwise {
    side: usize,
}

impl Kernel for Depthwise {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let y = match self.side {
            5 => forward::<5>(&inputs),
            _ => forward::<7>(&inputs),
        };
        let y = tensor(y, inputs[0].shape());
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let (dx, dw, db) = match self.side {
            5 => backward::<5>(&saved, &grad, wanted),
            _ => backward::<7>(&saved, &grad, wanted),
        };
        let dx = dx.map(|dx| tensor(dx, saved[0].shape()));
        vec![dx, Some(tensor(dw, saved[1].shape())), Some(tensor(db, saved[2].shape()))]
    }
}

/// How a map is cut; the same for any number of threads.
struct Tiling {
    map: Map,
    side: usize,
    /// Rows of a band.
    rows: usize,
}

struct Task {
    image: usize,
    rows: Range<usize>,
    channels: Range<usize>,
}

impl Tiling {
    fn new(map: Map, side: usize) -> Self {
        let line = (map.w.next_multiple_of(PIXELS) + side - 1) * CHANNELS.min(map.c.next_multiple_of(VECTOR));
        let most = (BAND / line).saturating_sub(side - 1).max(4);
        Self { map, side, rows: map.h.div_ceil(map.h.div_ceil(most)) }
    }

    fn blocks(&self) -> usize {
        self.map.c.div_ceil(CHANNELS)
    }

    fn tasks(&self) -> usize {
        self.map.b * self.map.h.div_ceil(self.rows) * self.blocks()
    }

    fn task(&self, i: usize) -> Task {
        let bands = self.map.h.div_ceil(self.rows);
        let (block, band) = (i % self.blocks(), i / self.blocks() % bands);
        Task {
            image: i / self.blocks() / bands,
            rows: band * self.rows..self.map.h.min((band + 1) * self.rows),
            channels: block * CHANNELS..self.map.c.min((block + 1) * CHANNELS),
        }
    }

    /// Pixels of a line with its border, and room for whole steps.
    fn line(&self) -> usize {
        self.map.w.next_multiple_of(PIXELS) + self.side - 1
    }
}

/// Some channels of a band with its border, `[rows + k - 1, line, width]`.
#[derive(Default)]
struct Band {
    values: Vec<f32>,
    width: usize,
}

impl Band {
    fn copy(&mut self, tiling: &Tiling, task: &Task, x: &[f32]) {
        let (map, border) = (tiling.map, tiling.side / 2);
        self.width = task.channels.len().next_multiple_of(VECTOR);
        self.values.clear();
        self.values.resize((task.rows.len() + 2 * border) * tiling.line() * self.width, 0.0);
        let first = task.rows.start.saturating_sub(border);
        for row in first..map.h.min(task.rows.end + border) {
            let start = ((row + border - task.rows.start) * tiling.line() + border) * self.width;
            let place = &mut self.values[start..][..map.w * self.width];
            let x = &x[(task.image * map.h + row) * map.w * map.c + task.channels.start..];
            vectors(Copy { x, stride: map.c, channels: task.channels.len(), place, width: self.width });
        }
    }
}

struct Copy<'a> {
    x: &'a [f32],
    stride: usize,
    channels: usize,
    place: &'a mut [f32],
    width: usize,
}

impl WithSimd for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (column, place) in self.place.chunks_exact_mut(self.width).enumerate() {
            let (from, to) = (&self.x[column * self.stride..][..self.channels], &mut place[..self.channels]);
            for at in (0..self.channels).step_by(S::F32_LANES) {
                put(simd, to, at, load(simd, from, at));
            }
        }
    }
}

/// The weights `[c, 1, k, k]` of some channels as `[k k, width]`; `mirrored` ones carry the gradient from the output to
/// the input.
fn taps(weight: &[f32], taps: usize, channels: &Range<usize>, mirrored: bool) -> Vec<f32> {
    let width = channels.len().next_multiple_of(VECTOR);
    let mut arranged = vec![0.0; taps * width];
    for (i, channel) in channels.clone().enumerate() {
        for tap in 0..taps {
            let from = if mirrored { taps - 1 - tap } else { tap };
            arranged[tap * width + i] = weight[channel * taps + from];
        }
    }
    arranged
}

fn forward<const K: usize>(inputs: &[FlexTensor]) -> Vec<f32> {
    let [x, weight, bias] = [0, 1, 2].map(|i| values(&inputs[i]));
    let tiling = Tiling::new(Map::of(&inputs[0]), K);
    let mut y = uninitialized(x.len());
    let out = SharedBuffer::new(&mut y);
    (0..tiling.tasks()).into_par_iter().for_each_init(Band::default, |band, i| {
        let task = tiling.task(i);
        band.copy(&tiling, &task, x);
        let taps = taps(weight, K * K, &task.channels, false);
        let bias = &bias[task.channels.clone()];
        vectors(Convolve::<K> { band, taps: &taps, bias: Some(bias), tiling: &tiling, task: &task, out });
    });
    // SAFETY: the tasks cover the output.
    unsafe { written(y) }
}

type Gradients = (Option<Vec<f32>>, Vec<f32>, Vec<f32>);

fn backward<const K: usize>(saved: &[FlexTensor], grad: &FlexTensor, wanted: &[bool]) -> Gradients {
    let (x, weight, dy) = (values(&saved[0]), values(&saved[1]), values(grad));
    let tiling = Tiling::new(Map::of(grad), K);
    let mut dx = uninitialized(if wanted[0] { x.len() } else { 0 });
    let out = SharedBuffer::new(&mut dx);
    let affine = wanted[1] || wanted[2];
    let sums: Vec<Vec<f32>> = (0..tiling.tasks())
        .into_par_iter()
        .map_init(<(Band, Band)>::default, |(grad_band, input_band), i| {
            let task = tiling.task(i);
            grad_band.copy(&tiling, &task, dy);
            if wanted[0] {
                let taps = taps(weight, K * K, &task.channels, true);
                vectors(Convolve::<K> { band: grad_band, taps: &taps, bias: None, tiling: &tiling, task: &task, out });
            }
            let mut sums = vec![0.0; if affine { (K * K + 1) * grad_band.width } else { 0 }];
            if affine {
                input_band.copy(&tiling, &task, x);
                vectors(WeightGradient::<K> {
                    input_band,
                    grad_band,
                    tiling: &tiling,
                    rows: task.rows.len(),
                    sums: &mut sums,
                });
            }
            sums
        })
        .collect();
    // SAFETY: the tasks cover it.
    let dx = wanted[0].then(|| unsafe { written(dx) });
    let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; tiling.map.c]);
    for (i, sums) in sums.iter().enumerate().filter(|(_, sums)| !sums.is_empty()) {
        let width = sums.len() / (K * K + 1);
        for (lane, channel) in tiling.task(i).channels.enumerate() {
            for tap in 0..K * K {
                dw[channel * K * K + tap] += sums[tap * width + lane];
            }
            db[channel] += sums[K * K * width + lane];
        }
    }
    (dx, dw, db)
}

/// Convolves a band and writes its part of the output, which belongs to its task alone.
struct Convolve<'a, const K: usize> {
    band: &'a Band,
    taps: &'a [f32],
    bias: Option<&'a [f32]>,
    tiling: &'a Tiling,
    task: &'a Task,
    out: SharedBuffer,
}

impl<const K: usize> WithSimd for Convolve<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { band: Band { values, width }, taps, bias, tiling, task, out } = self;
        let (map, line, n) = (tiling.map, tiling.line() * width, task.channels.len());
        for (i, row) in task.rows.clone().enumerate() {
            for column in (0..map.w).step_by(PIXELS) {
                for at in (0..n).step_by(S::F32_LANES) {
                    let mut sums = [bias.map_or(simd.splat_f32s(0.0), |bias| load(simd, bias, at)); PIXELS];
                    for tap in 0..K * K {
                        let weight = load(simd, &taps[tap * width..][..*width], at);
                        let start = (i + tap / K) * line + (column + tap % K) * width;
                        let input_band = &values[start..start + PIXELS * width];
                        for (pixel, sum) in sums.iter_mut().enumerate() {
                            *sum = simd.mul_add_f32s(weight, load(simd, input_band, pixel * width + at), *sum);
                        }
                    }
                    for (pixel, sum) in sums.iter().enumerate().take(map.w - column) {
                        let start = ((task.image * map.h + row) * map.w + column + pixel) * map.c;
                        let start = start + task.channels.start + at;
                        // SAFETY: these channels of this pixel belong to this task.
                        let place = unsafe { out.slice(start, S::F32_LANES.min(n - at)) };
                        store(simd, place, 0, *sum);
                    }
                }
            }
        }
    }
}

/// Sums of the gradient times what each tap sees, `[k k, width]`, and of the gradient.
struct WeightGradient<'a, const K: usize> {
    input_band: &'a Band,
    grad_band: &'a Band,
    tiling: &'a Tiling,
    rows: usize,
    sums: &'a mut [f32],
}

impl<const K: usize> WithSimd for WeightGradient<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input_band, grad_band, tiling, rows, sums } = self;
        let width = grad_band.width;
        let (line, border) = (tiling.line() * width, tiling.side / 2);
        for at in (0..width).step_by(S::F32_LANES) {
            let mut bias = simd.splat_f32s(0.0);
            for tap in 0..K {
                let mut products = [simd.splat_f32s(0.0); K];
                for row in 0..rows {
                    let grad_band = &grad_band.values[(row + border) * line + border * width..][..tiling.map.w * width];
                    let input_band = &input_band.values[(row + tap) * line..][..line];
                    for column in 0..tiling.map.w {
                        let gradient = load(simd, grad_band, column * width + at);
                        let input_band = &input_band[column * width..(column + K) * width];
                        for (i, product) in products.iter_mut().enumerate() {
                            *product = simd.mul_add_f32s(gradient, load(simd, input_band, i * width + at), *product);
                        }
                        if tap == 0 {
                            bias = simd.add_f32s(bias, gradient);
                        }
                    }
                }
                for (i, product) in products.into_iter().enumerate() {
                    put(simd, &mut sums[(tap * K + i) * width..][..width], at, product);
                }
            }
            put(simd, &mut sums[K * K * width..][..width], at, bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    fn results(shape: [usize; 4], side: usize, ours: bool) -> ([Tensor<4>; 3], Tensor<1>) {
        let c = shape[3];
        let (x, w, b) = (tracked(strided(shape, 1)), tracked(strided([c, 1, side, side], 2)), tracked(random([c], 3)));
        let f = if ours { depthwise } else { reference };
        let y = f(x.clone(), w.clone(), b.clone());
        let grads = (y.clone() * Tensor::from_inner(random(shape, 4))).sum().backward();
        ([y.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap()], b.grad(&grads).unwrap())
    }

    #[test]
    fn matches_conv2d() {
        for (shape, side) in [
            ([1, 1, 1, 1], 7),
            ([2, 9, 14, 96], 7),
            ([1, 40, 37, 35], 7),
            ([3, 3, 2, 70], 5),
            ([1, 12, 31, 16], 5),
            ([1, 4, 5, 8], 3),
            ([1, 11, 5, 2], 9),
        ] {
            let (ours, theirs) = (results(shape, side, true), results(shape, side, false));
            ours.0.into_iter().zip(theirs.0).for_each(|(ours, theirs)| assert_close(ours, theirs, 5e-6));
            assert_close(ours.1, theirs.1, 5e-6);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = || {
            let (maps, bias) = results([2, 70, 60, 70], 7, true);
            (maps.map(Tensor::into_data), bias.into_data())
        };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        assert!(on(1) == on(3));
    }
}
