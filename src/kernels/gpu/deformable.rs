//! Multi-scale deformable attention: a unit for each output, each sampled point, and each channel that is scattered.
//!
//! Several points may read one cell, whose gradient is their sum. Queries are cut into chunks that each scatter into a
//! copy of the values' gradient, in the order of the queries, and the copies are added in order.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Tensor};
use cubecl::prelude::*;

use crate::kernels::bridge::Kernel;
use crate::kernels::constant::constant;
use crate::kernels::deformable::Deformable;
use crate::kernels::gpu::bridge::{Buffers, GpuTensor, f32s, primitive, queue, queue_one};
use crate::kernels::gpu::rows::{cubes_for, flat_cube, index, sum_bands};

/// The sizes of the operands.
#[derive(Clone, Copy)]
struct Extent {
    b: usize,
    n: usize,
    q: usize,
    heads: usize,
    d: usize,
    points: usize,
    levels: usize,
}

impl Extent {
    fn of(kernel: &Deformable, operands: &[GpuTensor]) -> Self {
        let (value, weights) = (operands[0].shape(), operands[2].shape());
        Self {
            b: value[0],
            n: value[1],
            q: weights[1],
            heads: value[2],
            d: value[3],
            points: weights[4],
            levels: kernel.levels.len(),
        }
    }

    /// Copies of the values' gradient: no more than 256 MB, and 64 queries or more for each.
    fn chunks(&self) -> usize {
        let values = self.b * self.n * self.heads * self.d;
        self.q.div_ceil(64).min((1 << 26) / values).max(1)
    }
}

/// For each level its first cell, its rows and its columns, as f32, which counts cells up to 2^24.
fn levels(kernel: &Deformable, like: &GpuTensor) -> GpuTensor {
    let values = || kernel.levels.iter().flat_map(|level| [level.start, level.h, level.w]);
    let device = Tensor::<4>::from_primitive::<Cube>(like.clone()).device();
    primitive(constant(("levels", values().collect()), [kernel.levels.len(), 3], &device, DType::F32, || {
        values().map(|value| value as f32).collect()
    }))
}

impl Kernel<Cube> for Deformable {
    fn forward(&self, inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let extent = Extent::of(self, &inputs);
        let shape = [extent.b, extent.q, extent.heads * extent.d];
        let operands = inputs.iter().cloned().chain([levels(self, &inputs[0])]).collect();
        let y = queue_one("deformable_attention", operands, f32s(shape), move |buffers| {
            let len = extent.b * extent.q * extent.heads * extent.d;
            // SAFETY: cells lie in their level, levels in the values, and a unit writes its own output.
            unsafe {
                attend::launch_unchecked(
                    buffers.client(),
                    cubes_for(len),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.input(2),
                    buffers.input(3),
                    buffers.output(0),
                    len,
                    extent.n,
                    extent.q,
                    extent.heads,
                    extent.d,
                    extent.levels,
                    extent.points,
                );
            }
        });
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, mut saved: Vec<GpuTensor>, grad: GpuTensor, wanted: &[bool]) -> Vec<Option<GpuTensor>> {
        let extent = Extent::of(self, &saved);
        let [value, locations, weights] = [0, 1, 2].map(|i| f32s(saved[i].shape()));
        saved.extend([grad, levels(self, &saved[0])]);
        let dvalue = wanted[0].then(|| {
            queue_one("deformable_attention_value", saved.clone(), value, move |buffers| scatter(buffers, &extent))
        });
        if !wanted[1] && !wanted[2] {
            return vec![dvalue, None, None];
        }
        let launch = move |buffers: &Buffers| {
            let len = extent.b * extent.q * extent.heads * extent.levels * extent.points;
            // SAFETY: as in `forward`; a unit writes what belongs to its own point.
            unsafe {
                point_gradients::launch_unchecked(
                    buffers.client(),
                    cubes_for(len),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.input(2),
                    buffers.input(4),
                    buffers.input(3),
                    buffers.output(0),
                    buffers.output(1),
                    len,
                    extent.n,
                    extent.q,
                    extent.heads,
                    extent.d,
                    extent.levels,
                    extent.points,
                );
            }
        };
        let mut points = queue("deformable_attention_points", saved, vec![locations, weights], launch).into_iter();
        vec![dvalue, points.next(), points.next()]
    }
}

