//! Softmax over the last axis, a row by 32 units.

use burn::backend::{Cube, TensorMetadata};
use cubecl::prelude::*;

use crate::kernels::bridge::Kernel;
use crate::kernels::gpu::bridge::{GpuTensor, f32s, queue_one};
use crate::kernels::gpu::rows::{LANES, ROWS, UNITS, cubes, row_cube, row_max, row_sum};

/// The softmax of each row of the last axis.
#[derive(Debug)]
pub(in crate::kernels) struct Softmax;

impl Kernel<Cube> for Softmax {
    fn forward(&self, inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let shape = inputs[0].shape();
        let (rows, length) = rows_of(&shape);
        let y = queue_one("softmax", inputs, f32s(shape), move |buffers| {
            // SAFETY: both buffers hold `rows` rows of `length`.
            unsafe {
                forward_rows::launch_unchecked(
                    buffers.client(),
                    cubes(rows.div_ceil(ROWS)),
                    row_cube(),
                    buffers.input(0),
                    buffers.output(0),
                    rows,
                    length,
                );
            }
        });
        (y.clone(), if keep { vec![y] } else { Vec::new() })
    }

    fn backward(&self, mut saved: Vec<GpuTensor>, grad: GpuTensor, _: &[bool]) -> Vec<Option<GpuTensor>> {
        let shape = saved[0].shape();
        let (rows, length) = rows_of(&shape);
        saved.push(grad);
        let dx = queue_one("softmax_backward", saved, f32s(shape), move |buffers| {
            // SAFETY: all buffers hold `rows` rows of `length`.
            unsafe {
                backward_rows::launch_unchecked(
                    buffers.client(),
                    cubes(rows.div_ceil(ROWS)),
                    row_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.output(0),
                    rows,
                    length,
                );
            }
        });
        vec![Some(dx)]
    }
}

/// How many rows there are, and how long they are.
fn rows_of(shape: &burn::tensor::Shape) -> (usize, usize) {
    let length = shape[shape.num_dims() - 1];
    (shape.num_elements() / length, length)
}

#[cube(launch_unchecked)]
fn forward_rows(x: &[f32], y: &mut [f32], rows: usize, length: usize) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let lane = UNIT_POS_X as usize;
    let own = CUBE_POS * ROWS + UNIT_POS_Y as usize;
    // Past the last row, its sums are taken again and dropped, as all units must take part.
    let start = min(own, rows - 1) * length;

    let mut largest = x[start];
    let mut i = lane;
    while i < length {
        largest = max(largest, x[start + i]);
        i += LANES;
    }
    let largest = row_max(largest, &mut shared);
    let mut sum = 0.0f32;
    let mut i = lane;
    while i < length {
        sum += (x[start + i] - largest).exp();
        i += LANES;
    }
    let sum = row_sum(sum, &mut shared);
    if own < rows {
        let mut i = lane;
        while i < length {
            y[start + i] = (x[start + i] - largest).exp() / sum;
            i += LANES;
        }
    }
}

#[cube(launch_unchecked)]
fn backward_rows(y: &[f32], dy: &[f32], dx: &mut [f32], rows: usize, length: usize) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let lane = UNIT_POS_X as usize;
    let own = CUBE_POS * ROWS + UNIT_POS_Y as usize;
    let start = min(own, rows - 1) * length;

    let mut sum = 0.0f32;
    let mut i = lane;
    while i < length {
        sum += y[start + i] * dy[start + i];
        i += LANES;
    }
    let sum = row_sum(sum, &mut shared);
    if own < rows {
        let mut i = lane;
        while i < length {
            dx[start + i] = y[start + i] * (dy[start + i] - sum);
            i += LANES;
        }
    }
}
