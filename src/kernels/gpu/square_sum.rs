//! The sum of the squares of many tensors, in an order that their lengths alone decide.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;
use cubecl::prelude::*;

use crate::kernels::gpu::bridge::{GpuTensor, f32s, primitive, queue_one};
use crate::kernels::gpu::rows::{UNITS, cube_sum, cubes, flat_cube};

/// Values that a cube adds up.
const CHUNK: usize = 64 * UNITS;

/// See [`square_sum`](crate::kernels::square_sum); all tensors are on one GPU, and none is empty.
pub(in crate::kernels) fn square_sum(tensors: Vec<Tensor<1>>) -> Tensor<1> {
    let tensors: Vec<GpuTensor> = tensors.into_iter().map(primitive).collect();
    let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.shape().num_elements()).collect();
    let sum = queue_one("square_sum", tensors, f32s([1]), move |buffers| {
        let chunks: usize = lengths.iter().map(|len| len.div_ceil(CHUNK)).sum();
        let partial = buffers.scratch(chunks);
        let mut first = 0;
        for (i, len) in lengths.iter().enumerate() {
            let chunks = len.div_ceil(CHUNK);
            // SAFETY: the input holds `len` values; a cube for each chunk of them writes its own place.
            unsafe {
                sum_chunk::launch_unchecked(
                    buffers.client(),
                    cubes(chunks),
                    flat_cube(),
                    buffers.input(i),
                    partial.clone().into_buffer_arg(),
                    *len,
                    first,
                    chunks,
                );
            }
            first += chunks;
        }
        // SAFETY: `partial` has a sum for each chunk, and the output one place.
        unsafe {
            sum_all::launch_unchecked(
                buffers.client(),
                cubes(1),
                flat_cube(),
                partial.into_buffer_arg(),
                buffers.output(0),
                chunks,
            );
        }
    });
    Tensor::from_primitive::<Cube>(sum)
}

#[cube(launch_unchecked)]
fn sum_chunk(x: &[f32], partial: &mut [f32], len: usize, first: usize, chunks: usize) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let start = CUBE_POS * CHUNK;
    let mut i = start + unit;
    let end = min(start + CHUNK, len);
    let mut sum = 0.0f32;
    while i < end {
        sum += x[i] * x[i];
        i += UNITS;
    }
    let sum = cube_sum(sum, &mut shared);
    if unit == 0 && CUBE_POS < chunks {
        partial[first + CUBE_POS] = sum;
    }
}

#[cube(launch_unchecked)]
fn sum_all(partial: &[f32], out: &mut [f32], len: usize) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let mut i = unit;
    let mut sum = 0.0f32;
    while i < len {
        sum += partial[i];
        i += UNITS;
    }
    let sum = cube_sum(sum, &mut shared);
    if unit == 0 {
        out[0] = sum;
    }
}
