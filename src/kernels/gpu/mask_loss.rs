//! Losses of masks at points: a cube sums over the points of a mask.

use burn::backend::{Cube, TensorMetadata};
use cubecl::prelude::*;

use crate::kernels::bridge::Kernel;
use crate::kernels::gpu::bridge::{Buffers, GpuTensor, f32s, queue, queue_one};
use crate::kernels::gpu::rows::{UNITS, cube_sum, cubes, cubes_for, flat_cube, index};
use crate::kernels::mask_loss::{ALPHA, PointLoss, Points};

impl Kernel<Cube> for Points {
    fn forward(&self, mut inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let (masks, points) = (inputs[0].shape()[0], inputs[0].shape()[1]);
        let focal = self.loss == PointLoss::Focal;
        let launch = move |buffers: &Buffers| {
            // SAFETY: a cube reads the points of its mask, and writes two numbers for it into each output.
            unsafe {
                sum_points::launch_unchecked(
                    buffers.client(),
                    cubes(masks),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.output(0),
                    buffers.output(1),
                    masks,
                    points,
                    focal,
                );
            }
        };
        let outputs = vec![f32s([masks, 2]), f32s([masks, 2])];
        let mut outputs = queue("mask_loss", inputs.clone(), outputs, launch);
        let (ratios, losses) = (outputs.swap_remove(1), outputs.swap_remove(0));
        inputs.push(ratios);
        (losses, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, mut saved: Vec<GpuTensor>, grad: GpuTensor, _: &[bool]) -> Vec<Option<GpuTensor>> {
        let shape = saved[0].shape();
        let (len, points) = (shape.num_elements(), shape[1]);
        let focal = self.loss == PointLoss::Focal;
        saved.push(grad);
        let dx = queue_one("mask_loss_backward", saved, f32s(shape), move |buffers| {
            // SAFETY: a unit reads its own point and the two numbers of its mask, and writes its own place.
            unsafe {
                slopes::launch_unchecked(
                    buffers.client(),
                    cubes_for(len),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.input(2),
                    buffers.input(3),
                    buffers.output(0),
                    len,
                    points,
                    focal,
                );
            }
        });
        vec![Some(dx), None]
    }
}

/// A point's probability, its loss, and the slope of that.
#[derive(CubeType, Clone, Copy)]
struct Point {
    p: f32,
    loss: f32,
    slope: f32,
}

#[cube]
fn point(x: f32, y: f32, #[comptime] focal: bool) -> Point {
    // From e = exp(-|x|) all follows without a difference of near numbers.
    let e = (-x.abs()).exp();
    let likely = 1.0f32 / (1.0f32 + e);
    let unlikely = e * likely;
    let mut p = likely;
    let mut q = unlikely;
    if x < 0.0f32 {
        p = unlikely;
        q = likely;
    }
    let log = (1.0f32 + e).ln();
    let inside = max(-x, 0.0f32) + log;
    let outside = max(x, 0.0f32) + log;
    let z = 1.0f32 - y;
    let entropy = inside * y + outside * z;
    let mut loss = entropy;
    let mut slope = p * z - q * y;
    if comptime!(focal) {
        let missed = q * y + p * z;
        let alpha = comptime!(ALPHA as f32);
        let weight = (y * (2.0f32 * alpha - 1.0f32) + (1.0f32 - alpha)) * missed;
        let turn = p * q * (z - y);
        loss = entropy * missed * weight;
        slope = weight * (missed * slope + 2.0f32 * entropy * turn);
    }
    Point { p, loss, slope }
}

/// `losses` gets for each mask the mean of its points' losses and the dice loss, `ratios` what dice divides, and by
/// what.
#[cube(launch_unchecked)]
fn sum_points(
    logits: &[f32],
    labels: &[f32],
    losses: &mut [f32],
    ratios: &mut [f32],
    masks: usize,
    points: usize,
    #[comptime] focal: bool,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    // Past the last mask, its sums are taken again and dropped, as all units must take part.
    let start = min(CUBE_POS, masks - 1) * points;
    let mut loss = 0.0f32;
    let mut both = 0.0f32;
    let mut either = 0.0f32;
    let mut i = unit;
    while i < points {
        let y = labels[start + i];
        let found = point(logits[start + i], y, focal);
        loss += found.loss;
        both += found.p * y;
        either += found.p + y;
        i += UNITS;
    }
    let loss = cube_sum(loss, &mut shared);
    let both = 2.0f32 * cube_sum(both, &mut shared) + 1.0f32;
    let either = cube_sum(either, &mut shared) + 1.0f32;
    if unit == 0 && CUBE_POS < masks {
        losses[CUBE_POS * 2] = loss / f32::cast_from(points);
        losses[CUBE_POS * 2 + 1] = 1.0f32 - both / either;
        ratios[CUBE_POS * 2] = both;
        ratios[CUBE_POS * 2 + 1] = either;
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn slopes(
    logits: &[f32],
    labels: &[f32],
    ratios: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    len: usize,
    points: usize,
    #[comptime] focal: bool,
) {
    let at = index();
    if at < len {
        let mask = at / points;
        let both = ratios[mask * 2];
        let either = ratios[mask * 2 + 1];
        let of_dice = grad[mask * 2 + 1];
        let y = labels[at];
        let found = point(logits[at], y, focal);
        let of_p = of_dice * both / (either * either) - 2.0f32 * of_dice / either * y;
        dx[at] = grad[mask * 2] / f32::cast_from(points) * found.slope + of_p * found.p * (1.0f32 - found.p);
    }
}