/// The gradient of the values, the output.
fn scatter(buffers: &Buffers, extent: &Extent) {
    let chunks = extent.chunks();
    let values = extent.b * extent.n * extent.heads * extent.d;
    let partial = buffers.scratch(chunks * values);
    let len = chunks * extent.b * extent.heads * extent.levels * extent.d;
    // SAFETY: as in `forward`; of `partial`, a unit reads and writes one channel of one level in one copy.
    unsafe {
        scatter_chunks::launch_unchecked(
            buffers.client(),
            cubes_for(len),
            flat_cube(),
            buffers.input(1),
            buffers.input(2),
            buffers.input(4),
            buffers.input(3),
            partial.clone().into_buffer_arg(),
            len,
            extent.b,
            extent.n,
            extent.q,
            extent.heads,
            extent.d,
            extent.levels,
            extent.points,
            extent.q.div_ceil(chunks),
        );
    }
    sum_bands(buffers, &partial, chunks, 0, &[values]);
}

/// The two cells beside a place along an axis of `n` cells, their weights, and the slopes of these.
#[derive(CubeType, Clone, Copy)]
struct Side {
    low: usize,
    high: usize,
    low_weight: f32,
    high_weight: f32,
    low_slope: f32,
    high_slope: f32,
}

#[cube]
fn side(at: f32, n: usize) -> Side {
    let cells = f32::cast_from(n);
    // In the steps of the composition, so that both choose the same cells; two cells from the map all is zero.
    let at = ((at * 2.0f32 - 1.0f32 + 1.0f32) * cells - 1.0f32) / 2.0f32;
    let at = min(max(at, -2.0f32), cells + 1.0f32);
    let low = at.floor();
    let t = at - low;
    let low = i32::cast_from(low);
    let last = i32::cast_from(n) - 1i32;
    let mut low_inside = 0.0f32;
    if low >= 0i32 && low <= last {
        low_inside = 1.0f32;
    }
    let mut high_inside = 0.0f32;
    if low + 1i32 >= 0i32 && low < last {
        high_inside = 1.0f32;
    }
    Side {
        low: min(max(low, 0i32), last) as usize,
        high: min(max(low + 1i32, 0i32), last) as usize,
        low_weight: (1.0f32 - t) * low_inside,
        high_weight: t * high_inside,
        low_slope: -low_inside,
        high_slope: high_inside,
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn attend(
    value: &[f32],
    locations: &[f32],
    weights: &[f32],
    levels: &[f32],
    y: &mut [f32],
    len: usize,
    n: usize,
    q: usize,
    heads: usize,
    d: usize,
    level_count: usize,
    points: usize,
) {
    let at = index();
    if at < len {
        let channel = at % d;
        let head = (at / d) % heads;
        let query = at / (d * heads);
        let image = query / q;
        let mut sum = 0.0f32;
        for level in 0..level_count {
            let start = image * n + usize::cast_from(levels[level * 3]);
            let width = usize::cast_from(levels[level * 3 + 2]);
            for point in 0..points {
                let sample = ((query * heads + head) * level_count + level) * points + point;
                let across = side(locations[sample * 2], width);
                let down = side(locations[sample * 2 + 1], usize::cast_from(levels[level * 3 + 1]));
                let upper = start + down.low * width;
                let lower = start + down.high * width;
                let upper_left = value[((upper + across.low) * heads + head) * d + channel];
                let upper_right = value[((upper + across.high) * heads + head) * d + channel];
                let lower_left = value[((lower + across.low) * heads + head) * d + channel];
                let lower_right = value[((lower + across.high) * heads + head) * d + channel];
                let above = upper_left * across.low_weight + upper_right * across.high_weight;
                let below = lower_left * across.low_weight + lower_right * across.high_weight;
                sum += weights[sample] * (above * down.low_weight + below * down.high_weight);
            }
        }
        y[at] = sum;
    }
}

/// The gradients of a point's location and weight.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn point_gradients(
    value: &[f32],
    locations: &[f32],
    weights: &[f32],
    levels: &[f32],
    dy: &[f32],
    d_locations: &mut [f32],
    d_weights: &mut [f32],
    len: usize,
    n: usize,
    q: usize,
    heads: usize,
    d: usize,
    level_count: usize,
    points: usize,
) {
    let sample = index();
    if sample < len {
        let level = (sample / points) % level_count;
        let head = (sample / (points * level_count)) % heads;
        let query = sample / (points * level_count * heads);
        let start = (query / q) * n + usize::cast_from(levels[level * 3]);
        let height = usize::cast_from(levels[level * 3 + 1]);
        let width = usize::cast_from(levels[level * 3 + 2]);
        let across = side(locations[sample * 2], width);
        let down = side(locations[sample * 2 + 1], height);
        let upper = start + down.low * width;
        let lower = start + down.high * width;
        let mut upper_left = 0.0f32;
        let mut upper_right = 0.0f32;
        let mut lower_left = 0.0f32;
        let mut lower_right = 0.0f32;
        for channel in 0..d {
            let slope = dy[(query * heads + head) * d + channel];
            upper_left += slope * value[((upper + across.low) * heads + head) * d + channel];
            upper_right += slope * value[((upper + across.high) * heads + head) * d + channel];
            lower_left += slope * value[((lower + across.low) * heads + head) * d + channel];
            lower_right += slope * value[((lower + across.high) * heads + head) * d + channel];
        }
        let above = upper_left * across.low_weight + upper_right * across.high_weight;
        let below = lower_left * across.low_weight + lower_right * across.high_weight;
        d_weights[sample] = above * down.low_weight + below * down.high_weight;
        let left = upper_left * down.low_weight + lower_left * down.high_weight;
        let right = upper_right * down.low_weight + lower_right * down.high_weight;
        let weight = weights[sample];
        d_locations[sample * 2] =
            weight * f32::cast_from(width) * (left * across.low_slope + right * across.high_slope);
        d_locations[sample * 2 + 1] =
            weight * f32::cast_from(height) * (above * down.low_slope + below * down.high_slope);
    }
}

/// What a chunk of queries scatters into its copy of the values' gradient: `partial [chunks, b, n, heads, d]`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn scatter_chunks(
    locations: &[f32],
    weights: &[f32],
    levels: &[f32],
    dy: &[f32],
    partial: &mut [f32],
    len: usize,
    b: usize,
    n: usize,
    q: usize,
    heads: usize,
    d: usize,
    level_count: usize,
    points: usize,
    queries: usize,
) {
    let at = index();
    if at < len {
        let channel = at % d;
        let head = (at / d) % heads;
        let level = (at / (d * heads)) % level_count;
        let image = (at / (d * heads * level_count)) % b;
        let chunk = at / (d * heads * level_count * b);
        let height = usize::cast_from(levels[level * 3 + 1]);
        let width = usize::cast_from(levels[level * 3 + 2]);
        let start = (chunk * b + image) * n + usize::cast_from(levels[level * 3]);
        for cell in 0..height * width {
            partial[((start + cell) * heads + head) * d + channel] = 0.0f32;
        }
        for own in chunk * queries..min((chunk + 1) * queries, q) {
            let query = image * q + own;
            let slope = dy[(query * heads + head) * d + channel];
            for point in 0..points {
                let sample = ((query * heads + head) * level_count + level) * points + point;
                let across = side(locations[sample * 2], width);
                let down = side(locations[sample * 2 + 1], height);
                let upper = start + down.low * width;
                let lower = start + down.high * width;
                let share = weights[sample] * slope;
                partial[((upper + across.low) * heads + head) * d + channel] +=
                    share * down.low_weight * across.low_weight;
                partial[((upper + across.high) * heads + head) * d + channel] +=
                    share * down.low_weight * across.high_weight;
                partial[((lower + across.low) * heads + head) * d + channel] +=
                    share * down.high_weight * across.low_weight;
                partial[((lower + across.high) * heads + head) * d + channel] +=
                    share * down.high_weight * across.high_weight;
            }
        }
    }
}
