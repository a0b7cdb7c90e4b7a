//! 3×3 convolutions over channels-last maps: depthwise and in small groups.
//!
//! A task takes 64 channels of a band of rows. It copies them, with their zero border, into *planes* that fit the
//! second-level cache: with J channels a group the values of 64 / J groups lie side by side, so that everything
//! after is multiply-adds of whole vectors. The input gradient is the same convolution with the taps mirrored.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, module::conv2d, ops::ConvOptions};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, SharedBuffer, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::measure;
use crate::kernels::planes::{BLOCK, Map, Planes, Task, lanes, unpack_line};
use crate::kernels::simd::{Level, fma, level, vectorized};
#[cfg(feature = "gpu")]
use crate::kernels::{bridge::on_gpu, gpu};

/// Depthwise 3×3 convolution, stride 1, zero padding 1: `x [b, h, w, c]`, `weight [c, 1, 3, 3]`, `bias [c]` to
/// `[b, h, w, c]`.
pub fn depthwise3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let groups = x.dims()[3];
    grouped3x3(x, weight, bias, groups)
}

/// Grouped 3×3 convolution, stride 1, zero padding 1:
/// `x [b, h, w, c]`, `weight [o, c / groups, 3, 3]`, `bias [o]` to `[b, h, w, o]`.
///
/// Groups of 1, 2, 4 or 8 input and as many output channels have a kernel.
pub fn grouped3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, groups: usize) -> Tensor<4> {
    let [b, h, w, channels] = x.dims();
    let [outputs, width, kh, kw] = weight.dims();
    assert_eq!((width * groups, kh, kw), (channels, 3, 3), "grouped3x3: x, weight and groups do not fit");
    assert_eq!(bias.dims(), [outputs], "grouped3x3: weight and bias differ in length");
    measure::note(&[b, h, w, outputs, width, kh, kw]);
    let suits = outputs == channels && matches!(width, 1 | 2 | 4 | 8) && b * h * w > 0;
    let operands = |x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>| {
        Operands::Three(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch())
    };
    #[cfg(feature = "gpu")]
    if suits && on_gpu(&x) && on_gpu(&weight) && on_gpu(&bias) {
        return gpu::run(Grouped { width }, operands(x, weight, bias));
    }
    if suits && on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        run(Grouped { width }, operands(x, weight, bias))
    } else if outputs == channels && 1 < groups && groups < channels {
        by_depthwise(x, weight, bias)
    } else {
        reference(x, weight, bias, groups)
    }
}

/// [`grouped3x3`] as a sum of depthwise convolutions, one for each channel of a group.
///
/// Burn computes the weight gradient of a grouped convolution in a loop over its groups, of which there are hundreds;
/// that of a depthwise one at once. What is small is the number of channels in a group.
fn by_depthwise(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let width = weight.dims()[1];
    let grouped = x.reshape([b, h, w, c / width, width]);
    let outputs = (0..width).map(|i| {
        // Each output gets the i-th channel of its group.
        let inputs = grouped.clone().narrow(4, i, 1).expand([b, h, w, c / width, width]).reshape([b, h, w, c]);
        let bias = if i == 0 { bias.clone() } else { bias.zeros_like() };
        reference(inputs, weight.clone().narrow(1, i, 1), bias, c)
    });
    outputs.reduce(|sum, output| sum + output).unwrap_or_else(|| unreachable!("a group has channels"))
}

/// The tensor operations that [`grouped3x3`] stands for.
pub(crate) fn reference(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, groups: usize) -> Tensor<4> {
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], groups);
    let x = x.permute([0, 3, 1, 2]); // [b, c, h, w]
    conv2d(x, weight, Some(bias), options).permute([0, 2, 3, 1]) // [b, h, w, o]
}

const TAPS: usize = 9;

#[derive(Debug)]
pub(in crate::kernels) struct Grouped {
    /// Channels a group, in and out.
    pub(in crate::kernels) width: usize,
}

impl Kernel for Grouped {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let map = Map::of(&inputs[0]);
        let y = match self.width {
            1 => forward::<1, 64>(map, &inputs),
            2 => forward::<2, 32>(map, &inputs),
            4 => forward::<4, 16>(map, &inputs),
            _ => forward::<8, 8>(map, &inputs),
        };
        let y = tensor(y, inputs[0].shape());
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let map = Map::of(&saved[0]);
        let (dx, dw, db) = match self.width {
            1 => backward::<1, 64>(map, &saved, &grad, wanted),
            2 => backward::<2, 32>(map, &saved, &grad, wanted),
            4 => backward::<4, 16>(map, &saved, &grad, wanted),
            _ => backward::<8, 8>(map, &saved, &grad, wanted),
        };
        vec![
            dx.map(|dx| tensor(dx, grad.shape())),
            dw.map(|dw| tensor(dw, saved[1].shape())),
            db.map(|db| tensor(db, saved[2].shape())),
        ]
    }
}

