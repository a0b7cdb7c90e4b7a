//! Cross entropy and focal loss of bilinearly upsampled logits, a unit for each pixel there and for each cell back.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{Int, IntDType, Tensor};
use cubecl::prelude::*;

use crate::kernels::bridge::{Kernel, Operands};
use crate::kernels::gpu::bridge::{Buffers, GpuTensor, f32s, primitive, queue, queue_one, run};
use crate::kernels::gpu::rows::{UNITS, cube_sum, cubes, cubes_for, flat_cube, index};
use crate::kernels::gpu::upsample::position;
use crate::kernels::upsample_loss::{IGNORE, LossMean};

/// [`upsample_focal_loss`](crate::kernels::upsample_focal_loss) of logits on a GPU. As in its composition, a label that
/// is no class counts as the nearest class.
pub(in crate::kernels) fn loss(
    logits: Tensor<4>,
    labels: Tensor<3, Int>,
    weights: Option<Tensor<1>>,
    mean: LossMean,
    gamma: f64,
) -> Tensor<1> {
    let [_, _, _, k] = logits.dims();
    let [_, height, width] = labels.dims();
    let weights = weights.unwrap_or_else(|| Tensor::ones([k], &logits.device()));
    let labels = match labels.inner().cast(IntDType::I32).try_into_primitive::<Cube>() {
        Ok(labels) => labels,
        Err(error) => unreachable!("labels are on the device of the logits: {error:?}"),
    };
    let weights = primitive(weights);
    let by_weights = mean == LossMean::Valid;
    let kernel = Loss { labels, weights, height, width, by_weights, gamma: gamma as f32 };
    run(kernel, Operands::One(logits.into_dispatch()))
}

/// The label of pixels that do not count.
const IGNORED: i32 = IGNORE as i32;

#[derive(Debug)]
struct Loss {
    labels: GpuTensor,
    weights: GpuTensor,
    height: usize,
    width: usize,
    /// The sum is divided by that of the weights, not by the number of pixels.
    by_weights: bool,
    gamma: f32,
}

impl Kernel<Cube> for Loss {
    fn forward(&self, mut inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let shape = inputs[0].shape();
        let (h, w, k) = (shape[1], shape[2], shape[3]);
        let (height, width, by_weights, gamma) = (self.height, self.width, self.by_weights, self.gamma);
        let pixels = shape[0] * height * width;
        inputs.extend([self.labels.clone(), self.weights.clone()]);
        let outputs = vec![f32s([1]), f32s([1]), f32s([pixels, 2])];
        let launch = move |buffers: &Buffers| {
            let count = pixels.div_ceil(UNITS);
            let partial = buffers.scratch(2 * count);
            // SAFETY: a unit for every pixel reads the cells around it and writes its own place of the third output;
            // every cube that has pixels writes its own place of `partial`.
            unsafe {
                loss_pixels::launch_unchecked(
                    buffers.client(),
                    cubes(count),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.input(2),
                    buffers.output(2),
                    partial.clone().into_buffer_arg(),
                    pixels,
                    h,
                    w,
                    k,
                    height,
                    width,
                    gamma,
                );
                mean::launch_unchecked(
                    buffers.client(),
                    cubes(1),
                    flat_cube(),
                    partial.into_buffer_arg(),
                    buffers.output(0),
                    buffers.output(1),
                    count,
                    pixels as f32,
                    by_weights,
                );
            }
        };
        let mut outputs = queue("upsample_loss", inputs.clone(), outputs, launch);
        let (pixels, scale, loss) = (outputs.swap_remove(2), outputs.swap_remove(1), outputs.swap_remove(0));
        inputs.truncate(2);
        inputs.extend([pixels, scale]);
        (loss, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, mut saved: Vec<GpuTensor>, grad: GpuTensor, _: &[bool]) -> Vec<Option<GpuTensor>> {
        let shape = saved[0].shape();
        let (len, h, w, k) = (shape.num_elements(), shape[1], shape[2], shape[3]);
        let (height, width) = (self.height, self.width);
        saved.push(grad);
        let gradient = queue_one("upsample_loss_backward", saved, f32s(shape), move |buffers| {
            // SAFETY: a unit for every value of the logits reads the pixels around its cell and writes its own place.
            unsafe {
                loss_cells::launch_unchecked(
                    buffers.client(),
                    cubes_for(len),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.input(2),
                    buffers.input(3),
                    buffers.input(4),
                    buffers.output(0),
                    len,
                    h,
                    w,
                    k,
                    height,
                    width,
                );
            }
        });
        vec![Some(gradient)]
    }
}

/// The four cells that a pixel lies between, as offsets of their first class, and where it lies between them.
#[derive(CubeType, Clone, Copy)]
struct Corners {
    upper_left: usize,
    upper_right: usize,
    lower_left: usize,
    lower_right: usize,
    down: f32,
    across: f32,
}

#[cube]
#[allow(clippy::too_many_arguments)]
fn corners(
    image: usize,
    row: usize,
    column: usize,
    h: usize,
    w: usize,
    k: usize,
    height: usize,
    width: usize,
) -> Corners {
    let (upper, lower, down) = position(row, h, height);
    let (left, right, across) = position(column, w, width);
    let upper = (image * h + upper) * w;
    let lower = (image * h + lower) * w;
    Corners {
        upper_left: (upper + left) * k,
        upper_right: (upper + right) * k,
        lower_left: (lower + left) * k,
        lower_right: (lower + right) * k,
        down,
        across,
    }
}

#[cube]
fn blend(logits: &[f32], corners: &Corners, class: usize) -> f32 {
    let upper_left = logits[corners.upper_left + class];
    let upper_right = logits[corners.upper_right + class];
    let left = upper_left + corners.down * (logits[corners.lower_left + class] - upper_left);
    let right = upper_right + corners.down * (logits[corners.lower_right + class] - upper_right);
    left + corners.across * (right - left)
}

/// `found` gets for each pixel the logarithm of the sum of the exponentials of its logits, and the slope of its loss
/// over that of its entropy, times its weight; `partial` for each cube the sums of losses and weights.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn loss_pixels(
    logits: &[f32],
    labels: &[i32],
    weights: &[f32],
    found: &mut [f32],
    partial: &mut [f32],
    pixels: usize,
    h: usize,
    w: usize,
    k: usize,
    height: usize,
    width: usize,
    gamma: f32,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let at = index();
    let mut loss = 0.0f32;
    let mut weight = 0.0f32;
    if at < pixels {
        let mut logarithm = 0.0f32;
        let mut factor = 0.0f32;
        let label = labels[at];
        if label != IGNORED {
            let image = at / (height * width);
            let place = corners(image, (at / width) % height, at % width, h, w, k, height, width);
            let class = min(max(label, 0i32) as usize, k - 1);
            let mut largest = blend(logits, &place, 0usize);
            for i in 0..k {
                largest = max(largest, blend(logits, &place, i));
            }
            let mut sum = 0.0f32;
            for i in 0..k {
                sum += (blend(logits, &place, i) - largest).exp();
            }
            logarithm = largest + sum.ln();
            weight = weights[class];
            let entropy = logarithm - blend(logits, &place, class);
            let mut share = 1.0f32;
            let mut slope = 1.0f32;
            if gamma > 0.0f32 {
                let p = (-entropy).exp();
                let missed = max(1.0f32 - p, 1.192_092_9e-7f32);
                share = missed.powf(gamma);
                slope = share + gamma * share / missed * p * entropy;
            }
            loss = weight * share * entropy;
            factor = weight * slope;
        }
        found[at * 2] = logarithm;
        found[at * 2 + 1] = factor;
    }
    let loss = cube_sum(loss, &mut shared);
    let weight = cube_sum(weight, &mut shared);
    if unit == 0 && CUBE_POS * UNITS < pixels {
        partial[CUBE_POS * 2] = loss;
        partial[CUBE_POS * 2 + 1] = weight;
    }
}

