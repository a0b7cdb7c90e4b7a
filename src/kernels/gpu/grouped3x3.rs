//! 3x3 convolutions over channels-last maps, depthwise and in small groups: a unit for each output.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use cubecl::prelude::*;

use crate::kernels::bridge::Kernel;
use crate::kernels::conv::grouped3x3::Grouped;
use crate::kernels::gpu::bridge::{Buffers, GpuTensor, f32s, queue, queue_one};
use crate::kernels::gpu::rows::{UNITS, cubes, cubes_for, flat_cube, index, sum_bands};

/// The sizes of a map.
#[derive(Clone, Copy)]
struct Map {
    /// Rows of all images.
    rows: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Map {
    fn of(shape: &Shape) -> Self {
        Self { rows: shape[0] * shape[1], height: shape[1], width: shape[2], channels: shape[3] }
    }

    fn len(self) -> usize {
        self.rows * self.width * self.channels
    }
}

impl Kernel<Cube> for Grouped {
    fn forward(&self, inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let shape = inputs[0].shape();
        let (map, group) = (Map::of(&shape), self.width);
        let y = queue_one("grouped3x3", inputs.clone(), f32s(shape), move |buffers| {
            convolve(buffers, [0, 1, 2], 0, map, group, false);
        });
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<GpuTensor>, grad: GpuTensor, wanted: &[bool]) -> Vec<Option<GpuTensor>> {
        let (shape, group) = (saved[0].shape(), self.width);
        let map = Map::of(&shape);
        let mut inputs = saved;
        let weight = inputs[1].shape();
        inputs.push(grad);
        let dx = wanted[0].then(|| {
            queue_one("grouped3x3_input", inputs.clone(), f32s(shape), move |buffers| {
                convolve(buffers, [3, 1, 2], 0, map, group, true);
            })
        });
        if !(wanted[1] || wanted[2]) {
            return vec![dx, None, None];
        }
        let outputs = vec![f32s(weight), f32s([map.channels])];
        let launch = move |buffers: &Buffers| weight_gradient(buffers, map, group);
        let mut affine = queue("grouped3x3_weight", inputs, outputs, launch).into_iter();
        vec![dx, affine.next(), affine.next()]
    }
}

/// Convolves the first of three inputs by the second, and adds the third; `mirrored`, carries a gradient from the
/// output to the input.
fn convolve(buffers: &Buffers, inputs: [usize; 3], output: usize, map: Map, group: usize, mirrored: bool) {
    // SAFETY: a unit reads the pixels around its own inside of the map, and writes its own output.
    unsafe {
        convolve_pixels::launch_unchecked(
            buffers.client(),
            cubes_for(map.len()),
            flat_cube(),
            buffers.input(inputs[0]),
            buffers.input(inputs[1]),
            buffers.input(inputs[2]),
            buffers.output(output),
            map.len(),
            map.height,
            map.width,
            map.channels,
            group,
            mirrored,
        );
    }
}

/// The gradients of the weights and the bias, the outputs; inputs as saved, and the gradient.
fn weight_gradient(buffers: &Buffers, map: Map, group: usize) {
    // A function of the shape alone, so that sums are always taken in the same order.
    let band = map.rows.div_ceil(256).max(4);
    let bands = map.rows.div_ceil(band);
    let weights = map.channels * group;
    let columns = weights * TAPS + map.channels;
    let partial = buffers.scratch(bands * columns);
    // SAFETY: a unit for every band and weight reads inside of the map, and writes its own places of `partial`.
    unsafe {
        weight_bands::launch_unchecked(
            buffers.client(),
            cubes(bands * weights.div_ceil(UNITS)),
            flat_cube(),
            buffers.input(0),
            buffers.input(3),
            partial.clone().into_buffer_arg(),
            map.rows,
            map.height,
            map.width,
            map.channels,
            band,
            bands,
            group,
        );
    }
    sum_bands(buffers, &partial, bands, 0, &[weights * TAPS, map.channels]);
}

const TAPS: usize = 9;

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn convolve_pixels(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    y: &mut [f32],
    len: usize,
    height: usize,
    width: usize,
    channels: usize,
    #[comptime] group: usize,
    #[comptime] mirrored: bool,
) {
    let at = index();
    if at < len {
        let channel = at % channels;
        let pixel = at / channels;
        let column = pixel % width;
        let row = (pixel / width) % height;
        let within = channel % group;
        let first = channel - within;
        let mut sum = 0.0f32;
        if comptime!(!mirrored) {
            sum = bias[channel];
        }
        for down in 0..3usize {
            if row + down >= 1 && row + down <= height {
                for across in 0..3usize {
                    if column + across >= 1 && column + across <= width {
                        let source = (pixel + down * width + across - width - 1) * channels + first;
                        let tap = down * 3 + across;
                        for j in 0..group {
                            if comptime!(mirrored) {
                                sum += x[source + j] * weight[((first + j) * group + within) * TAPS + (8 - tap)];
                            } else {
                                sum += x[source + j] * weight[(channel * group + j) * TAPS + tap];
                            }
                        }
                    }
                }
            }
        }
        y[at] = sum;
    }
}

/// The gradients of weights [channels, group, 9] and bias [channels], summed over bands of rows: `partial [bands, ..]`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn weight_bands(
    x: &[f32],
    dy: &[f32],
    partial: &mut [f32],
    rows: usize,
    height: usize,
    width: usize,
    channels: usize,
    band: usize,
    bands: usize,
    #[comptime] group: usize,
) {
    let weights = channels * group;
    let cubes_across = (weights + UNITS - 1) / UNITS;
    let own = CUBE_POS / cubes_across;
    let place = (CUBE_POS % cubes_across) * UNITS + UNIT_POS as usize;
    if own < bands && place < weights {
        let channel = place / group;
        let within = place % group;
        let source = channel - channel % group + within;
        let mut sums = Array::<f32>::new(TAPS);
        #[unroll]
        for tap in 0..TAPS {
            sums[tap] = 0.0f32;
        }
        let mut sum = 0.0f32;
        for i in own * band..min((own + 1) * band, rows) {
            let row = i % height;
            for column in 0..width {
                let pixel = i * width + column;
                let slope = dy[pixel * channels + channel];
                sum += slope;
                #[unroll]
                for tap in 0..TAPS {
                    let down = tap / 3;
                    let across = tap % 3;
                    let inside =
                        row + down >= 1 && row + down <= height && column + across >= 1 && column + across <= width;
                    if inside {
                        sums[tap] += slope * x[(pixel + down * width + across - width - 1) * channels + source];
                    }
                }
            }
        }
        let start = own * (weights * TAPS + channels);
        #[unroll]
        for tap in 0..TAPS {
            partial[start + place * TAPS + tap] = sums[tap];
        }
        if within == 0 {
            partial[start + weights * TAPS + channel] = sum;
        }
    }
}
