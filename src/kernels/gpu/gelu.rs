//! Exact GELU and its exact gradient, for which Burn takes the approximation by tanh: a unit for each value.

use burn::backend::{Cube, TensorMetadata};
use cubecl::prelude::*;

use crate::kernels::bridge::Kernel;
use crate::kernels::gelu::Gelu;
use crate::kernels::gpu::bridge::{GpuTensor, f32s, queue_one};
use crate::kernels::gpu::rows::{cubes_for, flat_cube, index, normal};

impl Kernel<Cube> for Gelu {
    fn forward(&self, inputs: Vec<GpuTensor>, keep: bool) -> (GpuTensor, Vec<GpuTensor>) {
        let shape = inputs[0].shape();
        let len = shape.num_elements();
        let y = queue_one("gelu", inputs.clone(), f32s(shape), move |buffers| {
            // SAFETY: both buffers hold `len` values.
            unsafe {
                forward_values::launch_unchecked(
                    buffers.client(),
                    cubes_for(len),
                    flat_cube(),
                    buffers.input(0),
                    buffers.output(0),
                    len,
                );
            }
        });
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, mut saved: Vec<GpuTensor>, grad: GpuTensor, _: &[bool]) -> Vec<Option<GpuTensor>> {
        let shape = saved[0].shape();
        let len = shape.num_elements();
        saved.push(grad);
        let dx = queue_one("gelu_backward", saved, f32s(shape), move |buffers| {
            // SAFETY: all buffers hold `len` values.
            unsafe {
                backward_values::launch_unchecked(
                    buffers.client(),
                    cubes_for(len),
                    flat_cube(),
                    buffers.input(0),
                    buffers.input(1),
                    buffers.output(0),
                    len,
                );
            }
        });
        vec![Some(dx)]
    }
}

#[cube(launch_unchecked)]
fn forward_values(x: &[f32], y: &mut [f32], len: usize) {
    let at = index();
    if at < len {
        let z = x[at];
        let (cumulative, _density) = normal(z);
        y[at] = z * cumulative;
    }
}

#[cube(launch_unchecked)]
fn backward_values(x: &[f32], dy: &[f32], dx: &mut [f32], len: usize) {
    let at = index();
    if at < len {
        let z = x[at];
        let (cumulative, density) = normal(z);
        dx[at] = dy[at] * (cumulative + z * density);
    }
}