fn forward<const J: usize, const L: usize>(map: Map, inputs: &[FlexTensor]) -> Vec<f32> {
    let [x, w, b] = [0, 1, 2].map(|i| values(&inputs[i]));
    let blocks: Vec<_> = map.blocks().map(|c| (taps::<J, L>(w, &c, false), lanes::<J>(&b[c]))).collect();
    let mut y = uninitialized(x.len());
    let out = SharedBuffer::new(&mut y);
    (0..map.tasks()).into_par_iter().for_each_init(Planes::default, |planes, i| {
        let task = map.task(i);
        planes.pack::<J>(&map, &task, x);
        let (weight, bias) = &blocks[i % blocks.len()];
        convolve::<J, L>(planes, weight, bias, &map, &task, out);
    });
    // SAFETY: the tasks cover the output, and `convolve` writes all of its task.
    unsafe { written(y) }
}

type Gradients = (Option<Vec<f32>>, Option<Vec<f32>>, Option<Vec<f32>>);

fn backward<const J: usize, const L: usize>(
    map: Map,
    saved: &[FlexTensor],
    grad: &FlexTensor,
    wanted: &[bool],
) -> Gradients {
    let (x, w, dy) = (values(&saved[0]), values(&saved[1]), values(grad));
    let blocks: Vec<_> = map.blocks().map(|c| taps::<J, L>(w, &c, true)).collect();
    let affine = wanted[1] || wanted[2];
    let mut dx = uninitialized(if wanted[0] { dy.len() } else { 0 });
    let out = SharedBuffer::new(&mut dx);
    let new = || (Planes::default(), Planes::default());
    let partial: Vec<Vec<f32>> = (0..map.tasks())
        .into_par_iter()
        .map_init(new, |(planes, image), i| {
            let task = map.task(i);
            planes.pack::<J>(&map, &task, dy);
            if wanted[0] {
                convolve::<J, L>(planes, &blocks[i % blocks.len()], &[0.0; BLOCK], &map, &task, out);
            }
            let mut sums = vec![0.0; if affine { (TAPS * J + 1) * BLOCK } else { 0 }];
            if affine {
                image.pack::<J>(&map, &task, x);
                weight_gradient::<J, L>(&image.0, &planes.0, map.w, &mut sums);
            }
            sums
        })
        .collect();
    // SAFETY: the tasks cover the output, and `convolve` writes all of its task.
    let dx = wanted[0].then(|| unsafe { written(dx) });
    if !affine {
        return (dx, None, None);
    }
    let (mut dw, mut db) = (vec![0.0; w.len()], vec![0.0; map.c]);
    for (i, sums) in partial.iter().enumerate() {
        let (taps, bias) = sums.split_at(TAPS * J * BLOCK);
        for (k, channel) in map.task(i).channels.enumerate() {
            let (lane, o) = (k / J, k % J);
            db[channel] += bias[o * L + lane];
            for j in 0..J {
                for t in 0..TAPS {
                    dw[(channel * J + j) * TAPS + t] += taps[((t * J + j) * J + o) * L + lane];
                }
            }
        }
    }
    (dx, Some(dw), Some(db))
}

/// The weights of a block, [9, J in, J out, L]; `mirrored` ones carry the gradient from the output to the input.
fn taps<const J: usize, const L: usize>(w: &[f32], channels: &Range<usize>, mirrored: bool) -> Vec<f32> {
    let mut taps = vec![0.0; TAPS * J * BLOCK];
    for (k, channel) in channels.clone().enumerate() {
        let (lane, o) = (k / J, k % J);
        for j in 0..J {
            for t in 0..TAPS {
                let (t_to, from, to) = if mirrored { (TAPS - 1 - t, o, j) } else { (t, j, o) };
                taps[((t_to * J + from) * J + to) * L + lane] = w[(channel * J + j) * TAPS + t];
            }
        }
    }
    taps
}

/// Convolves a task's planes and writes its part of the output.
fn convolve<const J: usize, const L: usize>(
    planes: &Planes,
    taps: &[f32],
    bias: &[f32; BLOCK],
    map: &Map,
    task: &Task,
    out: SharedBuffer,
) {
    let line = (map.w + 2) * BLOCK;
    let mut row = vec![0.0; map.w * BLOCK];
    for (i, y) in task.rows.clone().enumerate() {
        let lines = &planes.0[i * line..][..3 * line];
        match level() {
            Level::Avx512 => convolve_row::<J, L, 4>(lines, taps, bias, &mut row),
            _ => convolve_row::<J, L, 1>(lines, taps, bias, &mut row),
        }
        unpack_line::<J>(&row, map.offset(task, y, 0), map.c, task.channels.len(), out);
    }
}

