//! Exact GELU: x Φ(x).

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

#[cfg(feature = "gpu")]
use crate::kernels::bridge::on_gpu;
use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
#[cfg(feature = "gpu")]
use crate::kernels::gpu;
use crate::kernels::vector::{load, normal, put, starts, store, vectors};

/// The exact GELU of Hendrycks & Gimpel (2016): x Φ(x) with the error function, not its tanh approximation.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if on_gpu(&x) && x.shape().num_elements() > 0 {
        return gpu::run(Gelu, Operands::One(x.into_dispatch()));
    }
    if on_cpu(&x) { run(Gelu, Operands::One(x.into_dispatch())) } else { reference(x) }
}

/// The composition of tensor operations that [`gelu`] stands for.
pub(crate) fn reference<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// Elements a task works on.
const CHUNK: usize = 1 << 14;

#[derive(Debug)]
pub(super) struct Gelu;

impl Kernel for Gelu {
    fn forward(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let x = inputs.swap_remove(0);
        let source = values(&x);
        let mut y = uninitialized(source.len());
        y.par_chunks_mut(CHUNK).zip(source.par_chunks(CHUNK)).for_each(|(y, x)| vectors(Forward(x, y)));
        // SAFETY: the chunks cover the output, and `forward` writes all of its chunk.
        let y = tensor(unsafe { written(y) }, x.shape());
        (y, if keep { vec![x] } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        vec![Some(tensor(gradient(values(&saved[0]), values(&grad)), grad.shape()))]
    }
}

/// The gradient of GELU's input x, given that of its output.
pub(super) fn gradient(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut dx = uninitialized(x.len());
    let chunks = dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
    chunks.for_each(|((dx, x), dy)| vectors(Backward { x, dy, dx }));
    // SAFETY: the chunks cover it, and `backward` writes all of its chunk.
    unsafe { written(dx) }
}

/// GELU of some values, in their place.
pub(super) fn in_place(x: &mut [f32]) {
    vectors(InPlace(x));
}

struct InPlace<'a>(&'a mut [f32]);

impl WithSimd for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for at in starts(simd, self.0.len()) {
            let x = load(simd, self.0, at);
            put(simd, self.0, at, simd.mul_f32s(x, normal(simd, x).1));
        }
    }
}

struct Forward<'a>(&'a [f32], &'a mut [MaybeUninit<f32>]);

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(x, y) = self;
        for at in starts(simd, x.len()) {
            let x = load(simd, x, at);
            store(simd, y, at, simd.mul_f32s(x, normal(simd, x).1));
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, dy, dx } = self;
        for at in starts(simd, x.len()) {
            let x = load(simd, x, at);
            let (density, cumulative) = normal(simd, x);
            let slope = simd.mul_add_f32s(x, density, cumulative);
            store(simd, dx, at, simd.mul_f32s(load(simd, dy, at), slope));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, gradients, random, strided};

    #[test]
    fn matches_the_error_function_in_f64() {
        let x: Vec<f32> = (-160_000..160_000).map(|i| i as f32 * 1e-4).collect();
        let y = gelu(Tensor::<1>::from_floats(x.as_slice(), &burn::tensor::Device::flex())).into_data();
        let mut worst = 0.0f64;
        for (x, y) in x.iter().zip(y.as_slice::<f32>().unwrap()) {
            let x = f64::from(*x);
            let truth = x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2));
            worst = worst.max((f64::from(*y) - truth).abs() / truth.abs().max(1.0));
        }
        assert!(worst < 1.5e-7, "{worst:e}");
    }

    #[test]
    fn matches_the_composition() {
        for shape in [[1, 1, 1], [3, 5, 7], [2, 17, 1031]] {
            let x = strided(shape, 1);
            assert_close(gelu(x.clone()), reference(x.clone()), 1e-6);
            let dy = random(shape, 2);
            let [ours] = gradients([x.clone()], &dy, |[x]| gelu(x));
            let [theirs] = gradients([x], &dy, |[x]| reference(x));
            assert_close(ours, theirs, 2e-6);
        }
    }

    #[test]
    fn far_tails_are_finite() {
        let x = Tensor::<1>::from_floats([-1e30, -100.0, 100.0, 1e30, 0.0], &burn::tensor::Device::flex());
        let y = gelu(x).into_data();
        assert_eq!(y.as_slice::<f32>().unwrap(), [-0.0, -0.0, 100.0, 1e30, 0.0]);
    }

    /// The error function by its series (small |x|) or continued fraction, in f64.
    fn erf(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 3.0 {
            let (mut term, mut sum, mut n) = (a, a, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -a * a / n;
                sum += term / (2.0 * n + 1.0);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let fraction = (1..60).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (a + f));
            1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt())
        };
        value.copysign(x)
    }
}
