//! Layer normalisation with what may follow it, a row by 32 units.

use burn::backend::Cube;
use burn::backend::TensorMetadata;
use burn::tensor::Tensor;
use cubecl::prelude::*;

use crate::kernels::bridge::Kernel;
use crate::kernels::drawn::drawn;
use crate::kernels::gpu::bridge::{Buffers, GpuTensor, f32s, primitive, queue};
use crate::kernels::gpu::rows::{LANES, ROWS, UNITS, band, cubes, flat_cube, normal, row_cube, row_sum, sum_bands};
use crate::kernels::layer_norm::LayerNorm;

impl Kernel<Cube> for LayerNorm {
    fn forward(&self, mut inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let shape = inputs[0].shape();
        let channels = inputs[1].shape()[0];
        let rows = shape.num_elements() / channels;
        let (eps, gelu, residual) = (self.eps, self.gelu, inputs.len() > 3);
        let mut operands = inputs.clone();
        let samples = self.factors.clone().map(|factors| {
            let (samples, device) = (factors.len(), Tensor::<1>::from_primitive::<Cube>(inputs[1].clone()).device());
            operands.push(primitive(drawn(factors, &device)));
            samples
        });
        let launch = move |buffers: &Buffers| {
            // Where no paths are dropped, the buffer is not read.
            let scale = buffers.input(if samples.is_some() { if residual { 4 } else { 3 } } else { 1 });
            let rows_a_factor = rows.div_ceil(samples.unwrap_or(1));
            // SAFETY: the kernel reads and writes within `rows` rows of `channels`, which all of these have.
            unsafe {
                forward_rows::launch_unchecked(
                    buffers.client(),
                    cubes(rows.div_ceil(ROWS)),
                    row_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.input(2),
                    buffers.input(if residual { 3 } else { 0 }),
                    scale,
                    buffers.output(0),
                    buffers.output(1),
                    rows,
                    channels,
                    rows_a_factor,
                    eps,
                    gelu,
                    residual,
                    samples.is_some(),
                );
            }
        };
        let mut outputs = queue("layer_norm", operands, vec![f32s(shape), f32s([rows, 3])], launch);
        let (moments, y) = (outputs.swap_remove(1), outputs.swap_remove(0));
        if !keep {
            return (y, Vec::new());
        }
        // Without GELU the residual only hands its gradient on.
        inputs.truncate(if gelu { 4 } else { 3 });
        inputs.insert(3, moments);
        (y, inputs)
    }

    fn backward(&self, saved: Vec<GpuTensor>, grad: GpuTensor, wanted: &[bool]) -> Vec<Option<GpuTensor>> {
        let shape = saved[0].shape();
        let channels = saved[1].shape()[0];
        let rows = shape.num_elements() / channels;
        let affine = wanted[1] || wanted[2];
        let (gelu, has_residual) = (self.gelu, saved.len() > 4);
        let mut inputs = saved;
        inputs.push(grad.clone());
        let launch = move |buffers: &Buffers| backward(buffers, rows, channels, gelu, has_residual, affine);
        let mut outputs = vec![f32s(shape.clone()), if has_residual { f32s(shape) } else { f32s([1]) }];
        if affine {
            outputs.extend([f32s([channels]), f32s([channels])]);
        }
        let mut outputs = queue("layer_norm_backward", inputs, outputs, launch).into_iter();
        let (dx, dr) = (outputs.next(), outputs.next());
        let mut grads = vec![dx, outputs.next(), outputs.next()];
        if wanted.len() > 3 {
            grads.push(if gelu { dr } else { Some(grad) });
        }
        grads
    }
}

/// Inputs x, weight, bias, moments, with `has_residual` the residual, and the output's gradient; outputs the gradients
/// of x and residual, and if `affine` those of weight and bias.
fn backward(buffers: &Buffers, rows: usize, channels: usize, gelu: bool, has_residual: bool, affine: bool) {
    let grad = if has_residual { 5 } else { 4 };
    let residual = if has_residual { 4 } else { 0 };
    // SAFETY: the kernel reads and writes within `rows` rows of `channels`, which all of these have; the residual's
    // gradient is only written where there is one.
    unsafe {
        backward_rows::launch_unchecked(
            buffers.client(),
            cubes(rows.div_ceil(ROWS)),
            row_cube(),
            buffers.input(0),
            buffers.input(1),
            buffers.input(2),
            buffers.input(3),
            buffers.input(residual),
            buffers.input(grad),
            buffers.output(0),
            buffers.output(1),
            rows,
            channels,
            gelu,
            has_residual,
        );
    }
    if !affine {
        return;
    }
    let height = band(rows);
    let bands = rows.div_ceil(height);
    let partial = buffers.scratch(bands * 2 * channels);
    // SAFETY: a unit for every band and channel writes its two places of `partial`.
    unsafe {
        affine_bands::launch_unchecked(
            buffers.client(),
            cubes(bands * channels.div_ceil(UNITS)),
            flat_cube(),
            buffers.input(0),
            buffers.input(1),
            buffers.input(2),
            buffers.input(3),
            buffers.input(residual),
            buffers.input(grad),
            partial.clone().into_buffer_arg(),
            rows,
            channels,
            height,
            bands,
            gelu,
            has_residual,
        );
    }
    sum_bands(buffers, &partial, bands, 2, &[channels, channels]);
}