vectorized! {
    /// One row of the output, `P` pixels at a time, from the three lines of planes around it.
    fn convolve_row<const J: usize, const L: usize, const P: usize>(
        lines: &[f32],
        taps: &[f32],
        bias: &[f32; BLOCK],
        row: &mut [f32],
    ) {
        let (lines, taps, bias) = (lines.as_chunks::<L>().0, taps.as_chunks::<L>().0, bias.as_chunks::<L>().0);
        let bias: [[f32; L]; J] = std::array::from_fn(|o| bias[o]);
        let line = lines.len() / 3;
        let width = row.len() / BLOCK;
        for x in (0..width).step_by(P) {
            let count = P.min(width - x);
            let mut sums = [bias; P];
            for t in 0..TAPS {
                // Past the row's end the last pixel is computed again and dropped.
                let sources: [&[[f32; L]]; P] = std::array::from_fn(|p| {
                    let at = t / 3 * line + (x + p.min(count - 1) + t % 3) * J;
                    &lines[at..at + J]
                });
                let taps = &taps[t * J * J..(t + 1) * J * J];
                for j in 0..J {
                    for p in 0..P {
                        let value = sources[p][j];
                        for o in 0..J {
                            let tap = &taps[j * J + o];
                            for l in 0..L {
                                sums[p][o][l] = fma::<FMA>(tap[l], value[l], sums[p][o][l]);
                            }
                        }
                    }
                }
            }
            // A copy, for the sums themselves to stay in registers.
            let done = sums;
            for (row, sums) in row[x * BLOCK..].chunks_exact_mut(BLOCK).zip(&done[..count]) {
                row.copy_from_slice(sums.as_flattened());
            }
        }
    }
}

vectorized! {
    /// Adds the gradients of the taps, [9, J in, J out, L], and of the bias, [J, L], to `sums`.
    fn weight_gradient<const J: usize, const L: usize>(image: &[f32], grad: &[f32], width: usize, sums: &mut [f32]) {
        let (image, grad) = (image.as_chunks::<L>().0, grad.as_chunks::<L>().0);
        let (taps, bias) = sums.as_chunks_mut::<L>().0.split_at_mut(TAPS * J * J);
        let line = (width + 2) * J;
        for y in 0..grad.len() / line - 2 {
            let grad = &grad[(y + 1) * line + J..][..width * J];
            for (t, taps) in taps.chunks_exact_mut(J * J).enumerate() {
                let image = &image[(y + t / 3) * line + t % 3 * J..][..width * J];
                let mut sums = [[[0.0; L]; J]; J];
                for (value, grad) in image.chunks_exact(J).zip(grad.chunks_exact(J)) {
                    for j in 0..J {
                        for o in 0..J {
                            for l in 0..L {
                                sums[j][o][l] = fma::<FMA>(value[j][l], grad[o][l], sums[j][o][l]);
                            }
                        }
                    }
                }
                for (tap, sum) in taps.as_flattened_mut().iter_mut().zip(sums.as_flattened().as_flattened()) {
                    *tap += sum;
                }
            }
            let mut sums = [[0.0; L]; J];
            for grad in grad.chunks_exact(J) {
                for j in 0..J {
                    for l in 0..L {
                        sums[j][l] += grad[j][l];
                    }
                }
            }
            for (bias, sum) in bias.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *bias += sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn matches_conv2d() {
        let cases =
            [([1, 1, 1, 4], 4), ([2, 5, 7, 12], 4), ([1, 35, 6, 132], 4), ([1, 9, 5, 70], 1), ([3, 4, 3, 24], 8)];
        for (shape, width) in cases.into_iter().chain([([1, 6, 9, 66], 2), ([1, 4, 5, 6], 3)]) {
            let c = shape[3];
            let (x, dy) = (strided(shape, 1), random(shape, 2));
            let (w, b) = (strided([c, width, 3, 3], 3), random([c], 4));
            let composed = |x, w, b, _| by_depthwise(x, w, b);
            let functions: [&dyn Fn(Tensor<4>, Tensor<4>, Tensor<1>, usize) -> Tensor<4>; 3] =
                [&grouped3x3, &composed, &reference];
            let results = functions.map(|f| {
                let (x, w, b) = (tracked(x.clone()), tracked(w.clone()), tracked(b.clone()));
                let y = f(x.clone(), w.clone(), b.clone(), c / width);
                let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                (y.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap(), b.grad(&grads).unwrap())
            });
            let [ours, composed, (ry, rdx, rdw, rdb)] = results;
            for (y, dx, dw, db) in [ours, composed] {
                assert_close(y, ry.clone(), 2e-6);
                assert_close(dx, rdx.clone(), 2e-6);
                assert_close(dw, rdw.clone(), 5e-6);
                assert_close(db, rdb.clone(), 5e-6);
            }
        }
    }
}
