//! A step of AdamW: one operation for all parameters, a launch for each, whose rates lie in a buffer of the device.

use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{Tensor, TensorData};
use cubecl::prelude::*;

use crate::kernels::adamw::Factors;
use crate::kernels::gpu::bridge::{f32s, primitive, queue_parts};
use crate::kernels::gpu::rows::{cubes_for, flat_cube, index};

/// Numbers of a parameter's step in the buffer of rates.
const RATES: usize = 7;

/// The parameter and the means after a step, of each `[parameter, gradient, mean, mean square]`, all on one GPU. What
/// changes from step to step is read from a buffer, and launches are the same each time.
pub(in crate::kernels) fn adamw(tensors: Vec<[Tensor<1>; 4]>, factors: &[Factors]) -> Vec<[Tensor<1>; 3]> {
    let Some([first, ..]) = tensors.first() else { return Vec::new() };
    let rates: Vec<f32> = factors.iter().flat_map(|factors| factors.to_array()).collect();
    let rates = Tensor::<1>::from_data(TensorData::new(rates, [RATES * factors.len()]), &first.device());
    let rates = primitive(rates);
    let lengths: Vec<usize> = tensors.iter().map(|[param, ..]| param.dims()[0]).collect();
    let part = |tensors: [Tensor<1>; 4]| {
        let mut inputs = tensors.map(primitive).to_vec();
        let outputs = [(); 3].map(|()| f32s(inputs[0].shape())).to_vec();
        inputs.push(rates.clone());
        (inputs, outputs)
    };
    let outputs = queue_parts("adamw", tensors.into_iter().map(part).collect(), move |number, buffers| {
        let len = lengths[number];
        // SAFETY: all tensors of a part hold `len` values, and the rates a row for each part.
        unsafe {
            update::launch_unchecked(
                buffers.client(),
                cubes_for(len),
                flat_cube(),
                buffers.input(0),
                buffers.input(1),
                buffers.input(2),
                buffers.input(3),
                buffers.input(4),
                buffers.output(0),
                buffers.output(1),
                buffers.output(2),
                number * RATES,
                len,
            );
        }
    });
    let mut outputs = outputs.into_iter().map(Tensor::from_primitive::<Cube>);
    let mut three = || Some([outputs.next()?, outputs.next()?, outputs.next()?]);
    std::iter::from_fn(&mut three).collect()
}

impl Factors {
    fn to_array(self) -> [f32; RATES] {
        [self.decay, self.take, self.keep_square, self.take_square, self.root, self.eps, self.size]
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn update(
    param: &[f32],
    grad: &[f32],
    mean: &[f32],
    square: &[f32],
    rates: &[f32],
    new_param: &mut [f32],
    new_mean: &mut [f32],
    new_square: &mut [f32],
    row: usize,
    len: usize,
) {
    let at = index();
    if at < len {
        let slope = grad[at];
        let m = mean[at] + rates[row + 1] * (slope - mean[at]);
        let v = rates[row + 2] * square[at] + rates[row + 3] * slope * slope;
        new_mean[at] = m;
        new_square[at] = v;
        new_param[at] = rates[row] * param[at] - rates[row + 6] * m / (v.sqrt() * rates[row + 4] + rates[row + 5]);
    }
}