/// `moments` gets for each row its mean, its reciprocal standard deviation, and its factor.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    residual: &[f32],
    factors: &[f32],
    y: &mut [f32],
    moments: &mut [f32],
    rows: usize,
    channels: usize,
    rows_a_factor: usize,
    eps: f32,
    #[comptime] gelu: bool,
    #[comptime] has_residual: bool,
    #[comptime] scaled: bool,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let lane = UNIT_POS_X as usize;
    let own = CUBE_POS * ROWS + UNIT_POS_Y as usize;
    // Past the last row, its sums are taken again and dropped, as all units must take part.
    let row = min(own, rows - 1);
    let start = row * channels;

    let mut sum = 0.0f32;
    let mut i = lane;
    while i < channels {
        sum += x[start + i];
        i += LANES;
    }
    let mean = row_sum(sum, &mut shared) / f32::cast_from(channels);
    let mut squares = 0.0f32;
    let mut i = lane;
    while i < channels {
        let centered = x[start + i] - mean;
        squares += centered * centered;
        i += LANES;
    }
    let variance = row_sum(squares, &mut shared) / f32::cast_from(channels);
    let scale = 1.0f32 / (variance + eps).sqrt();
    let mut factor = 1.0f32;
    if comptime!(scaled) {
        factor = factors[row / rows_a_factor];
    }

    if own < rows {
        let mut i = lane;
        while i < channels {
            let unit = (x[start + i] - mean) * scale;
            let mut z = (unit * weight[i] + bias[i]) * factor;
            if comptime!(has_residual) {
                z += residual[start + i];
            }
            if comptime!(gelu) {
                let (cumulative, _density) = normal(z);
                z *= cumulative;
            }
            y[start + i] = z;
            i += LANES;
        }
        if lane == 0 {
            moments[row * 3] = mean;
            moments[row * 3 + 1] = scale;
            moments[row * 3 + 2] = factor;
        }
    }
}

/// The gradient of the sum of branch and residual, given that of the output.
#[cube]
fn before_gelu(dy: f32, unit: f32, weight: f32, bias: f32, factor: f32, residual: f32, #[comptime] gelu: bool) -> f32 {
    let mut dz = dy;
    if comptime!(gelu) {
        let z = (unit * weight + bias) * factor + residual;
        let (cumulative, density) = normal(z);
        dz *= cumulative + z * density;
    }
    dz
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward_rows(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    moments: &[f32],
    residual: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    d_residual: &mut [f32],
    rows: usize,
    channels: usize,
    #[comptime] gelu: bool,
    #[comptime] has_residual: bool,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let lane = UNIT_POS_X as usize;
    let own = CUBE_POS * ROWS + UNIT_POS_Y as usize;
    let row = min(own, rows - 1);
    let start = row * channels;
    let mean = moments[row * 3];
    let scale = moments[row * 3 + 1];
    let factor = moments[row * 3 + 2];

    // Of the gradient before the affine map, times the weight: its sum, and its product with the normalised row.
    let mut total = 0.0f32;
    let mut projection = 0.0f32;
    let mut i = lane;
    while i < channels {
        let unit = (x[start + i] - mean) * scale;
        let mut rest = 0.0f32;
        if comptime!(has_residual) {
            rest = residual[start + i];
        }
        let dz = before_gelu(dy[start + i], unit, weight[i], bias[i], factor, rest, gelu);
        if comptime!(has_residual) {
            if own < rows {
                d_residual[start + i] = dz;
            }
        }
        let scaled = dz * factor * weight[i];
        total += scaled;
        projection += scaled * unit;
        i += LANES;
    }
    let total = row_sum(total, &mut shared) / f32::cast_from(channels);
    let projection = row_sum(projection, &mut shared) / f32::cast_from(channels);

    if own < rows {
        let mut i = lane;
        while i < channels {
            let unit = (x[start + i] - mean) * scale;
            let mut rest = 0.0f32;
            if comptime!(has_residual) {
                rest = residual[start + i];
            }
            let dz = before_gelu(dy[start + i], unit, weight[i], bias[i], factor, rest, gelu);
            dx[start + i] = scale * (dz * factor * weight[i] - total - unit * projection);
            i += LANES;
        }
    }
}

/// The gradients of weight and bias, summed over bands of rows: `partial [bands, 2, channels]`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn affine_bands(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    moments: &[f32],
    residual: &[f32],
    dy: &[f32],
    partial: &mut [f32],
    rows: usize,
    channels: usize,
    height: usize,
    bands: usize,
    #[comptime] gelu: bool,
    #[comptime] has_residual: bool,
) {
    let across = (channels + UNITS - 1) / UNITS;
    let band = CUBE_POS / across;
    let channel = (CUBE_POS % across) * UNITS + UNIT_POS as usize;
    if band < bands && channel < channels {
        let first = band * height;
        let last = min(first + height, rows);
        let mut d_weight = 0.0f32;
        let mut d_bias = 0.0f32;
        for row in first..last {
            let at = row * channels + channel;
            let unit = (x[at] - moments[row * 3]) * moments[row * 3 + 1];
            let factor = moments[row * 3 + 2];
            let mut rest = 0.0f32;
            if comptime!(has_residual) {
                rest = residual[at];
            }
            let dz = before_gelu(dy[at], unit, weight[channel], bias[channel], factor, rest, gelu) * factor;
            d_weight += dz * unit;
            d_bias += dz;
        }
        partial[band * 2 * channels + channel] = d_weight;
        partial[(band * 2 + 1) * channels + channel] = d_bias;
    }
}