/// The mean of the loss and the reciprocal of what its sum is divided by, both 0 without a valid pixel.
#[cube(launch_unchecked)]
fn mean(partial: &[f32], loss: &mut [f32], scale: &mut [f32], count: usize, pixels: f32, #[comptime] by_weights: bool) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let mut weight = 0.0f32;
    let mut i = unit;
    while i < count {
        sum += partial[i * 2];
        weight += partial[i * 2 + 1];
        i += UNITS;
    }
    let sum = cube_sum(sum, &mut shared);
    let weight = cube_sum(weight, &mut shared);
    if unit == 0 {
        let mut divisor = pixels;
        if comptime!(by_weights) {
            divisor = weight;
        }
        let mut reciprocal = 0.0f32;
        if divisor > 0.0f32 {
            reciprocal = 1.0f32 / divisor;
        }
        loss[0] = sum * reciprocal;
        scale[0] = reciprocal;
    }
}

/// The gradient of every logit: a sum over the pixels that read its cell.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn loss_cells(
    logits: &[f32],
    labels: &[i32],
    found: &[f32],
    scale: &[f32],
    grad: &[f32],
    gradient: &mut [f32],
    len: usize,
    h: usize,
    w: usize,
    k: usize,
    height: usize,
    width: usize,
) {
    let at = index();
    if at < len {
        let class = at % k;
        let x = (at / k) % w;
        let y = (at / (k * w)) % h;
        let image = at / (k * w * h);
        let mut sum = 0.0f32;
        for row in first_reader(y, h, height)..end_of_readers(y, h, height) {
            let vertical = weight_of(y, row, h, height);
            if vertical > 0.0f32 {
                for column in first_reader(x, w, width)..end_of_readers(x, w, width) {
                    let pixel = (image * height + row) * width + column;
                    let factor = found[pixel * 2 + 1] * weight_of(x, column, w, width) * vertical;
                    if factor != 0.0f32 {
                        let place = corners(image, row, column, h, w, k, height, width);
                        let mut share = (blend(logits, &place, class) - found[pixel * 2]).exp();
                        if min(max(labels[pixel], 0i32) as usize, k - 1) == class {
                            share -= 1.0f32;
                        }
                        sum += factor * share;
                    }
                }
            }
        }
        gradient[at] = sum * scale[0] * grad[0];
    }
}

/// A bound below the first output that reads the cell `i`.
#[cube]
fn first_reader(i: usize, size: usize, out: usize) -> usize {
    let mut first = 0usize;
    if i > 0 {
        first = (2 * i - 1) * out / (2 * size);
        if first > 0 {
            first -= 1;
        }
    }
    first
}

/// A bound above the outputs that read the cell `i`.
#[cube]
fn end_of_readers(i: usize, size: usize, out: usize) -> usize {
    min((2 * i + 3) * out / (2 * size) + 2, out)
}

/// The weight of the cell `i` in an output.
#[cube]
fn weight_of(i: usize, output: usize, size: usize, out: usize) -> f32 {
    let (low, high, t) = position(output, size, out);
    let mut weight = 0.0f32;
    if low == i {
        weight += 1.0f32 - t;
    }
    if high == i {
        weight += t;
    }
    weight
}
