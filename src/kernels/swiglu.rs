//! The gate of SwiGLU (Shazeer, arXiv 2002.05202): SiLU of one half of the channels times the other half.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::simd::{exp, vectorized};

/// `x [.., 2 c]`, gates before what they let through, to `[.., c]`: SiLU of the first half times the second.
pub fn swiglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dims = x.dims();
    assert!(dims[D - 1].is_multiple_of(2), "swiglu: {} channels have no halves", dims[D - 1]);
    if on_cpu(&x) && dims.iter().product::<usize>() > 0 {
        run(SwiGlu, Operands::One(x.into_dispatch()))
    } else {
        reference(x)
    }
}

/// The composition of tensor operations that [`swiglu`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let c = x.dims()[D - 1] / 2;
    activation::silu(x.clone().narrow(D - 1, 0, c)) * x.narrow(D - 1, c, c)
}

/// Rows a task works on, at least.
const ROWS: usize = 8;

#[derive(Debug)]
struct SwiGlu;

impl Kernel for SwiGlu {
    fn forward(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let x = inputs.swap_remove(0);
        let (shape, c) = halved(&x);
        let source = values(&x);
        let mut y = uninitialized(source.len() / 2);
        y.par_chunks_mut(c)
            .zip(source.par_chunks(2 * c))
            .with_min_len(ROWS)
            .for_each(|(y, x)| forward(&x[..c], &x[c..], y));
        // SAFETY: each row has been written.
        let y = tensor(unsafe { written(y) }, shape);
        (y, if keep { vec![x] } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let x = &saved[0];
        let (_, c) = halved(x);
        let mut dx = uninitialized(2 * values(&grad).len());
        let rows = dx.par_chunks_mut(2 * c).zip(values(x).par_chunks(2 * c)).zip(values(&grad).par_chunks(c));
        rows.with_min_len(ROWS).for_each(|((dx, x), dy)| {
            let (dgate, dvalue) = dx.split_at_mut(c);
            backward(&x[..c], &x[c..], dy, dgate, dvalue);
        });
        // SAFETY: each row has been written.
        vec![Some(tensor(unsafe { written(dx) }, x.shape()))]
    }
}

/// The shape of the result, and its channels.
fn halved(x: &FlexTensor) -> (Vec<usize>, usize) {
    let mut shape = x.shape().to_vec();
    let c = shape.last().copied().unwrap_or(0) / 2;
    if let Some(last) = shape.last_mut() {
        *last = c;
    }
    (shape, c)
}

vectorized! {
    fn forward(gates: &[f32], passed: &[f32], y: &mut [MaybeUninit<f32>]) {
        for ((y, gate), value) in y.iter_mut().zip(gates).zip(passed) {
            y.write(gate / (1.0 + exp::<FMA>(-gate)) * value);
        }
    }
}

vectorized! {
    fn backward(
        gates: &[f32],
        passed: &[f32],
        dy: &[f32],
        dgate: &mut [MaybeUninit<f32>],
        dvalue: &mut [MaybeUninit<f32>],
    ) {
        let places = dgate.iter_mut().zip(dvalue);
        for ((gate, value), (dy, (dgate, dvalue))) in gates.iter().zip(passed).zip(dy.iter().zip(places)) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-gate));
            dvalue.write(dy * gate * sigmoid);
            dgate.write(dy * value * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, gradients, random, strided};

    #[test]
    fn matches_the_composition() {
        for shape in [[1, 1, 2], [3, 5, 14], [2, 17, 1030]] {
            let x = strided(shape, 1) * 3.0;
            assert_close(swiglu(x.clone()), reference(x.clone()), 1e-6);
            // The gradient has half of the channels.
            let [b, n, c] = shape;
            let dy = random([b, n, c / 2], 2);
            let grad = |f: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                let x = crate::kernels::tests::tracked(x.clone());
                x.grad(&(f(x.clone()) * Tensor::from_inner(dy.clone())).sum().backward()).unwrap()
            };
            assert_close(grad(&swiglu), grad(&reference), 2e-6);
        }
    }

    #[test]
    fn far_gates_are_finite() {
        let gates = [-1e30f32, -100.0, 0.0, 100.0, 1e30];
        let x: Vec<f32> = gates.iter().flat_map(|gate| [*gate, 1.0]).collect();
        let x = Tensor::<1>::from_floats(x.as_slice(), &burn::tensor::Device::flex()).reshape([5, 2]);
        let y = swiglu(x.clone()).into_data();
        assert_eq!(y.as_slice::<f32>().unwrap()[2..], [0.0, 100.0, 1e30]);
        assert!(y.as_slice::<f32>().unwrap()[..2].iter().all(|value| value.abs() < 1e-6), "{y:?}");
        let [dx] = gradients([x], &random([5, 2], 1), |[x]| swiglu(x).repeat_dim(1, 2));
        assert!(dx.into_data().iter::<f32>().all(f32::is_finite));
    }
}
